//! "Small files whole": who opens one file of a directory after another finds the next ones here already, and who does
//! not costs nothing.

// What a run has measured is part of what it says.
#![allow(clippy::print_stdout)]

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::relay::Relay;
use crate::harness::{Cli, Mount, Mounting, Server, Stats, TempTree, noise, python, until};

const FAR: Duration = Duration::from_millis(40);
const FILES: usize = 60;
const SIZE: usize = 50_000;
const BLOCK: u64 = 32 << 10;
/// What is fetched of a larger Parquet file when it is opened.
const END: u64 = 256 << 10;

/// Writes below `sys.argv[1]` 100 files in `small`, and one in each of 60 directories of `parts`.
const WRITE: &str = r#"
import sys, os, json, numpy as np, pyarrow as pa, pyarrow.parquet as pq
root = sys.argv[1]; random = np.random.default_rng(7)
paths = [f"small/{n:03}.parquet" for n in range(100)] + [f"parts/a={n}/x.parquet" for n in range(60)]
for path in paths:
    os.makedirs(os.path.dirname(f"{root}/{path}"), exist_ok=True)
    pq.write_table(pa.table({"v": random.integers(0, 1 << 40, 4000)}), f"{root}/{path}", compression="none")
print(json.dumps(len(paths)))
"#;

/// The sum of `v` over the glob `sys.argv[2]` by the engine `sys.argv[1]`, and how long it took.
const QUERY: &str = r#"
import sys, json, time
engine, files = sys.argv[1:]
if engine == "duckdb":
    import duckdb
    duckdb.sql("set threads = 2")
    ask = lambda: duckdb.sql(f"select count(*), sum(v) from read_parquet('{files}')").fetchall()
else:
    import polars as pl
    ask = lambda: pl.scan_parquet(files).select(pl.len(), pl.col("v").sum()).collect().rows()
began = time.monotonic()
rows = ask()
print(json.dumps({"rows": rows, "seconds": time.monotonic() - began}, default=int))
"#;

/// What a mount has done once it is at rest.
fn at_rest(mount: &Mount) -> Stats {
    let mut before = mount.stats();
    loop {
        thread::sleep(4 * FAR);
        let now = mount.stats();
        if (now.requests, now.bytes_fetched) == (before.requests, before.bytes_fetched) {
            return now;
        }
        before = now;
    }
}

/// What `act` has cost: requests, bytes fetched, bytes fetched ahead; and how long it took.
fn cost_of(mount: &Mount, act: impl FnOnce()) -> (u64, u64, u64, f64) {
    let before = at_rest(mount);
    let began = Instant::now();
    act();
    let took = began.elapsed().as_secs_f64();
    let after = at_rest(mount);
    (
        after.requests - before.requests,
        after.bytes_fetched - before.bytes_fetched,
        after.bytes_ahead - before.bytes_ahead,
        took,
    )
}

#[test]
fn f02_a_glob_of_small_files_is_foreseen() {
    let tree = TempTree::new();
    python(WRITE, &[tree.path()]);
    let server = Server::start();
    Cli::owner(&server).push(tree.path(), &["--slug", "d", "--visibility", "public"]).expect(0);
    let relay = Relay::far(&server, FAR);
    for engine in ["duckdb", "polars"] {
        for (glob, count) in [("small/*.parquet", 100), ("parts/*/x.parquet", 60)] {
            let mount = Mounting::at(&relay.url(), "alice/d").mount();
            let ask = |root: &Path| python(QUERY, &[Path::new(engine), &root.join(glob)]);
            let mut rows = serde_json::Value::Null;
            let (requests, fetched, ahead, _) = cost_of(&mount, || rows = ask(&mount.path()));
            println!(
                "{engine} {glob}: {requests} requests, {fetched} bytes, {ahead} ahead, {}",
                rows["seconds"]
            );
            assert_eq!(rows["rows"], ask(tree.path())["rows"], "{engine} {glob}");
            assert!(requests <= count + 3, "{engine} {glob}: {requests} requests for {count} files");
            assert!(ahead * 2 > fetched, "{engine} {glob}: {ahead} of {fetched} bytes were foreseen");
            let stats = mount.stats();
            assert!(stats.bytes_ahead_read * 2 > ahead, "{engine} {glob}: read {stats:?}");
            mount.unmount();
        }
    }
}

/// A public database of noise, and a mount of it far away.
fn far_away(files: &[(String, usize)]) -> (Server, Relay, Mount) {
    let server = Server::start();
    let id = server.register("d", "public");
    let contents: Vec<Vec<u8>> = (1..).zip(files).map(|(seed, (_, size))| noise(seed, *size)).collect();
    let named: Vec<(&str, &[u8])> =
        files.iter().zip(&contents).map(|((name, _), bytes)| (&**name, &**bytes)).collect();
    server.publish(&id, &named);
    let relay = Relay::far(&server, FAR);
    let mount = Mounting::at(&relay.url(), "alice/d").mount();
    (server, relay, mount)
}

