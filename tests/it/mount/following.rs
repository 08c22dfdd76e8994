//! F25, by events and by polls: what is published shows in the mount, whole, and what was open stays as it was.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{database_of, errno, slice};
use crate::harness::{Mount, Mounting, Responder, Server, get, names, noise, put_entry, until};

const MIB: usize = 1 << 20;

/// Asks for news three times a second.
pub(super) fn quick(url: &str) -> Mounting {
    Mounting::at(url, "alice/d").args(&["--poll", "0.3"])
}

pub(super) fn id_of(server: &Server) -> String {
    let manifest = get("/db/alice/d/_meta/manifest.json").send(&server.address).expect(200).json();
    manifest["databaseId"].as_str().unwrap().to_owned()
}

/// Uploads, and publishes files and deletions as one revision.
fn publish(server: &Server, files: &[(&str, &[u8])], delete: &[&str]) -> u64 {
    let id = id_of(server);
    let base = server.revision(&id);
    for (name, bytes) in files {
        server.upload(&id, name, bytes);
    }
    let put: Vec<_> = files.iter().map(|(name, bytes)| put_entry(name, bytes)).collect();
    server.commit(&id, &format!("commit-{base}"), base, &put, delete).expect(200);
    base + 1
}

#[track_caller]
fn until_shown(mount: &Mount, revision: u64) {
    until(|| crate::harness::xattr(&mount.path(), "user.parquedb.revision").unwrap() == revision.to_string());
}

/// What the kernel is told comes a moment after the revision is shown; and this process has just read the old one.
const LATER: Duration = Duration::from_millis(2200);

#[test]
fn f25_a_publication_shows_within_one_poll() {
    let (server, files) = database_of(&[
        ("changed", 300_000),
        ("kept", 200_000),
        ("d/moved", 50_000),
        ("d/stays", 10),
        ("gone/x/y", 10),
        ("was-file", 10),
        ("was-dir/x", 10),
    ]);
    // It passes everything on but the stream of events.
    let address = server.address.clone();
    let proxy = Responder::start(move |incoming| incoming.forward(&address).into());
    let mount = quick(&proxy.url()).mount();
    // The kernel knows everything, and that some names are absent.
    super::assert_right(&mount.path(), &files);
    for absent in ["added", "d/renamed", "new/dir", "new", "was-file/x"] {
        assert!(fs::metadata(mount.at(absent)).is_err(), "{absent}");
    }
    assert_eq!(names(&mount.path()), ["changed", "d", "gone", "kept", "was-dir", "was-file"]);
    assert_eq!(
        (names(&mount.at("d")), names(&mount.at("gone/x"))),
        (vec!["moved".into(), "stays".into()], vec!["y".into()])
    );
    let inode = |name: &str| fs::metadata(mount.at(name)).unwrap().ino();
    let before = ["changed", "kept", "d", "d/stays"].map(inode);
    let modified = fs::metadata(mount.at("d")).unwrap().modified().unwrap();
    let stats = mount.stats();

    let changed = noise(99, 310_000);
    let revision = publish(
        &server,
        &[
            ("changed", &changed),
            ("added", b"1"),
            ("new/dir/file", b"2"),
            ("d/renamed", &files[2].1),
            ("was-file/x", b"3"),
            ("was-dir", b"4"),
        ],
        &["d/moved", "gone/x/y", "was-file", "was-dir/x"],
    );
    until_shown(&mount, revision);
    std::thread::sleep(LATER);
    for _ in 0..2 {
        assert!(mount.read("changed").unwrap() == changed);
        assert!(mount.read("kept").unwrap() == files[1].1);
        assert!(mount.read("d/renamed").unwrap() == files[2].1);
        for (name, bytes) in
            [("added", b"1"), ("new/dir/file", b"2"), ("was-file/x", b"3"), ("was-dir", b"4")]
        {
            assert_eq!(mount.read(name).unwrap(), bytes, "{name}");
        }
        for absent in ["d/moved", "gone", "gone/x/y"] {
            assert_eq!(errno(fs::metadata(mount.at(absent))), Some(libc::ENOENT), "{absent}");
        }
        assert_eq!(errno(mount.read("was-dir/x")), Some(libc::ENOTDIR));
        assert_eq!(names(&mount.path()), ["added", "changed", "d", "kept", "new", "was-dir", "was-file"]);
        assert_eq!(names(&mount.at("d")), ["renamed", "stays"]);
        assert_eq!(names(&mount.at("was-file")), ["x"]);
    }
    let after = ["changed", "kept", "d", "d/stays"].map(inode);
    assert_ne!(before[0], after[0], "another content, another inode");
    assert_eq!(before[1..], after[1..], "what stays keeps its inode");
    assert_eq!(fs::metadata(mount.at("changed")).unwrap().len(), 310_000);
    assert!(fs::metadata(mount.at("d")).unwrap().modified().unwrap() > modified);
    assert_eq!(fs::metadata(mount.path()).unwrap().nlink(), 2 + 3);
    let now = mount.stats();
    assert!(now.polls > stats.polls && now.flips == 1, "{now:?}");
    // Of what is new, only `changed` and five small files were fetched; the moved one is cached by its content.
    assert!(now.requests - stats.requests <= 6, "polls are counted by themselves: {stats:?} {now:?}");
    mount.unmount();
}

