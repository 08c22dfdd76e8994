//! The machine stopped, and another boot begins; and what an `fsync` costs those who wait for it (rule 18).

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use super::{database, mounting};
use crate::harness::{Forgetful, Tearing, names, noise};

#[test]
fn rule_18_what_was_not_synced_is_given_up_and_told_and_never_shown_as_zeros() {
    let (server, _) = database();
    // What nobody syncs is committed all the same after some seconds: a machine so slow tries again.
    let (mounting, mount) = (0..5)
        .find_map(|_| {
            let mounting = mounting(&server);
            let began = Instant::now();
            let mount = mounting.clone().env("PARQUEDB_TEST_BOOT", "one").mount();
            let large = File::options().write(true).open(mount.at("large")).unwrap();
            large.write_all_at(b"synced", 100).unwrap();
            large.sync_all().unwrap();
            let mut whole = File::create(mount.at("whole")).unwrap();
            whole.write_all(b"synced").unwrap();
            whole.sync_all().unwrap();
            // From here on nobody syncs.
            large.write_all_at(&[7; 9000], 5000).unwrap();
            large.write_all_at(b"beyond", 4 << 20).unwrap();
            whole.write_all(b" and not synced").unwrap();
            fs::write(mount.at("young"), "never synced").unwrap();
            fs::rename(mount.at("text"), mount.at("renamed")).unwrap();
            let quick = began.elapsed() < Duration::from_secs(4);
            mount.kill9();
            quick.then(|| (mounting.clone(), mounting.env("PARQUEDB_TEST_BOOT", "another").mount()))
        })
        .expect("this machine is too slow");
    let mut expected = noise(7, 3 << 20);
    expected[100..106].copy_from_slice(b"synced");
    assert!(mount.read("large").unwrap() == expected, "the remote's bytes show through again");
    assert_eq!(mount.read("whole").unwrap(), b"synced");
    assert_eq!(names(&mount.path()), ["dir", "large", "only", "text", "whole"]);
    let log = mount.log();
    for told in ["path=large", "path=whole", "were committed"] {
        assert!(log.contains(told), "{told}: {log}");
    }
    // That is settled then.
    mount.kill9();
    let mount = mounting.env("PARQUEDB_TEST_BOOT", "a third").mount();
    assert!(mount.read("large").unwrap() == expected);
    assert_eq!(mount.read("whole").unwrap(), b"synced");
}

#[test]
fn rule_18_one_commit_serves_all_who_wait() {
    const WRITERS: u64 = 16;
    const EACH: u64 = 20;
    let (server, _) = database();
    let place = tempfile::tempdir().unwrap();
    let disk = Forgetful::mount(place.path(), Tearing::All);
    let mount = mounting(&server).state_in(place.path()).mount();
    let files: Vec<File> =
        (0..WRITERS).map(|n| File::create(mount.at(&format!("file-{n}"))).unwrap()).collect();
    let before = disk.counts().syncs;
    std::thread::scope(|scope| {
        for file in &files {
            scope.spawn(move || {
                for n in 0..EACH {
                    file.write_all_at(&[1; 100], n * 100).unwrap();
                    file.sync_all().unwrap();
                }
            });
        }
    });
    let (bytes, all) = (WRITERS * EACH, disk.counts().syncs - before);
    println!("{bytes} times bytes were synced, {} syncs besides", all.saturating_sub(bytes));
    // A commit of its own for each would be as many again; so would none at all be noticed.
    assert!(all > bytes && all - bytes < bytes / 2, "{all} syncs for {bytes} calls");
    mount.kill9();
    drop(disk);
}
