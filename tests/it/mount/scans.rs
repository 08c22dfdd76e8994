//! F04, X1: a scan over many files while the remote is replaced again and again gives one revision's answer, or
//! ESTALE, and never a mix of two; so does one file that is held open, and each listing.

// What a run has seen is part of what it says.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Mounting, Server, TempTree, number, put_entry, python, python_within};

const FILES: usize = 20;
const SETS: usize = 8;
const ROWS: usize = 5000;

/// Writes, for each set, the files of one revision: every row says which. Gives the sums over each set.
const WRITE: &str = r#"
import sys, json, duckdb
root, sets, files = sys.argv[1], 8, 20
duckdb.sql("set threads = 2")
for s in range(sets):
    for f in range(files + 1):
        duckdb.sql(f"copy (select {s} as s, {f} as f, i, (hash(i * {s + 1} + {f}) % 1000000)::bigint as h from range(5000) t(i)) to '{root}/{s}-{f}.parquet' (row_group_size 2048)")
print(json.dumps([int(duckdb.sql(f"select sum(h) from '{root}/{s}-*.parquet'").fetchall()[0][0]) for s in range(sets)]))
"#;

/// Scans until it has had so many answers, in all the ways an engine and Python have, as fast as it can and slowly; says
/// what they were: how, the least and the greatest set met, rows, their sum.
const SCAN: &str = r#"
import sys, json, glob, time, os, duckdb, polars as pl, pyarrow.parquet as pq
root, wanted, engine, seconds = sys.argv[1] + "/data", *(os.path.basename(arg) for arg in sys.argv[2:])
wanted, end = int(wanted), time.time() + int(seconds)
duckdb.sql("set threads = 2")
def by_duckdb():
    return duckdb.sql(f"select min(s), max(s), count(*), sum(h)::bigint from '{root}/*.parquet'").fetchall()[0]
def by_polars():
    c = pl.col
    return pl.scan_parquet(f"{root}/*.parquet").select(c("s").min(), c("s").max().alias("t"), pl.len(), c("h").sum()).collect().row(0)
def slowly():
    sets, rows, total = set(), 0, 0
    for file in sorted(glob.glob(f"{root}/*.parquet")):
        with open(file, "rb") as opened:
            table = pq.read_table(opened, columns=["s", "h"])
            sets.update(table["s"].unique().to_pylist()); rows += table.num_rows; total += sum(table["h"].to_pylist())
        time.sleep(0.04)
    return min(sets), max(sets), rows, total
def held():
    with open(f"{root}/07.parquet", "rb") as opened:
        file, sets, rows = pq.ParquetFile(opened), set(), 0
        for group in range(file.num_row_groups):
            table = file.read_row_group(group)
            sets.update(table["s"].unique().to_pylist()); rows += table.num_rows
            time.sleep(1)
    return min(sets), max(sets), rows, 0
def listed():
    names = os.listdir(root)
    only = [int(name[5:-8]) for name in names if name.startswith("only-")]
    return min(only), max(only), len(names), 0
ways = [dict(duckdb=by_duckdb, polars=by_polars)[engine], slowly, by_duckdb, by_polars, held]
answers, stale, other, n = [], 0, [], 0
while len(answers) < wanted and time.time() < end:
    n += 1
    for way in (ways[n % len(ways)], listed):
        try: answer = [way.__name__, *way()]
        except Exception as error:
            if "tale" in str(error): stale += 1; time.sleep(0.3)
            else: other.append(f"{way.__name__}: {error}")
            continue
        answers.append(answer) if way is not listed or answer[1] != answer[2] else None
print(json.dumps({"answers": answers, "stale": stale, "other": other}))
"#;

fn scan_while_replaced(scans: usize) {
    let patience = Duration::from_secs(100 + 5 * scans as u64);
    let tree = TempTree::new();
    let sums = python(WRITE, &[tree.path()]);
    let read = |set: usize, file: usize| std::fs::read(tree.at(&format!("{set}-{file}.parquet"))).unwrap();
    let server = Server::start();
    let id = server.register("d", "public");
    let only = |set: usize| format!("data/only-{set}.parquet");
    let mut entries = Vec::new();
    for set in 0..SETS {
        let name = |file: usize| if file < FILES { format!("data/{file:02}.parquet") } else { only(set) };
        let contents: Vec<_> = (0..=FILES).map(|file| (name(file), read(set, file))).collect();
        contents.iter().for_each(|(name, bytes)| server.upload(&id, name, bytes));
        entries.push(contents.iter().map(|(name, bytes)| put_entry(name, bytes)).collect::<Vec<_>>());
    }
    server.commit(&id, "commit-0", 0, &entries[0], &[]).expect(200);
    // It follows quickly and does not wait for a quiet moment: the hardest case.
    let mounting = Mounting::at(&server.url(), "alice/d").args(&["--poll", "0.2"]);
    let mount = mounting.lasting(patience + Duration::from_secs(60)).mount();
    let (began, done) = (Instant::now(), AtomicBool::new(false));
    let said: Vec<Value> = std::thread::scope(|scope| {
        scope.spawn(|| {
            for revision in 1.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1700 + 400 * (revision % 5)));
                let set = |revision: u64| revision as usize % SETS;
                let gone = only(set(revision - 1));
                let put = &entries[set(revision)];
                server.commit(&id, &format!("commit-{revision}"), revision, put, &[&gone]).expect(200);
            }
        });
        let scanners = ["duckdb", "polars"].map(|engine| {
            let (path, wanted, seconds) = (mount.path(), scans.div_ceil(2), patience.as_secs());
            scope.spawn(move || {
                let [wanted, seconds] = [wanted as u64, seconds].map(|number| number.to_string());
                let args = [&path, Path::new(&wanted), Path::new(engine), Path::new(&seconds)];
                python_within(SCAN, &args, patience + Duration::from_secs(30))
            })
        });
        let said: Vec<_> = scanners.into_iter().map(|scanner| scanner.join()).collect();
        done.store(true, Ordering::SeqCst);
        said.into_iter().map(|said| said.unwrap()).collect()
    });
    let mut met = vec![0; SETS];
    let mut count = 0;
    for said in &said {
        assert_eq!(said["other"], json!([]), "the error is ESTALE");
        for answer in said["answers"].as_array().unwrap() {
            let set = answer[1].as_u64().unwrap() as usize;
            let whole = match answer[0].as_str().unwrap() {
                "held" => json!([ROWS, 0]),
                "listed" => json!([FILES + 1, 0]),
                _ => json!([(FILES + 1) * ROWS, sums[set]]),
            };
            let found = json!([answer[3], answer[4]]);
            assert!(answer[1] == answer[2] && found == whole, "a mix of revisions: {answer} in {said}");
            met[set] += 1;
            count += 1;
        }
    }
    let (stale, stats) =
        (said.iter().map(|said| said["stale"].as_u64().unwrap()).sum::<u64>(), mount.stats());
    println!(
        "{count} scans in {:.0} s, {} flips, {stale} ESTALE; scans of each set: {met:?}",
        began.elapsed().as_secs_f64(),
        stats.flips
    );
    assert!(count >= scans, "{said:?}");
    assert!(met.iter().filter(|scans| **scans > 0).count() > 1, "the revisions were seen to change: {met:?}");
    assert!(stats.flips > 2);
    mount.unmount();
}

/// `PARQUEDB_TEST_SCANS` makes it longer.
#[test]
fn f04_scans_while_the_remote_is_replaced() {
    scan_while_replaced(number("PARQUEDB_TEST_SCANS", 20) as usize);
}
