//! When a mount syncs, and what it tells of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{by_hand, ctl, database, on_change, pending, published};
use crate::harness::{Cli, Mount, Mounting, Server, text, until};

/// `parquedb ctl events`, line by line.
struct Events {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
    /// Its home.
    _cli: Cli,
}

impl Events {
    fn of(server: &Server, mount: &Mount) -> Self {
        let path = mount.path();
        let cli = Cli::owner(server);
        let mut command = cli.command(&["ctl", "events", text(&path)]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines, _cli: cli }
    }

    fn next(&mut self) -> Value {
        serde_json::from_str(&self.lines.next().unwrap().unwrap()).unwrap()
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn f32_a_change_is_published_soon_and_what_follows_closely_goes_with_it() {
    let (server, id) = database();
    let mount = on_change(&server).mount();
    let revision = server.revision(&id);
    for n in 0..10 {
        fs::write(mount.at(&format!("f{n}")), format!("{n}")).unwrap();
        std::thread::sleep(Duration::from_millis(100));
    }
    let written = Instant::now();
    until(|| published(&server, "f9").is_some());
    println!("published {:?} after the last write", written.elapsed());
    assert!(written.elapsed() > Duration::from_secs(1) && written.elapsed() < Duration::from_secs(15));
    assert_eq!(server.revision(&id), revision + 1, "F39: one window, one revision");
    until(|| pending(&server, &mount.path()) == 0);
    mount.unmount();
}

#[test]
fn f33_what_is_critical_is_published_first_and_the_rest_a_minute_later() {
    let (server, id) = database();
    let mounting = Mounting::owner(&server, "alice/d").args(&["--poll", "0.3", "--sync", "smart"]);
    let mounting = mounting.args(&["--critical-first", "*.parquet"]).lasting(Duration::from_secs(180));
    let mount = mounting.mount();
    let revision = server.revision(&id);
    let began = Instant::now();
    // Ten changes are many: by then these are there.
    for n in 0..2 {
        fs::write(mount.at(&format!("{n}.parquet")), "first").unwrap();
    }
    for n in 0..12 {
        fs::write(mount.at(&format!("{n}.txt")), "later").unwrap();
    }
    until(|| server.revision(&id) > revision);
    let first = server.paths("d");
    until(|| (0..2).all(|n| published(&server, &format!("{n}.parquet")).is_some()));
    assert!(!first.iter().any(|path| path.ends_with(".txt")), "{first:?}");
    let soon = began.elapsed();
    assert!(soon < Duration::from_secs(20), "{soon:?}");
    while published(&server, "5.txt").is_none() {
        assert!(began.elapsed() < Duration::from_secs(100), "the rest is never published");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("critical after {soon:?}, the rest after {:?}", began.elapsed());
    assert!(began.elapsed() > Duration::from_secs(55));
    until(|| pending(&server, &mount.path()) == 0);
    // When somebody says so, all of it goes at once.
    fs::write(mount.at("x.txt"), "x").unwrap();
    fs::write(mount.at("x.parquet"), "x").unwrap();
    let revision = server.revision(&id);
    super::sync(&server, &mount);
    assert_eq!(server.revision(&id), revision + 1);
    mount.unmount();
}

#[test]
fn f39_what_is_changed_between_begin_and_commit_is_one_revision() {
    let (server, id) = database();
    let mount = on_change(&server).mount();
    ctl(&server, &mount, &["begin"]).expect(0);
    let revision = server.revision(&id);
    fs::write(mount.at("a"), "a").unwrap();
    std::thread::sleep(Duration::from_secs(3));
    fs::write(mount.at("b"), "b").unwrap();
    fs::remove_file(mount.at("one")).unwrap();
    ctl(&server, &mount, &["sync"]).expect(3);
    assert_eq!(server.revision(&id), revision);
    ctl(&server, &mount, &["commit"]).expect(0);
    assert_eq!(server.revision(&id), revision + 1);
    assert_eq!(server.paths("d"), ["a", "b", "data/t/a.bin", "dir/x", "dir/y", "two"]);
    mount.unmount();
}

#[test]
fn f39_what_is_still_being_written_keeps_a_commit_from_being_half_of_it() {
    let (server, id) = database();
    let mount = by_hand(&server).args(&["--exclude", "*.log"]).mount();
    ctl(&server, &mount, &["begin"]).expect(0);
    fs::write(mount.at("a"), "a").unwrap();
    // Those that are not published keep nothing.
    let not_published = ["c.conflict", "x.log"].map(|name| fs::File::create(mount.at(name)).unwrap());
    let open = fs::File::create(mount.at("b")).unwrap();
    let revision = server.revision(&id);
    let refused = ctl(&server, &mount, &["commit"]).expect(3);
    assert!(refused.stderr.contains("'b' is open for writing"), "{refused:?}");
    assert_eq!(server.revision(&id), revision);
    drop(open);
    ctl(&server, &mount, &["commit"]).expect(0);
    assert_eq!(server.revision(&id), revision + 1);
    assert!(published(&server, "a").is_some() && published(&server, "b").is_some());
    let told = ctl(&server, &mount, &["sync", "--json"]).expect(0).json();
    assert_eq!(told["status"]["held"].as_array().unwrap().len(), 0, "{told}");
    drop(not_published);
    mount.unmount();
}

#[test]
fn f32_by_hand_means_by_hand_after_a_pause_too() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    let revision = server.revision(&id);
    ctl(&server, &mount, &["pause"]).expect(0);
    fs::write(mount.at("a"), "a").unwrap();
    ctl(&server, &mount, &["resume"]).expect(0);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(server.revision(&id), revision);
    super::sync(&server, &mount);
    assert_eq!(server.revision(&id), revision + 1);
    mount.unmount();
}

#[test]
fn f35_events_come_in_order_and_the_state_is_told() {
    let (mut server, _) = database();
    let mount = by_hand(&server).mount();
    let mut events = Events::of(&server, &mount);
    let first = events.next();
    assert_eq!((&first["database"], &first["state"]), (&"alice/d".into(), &"idle".into()), "{first}");
    fs::write(mount.at("a"), "a").unwrap();
    ctl(&server, &mount, &["sync"]).expect(0);
    assert_eq!(events.next()["event"], "sync:start");
    let end = events.next();
    assert_eq!(
        (&end["event"], &end["uploaded"], &end["deleted"]),
        (&"sync:end".into(), &1.into(), &0.into()),
        "{end}"
    );
    assert_eq!((end["bytesSent"].as_u64(), end["conflicts"].as_u64()), (Some(1), Some(0)), "{end}");
    fs::write(mount.at("a"), "b").unwrap();
    server.kill();
    ctl(&server, &mount, &["sync"]).expect(6);
    assert_eq!(events.next()["event"], "sync:start");
    let error = events.next();
    assert!(
        error["event"] == "error" && error["message"].as_str().is_some_and(|text| !text.is_empty()),
        "{error}"
    );
    let told = |args: &[&str]| Cli::owner(&server).run(args).expect(0);
    let path = mount.path();
    let status = told(&["status", text(&path), "--json"]).json();
    let sync = &status["replicas"][0]["sync"];
    assert_eq!((&sync["state"], &sync["pending"]), (&"offline".into(), &1.into()), "{sync}");
    assert!(sync["lastError"]["message"].is_string() && sync["lastSync"].is_string(), "{sync}");
    ctl(&server, &mount, &["pause"]).expect(0);
    let lines = told(&["status", text(&path)]).stdout;
    assert!(lines.contains("paused"), "{lines}");
    ctl(&server, &mount, &["resume"]).expect(0);
    mount.unmount();
}

#[test]
fn f38_unmounting_publishes_what_is_left_or_keeps_it_and_says_so() {
    let (mut server, _) = database();
    let mounting = on_change(&server);
    let mount = mounting.mount();
    fs::write(mount.at("last"), "last").unwrap();
    mount.unmount();
    assert_eq!(published(&server, "last").unwrap(), b"last");
    let mount = mounting.mount();
    fs::write(mount.at("more"), "more").unwrap();
    mount.sigterm();
    assert_eq!(published(&server, "more").unwrap(), b"more");
    // And without the remote: kept.
    let mount = mounting.foreground();
    fs::write(mount.at("kept"), "kept").unwrap();
    server.kill();
    let began = Instant::now();
    mount.sigterm();
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let log = fs::read_to_string(mounting.beside().join("stderr")).unwrap();
    assert!(log.contains("local changes are not published: they are kept"), "{log}");
    server.crash_and_restart();
    let mount = mounting.mount();
    assert_eq!(mount.read("kept").unwrap(), b"kept");
    until(|| published(&server, "kept").is_some());
    mount.unmount();
}

#[test]
fn f31_a_mount_that_starts_publishes_what_is_left() {
    let (server, _) = database();
    // The same place both times: as long as a dead daemon's mount is there, the kernel may write to its staged files.
    let mounting = Mounting::owner(&server, "alice/d");
    let mount = mounting.clone().args(&["--sync", "manual"]).mount();
    fs::write(mount.at("left"), "left").unwrap();
    mount.kill9();
    let mount = mounting.args(&["--sync", "on-change"]).mount();
    until(|| published(&server, "left").is_some());
    mount.unmount();
}

#[test]
fn ctl_says_what_is_wrong() {
    let (server, _) = database();
    let mount = by_hand(&server).mount();
    let nobody = Cli::owner(&server).run(&["ctl", "sync", "/tmp"]).expect(2);
    assert!(nobody.stderr.contains("is not mounted: name the directory"), "{nobody:?}");
    let read_only = Mounting::owner(&server, "alice/d").arg("--read-only").mount();
    let refused = ctl(&server, &read_only, &["sync"]).expect(2);
    assert!(refused.stderr.contains("is mounted read-only"), "{refused:?}");
    mount.unmount();
    read_only.unmount();
}

#[test]
fn an_idle_mount_costs_no_request_no_time_and_little_memory() {
    let (server, _) = database();
    let mount = Mounting::owner(&server, "alice/d").args(&["--sync", "on-change"]).mount();
    fs::write(mount.at("a"), "a").unwrap();
    until(|| published(&server, "a").is_some());
    let process = format!("/proc/{}", mount.pid().as_raw_nonzero());
    let ticks = || {
        let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
    };
    // It hears of its own revision, and asks once.
    std::thread::sleep(Duration::from_secs(3));
    let (before, spent) = (mount.stats(), ticks());
    std::thread::sleep(Duration::from_secs(6));
    let after = mount.stats();
    assert_eq!((after.polls, after.requests), (before.polls, before.requests));
    let status = fs::read_to_string(format!("{process}/status")).unwrap();
    let kib = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    let (spent, resident) = (ticks() - spent, kib("VmRSS:"));
    println!(
        "idle: {spent} ticks of 10 ms in 6 s, {resident} KiB resident, {} of them its own",
        kib("RssAnon:")
    );
    assert!(spent <= 3 && resident < 30 << 10, "{spent} ticks, {resident} KiB");
    mount.unmount();
}
