//! F02, F03: what readers cost. Query engines fetch the columns they use and little else, a column scan is foreseen,
//! and no way of reading makes the mount fetch much more than was read.

// What a run has measured is part of what it says.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::relay::Relay;
use super::{database_of, slice};
use crate::harness::{Cli, Mount, Mounting, Server, TempTree, noise, python};

const MIB: usize = 1 << 20;
const BLOCK: u64 = 32 << 10;
/// What is fetched of a file's end before anything is known of it.
const END: u64 = 256 << 10;
const ENGINES: [&str; 2] = ["duckdb", "polars"];

/// Writes below `sys.argv[1]`: `scan` with 64 row groups, two broad columns and six narrow ones; `wide` with 50 columns;
/// and `long`, whose footer is larger than what is fetched at first. Tells what they are made of.
const WRITE: &str = r#"
import sys, json, numpy as np, pyarrow as pa, pyarrow.parquet as pq
root = sys.argv[1]; random = np.random.default_rng(7); out = {}
def write(name, row_groups, rows, columns, narrow):
    with pq.ParquetWriter(f"{root}/{name}.parquet", columns(0, rows).schema, compression="none", use_dictionary=narrow) as writer:
        for n in range(row_groups):
            writer.write_table(columns(n, rows), row_group_size=rows)
    file = pq.ParquetFile(f"{root}/{name}.parquet").metadata
    sizes = {}
    for g in range(file.num_row_groups):
        for c in range(file.num_columns):
            chunk = file.row_group(g).column(c)
            sizes[chunk.path_in_schema] = sizes.get(chunk.path_in_schema, 0) + chunk.total_compressed_size
    out[name] = {"rowGroups": file.num_row_groups, "footer": file.serialized_size, "columns": sizes}
broad = lambda rows: random.integers(0, 1 << 40, rows)
def scan(n, rows):
    columns = {"id": np.arange(n * rows, (n + 1) * rows), "v": broad(rows)}
    columns.update({f"c{c}": random.integers(0, 16, rows) for c in range(6)})
    return pa.table(columns)
write("scan", 64, 65536, scan, [f"c{c}" for c in range(6)])
write("wide", 10, 16384, lambda n, rows: pa.table({"v" if c == 20 else f"c{c}": broad(rows) for c in range(50)}), False)
write("long", 64, 100, lambda n, rows: pa.table({"v" if c == 20 else f"c{c}": broad(rows) for c in range(100)}), False)
print(json.dumps(out))
"#;

/// One query (`sys.argv[1]`: engine and query) of the file `sys.argv[2]`: its rows and how long it took.
const QUERY: &str = r#"
import sys, json, time
(engine, query), file = sys.argv[1].split(" "), sys.argv[2]
low, high = 20 * 65536, 30 * 65536 - 1
if engine == "duckdb":
    import duckdb
    duckdb.sql(f"set threads = {1 if query == 'sum-by-one' else 2}")
    text = {
        "schema": f"describe select * from '{file}'",
        "sum": f"select sum(v) from '{file}'",
        "sum-by-one": f"select sum(v) from '{file}'",
        "limit": f"select * from '{file}' limit 10",
        "range": f"select sum(v) from '{file}' where id between {low} and {high}",
        "all": f"select sum(columns(*)) from '{file}'",
    }[query]
    ask = lambda: duckdb.sql(text).fetchall()
else:
    import polars as pl
    rows = pl.scan_parquet(file) if query != "schema" else None
    ask = {
        "schema": lambda: sorted(pl.read_parquet_schema(file)),
        "sum": lambda: rows.select(pl.col("v").sum()).collect().rows(),
        "limit": lambda: rows.head(10).collect().rows(),
        "range": lambda: rows.filter(pl.col("id").is_between(low, high)).select(pl.col("v").sum()).collect().rows(),
        "all": lambda: rows.select(pl.all().sum()).collect().rows(),
    }[query]
began = time.monotonic()
rows = ask()
print(json.dumps({"rows": rows, "seconds": time.monotonic() - began}, default=int))
"#;

/// What a query has cost.
#[derive(Debug, Clone, Copy)]
struct Cost {
    requests: u64,
    fetched: u64,
    read: u64,
    ahead: u64,
}

fn cost_of<T>(mount: &Mount, act: impl FnOnce() -> T) -> (Cost, T) {
    let before = mount.stats();
    let result = act();
    let after = mount.stats();
    let cost = Cost {
        requests: after.requests - before.requests,
        fetched: after.bytes_fetched - before.bytes_fetched,
        read: after.bytes_read - before.bytes_read,
        ahead: after.bytes_ahead - before.bytes_ahead,
    };
    (cost, result)
}

/// Generated files, published as `alice/d`.
struct Generated {
    tree: TempTree,
    server: Server,
    told: Value,
}

impl Generated {
    fn new() -> Self {
        let tree = TempTree::new();
        let told = python(WRITE, &[tree.path()]);
        let server = Server::start();
        Cli::owner(&server).push(tree.path(), &["--slug", "d", "--visibility", "public"]).expect(0);
        Self { tree, server, told }
    }

