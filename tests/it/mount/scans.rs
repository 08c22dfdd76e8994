//! F04, X1: a scan over many files while the remote is replaced again and again gives one revision's answer, or
//! ESTALE, and never a mix of two.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use crate::harness::{Mounting, Server, TempTree, put_entry, python};

const FILES: usize = 20;
const SETS: usize = 8;

/// Writes, for each set, the files of one revision: every row says which.
const WRITE: &str = r#"
import sys, json, duckdb
root, sets, files = sys.argv[1], 8, 20
duckdb.sql("set threads = 2")
for s in range(sets):
    for f in range(files):
        duckdb.sql(f"copy (select {s} as s, {f} as f, i, hash(i * {s + 1}) as h from range(5000) t(i)) to '{root}/{s}-{f}.parquet' (row_group_size 2048)")
print(json.dumps(sets * files))
"#;

/// Scans until it has had so many answers, some as fast as it can and some slowly; says what they were.
const SCAN: &str = r#"
import sys, json, duckdb, glob, time, os
root, wanted = sys.argv[1], int(os.path.basename(sys.argv[2]))
duckdb.sql("set threads = 2")
answers, stale, other, n, end = [], 0, [], 0, time.time() + 100
def slowly():
    sets, rows = set(), 0
    import pyarrow.parquet as pq
    for file in sorted(glob.glob(f"{root}/data/*.parquet")):
        with open(file, "rb") as opened:
            table = pq.read_table(opened, columns=["s"])
            sets.update(table["s"].unique().to_pylist()); rows += table.num_rows
        time.sleep(0.04)
    return [min(sets), max(sets), rows]
while len(answers) < wanted and time.time() < end:
    n += 1
    try:
        if n % 3 == 0: answers.append(slowly())
        else: answers.append(list(duckdb.sql(f"select min(s), max(s), count(*) from '{root}/data/*.parquet'").fetchall()[0]))
    except Exception as error:
        if "tale" in str(error): stale += 1; time.sleep(0.3)
        else: other.append(str(error))
print(json.dumps({"answers": answers, "stale": stale, "other": other}))
"#;

fn scan_while_replaced(scans: usize) {
    let tree = TempTree::new();
    assert_eq!(python(WRITE, &[tree.path()]), SETS * FILES);
    let read = |set: usize, file: usize| std::fs::read(tree.at(&format!("{set}-{file}.parquet"))).unwrap();
    let server = Server::start();
    let id = server.register("d", "public");
    let mut entries = Vec::new();
    for set in 0..SETS {
        let name = |file: usize| format!("data/{file:02}.parquet");
        let contents: Vec<_> = (0..FILES).map(|file| (name(file), read(set, file))).collect();
        contents.iter().for_each(|(name, bytes)| server.upload(&id, name, bytes));
        entries.push(contents.iter().map(|(name, bytes)| put_entry(name, bytes)).collect::<Vec<_>>());
    }
    server.commit(&id, "commit-0", 0, &entries[0], &[]).expect(200);
    // It follows quickly and does not wait for a quiet moment: the hardest case.
    let mount = Mounting::at(&server.url(), "alice/d").args(&["--poll", "0.2"]).mount();
    let done = AtomicBool::new(false);
    let said: Value = std::thread::scope(|scope| {
        scope.spawn(|| {
            for revision in 1.. {
                if done.load(Ordering::SeqCst) {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1700 + 400 * (revision % 5)));
                let put = &entries[revision as usize % SETS];
                server.commit(&id, &format!("commit-{revision}"), revision, put, &[]).expect(200);
            }
        });
        let said = std::panic::catch_unwind(|| python(SCAN, &[&mount.path(), Path::new(&scans.to_string())]));
        done.store(true, Ordering::SeqCst);
        said.unwrap()
    });
    let answers = said["answers"].as_array().unwrap();
    assert_eq!(said["other"], Value::Array(vec![]), "the error is ESTALE");
    assert!(answers.len() >= scans, "{said}");
    for answer in answers {
        assert!(
            answer[0] == answer[1] && answer[2] == FILES * 5000,
            "a mix of revisions: {answer} in {said}"
        );
    }
    let first = &answers[0];
    assert!(answers.iter().any(|answer| answer != first), "the revisions were seen to change: {said}");
    assert!(mount.stats().flips > 2);
    mount.unmount();
}

/// `PARQUEDB_TEST_SCANS` makes it longer.
#[test]
fn f04_scans_while_the_remote_is_replaced() {
    let scans = std::env::var("PARQUEDB_TEST_SCANS").ok().and_then(|text| text.parse().ok());
    scan_while_replaced(scans.unwrap_or(20));
}
