//! Two mounts of one database: DuckDB writes through one and scans through the other.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Mounting, Server, python_within};

/// Writes generations of four files through `sys.argv[1]`, each published as one revision, and scans them through `sys.argv[2]`
/// in processes that begin anew; for `sys.argv[4]` seconds. `sys.argv[3]` is the `parquedb` program.
const TOGETHER: &str = r#"
import sys, json, os, time, threading, subprocess
writing, scanning, parquedb, seconds = sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4])
end = time.monotonic() + seconds
published, seen, scans, stale, wrong, done = {}, {}, [], 0, [], threading.Event()
write = """
import sys, duckdb
root, g = sys.argv[1], int(sys.argv[2])
for part in range(4):
    duckdb.sql(f"copy (select {g} as g, {part} as part, i from range(5000) t(i)) to '{root}/data/t/part-{part}.parquet' (format parquet)")
"""
scan = """
import sys, json, duckdb
print(json.dumps(duckdb.sql(f"select min(g), max(g), count(*), count(distinct part), sum(i) from '{sys.argv[1]}/data/t/*.parquet'").fetchall()[0]))
"""
def ctl(*what):
    subprocess.run([parquedb, "ctl", *what, writing], check=True, stdout=subprocess.DEVNULL)
def writer():
    g = 0
    while time.monotonic() < end:
        g += 1
        ctl("begin")
        subprocess.run([sys.executable, "-I", "-c", write, writing, str(g)], check=True)
        ctl("commit")
        published[g] = time.monotonic()
        time.sleep(0.5)
    done.set()
def watcher():
    # A revision for each generation, on top of the first, which is empty.
    while not done.is_set() or max(seen, default=0) < max(published):
        revision = int(os.getxattr(scanning, "user.parquedb.revision"))
        seen.setdefault(revision - 1, time.monotonic())
        if time.monotonic() > end + 60: return
        time.sleep(0.01)
threads = [threading.Thread(target=one) for one in (writer, watcher)]
for one in threads: one.start()
last = 0
while not done.is_set() or last < max(published):
    ran = subprocess.run([sys.executable, "-I", "-c", scan, scanning], capture_output=True, text=True)
    if ran.returncode:
        # A scan that a revision came into the middle of is told so; anything else is a fault.
        if "Stale file handle" in ran.stderr or (last == 0 and "No files found" in ran.stderr): stale += 1
        else: wrong.append(ran.stderr[-500:])
    else:
        low, high, rows, parts, total = json.loads(ran.stdout)
        if low != high or rows != 20000 or parts != 4 or total != 4 * sum(range(5000)) or low < last: wrong.append([low, high, rows, parts, total, last])
        last = high; scans.append(low)
    if time.monotonic() > end + 60: break
for one in threads: one.join()
delays = sorted(seen[g] - published[g] for g in published if g in seen)
print(json.dumps({"generations": len(published), "last": last, "scans": len(scans), "distinct": len(set(scans)), "stale": stale, "wrong": wrong[:5],
    "delays": delays, "missed": [g for g in published if g not in seen]}))
"#;

fn seconds() -> u64 {
    std::env::var("PARQUEDB_TEST_TOGETHER").ok().map_or(20, |text| text.parse().unwrap())
}

#[test]
fn x1_two_mounts_one_writes_and_every_scan_of_the_other_is_of_one_revision() {
    let server = Server::start();
    let id = server.register("d", "public");
    server.publish(&id, &[("data/readme.txt", b"empty")]);
    let long = Duration::from_secs(seconds() + 120);
    let a = Mounting::owner(&server, "alice/d").args(&["--sync", "on-change"]).lasting(long).mount();
    let b = Mounting::owner(&server, "alice/d").args(&["--poll", "3600"]).lasting(long).mount();
    fs::create_dir_all(a.at("data/t")).unwrap();
    let parquedb = Path::new(env!("CARGO_BIN_EXE_parquedb"));
    let for_seconds = seconds().to_string();
    let told = python_within(TOGETHER, &[&a.path(), &b.path(), parquedb, Path::new(&for_seconds)], long);
    let delays: Vec<f64> =
        told["delays"].as_array().unwrap().iter().map(|delay| delay.as_f64().unwrap()).collect();
    let median = delays.get(delays.len() / 2).copied();
    println!("{told}\nmedian {median:?} s from the commit to its showing");
    assert_eq!(told["wrong"], Value::Array(vec![]), "{told}");
    let generations = told["generations"].as_u64().unwrap();
    assert!(generations >= 3, "{told}");
    assert_eq!(told["last"].as_u64(), Some(generations), "every write arrives: {told}");
    let (scans, stale) = (told["scans"].as_u64().unwrap(), told["stale"].as_u64().unwrap());
    assert!(stale <= scans / 4 + 3, "few scans meet a revision in their middle: {told}");
    assert!(scans >= 5 && told["distinct"].as_u64().unwrap() >= 2, "{told}");
    assert!(median.is_some_and(|median| median < 2.0), "{told}");
    a.unmount();
    b.unmount();
}
