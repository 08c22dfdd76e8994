//! Who waits for whom: writers never for a sync, syncs for writers, and for what somebody has said.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::{by_hand, ctl, database, on_change, published, standing, sync};
use crate::harness::{Mounting, Responder, Server, python, until};

/// Passes everything on, and takes so long for each upload and each commit.
fn slow(server: &Server, each: Duration) -> Responder {
    let address = server.address.clone();
    Responder::start(move |incoming| {
        if incoming.target.starts_with("/api/sync/events/") {
            return crate::harness::answer(404, &[], b"");
        }
        if incoming.method == "PUT" || incoming.target.starts_with("/api/sync/commit/") {
            std::thread::sleep(each);
        }
        incoming.forward(&address).into()
    })
}

fn through(proxy: &Responder, server: &Server, trigger: &str) -> Mounting {
    super::through(proxy, server).args(&["--poll", "1", "--sync", trigger])
}

#[test]
fn writers_are_not_held_up_by_a_sync() {
    let (server, id) = database();
    let proxy = slow(&server, Duration::from_secs(2));
    let mount = through(&proxy, &server, "on-change").mount();
    let revision = server.revision(&id);
    let (began, mut longest, mut count) = (Instant::now(), Duration::ZERO, 0);
    // Until two rounds have ended, of which each takes four seconds or more.
    while server.revision(&id) < revision + 2 {
        assert!(began.elapsed() < Duration::from_secs(100), "nothing is published");
        for at in 0..10 {
            let one = Instant::now();
            let path = mount.at(&format!("f{at}"));
            fs::write(&path, format!("{count}")).unwrap();
            fs::rename(&path, mount.at(&format!("g{at}"))).unwrap();
            fs::metadata(mount.at("one")).unwrap();
            longest = longest.max(one.elapsed());
            count += 1;
        }
        // Nobody who never stops is published before a minute is over.
        if count % 200 == 0 {
            std::thread::sleep(Duration::from_millis(2500));
        }
    }
    println!("{count} files while rounds of 4 s went on: none took longer than {longest:?}");
    assert!(longest < Duration::from_millis(1500), "{longest:?}");
    mount.unmount();
}

#[test]
fn what_is_rewritten_while_it_is_sent_is_published_whole() {
    const SIZE: usize = 2 << 20;
    let (server, _) = database();
    let proxy = slow(&server, Duration::from_millis(100));
    let mount = through(&proxy, &server, "manual").mount();
    let (path, over, version) = (mount.at("big"), AtomicBool::new(false), AtomicU64::new(0));
    fs::write(&path, vec![0; SIZE]).unwrap();
    let mut seen = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                let next = version.fetch_add(1, Ordering::SeqCst) + 1;
                let file = OpenOptions::new().write(true).open(&path).unwrap();
                file.write_all_at(&vec![next as u8; SIZE], 0).unwrap();
                drop(file);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        for _ in 0..25 {
            // It may be held, or lose the race; what is published is one version.
            ctl(&server, &mount, &["sync"]);
            if let Some(bytes) = published(&server, "big") {
                assert!(bytes.len() == SIZE && bytes.iter().all(|byte| *byte == bytes[0]), "torn");
                seen.push(bytes[0]);
            }
        }
        over.store(true, Ordering::SeqCst);
    });
    sync(&server, &mount);
    let last = version.load(Ordering::SeqCst);
    assert_eq!(published(&server, "big").unwrap(), vec![last as u8; SIZE]);
    seen.dedup();
    println!("{last} versions written, {} of them published on the way", seen.len());
    assert!(last > 10, "{last}");
    mount.unmount();
}

#[test]
fn nothing_is_published_while_syncs_are_paused_in_this_life_and_the_next() {
    let (server, id) = database();
    let mounting = on_change(&server);
    let mount = mounting.mount();
    ctl(&server, &mount, &["pause"]).expect(0);
    let revision = server.revision(&id);
    fs::write(mount.at("a"), "a").unwrap();
    std::thread::sleep(Duration::from_secs(4));
    for what in ["sync", "commit"] {
        let refused = ctl(&server, &mount, &[what]).expect(3);
        assert!(refused.stderr.contains("'parquedb ctl resume'"), "{refused:?}");
    }
    assert_eq!(standing(&server, &mount)["state"], "paused");
    mount.unmount();
    assert_eq!(server.revision(&id), revision, "not at the end either");
    let mount = mounting.mount();
    assert_eq!(standing(&server, &mount)["state"], "paused");
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(server.revision(&id), revision);
    // News are shown all the same.
    server.publish(&id, &[("news", b"news")]);
    until(|| mount.read("news").is_ok());
    ctl(&server, &mount, &["resume"]).expect(0);
    until(|| published(&server, "a").is_some());
    until(|| standing(&server, &mount)["state"] == "success");
    mount.unmount();
}