#[test]
fn f02_who_opens_file_after_file_does_not_wait_for_each() {
    let orders = ["forward", "backward", "parts", "third", "random"];
    let name = |order: &str, n: usize| match order {
        "parts" => format!("parts/a={n:02}/x"),
        _ => format!("{order}/{n:03}.bin"),
    };
    let count = |order: &str| if order == "third" { 3 * FILES } else { FILES };
    let all = orders.into_iter().flat_map(|order| (0..count(order)).map(move |n| (name(order, n), SIZE)));
    let (server, relay, mount) = far_away(&all.collect::<Vec<_>>());
    let read = |order: &str| {
        let mut places: Vec<usize> = (0..FILES).collect();
        match order {
            "backward" => places.reverse(),
            "third" => places.iter_mut().for_each(|place| *place *= 3),
            "random" => places.sort_by_key(|place| noise(*place as u64 + 1000, 8)),
            _ => {}
        }
        for place in places {
            assert_eq!(fs::read(mount.at(&name(order, place))).unwrap().len(), SIZE);
        }
    };
    let (.., at_random) = cost_of(&mount, || read("random"));
    for order in ["forward", "backward", "parts", "third"] {
        let (requests, fetched, ahead, took) = cost_of(&mount, || read(order));
        println!(
            "{order}: {requests} requests, {ahead} bytes ahead, {took:.2} s; at random {at_random:.2} s"
        );
        assert!(took * 2.0 < at_random, "{order}: {took} s, at random {at_random} s");
        assert!(requests <= FILES as u64 + 2, "{order}: {requests} requests");
        assert!(fetched <= (FILES as u64 + 2) * SIZE as u64, "{order}: {fetched} bytes");
    }
    mount.unmount();
    drop((relay, server));
}

#[test]
fn f02_who_does_not_open_file_after_file_makes_nobody_fetch() {
    let small = (0..300).map(|n| (format!("small/{n:03}.parquet"), SIZE));
    let large = (0..30).map(|n| (format!("large/{n:03}.bin"), 2 << 20));
    let parquet = (0..12).map(|n| (format!("parquet/{n:03}.parquet"), 2 << 20));
    let (server, relay, mount) = far_away(&small.chain(large).chain(parquet).collect::<Vec<_>>());
    let run = |command: &str| {
        let mut shell = Command::new("sh");
        let ended = shell.args(["-c", command]).current_dir(mount.path()).output().unwrap();
        assert!(ended.status.success(), "{command}: {}", String::from_utf8_lossy(&ended.stderr));
    };
    for looks in ["ls -lR", "stat small/*", "find . -size +1k"] {
        let (requests, fetched, ..) = cost_of(&mount, || run(looks));
        assert_eq!((requests, fetched), (0, 0), "{looks}");
    }
    let (requests, ..) = cost_of(&mount, || run("grep -l x small/299.parquet || true"));
    assert_eq!(requests, 1, "one file is one file");

    // What is read first of a large file is not known: nothing is fetched ahead of its being read.
    let (requests, fetched, ahead, _) = cost_of(&mount, || run("head -qc1 large/* >/dev/null"));
    assert!(requests <= 30 && fetched <= 30 * BLOCK && ahead == 0, "{requests}, {fetched}, {ahead} ahead");

    // Of a Parquet file it is its end, and no more.
    let (requests, fetched, ahead, _) = cost_of(&mount, || {
        for n in 0..12 {
            let file = File::open(mount.at(&format!("parquet/{n:03}.parquet"))).unwrap();
            file.read_exact_at(&mut [0; 8], (2 << 20) - 8).unwrap();
        }
    });
    // Some of what somebody waits for may come in several requests.
    assert!(
        requests <= 12 + 4 && fetched <= 12 * (END + BLOCK) && ahead > 0,
        "{requests}, {fetched}, {ahead} ahead"
    );

    let mut places: Vec<usize> = (0..299).collect();
    places.sort_by_key(|place| noise(*place as u64, 8));
    let read = |place: &usize| fs::read(mount.at(&format!("small/{place:03}.parquet"))).unwrap();
    let (requests, ..) = cost_of(&mount, || places[..20].iter().for_each(|place| drop(read(place))));
    assert!(requests <= 20 + 3, "20 random files: {requests} requests");
    mount.unmount();

    // Who stops has cost no more than as much again.
    let mount = Mounting::at(&relay.url(), "alice/d").mount();
    let read = |place: usize| fs::read(mount.at(&format!("small/{place:03}.parquet"))).unwrap();
    let (requests, ..) = cost_of(&mount, || (100..110).for_each(|place| drop(read(place))));
    assert!(requests <= 20, "10 files: {requests} requests");
    mount.unmount();
    drop((relay, server));
}

#[test]
fn f04_what_was_foreseen_of_a_revision_is_not_shown_in_the_next() {
    let server = Server::start();
    let id = server.register("d", "public");
    let names: Vec<String> = (0..FILES).map(|n| format!("small/{n:03}.bin")).collect();
    let contents = |seed: u64| (seed..).take(FILES).map(|seed| noise(seed, SIZE)).collect::<Vec<_>>();
    let (before, after) = (contents(1), contents(1001));
    let publish = |contents: &[Vec<u8>]| {
        let files: Vec<(&str, &[u8])> =
            names.iter().zip(contents).map(|(name, bytes)| (&**name, &**bytes)).collect();
        server.publish(&id, &files);
    };
    publish(&before);
    let mount = Mounting::at(&server.url(), "alice/d").args(&["--poll", "1"]).mount();
    let read = |at: usize| fs::read(mount.at(&names[at])).unwrap();
    assert!((0..20).all(|at| read(at) == before[at]));
    assert!(at_rest(&mount).bytes_ahead > 0);
    // Whoever is still in the middle of the older revision would be refused the next.
    thread::sleep(Duration::from_millis(2500));
    publish(&after);
    until(|| mount.stats().flips == 1);
    assert!((0..FILES).all(|at| read(at) == after[at]), "all of it is the new revision");
    mount.unmount();
}
