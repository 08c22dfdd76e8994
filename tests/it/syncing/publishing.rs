//! What is local becomes the remote's, and stays what it is here.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use super::{by_hand, ctl, database, pending, published, sync};
use crate::harness::{Mounting, Server, noise, sha256, until, xattr};

#[test]
fn what_was_written_moved_and_removed_is_one_revision() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    fs::write(mount.at("new"), "new").unwrap();
    fs::create_dir(mount.at("made")).unwrap();
    fs::write(mount.at("made/deep"), "deep").unwrap();
    fs::write(mount.at("one"), "changed").unwrap();
    fs::remove_file(mount.at("two")).unwrap();
    fs::rename(mount.at("dir/x"), mount.at("dir/z")).unwrap();
    let before = server.revision(&id);
    sync(&server, &mount);
    assert_eq!(server.revision(&id), before + 1);
    assert_eq!(server.paths("d"), ["data/t/a.bin", "dir/y", "dir/z", "made/deep", "new", "one"]);
    for (path, bytes) in [("new", "new"), ("made/deep", "deep"), ("one", "changed"), ("dir/z", "x")] {
        assert_eq!(published(&server, path).as_deref(), Some(bytes.as_bytes()), "{path}");
        assert_eq!(mount.read(path).unwrap(), bytes.as_bytes(), "{path}");
    }
    assert_eq!(pending(&server, &mount.path()), 0);
    // And again, where there is nothing.
    sync(&server, &mount);
    assert_eq!(server.revision(&id), before + 1);
    mount.unmount();
}

#[test]
fn rule_22_numbers_and_attributes_survive_a_publish_and_a_restart() {
    let (server, _) = database();
    let mounting = by_hand(&server);
    let mount = mounting.mount();
    fs::write(mount.at("script"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(mount.at("script"), fs::Permissions::from_mode(0o751)).unwrap();
    rustix::fs::setxattr(mount.at("script"), "user.note", b"mine", rustix::fs::XattrFlags::empty()).unwrap();
    fs::hard_link(mount.at("script"), mount.at("other")).unwrap();
    symlink("script", mount.at("link")).unwrap();
    fs::create_dir(mount.at("empty")).unwrap();
    fs::write(mount.at("plain"), "plain").unwrap();
    crate::harness::set_modified(
        &mount.at("plain"),
        std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000),
    );
    let look = |name: &str| {
        let found = fs::symlink_metadata(mount.at(name)).unwrap();
        (
            found.ino(),
            found.mode(),
            found.nlink(),
            found.size(),
            found.mtime(),
            found.mtime_nsec(),
            found.uid(),
        )
    };
    let names = ["script", "other", "link", "empty", "plain", "one"];
    let before = names.map(look);
    sync(&server, &mount);
    assert_eq!(names.map(look), before);
    assert_eq!(xattr(&mount.at("script"), "user.note").unwrap(), "mine");
    assert_eq!(published(&server, "other").unwrap(), b"#!/bin/sh\n");
    assert_eq!(fs::read_link(mount.at("link")).unwrap().to_str(), Some("script"));
    mount.unmount();
    let mount = mounting.mount();
    let without_number = |name: &str| {
        let found = fs::symlink_metadata(mount.at(name)).unwrap();
        (found.mode(), found.nlink(), found.size(), found.mtime(), found.mtime_nsec(), found.uid())
    };
    let kept = before
        .map(|(_, mode, links, size, time, nanoseconds, uid)| (mode, links, size, time, nanoseconds, uid));
    assert_eq!(names.map(without_number), kept);
    assert_eq!(xattr(&mount.at("script"), "user.note").unwrap(), "mine");
    assert_eq!(mount.read("script").unwrap(), b"#!/bin/sh\n");
    assert_eq!(pending(&server, &mount.path()), 0);
    mount.unmount();
}

#[test]
fn what_was_published_is_read_on_without_the_remote_and_takes_no_room_twice() {
    let (mut server, _) = database();
    let mounting = by_hand(&server);
    let mount = mounting.mount();
    let large = noise(3, 5_000_000);
    fs::write(mount.at("large"), &large).unwrap();
    sync(&server, &mount);
    let staged = || {
        let dirs = fs::read_dir(mounting.state().join("replicas-1")).unwrap();
        let mut count = 0;
        for dir in dirs {
            for of in fs::read_dir(dir.unwrap().path().join("staged")).unwrap() {
                count += fs::read_dir(of.unwrap().path()).unwrap().count();
            }
        }
        count
    };
    assert_eq!(staged(), 0, "the bytes are the remote's, and in the cache");
    let reads = mount.stats().requests;
    until(|| xattr(&mount.at("large"), "user.parquedb.sha256").is_ok_and(|hash| hash == sha256(&large)));
    server.kill();
    assert!(mount.read("large").unwrap() == large);
    assert_eq!(mount.stats().requests, reads, "nothing of it is fetched");
    mount.unmount();
}

#[test]
fn rule_21_a_file_waits_until_nobody_writes_to_it() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    let mut writer = File::create(mount.at("log")).unwrap();
    writer.write_all(b"half").unwrap();
    fs::write(mount.at("done"), "done").unwrap();
    let told = ctl(&server, &mount, &["sync", "--json"]).expect(0).json();
    assert_eq!(told["status"]["held"][0]["path"], "log", "{told}");
    let why = told["status"]["held"][0]["why"].as_str().unwrap();
    assert!(why.contains(&format!("process {}", std::process::id())), "who is waited for: {why}");
    assert_eq!(told["published"]["uploaded"], 1, "{told}");
    assert_eq!((published(&server, "log"), published(&server, "done")), (None, Some(b"done".to_vec())));
    assert_eq!(pending(&server, &mount.path()), 1);
    writer.write_all(b" and whole").unwrap();
    drop(writer);
    sync(&server, &mount);
    assert_eq!(published(&server, "log").unwrap(), b"half and whole");
    // One of the remote's that is opened, and changed in one place.
    let revision = server.revision(&id);
    let writer = OpenOptions::new().write(true).open(mount.at("log")).unwrap();
    sync_held(&server, &mount, 0);
    writer.write_all_at(b"HALF", 0).unwrap();
    sync_held(&server, &mount, 1);
    assert_eq!(server.revision(&id), revision);
    drop(writer);
    sync(&server, &mount);
    assert_eq!(published(&server, "log").unwrap(), b"HALF and whole");
    mount.unmount();
}

