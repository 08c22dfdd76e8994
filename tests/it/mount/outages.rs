//! F06: the server gone. What is cached reads on, everything else fails in time, and nothing hangs.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use super::proxy::Proxy;
use super::{assert_right, database_of, errno, impatient, read_directly};
use crate::harness::{Mount, Mounting, Server, answer, bytes_of, started_with, until};

const MIB: usize = 1 << 20;
/// Two seconds, as the mounts here are told, and one more.
const IN_TIME: Duration = Duration::from_secs(3);
const FILES: &[(&str, usize)] = &[("cached", 3 * MIB), ("partly", 8 * MIB), ("never", 100_000)];

/// Reads one file whole, and the beginning of another.
fn warm_up(mount: &Mount, files: &[(String, Vec<u8>)]) {
    assert!(mount.read("cached").unwrap() == files[0].1);
    assert!(read_directly(&mount.at("partly"), 0, 4096).unwrap() == files[1].1[..4096]);
}

/// What must hold while the server does not answer.
#[track_caller]
fn assert_survives(mount: &Mount, files: &[(String, Vec<u8>)]) {
    assert!(read_directly(&mount.at("cached"), 0, 3 * MIB).unwrap() == files[0].1, "cached bytes read on");
    assert!(read_directly(&mount.at("partly"), 100, 3000).unwrap() == files[1].1[100..3100]);
    for (name, offset) in [("partly", 6 * MIB as u64), ("never", 0), ("never", 50_000)] {
        let began = Instant::now();
        assert_eq!(errno(read_directly(&mount.at(name), offset, 100)), Some(libc::EIO), "{name}");
        assert!(began.elapsed() < IN_TIME, "{name}: {:?}", began.elapsed());
    }
    // The kernel asks twice for what it reads through its own pages.
    let began = Instant::now();
    assert_eq!(errno(mount.read("never")), Some(libc::EIO));
    assert!(began.elapsed() < IN_TIME, "{:?}", began.elapsed());
    let names: Vec<_> = fs::read_dir(mount.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["cached", "never", "partly"]);
    assert_eq!(fs::metadata(mount.at("never")).unwrap().len(), 100_000);
}

#[test]
fn f06_the_server_dies_and_returns() {
    let (mut server, files) = database_of(FILES);
    let mount = impatient(&server.url()).mount();
    warm_up(&mount, &files);
    server.kill();
    assert_survives(&mount, &files);
    server.crash_and_restart();
    assert_right(&mount.path(), &files);
    server.kill();
    assert!(bytes_of(&mount.path()).len() == 3, "everything is cached now");
    mount.unmount();
}

#[test]
fn f06_a_server_that_hangs_is_as_good_as_dead() {
    let (server, files) = database_of(FILES);
    let mount = impatient(&server.url()).mount();
    warm_up(&mount, &files);
    let pid = pid_of(&server);
    kill_process(pid, Signal::STOP).unwrap();
    assert_survives(&mount, &files);
    kill_process(pid, Signal::CONT).unwrap();
    assert_right(&mount.path(), &files);
    mount.unmount();
}

#[test]
fn f06_a_mount_without_its_server_ends_when_told_to() {
    for by_signal in [false, true] {
        let (server, files) = database_of(FILES);
        let mount = Mounting::at(&server.url(), "alice/d").args(&["--read-timeout", "60"]).mount();
        warm_up(&mount, &files);
        kill_process(pid_of(&server), Signal::STOP).unwrap();
        // Someone waits for bytes that do not come.
        let (never, sent) = (mount.at("never"), mount.stats().requests + 1);
        let reader = std::thread::spawn(move || fs::read(never));
        until(|| mount.stats().requests >= sent);
        let began = Instant::now();
        if by_signal {
            mount.sigterm();
        } else {
            let lazily = std::process::Command::new("fusermount3").arg("-uz").arg(mount.path()).status();
            assert!(lazily.unwrap().success());
            assert_eq!(mount.entry(), None);
            mount.signal(Signal::TERM);
            mount.ended();
        }
        assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
        assert!(reader.join().unwrap().is_err(), "the reader gets an error, not silence");
    }
}

#[test]
fn f06_a_server_that_refuses_is_no_reason_to_forget() {
    let (server, files) = database_of(FILES);
    for (status, number) in
        [(401, libc::EACCES), (403, libc::EACCES), (404, libc::ESTALE), (412, libc::ESTALE)]
    {
        let proxy = Proxy::before(&server);
        let mount = impatient(&proxy.url()).mount();
        warm_up(&mount, &files);
        proxy
            .spoil(move |_, _| answer(status, &[("Content-Type", "application/json")], br#"{"error":"no"}"#));
        let before = mount.stats();
        assert_eq!(errno(mount.read("never")), Some(number), "{status}");
        assert_eq!(errno(read_directly(&mount.at("partly"), 6 << 20, 100)), Some(number), "{status}");
        assert!(
            mount.stats().requests <= before.requests + 3,
            "{status} is final: it is not asked again and again"
        );
        assert!(read_directly(&mount.at("cached"), 0, 3 * MIB).unwrap() == files[0].1);
        assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 3, "nothing disappears");
        proxy.honest();
        assert_right(&mount.path(), &files);
    }
}

/// The server's process, by its store.
fn pid_of(server: &Server) -> rustix::process::Pid {
    let started = started_with("parquedb", Path::new(&server.store()));
    let [pid] = started[..] else { panic!("{started:?}") };
    pid
}
