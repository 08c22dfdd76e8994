//! The remote, the network or the daemon goes away in the middle: nothing is lost, and nothing is published twice.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{by_hand, ctl, database, pending, published, sync};
use crate::harness::{Mounting, Reply, Responder, Server, until};

/// Passes everything on but the stream of events, and every answer to what begins with `path` while `lost` is above 0; the server
/// has heard it.
fn losing_answers(server: &Server, path: &'static str) -> (Responder, Arc<AtomicU32>) {
    losing_answers_of_one_without(server, path, &["/api/sync/events/"])
}

/// The same, before a server that does not have those routes.
fn losing_answers_of_one_without(
    server: &Server,
    path: &'static str,
    without: &'static [&'static str],
) -> (Responder, Arc<AtomicU32>) {
    let (address, lost) = (server.address.clone(), Arc::new(AtomicU32::new(0)));
    let left = lost.clone();
    let proxy = Responder::start(move |incoming| {
        if without.iter().any(|route| incoming.target.starts_with(route)) {
            return crate::harness::answer(404, &[], b"");
        }
        let response = incoming.forward(&address);
        let loses = incoming.target.starts_with(path)
            && left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if loses { Reply::HangUp } else { response.into() }
    });
    (proxy, lost)
}

fn through(proxy: &Responder, server: &Server) -> Mounting {
    super::through(proxy, server).args(&["--poll", "0.3", "--sync", "manual"])
}

#[test]
fn rule_3_a_commit_whose_answer_was_lost_is_known_and_what_was_edited_since_goes_on_top() {
    let (server, id) = database();
    let (proxy, lost) = losing_answers(&server, "/api/sync/commit/");
    let mount = through(&proxy, &server).mount();
    fs::write(mount.at("new"), "first").unwrap();
    fs::remove_file(mount.at("two")).unwrap();
    let revision = server.revision(&id);
    lost.store(100, Ordering::SeqCst);
    ctl(&server, &mount, &["sync"]).expect(6);
    assert_eq!(server.revision(&id), revision + 1, "it has landed");
    // Meanwhile both are changed again, here; and elsewhere another one.
    fs::write(mount.at("new"), "second").unwrap();
    fs::write(mount.at("two"), "back").unwrap();
    lost.store(0, Ordering::SeqCst);
    server.publish(&id, &[("other", b"other")]);
    sync(&server, &mount);
    assert_eq!(server.revision(&id), revision + 3, "no revision twice");
    assert_eq!(published(&server, "new").unwrap(), b"second");
    assert_eq!(published(&server, "two").unwrap(), b"back");
    until(|| mount.read("other").is_ok_and(|read| read == b"other"));
    let told = ctl(&server, &mount, &["sync", "--json"]).expect(0).json();
    assert_eq!(
        told["status"]["conflicts"].as_array().unwrap().len(),
        0,
        "nobody was in conflict with himself"
    );
    mount.unmount();
}

#[test]
fn rule_3_a_daemon_that_was_killed_before_it_heard_knows_its_commit_again() {
    for then in ["edits", "removes", "leaves"] {
        let (server, id) = database();
        let (proxy, lost) = losing_answers(&server, "/api/sync/commit/");
        let mounting = through(&proxy, &server);
        let mount = mounting.mount();
        fs::write(mount.at("one"), "first").unwrap();
        fs::remove_file(mount.at("two")).unwrap();
        lost.store(100, Ordering::SeqCst);
        ctl(&server, &mount, &["sync"]).expect(6);
        match then {
            "edits" => fs::write(mount.at("one"), "second").unwrap(),
            "removes" => fs::remove_file(mount.at("one")).unwrap(),
            _ => {}
        }
        lost.store(0, Ordering::SeqCst);
        mount.kill9();
        let mount = mounting.mount();
        assert!(!mount.at("two").exists());
        sync(&server, &mount);
        let expected = match then {
            "edits" => Some(b"second".to_vec()),
            "removes" => None,
            _ => Some(b"first".to_vec()),
        };
        assert_eq!((published(&server, "one"), published(&server, "two")), (expected, None), "{then}");
        let told = ctl(&server, &mount, &["sync", "--json"]).expect(0).json();
        assert_eq!(told["status"]["conflicts"].as_array().unwrap().len(), 0, "{then}: {told}");
        assert_eq!(pending(&server, &mount.path()), 0, "{then}");
        assert!(server.revision(&id) <= 3, "{then}");
        mount.unmount();
    }
}