    /// The bytes of a file's column, or all its columns; and its footer's.
    fn bytes(&self, file: &str, column: Option<&str>) -> (u64, u64) {
        let told = &self.told[file];
        let columns = told["columns"].as_object().unwrap().iter();
        let bytes = columns.filter(|(name, _)| column.is_none_or(|column| column == *name));
        let bytes = bytes.map(|(_, bytes)| bytes.as_u64().unwrap()).sum();
        (bytes, told["footer"].as_u64().unwrap())
    }

    fn size(&self, file: &str) -> u64 {
        self.tree.at(&format!("{file}.parquet")).metadata().unwrap().len()
    }

    /// A query through a mount with an empty cache, checked against the same of the original; and the mount.
    #[track_caller]
    fn cold(&self, url: &str, engine: &str, query: &str, file: &str) -> (Mount, Cost, f64) {
        let mount = Mounting::at(url, "alice/d").mount();
        let (cost, seconds) = self.ask(&mount, engine, query, file);
        println!("{engine} {query} {file}: {cost:?} {seconds:.3} s");
        (mount, cost, seconds)
    }

    /// A file's schema through a mount with an empty cache, in `most` requests: on a machine so busy that the server
    /// seems far away its end is asked for in pieces, so there are three tries.
    #[track_caller]
    fn few_requests(&self, url: &str, engine: &str, file: &str, most: u64) -> (Mount, Cost) {
        let mut tries = 3;
        loop {
            let (mount, cost, _) = self.cold(url, engine, "schema", file);
            tries -= 1;
            if cost.requests <= most || tries == 0 {
                return (mount, cost);
            }
            mount.unmount();
        }
    }

    #[track_caller]
    fn ask(&self, mount: &Mount, engine: &str, query: &str, file: &str) -> (Cost, f64) {
        let what = format!("{engine} {query}");
        let name = format!("{file}.parquet");
        let run = |path: &Path| python(QUERY, &[Path::new(&what), path]);
        let (cost, answer) = cost_of(mount, || run(&mount.at(&name)));
        assert_eq!(answer["rows"], run(&self.tree.at(&name))["rows"], "{what}");
        (cost, answer["seconds"].as_f64().unwrap())
    }
}

#[test]
fn f03_engines_fetch_the_columns_they_use() {
    let generated = Generated::new();
    let url = generated.server.url();
    for engine in ENGINES {
        // One broad column, 64 chunks of half a megabyte.
        let (column, footer) = generated.bytes("scan", Some("v"));
        let (mount, cost, _) = generated.cold(&url, engine, "sum", "scan");
        let most = column + column / 10 + footer.max(END);
        assert!(cost.fetched <= most, "{engine}: {cost:?}, {column} bytes are needed");
        assert!(cost.requests <= 64 + 12, "{engine}: {cost:?}");
        let (again, _) = generated.ask(&mount, engine, "sum", "scan");
        assert_eq!((again.requests, again.fetched), (0, 0), "{engine}: the second run has everything");
        mount.unmount();

        let (mount, cost, _) = generated.cold(&url, engine, "sum", "wide");
        let size = generated.size("wide");
        assert!(cost.fetched * 20 < size, "{engine}: one of 50 columns: {cost:?} of {size}");
        mount.unmount();

        let (all, footer) = generated.bytes("scan", None);
        let (mount, cost, _) = generated.cold(&url, engine, "all", "scan");
        let most = all + all / 20 + footer;
        assert!(cost.fetched <= most, "{engine}: {cost:?} of {all}");
        mount.unmount();
    }
}

#[test]
fn f03_engines_that_want_little_fetch_little() {
    let generated = Generated::new();
    let url = generated.server.url();
    for engine in ENGINES {
        let (mount, cost) = generated.few_requests(&url, engine, "scan", 2);
        assert!(cost.requests <= 2 && cost.fetched <= END + BLOCK, "{engine}: {cost:?}");
        mount.unmount();
        let (_, footer) = generated.bytes("long", None);
        assert!(footer > END, "it does not come with the end: {footer}");
        // Polars maps the file: its first faults beyond the end may be faster than who has just learnt of the length.
        let most = if engine == "polars" { 6 } else { 3 };
        let (mount, cost) = generated.few_requests(&url, engine, "long", most);
        assert!(cost.requests <= most && cost.fetched <= footer + END, "{engine}: {cost:?}");
        mount.unmount();
        let (mount, cost, _) = generated.cold(&url, engine, "limit", "scan");
        assert!(cost.ahead * 20 <= cost.read, "{engine}: ten rows are no scan: {cost:?}");
        mount.unmount();
        let (mount, cost, _) = generated.cold(&url, engine, "range", "scan");
        let most = cost.read + cost.read / 4 + END;
        assert!(cost.fetched <= most, "{engine}: {cost:?}");
        mount.unmount();
    }
}

