//! F01, F06: a mount's life from its start to its end: when it is said to be there, what the daemon is, and how it
//! goes.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{assert_right, database_of, errno};
use crate::harness::{Mounting, Responder, run_to_end, until};

const FILES: &[(&str, usize)] = &[("dir/x", 100_000), ("y", 10)];

/// Unmounts it, and waits until its daemon has ended.
fn end(mounting: &Mounting) {
    assert!(Command::new("fusermount3").arg("-u").arg(mounting.path()).status().unwrap().success());
    until(|| mounting.serving().is_empty());
}

#[test]
fn f01_status_0_means_that_the_mount_answers() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    for _ in 0..5 {
        // In the same breath, by another program.
        let command = mounting.command(&["sh", "-c", r#""$@" >&2 && eval "dir=\$$#" && cat "$dir/y""#, "sh"]);
        let ended = run_to_end(&mut { command }, b"");
        assert_eq!(ended.code, 0, "{}", ended.stderr);
        assert!(ended.stdout == String::from_utf8_lossy(&files[1].1));
        end(&mounting);
    }
}

#[test]
fn f01_it_tells_how_to_unmount_and_says_nothing_when_quiet() {
    let (server, _) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let told = mounting.run().expect(0).stdout;
    assert!(told.contains(&format!("fusermount3 -u {}", mounting.path().display())), "{told}");
    end(&mounting);
    assert_eq!(mounting.clone().arg("--quiet").run().expect(0).stdout, "");
    end(&mounting);
    let json = mounting.clone().arg("--json").run().expect(0).json();
    assert_eq!(
        (&json["database"], &json["mountpoint"]),
        (&"alice/d".into(), &mounting.path().to_str().into())
    );
    end(&mounting);
}

#[test]
fn f01_at_a_terminal_it_says_where_to_look_when_it_takes_long() {
    let (server, _) = database_of(FILES);
    let address = server.address.clone();
    let slow = Responder::start(move |incoming| {
        std::thread::sleep(Duration::from_secs(6));
        incoming.forward(&address).into()
    });
    let mounting = Mounting::at(&slow.url(), "alice/d");
    let command = mounting.command(&["sh", "-c", r#"exec script -qec "$*" /dev/null"#, "sh"]);
    let ended = run_to_end(&mut { command }, b"");
    assert_eq!(ended.code, 0, "{}", ended.stdout);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(
        matches!(lines[..], [early, mounted] if early.contains("does not answer yet")
            && early.contains(mounting.state().join("mount-alice-d.log").to_str().unwrap())
            && mounted.contains("is mounted")),
        "{lines:?}"
    );
    let log = fs::read_to_string(mounting.state().join("mount-alice-d.log")).unwrap();
    assert!(log.contains("asking the remote") && log.contains(&slow.url()), "{log}");
    end(&mounting);
}

#[test]
fn mount_options_are_what_mount_8_has() {
    let (server, _) = database_of(FILES);
    // As a table of mounts has them.
    let options = "rw,noexec,noatime,nosuid,nodev,relatime,_netdev,nofail,x-systemd.automount";
    let mount = Mounting::at(&server.url(), "alice/d").args(&["-o", options]).mount();
    let of_mount = mount.entry().unwrap()[5].clone();
    for option in ["rw", "noexec", "noatime", "nosuid", "nodev"] {
        assert!(of_mount.split(',').any(|one| one == option), "{option}: {of_mount}");
    }
    fs::write(mount.at("new"), "new").unwrap();
    assert_eq!(mount.read("new").unwrap(), b"new");
    mount.unmount();
    for (options, is_read_only) in
        [("ro", true), ("max_read=131072,rw,ro,", true), ("ro,noexec,exec,rw", false)]
    {
        let mount = Mounting::at(&server.url(), "alice/d").args(&["-o", options]).mount();
        let written = fs::write(mount.at("new"), "new");
        assert_eq!(errno(written), is_read_only.then_some(libc::EROFS), "{options}");
        assert!(!mount.entry().unwrap()[5].contains("noexec"), "{options}");
        mount.unmount();
    }
}

#[test]
fn the_daemon_holds_on_to_nothing_it_was_started_with() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    let proc = |name: &str| format!("/proc/{}/{name}", mount.pid().as_raw_nonzero());
    let link = |name: &str| fs::read_link(proc(name)).unwrap();
    assert_eq!(link("cwd"), std::path::Path::new("/"), "no directory is kept busy");
    assert_eq!((link("fd/0"), link("fd/1")), ("/dev/null".into(), "/dev/null".into()));
    assert!(link("fd/2").starts_with(mounting.beside().join("state")), "it writes to its log");
    let stat = fs::read_to_string(proc("stat")).unwrap();
    let words: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!((words[4], words[1]), ("0", "1"), "without a terminal, and nobody's child: {stat}");
    assert_right(&mount.path(), &files);
    mount.unmount();
}

#[test]
fn it_starts_with_its_standard_streams_closed() {
    let (server, files) = database_of(FILES);
    for closed in ["<&-", ">&-", "2>&-", "<&- >&-", "<&- >&- 2>&-"] {
        let mounting = Mounting::at(&server.url(), "alice/d");
        let mut command = mounting.command(&["sh", "-c", &format!(r#""$@" {closed}"#), "sh"]);
        assert_eq!(run_to_end(&mut command, b"").code, 0, "{closed}");
        assert_right(&mounting.path(), &files);
        // And the failure is told by the status alone.
        let mut again = mounting.command(&["sh", "-c", &format!(r#""$@" {closed}"#), "sh"]);
        assert_eq!(run_to_end(&mut again, b"").code, 2, "{closed}");
    }
}

#[test]
fn unmounting_ends_the_daemon() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    mount.unmount();
    let mount = mounting.foreground();
    assert_right(&mount.path(), &files);
    mount.unmount();
    let log = fs::read_to_string(mounting.beside().join("stderr")).unwrap();
    assert!(log.contains("unmounted"), "{log}");
}

#[test]
fn a_signal_ends_the_daemon_and_its_mount() {
    let (server, files) = database_of(FILES);
    for signal in [Signal::TERM, Signal::INT] {
        for foreground in [false, true] {
            let mounting = Mounting::at(&server.url(), "alice/d");
            let mount = if foreground { mounting.foreground() } else { mounting.mount() };
            assert_right(&mount.path(), &files);
            let began = Instant::now();
            mount.signal(signal);
            mount.ended();
            assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        }
    }
}

#[test]
fn a_signal_leaves_open_files_some_time_and_not_more() {
    let (server, files) = database_of(&[("x", 3 << 20)]);
    let mount = Mounting::at(&server.url(), "alice/d").foreground();
    let open = File::open(mount.at("x")).unwrap();
    let mut buffer = [0; 100];
    open.read_exact_at(&mut buffer, 0).unwrap();
    let began = Instant::now();
    mount.signal(Signal::TERM);
    until(|| mount.entry().is_none());
    std::thread::sleep(Duration::from_secs(2));
    open.read_exact_at(&mut buffer, 2 << 20).unwrap();
    assert!(buffer == files[0].1[2 << 20..][..100], "what is open reads on for a while");
    mount.ended();
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(errno(open.read_exact_at(&mut buffer, 1 << 20)).is_some(), "and then fails, and does not hang");

    // Whoever closes in time is not waited for.
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    let open = File::open(mount.at("x")).unwrap();
    let began = Instant::now();
    mount.signal(Signal::TERM);
    until(|| mount.entry().is_none());
    drop(open);
    mount.ended();
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
}

#[test]
fn f24_a_dead_daemons_mount_is_cleared_at_the_next_start() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    mounting.mount().kill9();
    until(|| errno(fs::metadata(mounting.path().join("y"))) == Some(libc::ENOTCONN));
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    // With a file still open in it.
    let _open = File::open(mount.at("y")).unwrap();
    mount.kill9();
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    mount.unmount();
}

#[test]
fn a_mount_is_busy_while_someone_works_in_it() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    let open = File::open(mount.at("y")).unwrap();
    let refused = run_to_end(Command::new("fusermount3").arg("-u").arg(mount.path()), b"");
    assert_ne!(refused.code, 0);
    assert_right(&mount.path(), &files);
    drop(open);
    mount.unmount();
}