#[test]
fn rule_3_a_commit_whose_answer_was_lost_is_known_again_where_the_remote_tells_only_of_all_there_is() {
    for killed in [false, true] {
        let (server, id) = database();
        let without = &["/api/sync/events/", "/api/sync/changes/"];
        let (proxy, lost) = losing_answers_of_one_without(&server, "/api/sync/commit/", without);
        let mounting = through(&proxy, &server);
        let mount = mounting.mount();
        fs::write(mount.at("new"), "mine").unwrap();
        fs::write(mount.at("one"), "changed").unwrap();
        fs::write(mount.at("again"), "first").unwrap();
        fs::remove_file(mount.at("two")).unwrap();
        lost.store(1000, Ordering::SeqCst);
        ctl(&server, &mount, &["sync"]).expect(6);
        let base = server.revision(&id);
        assert_eq!(published(&server, "new").unwrap(), b"mine", "it has landed");
        // Others go on from there, and so does somebody here.
        let put = [("new", &b"theirs"[..]), ("other", b"other")].map(|(path, bytes)| {
            server.upload(&id, path, bytes);
            crate::harness::put_entry(path, bytes)
        });
        server.commit(&id, "their-commit", base, &put, &["dir/x"]).expect(200);
        fs::write(mount.at("again"), "second").unwrap();
        let mount = if killed {
            mount.kill9();
            mounting.mount()
        } else {
            mount
        };
        lost.store(0, Ordering::SeqCst);
        sync(&server, &mount);
        let expected: [(&str, Option<&[u8]>); 6] = [
            ("new", Some(b"theirs")),
            ("one", Some(b"changed")),
            ("again", Some(b"second")),
            ("two", None),
            ("other", Some(b"other")),
            ("dir/x", None),
        ];
        for (path, bytes) in expected {
            assert_eq!(published(&server, path).as_deref(), bytes, "{path}, killed: {killed}");
            until(|| mount.read(path).ok().as_deref() == bytes);
        }
        let told = ctl(&server, &mount, &["sync", "--json"]).expect(0).json();
        assert_eq!(told["status"]["conflicts"].as_array().unwrap().len(), 0, "killed: {killed}: {told}");
        assert_eq!(pending(&server, &mount.path()), 0, "killed: {killed}");
        assert_eq!(server.revision(&id), base + 2, "killed: {killed}");
        mount.unmount();
    }
}

#[test]
fn rule_3_a_commit_that_went_unheard_is_known_again_by_one_who_may_only_read_any_more() {
    for killed in [false, true] {
        let (server, id) = database();
        let (address, may) = (server.address.clone(), Arc::new(AtomicU32::new(0)));
        let (hears, loses, refused) = (0, 1, 2);
        let now = may.clone();
        let proxy = Responder::start(move |incoming| {
            if incoming.target.starts_with("/api/sync/events/") {
                return crate::harness::answer(404, &[], b"");
            }
            let may = now.load(Ordering::SeqCst);
            match incoming.target.starts_with("/api/sync/commit/") {
                true if may == refused => crate::harness::answer(403, &[], b""),
                true if may == loses => {
                    incoming.forward(&address);
                    Reply::HangUp
                }
                _ => incoming.forward(&address).into(),
            }
        });
        let mounting = through(&proxy, &server);
        let mount = mounting.mount();
        fs::write(mount.at("new"), "mine").unwrap();
        fs::remove_file(mount.at("two")).unwrap();
        may.store(loses, Ordering::SeqCst);
        ctl(&server, &mount, &["sync"]).expect(6);
        assert_eq!(published(&server, "new").unwrap(), b"mine", "it has landed");
        server.publish(&id, &[("other", b"other")]);
        fs::remove_file(mount.at("new")).unwrap();
        may.store(refused, Ordering::SeqCst);
        let mount = if killed {
            mount.kill9();
            mounting.mount()
        } else {
            mount
        };
        // News come, and nothing that was removed comes with them.
        until(|| {
            assert!(!mount.at("new").exists() && !mount.at("two").exists(), "killed: {killed}");
            mount.at("other").exists()
        });
        assert_eq!(pending(&server, &mount.path()), 1, "what was removed since; killed: {killed}");
        let told = ctl(&server, &mount, &["sync"]).expect(4);
        assert!(told.stderr.contains("answers HTTP 403"), "{told:?}");
        may.store(hears, Ordering::SeqCst);
        sync(&server, &mount);
        assert_eq!(server.paths("d"), ["data/t/a.bin", "dir/x", "dir/y", "one", "other"], "{killed}");
        mount.unmount();
    }
}

