//! A plain user mounts through fusermount3, and sees the same. The device is opened to everyone in a mount namespace
//! of the test's own, so that the machine's stays as it is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::database_of;
use crate::harness::{Finished, Mounting, run_to_end, sha256, text, until};

/// Run as root in a fresh mount namespace: `$1` is a directory of the test's own, the rest is the mount command,
/// which ends in the mountpoint. What follows may use `user`, which runs a command as a plain user, and `$mnt`.
const BEGIN: &str = r#"
set -eu
dir=$1; shift; program=$1
eval "mnt=\$$#"
mount -t tmpfs -o dev,mode=755 tmpfs "$dir/dev"
mknod -m 666 "$dir/dev/fuse" c 10 229
mount --bind "$dir/dev/fuse" /dev/fuse
user() { setpriv --reuid=65534 --regid=65534 --clear-groups "$@"; }
cd /
"#;

const SCRIPT: &str = r#"
user "$@" >&2
trap 'fusermount3 -uz "$mnt"' EXIT
grep " $mnt " /proc/self/mountinfo
user sh -c 'cd "$0" && find . -type f | LC_ALL=C sort | xargs -d "\n" sha256sum' "$mnt"
user stat -c '%U:%G %a' "$mnt"
if cat "$mnt/x" 2>/dev/null; then echo "root may read it"; fi
user sh -c 'echo line >> "$0/x" && tail -c 5 "$0/x" && mv "$0/x" "$0/y" && rm "$0/y" && ls "$0"' "$mnt"
user "$program" --version
if user "$@" 2>&1; then echo "mounted twice"; else echo "twice: $?"; fi
trap - EXIT
user fusermount3 -u "$mnt"
grep -c " $mnt " /proc/self/mountinfo || true
user "$@" >&2
for proc in /proc/[0-9]*; do
    if [ "$(readlink "$proc/exe")" = "$program" ]; then pid=${proc#/proc/}; fi
done
user kill -TERM $pid
for n in $(seq 300); do kill -0 $pid 2>/dev/null || break; sleep 0.1; done
grep -c " $mnt " /proc/self/mountinfo || true
"#;

/// Runs a script as described at [`BEGIN`].
pub fn run(mounting: &Mounting, script: &str) -> Finished {
    let dir = mounting.beside();
    // The user must reach the program and own where it writes; the machine's own places may be closed to them.
    let program = dir.join("parquedb-mount");
    fs::copy(env!("CARGO_BIN_EXE_parquedb-mount"), &program).unwrap();
    fs::create_dir(dir.join("dev")).unwrap();
    for path in [dir, &mounting.path()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(path, Some(65534), Some(65534)).unwrap();
    }
    let typed = mounting.command(&[]);
    let mut command = std::process::Command::new("unshare");
    command.args([
        "--mount",
        "--propagation",
        "private",
        "sh",
        "-c",
        &format!("{BEGIN}{script}"),
        "sh",
        text(dir),
        text(&program),
    ]);
    command.args(typed.get_args()).env_clear();
    command.envs(typed.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir("/");
    run_to_end(&mut command, b"")
}

#[test]
fn a_plain_user_mounts_through_fusermount3() {
    let (server, files) = database_of(&[("a b/c", 100_000), ("x", 2 << 20), ("z", 0)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let ended = run(&mounting, SCRIPT);
    let said = format!("{}\n{}", ended.stdout, ended.stderr);
    let mut lines = ended.stdout.lines();
    let mut next = || lines.next().unwrap_or_else(|| panic!("{said}"));

    let entry: Vec<&str> = next().split(' ').collect();
    let after = entry.iter().position(|word| *word == "-").unwrap();
    assert_eq!(entry[after + 1..after + 3], ["fuse.parquedb", "alice/d"], "{entry:?}");
    let options: Vec<&str> = entry[after + 3].split(',').collect();
    assert!(options.contains(&"user_id=65534"), "it was made by fusermount3 for the user: {entry:?}");
    for option in ["rw", "nosuid", "nodev"] {
        assert!(entry[5].split(',').any(|word| word == option), "{option}: {entry:?}");
    }
    for (name, bytes) in &files {
        assert_eq!(next(), format!("{}  ./{name}", sha256(bytes)));
    }
    assert_eq!(next(), "nobody:nogroup 755", "the files are the user's");
    assert_eq!((next(), next(), next()), ("line", "a b", "z"), "the user writes: {said}");
    assert!(next().starts_with("parquedb-mount "), "root is kept out: {said}");
    assert!(next().contains("already"), "{said}");
    assert_eq!(next(), "twice: 2");
    assert_eq!((next(), next()), ("0", "0"), "fusermount3 and SIGTERM unmount it: {said}");
    assert_eq!(ended.code, 0, "{said}");
    until(|| mounting.serving().is_empty());
    assert!(!Path::new(&mounting.path()).join("x").exists(), "the machine has seen nothing of it");
}
