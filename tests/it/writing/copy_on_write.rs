//! The first write to a remote file copies nothing (rule 19), and the rest comes beside it in the background.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{database, mounting};
use crate::harness::{Mount, Mounting, Responder, noise, until};

#[test]
fn rule_19_the_first_write_copies_nothing() {
    let (server, id) = database();
    let huge = noise(3, 64 << 20);
    server.publish(&id, &[("huge", &huge)]);
    let mount = mounting(&server).mount();
    let before = mount.stats();
    let file = File::options().read(true).write(true).open(mount.at("huge")).unwrap();
    file.write_all_at(b"changed", 10_000_000).unwrap();
    file.write_all_at(b"beyond", (64 << 20) + 100).unwrap();
    file.sync_all().unwrap();
    let after = mount.stats();
    assert_eq!(after.bytes_fetched - before.bytes_fetched, 0, "nothing was fetched");
    let mut expected = huge;
    expected[10_000_000..10_000_007].copy_from_slice(b"changed");
    expected.resize((64 << 20) + 100, 0);
    expected.extend_from_slice(b"beyond");
    let mut around = vec![0; 200_000];
    file.read_exact_at(&mut around, 9_900_000).unwrap();
    assert_eq!(around, &expected[9_900_000..10_100_000]);
    // What shows through comes beside it, and then the remote is not needed.
    until(|| {
        server.status(&mount).contains("changed") && !server.status(&mount).contains("with the remote only")
    });
    drop(server);
    assert!(mount.read("huge").unwrap() == expected);
}

#[test]
fn rule_19_a_rename_of_a_remote_file_or_directory_moves_no_bytes() {
    let (server, _) = database();
    let mount = mounting(&server).mount();
    let before = mount.stats();
    fs::rename(mount.at("large"), mount.at("larger")).unwrap();
    fs::rename(mount.at("dir"), mount.at("directory")).unwrap();
    fs::hard_link(mount.at("larger"), mount.at("largest")).unwrap();
    assert_eq!(mount.stats().bytes_fetched, before.bytes_fetched);
    assert_eq!(mount.read("largest").unwrap(), noise(7, 3 << 20));
    assert_eq!(mount.read("directory/two").unwrap(), b"two");
}

#[test]
fn a_file_is_composed_of_what_was_written_and_what_shows_through() {
    let (server, _) = database();
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let mounting = mounting(&server).arg(flag);
        let mount = mounting.mount();
        let mut expected = noise(7, 3 << 20);
        let file = File::options().read(true).write(true).open(mount.at("large")).unwrap();
        let mut write = |at: usize, bytes: &[u8]| {
            file.write_all_at(bytes, at as u64).unwrap();
            expected[at..at + bytes.len()].copy_from_slice(bytes);
        };
        write(0, b"first");
        write(3, b"over");
        write((3 << 20) - 4, b"last");
        for n in 0..50 {
            write(n * 60_000 + 13, &noise(n as u64, 700));
        }
        assert!(fs::read(mount.at("large")).unwrap() == expected);
        // Shorter, and longer again: what was cut off is gone for good.
        file.set_len(1_000_000).unwrap();
        file.set_len(1_500_000).unwrap();
        expected.truncate(1_000_000);
        expected.resize(1_500_000, 0);
        assert!(fs::read(mount.at("large")).unwrap() == expected);
        drop(file);
        mount.kill9();
        let mount = mounting.mount();
        assert!(fs::read(mount.at("large")).unwrap() == expected);
        mount.unmount();
        let mount = mounting.mount();
        assert!(fs::read(mount.at("large")).unwrap() == expected);
    }
}

/// What programs do that has nothing to wait for; how long it took.
fn work(mount: &Mount) -> Duration {
    let began = Instant::now();
    for n in 0..200 {
        let name = mount.at(&format!("new-{n}"));
        fs::write(&name, "bytes").unwrap();
        fs::rename(&name, mount.at(&format!("renamed-{n}"))).unwrap();
    }
    let file = File::options().write(true).open(mount.at("large")).unwrap();
    file.write_all_at(b"offline", 5).unwrap();
    file.sync_all().unwrap();
    fs::remove_file(mount.at("text")).unwrap();
    fs::rename(mount.at("dir"), mount.at("other")).unwrap();
    let took = began.elapsed();
    let mut read = [0; 7];
    File::open(mount.at("large")).unwrap().read_exact_at(&mut read, 5).unwrap();
    assert_eq!(&read, b"offline");
    took
}

#[test]
fn f30_writing_is_as_fast_when_the_remote_is_slow_or_gone() {
    let delay = Duration::from_secs(2);
    let (server, _) = database();
    let at_hand = work(&mounting(&server).mount());

    let (other, _) = database();
    let mount = mounting(&other).args(&["--read-timeout", "2"]).mount();
    drop(other);
    let gone = work(&mount);

    let slow = Arc::new(AtomicBool::new(false));
    let (address, is_slow) = (server.address.clone(), slow.clone());
    let proxy = Responder::start(move |request| {
        if is_slow.load(Ordering::SeqCst) {
            std::thread::sleep(delay);
        }
        request.forward(&address).into()
    });
    let mount = Mounting::at(&proxy.url(), "alice/d").args(&["--poll", "0.3"]).mount();
    slow.store(true, Ordering::SeqCst);
    let began = Instant::now();
    mount.read("only/one").unwrap();
    assert!(began.elapsed() >= delay, "it is slow: {:?}", began.elapsed());
    let delayed = work(&mount);
    mount.unmount();
    println!("at hand {at_hand:?}, delayed by {delay:?} {delayed:?}, gone {gone:?}");
    // One that waited for it once would take longer.
    assert!(delayed < delay && gone < delay, "{delayed:?}, {gone:?}");
}
