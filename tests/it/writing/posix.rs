//! All of POSIX that programs use: two test programs of others', which pass on ext4, on a mount.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{database, mounting, while_evicting};
use crate::harness::{noise, succeeds, text};

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/posix").join(name)
}

fn run(name: &str, args: &[&str]) -> String {
    let mut command = Command::new(script(name));
    command.args(args).current_dir("/");
    succeeds(&mut command, Duration::from_secs(3000))
}

#[test]
fn pjdfstest_finds_nothing_to_complain_of() {
    let (server, _) = database();
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let mount = mounting(&server).args(&[flag, "-o", "allow_other"]).mount();
        // Other users must reach it.
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(mount.path().parent().unwrap(), all).unwrap();
        let told = run("run-pjdfstest", &[text(&mount.path())]);
        assert!(told.contains("384 ok, 14 skipped, 0 expected failures, 0 failed"), "{told}");
    }
}

#[test]
fn fsx_finds_no_divergence() {
    let (server, _) = database();
    let long = std::env::var("PARQUEDB_TEST_FSX");
    let (seeds, operations) = long.as_ref().map_or(("1-4", "3000"), |long| ("1-10", long.as_str()));
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let mounting = mounting(&server).args(&[flag, "--cache-size", "1MB"]);
        let mount = mounting.lasting(Duration::from_secs(3600)).mount();
        while_evicting(&mount, ("large", &noise(7, 3 << 20)), || {
            println!("{}", run("run-fsx", &[text(&mount.path()), seeds, operations]));
        });
    }
}