/// A round that leaves so many files for later.
#[track_caller]
fn sync_held(server: &Server, mount: &crate::harness::Mount, held: usize) {
    let told = ctl(server, mount, &["sync", "--json"]).expect(0).json();
    assert_eq!(told["status"]["held"].as_array().unwrap().len(), held, "{told}");
}

#[test]
fn rule_21_a_database_goes_together_with_its_log() {
    let (server, _) = database();
    let mount = by_hand(&server).mount();
    fs::write(mount.at("app.db"), "pages").unwrap();
    let mut log = File::create(mount.at("app.db-wal")).unwrap();
    log.write_all(b"frames").unwrap();
    sync_held(&server, &mount, 2);
    assert_eq!(published(&server, "app.db"), None);
    drop(log);
    sync(&server, &mount);
    assert_eq!(
        (published(&server, "app.db").unwrap(), published(&server, "app.db-wal").unwrap()),
        (b"pages".to_vec(), b"frames".to_vec())
    );
    mount.unmount();
}

/// Under whatever path the store has it.
fn lose_content(server: &Server, content: &[u8]) {
    let mut open = vec![server.store()];
    let mut lost = 0;
    while let Some(dir) = open.pop() {
        for path in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
            } else if fs::read(&path).unwrap() == content {
                fs::remove_file(path).unwrap();
                lost += 1;
            }
        }
    }
    assert_eq!(lost, 1);
}

#[test]
fn what_the_remote_has_lost_keeps_nothing_else_from_being_published() {
    let (server, id) = database();
    let bytes = noise(9, 100_000);
    let two = noise(10, 100_000);
    server.publish(&id, &[("big", &bytes), ("two-big", &two)]);
    let mount = by_hand(&server).mount();
    fs::rename(mount.at("big"), mount.at("moved")).unwrap();
    fs::rename(mount.at("two-big"), mount.at("moved-too")).unwrap();
    fs::write(mount.at("other"), "other").unwrap();
    server.commit(&id, "commit-gone", 2, &[], &["big", "two-big"]).expect(200);
    lose_content(&server, &bytes);
    lose_content(&server, &two);
    let told = ctl(&server, &mount, &["sync", "--json"]).expect(0).json();
    assert_eq!(published(&server, "other").unwrap(), b"other", "{told}");
    assert_eq!((published(&server, "moved"), published(&server, "big")), (None, None));
    let held: Vec<&str> = told["status"]["held"]
        .as_array()
        .unwrap()
        .iter()
        .map(|held| held["path"].as_str().unwrap())
        .collect();
    assert_eq!(held, ["moved", "moved-too"], "{told}");
    assert!(mount.at("moved").exists());
    mount.unmount();
}