#[test]
fn f39_what_was_begun_is_not_taken_for_complete_by_the_next_mount() {
    let (server, id) = database();
    let mounting = on_change(&server);
    let mount = mounting.mount();
    ctl(&server, &mount, &["begin"]).expect(0);
    let revision = server.revision(&id);
    fs::write(mount.at("a"), "a").unwrap();
    mount.kill9();
    let mount = mounting.mount();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(standing(&server, &mount)["gathering"], true);
    assert_eq!(server.revision(&id), revision);
    fs::write(mount.at("b"), "b").unwrap();
    ctl(&server, &mount, &["commit"]).expect(0);
    assert_eq!(server.revision(&id), revision + 1);
    assert!(published(&server, "a").is_some() && published(&server, "b").is_some());
    assert_eq!(standing(&server, &mount)["gathering"], false);
    mount.unmount();
    let mount = mounting.mount();
    fs::write(mount.at("c"), "c").unwrap();
    until(|| published(&server, "c").is_some());
    mount.unmount();
}

#[test]
fn f31_when_the_remote_is_back_what_waits_is_published_at_once() {
    let (mut server, _) = database();
    let mount = Mounting::owner(&server, "alice/d").args(&["--poll", "1", "--sync", "on-change"]).mount();
    server.kill();
    fs::write(mount.at("waits"), "waits").unwrap();
    // Until the next try is some time off.
    let far = |server: &Server| {
        let told = standing(server, &mount);
        let next: Option<jiff::Timestamp> = told["nextSync"].as_str().and_then(|time| time.parse().ok());
        let off = next.map(|next| next.as_second() - jiff::Timestamp::now().as_second());
        (told["state"] == "offline").then_some(off).flatten().unwrap_or(0)
    };
    until(|| far(&server) >= 8);
    server.crash_and_restart();
    let (back, off) = (Instant::now(), far(&server));
    until(|| published(&server, "waits").is_some());
    println!("published {:?} after the remote was back; the next try was {off} s off", back.elapsed());
    assert!(back.elapsed() < Duration::from_secs(5), "{:?}", back.elapsed());
    mount.unmount();
}

#[test]
fn f34_a_pause_that_the_remote_asks_for_is_kept_though_it_answers_otherwise() {
    let (server, _) = database();
    let (address, commits) = (server.address.clone(), Arc::new(Mutex::new(Vec::new())));
    let seen = commits.clone();
    let proxy = Responder::start(move |incoming| {
        if incoming.target.starts_with("/api/sync/commit/") {
            let mut seen = seen.lock().unwrap();
            seen.push(Instant::now());
            if seen.len() == 1 {
                return crate::harness::answer(503, &[("Retry-After", "6")], b"busy");
            }
        }
        incoming.forward(&address).into()
    });
    let mount = through(&proxy, &server, "on-change").mount();
    fs::write(mount.at("a"), "a").unwrap();
    until(|| published(&server, "a").is_some());
    let commits = commits.lock().unwrap();
    let pause = commits[1] - commits[0];
    println!("asked again after {pause:?}");
    assert!(pause > Duration::from_millis(5500) && commits.len() == 2, "{pause:?}");
    drop(commits);
    mount.unmount();
}

#[test]
fn f31_a_poll_is_one_request() {
    let (server, _) = database();
    let (address, asked) = (server.address.clone(), Arc::new(AtomicU64::new(0)));
    let counted = asked.clone();
    let proxy = Responder::start(move |incoming| {
        if incoming.target.starts_with("/api/sync/events/") {
            return crate::harness::answer(404, &[], b"");
        }
        counted.fetch_add(1, Ordering::SeqCst);
        incoming.forward(&address).into()
    });
    let mount = through(&proxy, &server, "on-change").mount();
    fs::write(mount.at("a"), "a").unwrap();
    until(|| published(&server, "a").is_some());
    std::thread::sleep(Duration::from_secs(2));
    let before = (mount.stats().polls, asked.load(Ordering::SeqCst));
    std::thread::sleep(Duration::from_secs(5));
    let polls = mount.stats().polls - before.0;
    let requests = asked.load(Ordering::SeqCst) - before.1;
    println!("{polls} polls, {requests} requests");
    // One may be on its way.
    assert!(polls >= 3 && requests.abs_diff(polls) <= 1, "{polls} polls, {requests} requests");
    mount.unmount();
}

#[test]
fn f35_a_mount_with_nothing_to_publish_says_that_the_remote_is_away() {
    let (mut server, _) = database();
    let mount = on_change(&server).mount();
    until(|| standing(&server, &mount)["state"] == "success");
    server.kill();
    until(|| standing(&server, &mount)["state"] == "offline");
    let told = standing(&server, &mount);
    let message = told["lastError"]["message"].as_str().unwrap();
    assert!(message.ends_with("it is tried again by itself"), "{message}");
    let failed = ctl(&server, &mount, &["sync"]).expect(6);
    assert!(!failed.stdout.contains("Nothing was to be published"), "{failed:?}");
    server.crash_and_restart();
    until(|| standing(&server, &mount)["state"] == "success");
    assert!(standing(&server, &mount)["lastError"].is_null());
    ctl(&server, &mount, &["sync"]).expect(0);
    mount.unmount();
}

