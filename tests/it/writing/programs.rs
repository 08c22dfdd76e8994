//! Programs as people run them, working in a mount.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::{database, mounting};
use crate::harness::{python_within, succeeds};

/// Runs a shell script with the mount as its working directory and first argument.
#[track_caller]
fn shell(dir: &Path, script: &str) -> String {
    let mut command = Command::new("bash");
    command.args(["-euo", "pipefail", "-c", script, "bash"]).arg(dir).current_dir(dir);
    command.env("HOME", std::env::temp_dir()).env("GIT_CONFIG_GLOBAL", "/dev/null");
    succeeds(&mut command, Duration::from_secs(300))
}

#[test]
fn f07_git_tar_and_a_compiler_work_in_a_mount() {
    let (server, _) = database();
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let mounting = mounting(&server).arg(flag);
        let mount = mounting.mount();
        let told = shell(
            &mount.path(),
            r#"
git init -q repo && cd repo
git config user.email nobody@localhost && git config user.name nobody
for n in $(seq 200); do mkdir -p d$((n % 7)); echo "line $n" > d$((n % 7))/$n; done
git add . && git commit -qm one
echo changed > d1/1 && git commit -qam two && git gc -q
cd .. && git clone -q repo clone && git -C clone fsck --strict 2>&1
git -C clone status --porcelain
tar cf t.tar clone && mkdir out && tar xf t.tar -C out && diff -r clone out/clone
printf 'int main(void){return 7;}' > p.c && cc -O1 -o p p.c && { ./p || test $? -eq 7; }
# An editor saves: a backup, and a new file in the old one's place.
cp text text~ && echo edited > .text.swp && sync .text.swp && mv .text.swp text
cat text
"#,
        );
        assert!(told.ends_with("edited\n"), "{told}");
        mount.kill9();
        let mount = mounting.mount();
        shell(&mount.path(), "git -C clone fsck --strict && diff -r clone out/clone && ./p || test $? -eq 7");
    }
}

#[test]
fn f07_fio_verifies_what_it_wrote_over_a_remote_file_and_anew() {
    let (server, _) = database();
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let mount = mounting(&server).args(&[flag, "--cache-size", "1MB"]).mount();
        shell(
            &mount.path(),
            r#"
fio() { command fio --verify=crc32c --verify_fatal=1 --fallocate=none --minimal "$@" >/dev/null; }
for engine in psync mmap; do
    # Not in smaller pieces than a mapping's pages.
    [[ $engine == mmap ]] && least=4k || least=512
    fio --name=over --filename=large --size=3m --rw=randwrite --bsrange=$least-16k --loops=3 --ioengine=$engine
    fio --name=anew-$engine --directory=. --size=8m --numjobs=3 --rw=randrw --bsrange=$least-32k --fsync=64 --ioengine=$engine
done
"#,
        );
    }
}

#[test]
fn f07_engines_write_what_they_read() {
    let (server, _) = database();
    let mounting = mounting(&server);
    let mount = mounting.mount();
    let script = r#"
import sys, json, os, duckdb, polars as pl, pandas as pd
d = sys.argv[1]
c = duckdb.connect()
c.execute(f"COPY (SELECT i, i % 10 AS k, 'text ' || i AS t FROM range(100000) r(i)) TO '{d}/duck.parquet'")
c.execute(f"COPY (SELECT i, i % 10 AS k FROM range(100000) r(i)) TO '{d}/parts' (FORMAT parquet, PARTITION_BY (k))")
df = pl.read_parquet(f"{d}/duck.parquet")
df.with_columns(x=pl.col("i") * 2).write_parquet(f"{d}/polars.parquet")
pd.read_parquet(f"{d}/polars.parquet").to_parquet(f"{d}/pandas.parquet")
e = duckdb.connect(f"{d}/base.duckdb")
e.execute(f"CREATE TABLE t AS SELECT * FROM '{d}/pandas.parquet'")
e.execute("UPDATE t SET x = 0 WHERE i < 100")
e.close()
e = duckdb.connect(f"{d}/base.duckdb")
print(json.dumps([
    e.execute("SELECT sum(x), count(*) FROM t").fetchone(),
    c.execute(f"SELECT sum(i), count(*) FROM '{d}/parts/*/*.parquet'").fetchone(),
]))
"#;
    let told = python_within(script, &[&mount.path()], Duration::from_secs(120));
    let sum = 100_000_u64 * 99_999 / 2;
    assert_eq!(told, serde_json::json!([[2 * sum - 9900, 100_000], [sum, 100_000]]));
}

#[test]
fn sqlite_keeps_its_promises_in_a_mount_whose_daemon_is_killed() {
    let (server, _) = database();
    for mode in ["WAL", "DELETE"] {
        for flag in ["--read-timeout=9", "--no-passthrough"] {
            let mounting = mounting(&server).arg(flag);
            let mut committed = 0;
            for round in 0..3 {
                let mount = mounting.mount();
                let script = r#"
import sys, sqlite3, os, signal, time, json
d, mode, pid, round, known = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
c = sqlite3.connect(f"{d}/base.sqlite", isolation_level=None)
c.execute(f"PRAGMA journal_mode={mode}")
c.execute("PRAGMA synchronous=FULL")
c.execute("CREATE TABLE IF NOT EXISTS t(i INTEGER PRIMARY KEY, x TEXT)")
assert c.execute("PRAGMA integrity_check").fetchone() == ("ok",)
count = c.execute("SELECT count(*) FROM t").fetchone()[0]
assert count >= known, (count, known)
acknowledged = count
try:
    for n in range(60):
        c.execute("BEGIN")
        c.execute("INSERT INTO t(x) VALUES(?)", ("x" * 3000,))
        c.execute("COMMIT")
        acknowledged += 1
        if n == 40 + round:
            os.kill(pid, signal.SIGKILL)
except sqlite3.Error as error:
    pass
print(json.dumps(acknowledged), flush=True)
os._exit(0)
"#;
                let args: Vec<std::path::PathBuf> = vec![
                    mount.path(),
                    mode.into(),
                    mount.pid().as_raw_nonzero().to_string().into(),
                    round.to_string().into(),
                    committed.to_string().into(),
                ];
                let args: Vec<&Path> = args.iter().map(|arg| arg.as_path()).collect();
                let told = python_within(script, &args, Duration::from_secs(60)).as_u64().unwrap();
                assert!(told > committed + 30, "{told} of {committed}: it was killed in the middle");
                committed = told;
                mount.kill9();
            }
        }
    }
}