#[test]
fn f25_a_publication_shows_at_once_where_the_server_tells_of_it() {
    let (mut server, _) = database_of(&[("f", 10)]);
    let mount = Mounting::at(&server.url(), "alice/d").args(&["--poll", "3600"]).mount();
    let mut times = Vec::new();
    // It asks once when it begins to listen.
    until(|| mount.stats().polls == 1);
    for n in 0..5 {
        let revision = publish(&server, &[("f", format!("{n}").as_bytes())], &[]);
        let published = Instant::now();
        until_shown(&mount, revision);
        times.push(published.elapsed());
    }
    times.sort();
    println!("shown after {times:?}");
    assert!(times[2] < Duration::from_secs(2), "{times:?}");
    assert_eq!(mount.stats().polls, 6);
    // What is published while nobody tells of it is asked for when somebody does again.
    server.restart();
    let revision = publish(&server, &[("f", b"after a gap")], &[]);
    until_shown(&mount, revision);
    assert_eq!(mount.read("f").unwrap(), b"after a gap");
    mount.unmount();
}

#[test]
fn f04_open_files_keep_their_bytes_while_the_mount_moves_on() {
    let (server, files) = database_of(&[("replaced", 8 * MIB), ("deleted", 3 * MIB), ("d/e/f", 3 * MIB)]);
    let mount = quick(&server.url()).mount();
    let open: Vec<File> = files.iter().map(|(name, _)| File::open(mount.at(name)).unwrap()).collect();
    let mut buffer = vec![0; 4096];
    open[0].read_exact_at(&mut buffer, 0).unwrap();
    for round in 0..3_u64 {
        let revision = publish(
            &server,
            &[("replaced", &noise(50 + round, MIB)), ("other", &noise(70 + round, 10))],
            if round == 0 { &["deleted", "d/e/f"] } else { &[] },
        );
        until_shown(&mount, revision);
        for ((name, bytes), file) in files.iter().zip(&open) {
            let offset = 4096 * (20 + 200 * round);
            file.read_exact_at(&mut buffer, offset).unwrap();
            assert!(buffer == slice(bytes, offset, 4096), "{name} in round {round}");
            let meta = file.metadata().unwrap();
            assert_eq!((meta.len(), meta.nlink() <= 1), (bytes.len() as u64, true), "{name}");
        }
    }
    // An open file can be opened again, by whoever holds it.
    use std::os::fd::AsRawFd;
    let again = fs::read(format!("/proc/self/fd/{}", open[1].as_raw_fd())).unwrap();
    assert!(again == files[1].1, "it is still the old content");
    let found = std::process::Command::new("test").arg("-e").arg(mount.at("d")).status().unwrap();
    assert!(!found.success(), "a directory is gone when nothing lies in it");
    let requests = mount.stats().requests;
    open[0].read_exact_at(&mut buffer, 7 * MIB as u64).unwrap();
    assert!(mount.stats().requests <= requests + 2, "a pinned read is one request, and one ahead");
    drop(open);
    mount.unmount();
}

#[test]
fn a_remote_that_cannot_be_reached_has_deleted_nothing() {
    let (mut server, files) = database_of(&[("a", 10), ("b", 20)]);
    let mount = quick(&server.url()).mount();
    super::assert_right(&mount.path(), &files);
    server.kill();
    until(|| mount.log().contains("no news of the remote"));
    let polls = mount.stats().polls;
    until(|| mount.stats().polls > polls + 1);
    assert_eq!(names(&mount.path()), ["a", "b"]);
    super::assert_right(&mount.path(), &files);
    assert_eq!(mount.log().matches("no news of the remote").count(), 1, "said once");
    server.crash_and_restart();
    publish(&server, &[("c", b"new")], &["a"]);
    until(|| names(&mount.path()) == ["b", "c"]);
    mount.unmount();
}