/// Opens a file of `sys.argv[1]`, lets a conflict be decided meanwhile, and opens the next.
const SCAN: &str = r#"
import sys, os, time, json
root, beside = sys.argv[1], sys.argv[2]
def read(name):
    try: return open(os.path.join(root, name)).read()
    except OSError as error: return os.strerror(error.errno)
first = read("one")
open(os.path.join(beside, "opened"), "w").close()
while not os.path.exists(os.path.join(beside, "go")): time.sleep(0.01)
print(json.dumps([first, read("two")]))
"#;

#[test]
fn x1_a_scan_does_not_read_the_winner_of_one_conflict_and_the_loser_of_another() {
    let (server, id) = database();
    let mounting = by_hand(&server).args(&["--strategy", "remote-wins"]);
    let mount = mounting.mount();
    let beside = tempfile::tempdir().unwrap();
    for name in ["one", "two"] {
        fs::write(mount.at(name), format!("my {name}")).unwrap();
    }
    server.publish(&id, &[("one", b"their one"), ("two", b"their two")]);
    until(|| {
        crate::harness::xattr(&mount.path(), "user.parquedb.revision").is_ok_and(|number| number == "2")
    });
    let root = mount.path();
    let scan = std::thread::scope(|scope| {
        let scan = scope.spawn(|| python(SCAN, &[&root, beside.path()]));
        until(|| beside.path().join("opened").exists());
        sync(&server, &mount);
        fs::write(beside.path().join("go"), "").unwrap();
        scan.join().unwrap()
    });
    assert_eq!(scan[0], "my one");
    assert!(scan[1] == "Stale file handle" || scan[1] == "my two", "{scan}");
    let other = tempfile::tempdir().unwrap();
    fs::write(other.path().join("go"), "").unwrap();
    let after = python(SCAN, &[&root, other.path()]);
    assert_eq!((&after[0], &after[1]), (&"their one".into(), &"their two".into()));
    mount.unmount();
}

#[test]
fn who_mounts_again_at_once_waits_for_the_last_daemon_and_shows_what_it_has_published() {
    let (server, _) = database();
    let proxy = slow(&server, Duration::from_millis(700));
    let mounting = through(&proxy, &server, "on-change");
    let (mut mount, mut earlier) = (mounting.mount(), Vec::new());
    for (round, gone) in ["one", "two", "dir/x", "dir/y"].into_iter().enumerate() {
        let text = format!("in round {round}");
        fs::write(mount.at("new"), &text).unwrap();
        fs::remove_file(mount.at(gone)).unwrap();
        mount.take_away();
        // What watches over it would take away the next one.
        earlier.push(mount);
        if round % 2 == 1 {
            // Who begins while the other one ends must not go by what was so before that.
            std::thread::sleep(Duration::from_millis(400));
        }
        mount = mounting.mount();
        assert_eq!(published(&server, "new").unwrap(), text.as_bytes());
        assert_eq!(published(&server, gone), None);
        assert_eq!(mount.read("new").unwrap(), text.as_bytes());
        assert!(!mount.at(gone).exists(), "{gone}");
    }
    mount.unmount();
}

#[test]
fn what_comes_to_a_removed_files_place_during_a_round_and_is_moved_away_keeps_what_was_written() {
    let (server, id) = database();
    let proxy = slow(&server, Duration::from_millis(1500));
    let mount = through(&proxy, &server, "manual").mount();
    // Removed here, edited there: the edit stays.
    fs::remove_file(mount.at("one")).unwrap();
    fs::write(mount.at("other"), "other").unwrap();
    server.publish(&id, &[("one", b"theirs")]);
    until(|| mount.read("one").is_ok_and(|read| read == b"theirs"));
    let path = mount.path();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(|| ctl(&server, &mount, &["sync"]));
        std::thread::sleep(Duration::from_millis(1000));
        fs::write(path.join("one"), "mine").unwrap();
        fs::rename(path.join("one"), path.join("moved")).unwrap();
        syncing.join().unwrap().expect(0);
    });
    assert!(!mount.at("one").exists(), "it was moved away");
    fs::write(mount.at("one"), "another one").unwrap();
    assert_eq!(mount.read("moved").unwrap(), b"mine");
    sync(&server, &mount);
    assert_eq!(published(&server, "moved").unwrap(), b"mine");
    assert_eq!(published(&server, "one").unwrap(), b"another one");
    mount.unmount();
}