#[test]
fn rule_3_what_was_published_unheard_and_is_removed_after_a_restart_does_not_return() {
    for heard_at_the_start in [true, false] {
        let (server, id) = database();
        let (proxy, lost) = losing_answers(&server, "/api/sync/commit/");
        let mounting = through(&proxy, &server);
        let mount = mounting.mount();
        fs::write(mount.at("new"), "new").unwrap();
        fs::write(mount.at("one"), "changed").unwrap();
        fs::rename(mount.at("dir/x"), mount.at("dir/moved")).unwrap();
        lost.store(1000, Ordering::SeqCst);
        ctl(&server, &mount, &["sync"]).expect(6);
        assert_eq!(published(&server, "new").unwrap(), b"new", "it has arrived");
        mount.kill9();
        lost.store(if heard_at_the_start { 0 } else { 1000 }, Ordering::SeqCst);
        let mount = mounting.mount();
        for name in ["new", "one", "dir/moved"] {
            fs::remove_file(mount.at(name)).unwrap();
            assert!(!mount.at(name).exists(), "{name}, heard: {heard_at_the_start}");
        }
        lost.store(0, Ordering::SeqCst);
        sync(&server, &mount);
        assert_eq!(server.paths("d"), ["data/t/a.bin", "dir/y", "two"], "heard: {heard_at_the_start}");
        for name in ["new", "one", "dir/moved", "dir/x"] {
            assert!(!mount.at(name).exists(), "{name}, heard: {heard_at_the_start}");
        }
        assert_eq!(server.revision(&id), 3);
        mount.unmount();
    }
}

#[test]
fn f34_what_could_not_be_published_is_kept_and_published_when_the_remote_is_back() {
    let (mut server, _) = database();
    let mount = super::on_change(&server).mount();
    server.kill();
    fs::write(mount.at("offline"), "written without the remote").unwrap();
    fs::rename(mount.at("dir/y"), mount.at("dir/renamed")).unwrap();
    let state = || {
        let told = crate::harness::Cli::owner(&server).run(&[
            "status",
            crate::harness::text(&mount.path()),
            "--json",
        ]);
        told.expect(0).json()["replicas"][0]["sync"]["state"].clone()
    };
    until(|| state() == "offline");
    assert_eq!(mount.read("offline").unwrap(), b"written without the remote");
    server.crash_and_restart();
    until(|| published(&server, "offline").is_some());
    assert_eq!(published(&server, "dir/renamed").unwrap(), b"yy");
    mount.unmount();
}

#[test]
fn a_round_is_killed_at_every_request_and_the_next_ends_it() {
    let (server, id) = database();
    let (address, seen) = (server.address.clone(), Arc::new(AtomicU32::new(0)));
    let stop_at = Arc::new(AtomicU32::new(u32::MAX));
    let (counting, stopping) = (seen.clone(), stop_at.clone());
    let proxy = Responder::start(move |incoming| {
        let changes = incoming.method != "GET" || incoming.target.starts_with("/api/sync/changes/");
        if incoming.target.starts_with("/api/sync/events/") {
            return crate::harness::answer(404, &[], b"");
        }
        if changes && counting.fetch_add(1, Ordering::SeqCst) + 1 >= stopping.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(300));
            return Reply::HangUp;
        }
        incoming.forward(&address).into()
    });
    let mounting = Mounting::at(&proxy.url(), "alice/d")
        .env("PARQUEDB_TOKEN", &server.token)
        .args(&["--poll", "0", "--sync", "manual"]);
    let mut killed = 0;
    for at in 1..12 {
        stop_at.store(u32::MAX, Ordering::SeqCst);
        let mount = mounting.mount();
        // What the round before had left.
        sync(&server, &mount);
        let text = format!("round {at}");
        for name in ["a", "b", "c"] {
            fs::write(mount.at(name), format!("{text} {name}")).unwrap();
        }
        let gone = format!("gone-{at}");
        fs::write(mount.at(&gone), "x").unwrap();
        fs::remove_file(mount.at(&format!("gone-{}", at - 1))).ok();
        seen.store(0, Ordering::SeqCst);
        stop_at.store(at, Ordering::SeqCst);
        let path = mount.path();
        let asking = std::thread::spawn({
            let cli = crate::harness::Cli::owner(&server);
            move || cli.run(&["ctl", "sync", crate::harness::text(&path)])
        });
        std::thread::sleep(Duration::from_millis(250));
        killed += u32::from(seen.load(Ordering::SeqCst) >= at);
        mount.kill9();
        let _ = asking.join();
        stop_at.store(u32::MAX, Ordering::SeqCst);
        let mount = mounting.mount();
        sync(&server, &mount);
        for name in ["a", "b", "c"] {
            assert_eq!(
                published(&server, name).unwrap(),
                format!("{text} {name}").into_bytes(),
                "killed at {at}"
            );
            assert_eq!(mount.read(name).unwrap(), format!("{text} {name}").into_bytes());
        }
        assert!(
            published(&server, &gone).is_some() && published(&server, &format!("gone-{}", at - 1)).is_none(),
            "{at}"
        );
        assert_eq!(pending(&server, &mount.path()), 0, "killed at {at}");
        mount.unmount();
    }
    println!("killed in the middle {killed} times; revision {}", server.revision(&id));
    assert!(killed >= 5, "rounds were in the middle {killed} times");
}