/// A front for servers that can be changed for one another.
fn front(address: &Arc<Mutex<String>>) -> Responder {
    let address = address.clone();
    Responder::start(move |request| {
        let address = address.lock().unwrap().clone();
        request.forward(&address).into()
    })
}

#[test]
fn rule_4_another_database_or_an_earlier_state_is_not_shown() {
    let (mut server, files) = database_of(&[("a", 10), ("b", 20)]);
    let (other, _) = database_of(&[("other", 10)]);
    let address = Arc::new(Mutex::new(server.address.clone()));
    let front = front(&address);
    // A backup of the first revision.
    let backup = tempfile::tempdir().unwrap();
    let copy = |from: &Path, to: &Path| {
        let _ = fs::remove_dir_all(to);
        assert!(std::process::Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
    };
    copy(&server.store(), &backup.path().join("store"));
    let revision = publish(&server, &[("c", b"second")], &[]);
    let mount = quick(&front.url()).mount();
    assert_eq!(names(&mount.path()), ["a", "b", "c"]);
    super::assert_right(&mount.path(), &files);
    let shows_on = |words: &str| {
        until(|| mount.log().contains(words));
        let polls = mount.stats().polls;
        until(|| mount.stats().polls > polls + 1);
        assert_eq!(
            (names(&mount.path()), mount.stats().flips),
            (vec!["a".into(), "b".into(), "c".into()], 0)
        );
        super::assert_right(&mount.path(), &files);
        assert_eq!(mount.log().matches(words).count(), 1, "said once: {}", mount.log());
    };
    *address.lock().unwrap() = other.address.clone();
    shows_on("another database");
    *address.lock().unwrap() = server.address.clone();
    until(|| mount.log().contains("answers again"));

    server.kill();
    copy(&backup.path().join("store"), &server.store());
    server.crash_and_restart();
    assert_eq!(server.revision(&id_of(&server)), 1);
    shows_on("gone back to revision 1");
    // Another second revision is not ours either.
    assert_eq!(publish(&server, &[("d", b"another second")], &["a"]), revision);
    shows_on("gone back to revision 2");
    // What is published after that is more than was ever seen.
    publish(&server, &[("e", b"third")], &[]);
    until(|| names(&mount.path()) == ["b", "d", "e"]);
    mount.unmount();
}

#[test]
fn a_mount_that_does_not_poll_stays_at_its_revision() {
    let (server, _) = database_of(&[("a", 10)]);
    let mount = Mounting::at(&server.url(), "alice/d").args(&["--poll", "0"]).mount();
    publish(&server, &[("b", b"new")], &["a"]);
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((names(&mount.path()), mount.stats().polls), (vec!["a".to_owned()], 0));
}

/// A listing that has begun goes on with what was there, however often the directory changes.
#[test]
fn a_listing_is_of_one_revision() {
    let server = Server::start();
    let id = server.register("d", "public");
    let set =
        |revision: usize| (0..500).map(move |n| format!("{n:03}-of-revision-{revision}-{}", "x".repeat(150)));
    server.upload(&id, "x", b"x");
    let put: Vec<_> = set(0).map(|name| put_entry(&name, b"x")).collect();
    server.commit(&id, "commit-0", 0, &put, &[]).expect(200);
    let mount = quick(&server.url()).mount();
    for revision in 1..6 {
        // So long names do not fit into one answer of the kernel's: the rest is asked for after the flip.
        let mut listing = fs::read_dir(mount.path()).unwrap();
        let first = listing.next().unwrap().unwrap().file_name();
        let put: Vec<_> = set(revision).map(|name| put_entry(&name, b"x")).collect();
        let delete: Vec<String> = set(revision - 1).collect();
        let delete: Vec<&str> = delete.iter().map(String::as_str).collect();
        server.commit(&id, &format!("commit-{revision}"), revision as u64, &put, &delete).expect(200);
        until_shown(&mount, revision as u64 + 1);
        let mut found: Vec<_> = listing.map(|entry| entry.unwrap().file_name()).chain([first]).collect();
        found.sort();
        assert!(
            found.iter().map(|name| name.to_str().unwrap()).eq(set(revision - 1)),
            "{revision}: {found:?}"
        );
        assert!(names(&mount.path()).into_iter().eq(set(revision)), "a new listing is of the new revision");
    }
    mount.unmount();
}