#[test]
fn rule_21_a_log_waits_where_its_database_does() {
    let (server, _) = database();
    let mount = by_hand(&server).args(&["--exclude", "*.db"]).mount();
    fs::write(mount.at("app.db"), "pages").unwrap();
    fs::write(mount.at("app.db-wal"), "frames").unwrap();
    fs::write(mount.at("other"), "other").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    let told = ctl(&server, &mount, &["sync", "--json"]).expect(0).json();
    assert_eq!(told["status"]["held"][0]["path"], "app.db-wal", "{told}");
    assert_eq!(server.paths("d").iter().filter(|path| path.starts_with("app")).count(), 0);
    assert!(published(&server, "other").is_some());
    mount.unmount();
}

#[test]
fn readers_keep_what_they_have_open_through_a_publish_and_through_the_next_edit() {
    let (server, _) = database();
    let mount = by_hand(&server).mount();
    let bytes = noise(5, 300_000);
    fs::write(mount.at("f"), &bytes).unwrap();
    // The kernel tells of a close a moment after it; who opens the file before that is taken for somebody who may map it.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let mut reader = File::open(mount.at("f")).unwrap();
    let mut start = vec![0; 1000];
    reader.read_exact(&mut start).unwrap();
    sync(&server, &mount);
    let mut all = Vec::new();
    reader.seek(SeekFrom::Start(0)).unwrap();
    reader.read_to_end(&mut all).unwrap();
    assert!(all == bytes);
    drop(reader);
    assert!(mount.read("f").unwrap() == bytes);
    // A write goes to everybody who has it open (rule 16), also after it was published.
    let reader = File::open(mount.at("f")).unwrap();
    let writer = OpenOptions::new().write(true).open(mount.at("f")).unwrap();
    writer.write_all_at(b"edited", 100).unwrap();
    drop(writer);
    let mut seen = [0; 6];
    let mut look = || {
        // It may have become another inode, where the kernel read the published one by itself.
        let again = File::open(mount.at("f")).unwrap();
        again.read_exact_at(&mut seen, 100).unwrap();
        seen
    };
    assert_eq!(&look(), b"edited");
    drop(reader);
    sync(&server, &mount);
    let mut expected = bytes;
    expected[100..106].copy_from_slice(b"edited");
    assert!(published(&server, "f").unwrap() == expected && mount.read("f").unwrap() == expected);
    mount.unmount();
}

#[test]
fn rule_16_who_follows_a_file_hears_what_is_written_before_and_after_it_is_published() {
    let (server, _) = database();
    let mount = by_hand(&server).arg("--no-passthrough").mount();
    let append = |line: &str| {
        let mut file = OpenOptions::new().append(true).create(true).open(mount.at("log")).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    };
    append("first\n");
    let mut before = "first\n".to_owned();
    for line in ["second\n", "third\n"] {
        sync(&server, &mount);
        // Of what was published by now.
        let mut follower = File::open(mount.at("log")).unwrap();
        let mut heard = || {
            let mut text = String::new();
            follower.read_to_string(&mut text).unwrap();
            text
        };
        assert_eq!(heard(), before);
        append(line);
        assert_eq!(heard(), line);
        before.push_str(line);
    }
    sync(&server, &mount);
    assert_eq!(published(&server, "log").unwrap(), before.as_bytes());
    mount.unmount();
}

/// What another process reads: this one has files of an earlier revision open, and would mix two (X1).
fn by_another(path: &Path) -> Vec<u8> {
    Command::new("cat").arg(path).output().unwrap().stdout
}

