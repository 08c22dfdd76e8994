//! What the kernel remembers while names change here and there: found by looking for it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::time::{Duration, SystemTime};

use super::{complete, database, mounting, open_again};
use crate::harness::{names, until, xattr};

#[test]
fn a_newcomer_in_the_place_of_what_was_removed_is_emptied_by_who_writes_it_anew() {
    let (server, id) = database();
    let mount = mounting(&server).mount();
    fs::remove_file(mount.at("text")).unwrap();
    assert!(!mount.at("text").exists(), "and that is remembered");
    server.publish(&id, &[("text", b"a longer newcomer\n")]);
    // The kernel may be told of it before or after.
    until(|| names(&mount.path()).contains(&"text".into()));
    fs::write(mount.at("text"), "hi\n").unwrap();
    assert_eq!(mount.read("text").unwrap(), b"hi\n");
}

#[test]
fn a_newcomer_is_seen_though_its_name_was_said_to_be_absent() {
    let (server, id) = database();
    let mount = mounting(&server).mount();
    fs::remove_file(mount.at("text")).unwrap();
    assert!(!mount.at("text").exists());
    server.publish(&id, &[("text", b"newcomer\n")]);
    until(|| mount.read("text").is_ok_and(|read| read == b"newcomer\n"));
}

#[test]
fn a_directory_that_is_empty_by_what_happened_on_both_sides_is_gone() {
    let (server, id) = database();
    let mounting = mounting(&server);
    let mount = mounting.mount();
    fs::rename(mount.at("dir/one"), mount.at("x")).unwrap();
    server.commit(&id, "commit-of-gone", 1, &[], &["dir/two"]).expect(200);
    until(|| !mount.at("dir").exists());
    assert!(!names(&mount.path()).contains(&"dir".into()));
    // Who makes it again meets what comes from the remote later.
    mount.unmount();
    let mount = mounting.mount();
    fs::create_dir(mount.at("dir")).unwrap();
    server.publish(&id, &[("dir/new", b"new")]);
    until(|| mount.at("dir/new").exists());
    File::options().append(true).open(mount.at("dir/new")).unwrap().write_all(b"er").unwrap();
    fs::rename(mount.at("dir/new"), mount.at("dir/newer")).unwrap();
    assert_eq!(mount.read("dir/newer").unwrap(), b"newer");
}

#[test]
fn a_file_that_others_read_by_passthrough_is_opened_for_writing_by_many_at_once() {
    let (server, _) = database();
    let mount = mounting(&server).mount();
    // Complete and checked, it is read by the kernel itself.
    for _ in 0..5 {
        assert_eq!(mount.read("large").unwrap().len(), 3 << 20);
        std::thread::sleep(Duration::from_millis(100));
    }
    for _ in 0..20 {
        let _reader = File::open(mount.at("large")).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let open = || File::options().read(true).write(true).open(mount.at("large"));
                    // The kernel looks again once by itself.
                    let opened = (0..5).find_map(|_| open().ok());
                    assert!(opened.is_some(), "{:?}", open());
                });
            }
        });
    }
    assert!(File::options().read(true).write(true).open(mount.at("large")).is_ok());
}

#[test]
fn times_are_what_people_set_though_more_of_the_file_comes_later() {
    let (server, _) = database();
    let mount = mounting(&server).mount();
    let file = File::options().write(true).open(mount.at("large")).unwrap();
    file.write_all_at(b"x", 5).unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    file.set_modified(then).unwrap();
    drop(file);
    until(|| !server.status(&mount).contains("with the remote only"));
    assert_eq!(fs::metadata(mount.at("large")).unwrap().modified().unwrap(), then);
}

#[test]
fn set_id_bits_are_lost_when_others_write_and_synced_opens_come_to_the_daemon() {
    let (server, _) = database();
    let mounting = mounting(&server);
    let mount = mounting.mount();
    fs::write(mount.at("program"), "x").unwrap();
    fs::set_permissions(mount.at("program"), fs::Permissions::from_mode(0o6777)).unwrap();
    std::os::unix::fs::chown(mount.at("program"), Some(0), Some(0)).unwrap();
    assert_eq!(fs::metadata(mount.at("program")).unwrap().mode() & 0o7777, 0o777);
    let synced = File::options()
        .create(true)
        .write(true)
        .custom_flags(libc::O_DSYNC)
        .open(mount.at("synced"))
        .unwrap();
    synced.write_all_at(b"durable", 0).unwrap();
    // Durable includes the name, and that is committed: the tables say it without the journal.
    let state = xattr(&mount.path(), "user.parquedb.state").unwrap();
    let copy = tempfile::tempdir().unwrap();
    for name in ["state.sqlite", "state.sqlite-wal"] {
        fs::copy(format!("{state}/{name}"), copy.path().join(name)).unwrap();
    }
    let mut rows = parquedb_mount::state::Rows::open(copy.path()).unwrap();
    let stored = rows.load().unwrap();
    let named =
        stored.names.iter().find(|(_, name, _)| name == b"synced").expect("the name is in the tables");
    assert_eq!(stored.nodes[&named.2].synced.map(|(size, _)| size), Some(7));
}

#[test]
fn what_is_written_by_one_name_is_read_by_the_other() {
    let (server, _) = database();
    let mount = mounting(&server).mount();
    complete(&mount);
    fs::hard_link(mount.at("large"), mount.at("again")).unwrap();
    assert_eq!(mount.read("again").unwrap().len(), 3 << 20);
    // The kernel reads it by itself, and remembers both names.
    let reader = File::open(mount.at("again")).unwrap();
    let mut bytes = [0; 7];
    reader.read_exact_at(&mut bytes, 1000).unwrap();
    let writer = File::options().read(true).write(true).open(mount.at("large")).unwrap();
    writer.write_all_at(b"written", 1000).unwrap();
    until(|| mount.read("again").unwrap()[1000..1007] == *b"written");
    until(|| {
        let inode = |name: &str| fs::metadata(mount.at(name)).unwrap().ino();
        inode("large") == inode("again")
    });
}

#[test]
fn what_a_program_only_held_open_for_writing_follows_the_remote_after_a_kill() {
    let (server, id) = database();
    let mounting = mounting(&server);
    let mount = mounting.mount();
    let held = File::options().read(true).write(true).open(mount.at("text")).unwrap();
    mount.kill9();
    drop(held);
    let mount = mounting.mount();
    server.publish(&id, &[("text", b"newer\n")]);
    until(|| mount.read("text").is_ok_and(|read| read == b"newer\n"));
}

#[test]
fn a_link_made_while_a_file_was_the_remotes_shows_what_is_written_by_the_other_name() {
    let (server, _) = database();
    let mount = mounting(&server).mount();
    complete(&mount);
    // The kernel remembers this name of the remote's file from now on.
    let reader = File::open(mount.at("large")).unwrap();
    fs::hard_link(mount.at("large"), mount.at("other")).unwrap();
    let writer = open_again(File::options().read(true).write(true), &mount.at("other"));
    writer.write_all_at(b"written", 1000).unwrap();
    assert_eq!(mount.read("large").unwrap()[1000..1007], *b"written");
    drop(reader);
}