#[test]
fn a_server_that_was_rolled_back_is_not_published_to() {
    let (mut server, id) = database();
    let mounting = by_hand(&server);
    let mount = mounting.mount();
    fs::write(mount.at("a"), "a").unwrap();
    sync(&server, &mount);
    mount.unmount();
    server.kill();
    // The store goes back to the revision before.
    let newest = server.store().join(format!("databases/{id}/revisions/{:020}.json", 2));
    fs::remove_file(&newest).unwrap();
    server.crash_and_restart();
    let mount = mounting.mount();
    fs::write(mount.at("b"), "b").unwrap();
    let refused = ctl(&server, &mount, &["sync"]).expect(3);
    assert!(refused.stderr.contains("rolled back"), "{refused:?}");
    assert!(refused.stderr.contains("'--replica NAME'"), "what to do: {refused:?}");
    assert_eq!(server.revision(&id), 1);
    assert_eq!(mount.read("b").unwrap(), b"b");
    // What it says to do.
    let fresh = Mounting::owner(&server, "alice/d").args(&["--sync", "manual", "--replica", "fresh"]).mount();
    fs::copy(mount.at("b"), fresh.at("b")).unwrap();
    sync(&server, &fresh);
    assert_eq!(published(&server, "b").unwrap(), b"b");
    fresh.unmount();
    mount.unmount();
}

#[test]
fn rule_18_a_machine_that_stops_while_a_commit_is_under_way_takes_nothing_back() {
    let (server, id) = database();
    let (proxy, lost) = losing_answers(&server, "/api/sync/commit/");
    let mounting = through(&proxy, &server);
    let mount = mounting.mount();
    fs::write(mount.at("new"), "new").unwrap();
    fs::write(mount.at("one"), "edited").unwrap();
    fs::rename(mount.at("dir/x"), mount.at("dir/moved")).unwrap();
    lost.store(100, Ordering::SeqCst);
    ctl(&server, &mount, &["sync"]).expect(6);
    lost.store(0, Ordering::SeqCst);
    let state = crate::harness::xattr(&mount.path(), "user.parquedb.state").unwrap();
    mount.kill9();
    // What was not synced is gone: journals are not.
    for journal in ["journal-0", "journal-1"] {
        let path = std::path::Path::new(&state).join(journal);
        let length = usize::try_from(fs::metadata(&path).unwrap().len()).unwrap();
        fs::write(path, vec![0; length]).unwrap();
    }
    let mount = mounting.env("PARQUEDB_TEST_BOOT", "another-boot").mount();
    for _ in 0..2 {
        sync(&server, &mount);
    }
    assert_eq!(server.paths("d"), ["data/t/a.bin", "dir/moved", "dir/y", "new", "one", "two"]);
    for (path, bytes) in [("new", "new"), ("one", "edited"), ("dir/moved", "x")] {
        assert_eq!(published(&server, path).unwrap(), bytes.as_bytes(), "{path}");
        assert_eq!(mount.read(path).unwrap(), bytes.as_bytes(), "{path}");
    }
    assert_eq!(server.revision(&id), 2);
    mount.unmount();
}