#[test]
fn a_column_scan_is_foreseen() {
    let generated = Generated::new();
    let relay = Relay::far(&generated.server, Duration::from_millis(40));
    let (mount, cost, seconds) = generated.cold(&relay.url(), "duckdb", "sum-by-one", "scan");
    assert!(cost.ahead > 0, "{cost:?}");
    // What one round trip takes in this run: single bytes of chunks that nobody has read.
    let file =
        File::options().read(true).custom_flags(libc::O_DIRECT).open(mount.at("wide.parquet")).unwrap();
    let mut byte = [0];
    let mut trips: Vec<Duration> = (1..8)
        .map(|n| {
            let began = Instant::now();
            file.read_exact_at(&mut byte, n * 5_000_001).unwrap();
            began.elapsed()
        })
        .collect();
    trips.sort();
    let one_by_one = 64.0 * trips[3].as_secs_f64();
    println!("one by one {one_by_one:.3} s, foreseen {seconds:.3} s");
    assert!(trips[3] >= Duration::from_millis(40), "it is far away: {trips:?}");
    assert!(seconds * 3.0 <= one_by_one, "{seconds} s, one by one {one_by_one} s: {cost:?}");
    drop(file);
    mount.unmount();
}

const LARGE: usize = 48 * MIB + 12_345;

fn large() -> (Server, Vec<u8>) {
    let (server, mut files) = database_of(&[("x", LARGE)]);
    (server, files.remove(0).1)
}

/// Bytes as they are fetched for a read: in whole blocks.
fn in_blocks(ranges: impl Iterator<Item = (u64, u64)>) -> u64 {
    let blocks = ranges.flat_map(|(offset, length)| offset / BLOCK..(offset + length).div_ceil(BLOCK));
    blocks.collect::<std::collections::BTreeSet<_>>().len() as u64 * BLOCK
}

#[test]
fn no_way_of_reading_fetches_much_more_than_was_read() {
    let (server, bytes) = large();
    let random = noise(3, 300 * 8);
    let random = random.chunks(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    let last = LARGE as u64 - 100_000;
    let ways: [(&str, Vec<u64>, u64); 4] = [
        ("backward", (0..200).map(|n| last - n * 65_536).collect(), 65_536),
        ("strided", (0..47).map(|n| n << 20).collect(), 131_072),
        ("strided and unaligned", (0..200).map(|n| 777 + n * 200_000).collect(), 30_000),
        ("random", random.map(|word| word % last).collect(), 50_000),
    ];
    for (way, offsets, length) in ways {
        let mount = Mounting::at(&server.url(), "alice/d").mount();
        let read = in_blocks(offsets.iter().map(|offset| (*offset, length)));
        let (cost, ()) = cost_of(&mount, || {
            let file = File::open(mount.at("x")).unwrap();
            let mut buffer = vec![0; length as usize];
            for offset in offsets {
                file.read_exact_at(&mut buffer, offset).unwrap();
                assert!(buffer == slice(&bytes, offset, buffer.len()), "{way} at {offset}");
            }
        });
        println!("{way}: {cost:?}, {read} in blocks");
        assert!(cost.fetched * 10 <= read * 13, "{way}: {cost:?}, {read} in blocks");
        mount.unmount();
    }
}

#[test]
fn who_reads_all_of_it_fetches_each_byte_once() {
    let (server, bytes) = large();
    for readers in [1, 16] {
        let mount = Mounting::at(&server.url(), "alice/d").mount();
        let (cost, ()) = cost_of(&mount, || {
            std::thread::scope(|scope| {
                for _ in 0..readers {
                    let (path, bytes) = (mount.at("x"), &bytes);
                    scope.spawn(move || {
                        let cat = std::process::Command::new("cat").arg(path).output().unwrap();
                        assert!(cat.stdout == *bytes);
                    });
                }
            });
        });
        println!("{readers} readers: {cost:?}");
        assert_eq!(cost.fetched, LARGE as u64, "{readers} readers: {cost:?}");
        mount.unmount();
    }
}

#[test]
fn nothing_is_fetched_for_who_has_gone() {
    let (server, bytes) = large();
    // All connections together bring the file in two seconds or more.
    let relay = Relay::narrow(&server, 1 << 20);
    let mount = Mounting::at(&relay.url(), "alice/d").mount();
    let mut file = File::open(mount.at("x")).unwrap();
    let mut begin = vec![0; 4 * MIB];
    file.read_exact(&mut begin).unwrap();
    assert!(begin == bytes[..4 * MIB]);
    drop(file);
    std::thread::sleep(Duration::from_millis(1000));
    let soon = mount.stats();
    std::thread::sleep(Duration::from_millis(1500));
    let later = mount.stats();
    println!("{soon:?}\n{later:?}");
    assert_eq!(soon.bytes_fetched, later.bytes_fetched, "it stands still");
    assert!(soon.bytes_ahead > 0 && soon.bytes_fetched < LARGE as u64 / 2, "{soon:?}");
    mount.unmount();
}