#[test]
fn what_was_published_here_and_is_changed_elsewhere_shows_here_with_its_attributes() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    fs::write(mount.at("mine"), "mine").unwrap();
    fs::write(mount.at("tool"), "tool").unwrap();
    fs::set_permissions(mount.at("tool"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(mount.at("one"), fs::Permissions::from_mode(0o600)).unwrap();
    sync(&server, &mount);
    let open = File::open(mount.at("tool")).unwrap();
    let number = fs::metadata(mount.at("tool")).unwrap().ino();
    server.publish(&id, &[("mine", b"theirs"), ("tool", b"better"), ("one", b"once more")]);
    until(|| by_another(&mount.at("tool")) == b"better");
    until(|| by_another(&mount.at("mine")) == b"theirs");
    until(|| by_another(&mount.at("one")) == b"once more");
    let mode = |name: &str| fs::metadata(mount.at(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("tool"), mode("one"), mode("mine")), (0o755, 0o600, 0o644));
    assert_ne!(fs::metadata(mount.at("tool")).unwrap().ino(), number, "another content, another inode");
    let mut kept = [0; 4];
    open.read_exact_at(&mut kept, 0).unwrap();
    assert_eq!(&kept, b"tool", "what is open stays as it was");
    drop(open);
    let base = server.revision(&id);
    server.commit(&id, "gone-again", base, &[], &["tool", "mine"]).expect(200);
    until(|| fs::metadata(mount.at("tool")).is_err());
    assert!(fs::metadata(mount.at("mine")).is_err());
    assert_eq!(pending(&server, &mount.path()), 0);
    mount.unmount();
}

#[test]
fn two_mounts_write_and_see_each_other() {
    let (server, _) = database();
    let (a, b) = (by_hand(&server), by_hand(&server));
    let (a, b) = (a.mount(), b.mount());
    for n in 0..5 {
        let (here, there) = if n % 2 == 0 { (&a, &b) } else { (&b, &a) };
        let text = format!("round {n}");
        fs::write(here.at("ball"), &text).unwrap();
        fs::write(here.at(&format!("file-{n}")), &text).unwrap();
        sync(&server, here);
        until(|| there.read("ball").is_ok_and(|read| read == text.as_bytes()));
        assert_eq!(there.read(&format!("file-{n}")).unwrap(), text.as_bytes());
    }
    a.unmount();
    b.unmount();
}

#[test]
fn only_what_the_filter_takes_is_published() {
    let (server, _) = database();
    let mount = by_hand(&server).args(&["--exclude", "*.tmp"]).mount();
    fs::write(mount.at("a.tmp"), "scratch").unwrap();
    fs::write(mount.at(".env"), "SECRET=1").unwrap();
    fs::write(mount.at("a"), "a").unwrap();
    ctl(&server, &mount, &["sync"]).expect(0);
    assert_eq!((published(&server, "a.tmp"), published(&server, ".env")), (None, None));
    assert_eq!(
        (published(&server, "a").unwrap(), mount.read("a.tmp").unwrap()),
        (b"a".to_vec(), b"scratch".to_vec())
    );
    mount.unmount();
}

#[test]
fn a_mount_without_a_right_to_publish_keeps_what_is_written_and_says_why() {
    let (server, id) = database();
    let revision = server.revision(&id);
    let mount = Mounting::at(&server.url(), "alice/d").args(&["--sync", "manual"]).mount();
    fs::write(mount.at("mine"), "mine").unwrap();
    let refused = ctl(&server, &mount, &["sync"]).expect(4);
    assert!(refused.stderr.contains("log in"), "{refused:?}");
    assert_eq!((server.revision(&id), pending(&server, &mount.path())), (revision, 1));
    assert_eq!(mount.read("mine").unwrap(), b"mine");
    mount.unmount();
}

/// Maps a file, closes it, and writes by the mapping when it is told to.
const MAPS: &str = r#"
import sys, mmap, os, time
path, go = sys.argv[1], sys.argv[2]
fd = os.open(path, os.O_RDWR); mapped = mmap.mmap(fd, 0); os.close(fd)
open(go + ".mapped", "w").close()
while not os.path.exists(go): time.sleep(0.01)
mapped[0:6] = b"MAPPED"; mapped.flush(); mapped.close()
print("true")
"#;

#[test]
fn rule_20_a_mapping_that_outlives_its_handle_is_still_a_writer() {
    let (server, _) = database();
    let mount = by_hand(&server).mount();
    let bytes = noise(9, 50_000);
    fs::write(mount.at("f"), &bytes).unwrap();
    let beside = tempfile::tempdir().unwrap();
    let go = beside.path().join("go");
    let mapping = std::thread::spawn({
        let (path, go) = (mount.at("f"), go.clone());
        move || crate::harness::python(MAPS, &[&path, &go])
    });
    until(|| go.with_extension("mapped").exists());
    std::thread::sleep(std::time::Duration::from_millis(100));
    sync_held(&server, &mount, 1);
    fs::write(&go, "").unwrap();
    mapping.join().unwrap();
    until(|| {
        ctl(&server, &mount, &["sync"]).expect(0);
        published(&server, "f").is_some()
    });
    let mut expected = bytes;
    expected[..6].copy_from_slice(b"MAPPED");
    assert!(published(&server, "f").unwrap() == expected && mount.read("f").unwrap() == expected);
    mount.unmount();
}

#[test]
fn what_changed_elsewhere_while_nobody_had_it_mounted_shows_with_the_attributes_it_has_here() {
    let (server, id) = database();
    let mounting = by_hand(&server);
    let mount = mounting.mount();
    fs::set_permissions(mount.at("one"), fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(mount.at("same"), "rewritten").unwrap();
    sync(&server, &mount);
    fs::write(mount.at("same"), "rewritten").unwrap();
    mount.unmount();
    server.publish(&id, &[("one", b"one, anew"), ("same", b"theirs")]);
    let mount = mounting.mount();
    until(|| by_another(&mount.at("one")) == b"one, anew");
    assert_eq!(fs::metadata(mount.at("one")).unwrap().mode() & 0o777, 0o600);
    sync(&server, &mount);
    until(|| by_another(&mount.at("same")) == b"theirs");
    assert_eq!(published(&server, "same").unwrap(), b"theirs");
    mount.unmount();
}
