//! The disk of local changes is full, or fails: writers hear of it, and nothing that was acknowledged is lost.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;

use super::{database, mounting};
use crate::harness::{Forgetful, Tearing, Tmpfs, errno, names, noise, text};

#[test]
fn rule_25_a_full_disk_is_said_at_the_write_and_what_was_written_stays() {
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let (server, _) = database();
        let place = tempfile::tempdir().unwrap();
        let _disk = Tmpfs::mount(place.path(), 40);
        let mounting = mounting(&server).state_in(place.path()).arg(flag);
        let mount = mounting.mount();
        let mut written: Vec<(String, Vec<u8>)> = Vec::new();
        for n in 0..20 {
            let name = format!("early-{n}");
            fs::write(mount.at(&name), noise(n, 1000)).unwrap();
            written.push((name, noise(n, 1000)));
        }
        let mut filler = File::create(mount.at("filler")).unwrap();
        let mut filled = Vec::new();
        for size in [1 << 20, 1 << 12, 1] {
            let error = loop {
                let bytes = noise(filled.len() as u64, size);
                match filler.write_all(&bytes) {
                    Ok(()) => filled.extend_from_slice(&bytes),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.raw_os_error(), Some(libc::ENOSPC), "{flag}: {error}");
            // What part of it was taken is not known from the error.
            filler.set_len(filled.len() as u64).unwrap();
            std::io::Seek::seek(&mut filler, std::io::SeekFrom::Start(filled.len() as u64)).unwrap();
        }
        let over = File::options().write(true).open(mount.at("large")).unwrap();
        let refused = (0..100).find_map(|n| over.write_all_at(&[1; 40_000], n * 50_000).err());
        assert_eq!(refused.and_then(|error| error.raw_os_error()), Some(libc::ENOSPC), "{flag}");
        // Names need little room, and there is some set aside.
        for (name, _) in written.iter_mut() {
            let renamed = format!("renamed-{name}");
            fs::rename(mount.at(name), mount.at(&renamed)).unwrap();
            *name = renamed;
        }
        fs::remove_file(mount.at("text")).unwrap();
        let dir = File::open(mount.path()).unwrap();
        dir.sync_all().unwrap();
        drop((dir, over));
        let check = |mount: &crate::harness::Mount| {
            for (name, bytes) in &written {
                assert_eq!(mount.read(name).unwrap(), *bytes, "{name}");
            }
            assert!(!mount.at("text").exists());
        };
        check(&mount);
        assert!(mount.read("filler").unwrap() == filled);
        drop(filler);
        mount.kill9();
        let mount = mounting.mount();
        check(&mount);
        assert!(mount.read("filler").unwrap() == filled, "{flag}");
        fs::remove_file(mount.at("filler")).unwrap();
        // Room comes with the next commit.
        File::open(mount.path()).unwrap().sync_all().unwrap();
        fs::write(mount.at("late"), noise(3, 1 << 20)).unwrap();
        check(&mount);
        mount.unmount();
        let mount = mounting.mount();
        check(&mount);
        assert!(mount.read("late").unwrap() == noise(3, 1 << 20));
        assert!(names(&mount.path()).contains(&"late".to_owned()));
        assert!(text(&mount.path()).starts_with('/'));
    }
}

#[test]
fn a_disk_that_fails_is_said_at_the_write() {
    let (server, _) = database();
    let place = tempfile::tempdir().unwrap();
    let disk = Forgetful::mount(place.path(), Tearing::All);
    let mount = mounting(&server).state_in(place.path()).mount();
    let file = File::create(mount.at("file")).unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    file.sync_all().unwrap();
    disk.power_off();
    assert_eq!(errno(file.write_all_at(b"more", 5)), Some(libc::EIO));
    assert_eq!(errno(file.sync_all()), Some(libc::EIO));
    assert_eq!(errno(file.sync_all()), Some(libc::EIO), "it sticks");
    assert_eq!(errno(fs::create_dir(mount.at("made"))), Some(libc::EIO));
    assert_eq!(errno(fs::remove_file(mount.at("text"))), Some(libc::EIO));
    let read = mount.read("text");
    assert_eq!(
        read.as_deref().ok(),
        Some(&b"hello\n"[..]),
        "what the remote has can be read: {read:?} {}",
        mount.log()
    );
    drop(file);
    mount.kill9();
    drop(disk);
}

#[test]
fn a_quota_is_said_as_such_and_what_was_written_stays() {
    let (server, _) = database();
    let place = tempfile::tempdir().unwrap();
    let disk = Forgetful::mount(place.path(), Tearing::All);
    let mounting = mounting(&server).state_in(place.path());
    let mount = mounting.mount();
    let file = File::create(mount.at("file")).unwrap();
    file.write_all_at(b"bytes", 0).unwrap();
    file.sync_all().unwrap();
    let changes: Vec<String> = (0..200).map(|n| format!("dir-{n}")).collect();
    for name in &changes {
        fs::create_dir(mount.at(name)).unwrap();
    }
    disk.reach_quota(true);
    // At the write, at a change of names, and where what was acknowledged cannot be committed.
    assert_eq!(errno(file.write_all_at(b"more", 5)), Some(libc::EDQUOT));
    assert_eq!(errno(fs::create_dir(mount.at("made"))), Some(libc::EDQUOT));
    assert_eq!(errno(file.sync_all()), Some(libc::EDQUOT), "{}", mount.log());
    // Within what the file has, and what is acknowledged is all there.
    file.write_all_at(b"BY", 0).unwrap();
    assert_eq!(mount.read("file").unwrap(), b"BYtes");
    disk.reach_quota(false);
    file.write_all_at(b"more", 5).unwrap();
    file.sync_all().unwrap();
    drop(file);
    mount.kill9();
    disk.power_off();
    disk.power_on();
    let mount = mounting.env("PARQUEDB_TEST_BOOT", "another").mount();
    assert_eq!(mount.read("file").unwrap(), b"BYtesmore");
    for name in &changes {
        assert!(mount.at(name).is_dir(), "{name}");
    }
    mount.unmount();
    drop(disk);
}
