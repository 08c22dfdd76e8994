//! X4: the kernel is given the pages of complete files that are opened again and again, or read in small pieces; what it
//! was given is right, up to the last byte and whatever the remote does, and what it drops is read another way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use super::following::quick;
use super::modes::{Mapped, by_the_kernel_alone, forget_pages, until_by_the_kernel_alone, until_verified};
use super::versions::move_on;
use super::{assert_right, database_of, slice};
use crate::harness::{Mount, Mounting, noise, until};

const MIB: usize = 1 << 20;
const PAGE: usize = 4096;
const FIRST_PAGE: libc::off_t = 4096;

/// How many bytes of a file the kernel says are in memory, as engines ask it.
fn in_memory(file: &File, length: usize) -> usize {
    const CACHESTAT: libc::c_long = 451;
    let range = [0_u64, length as u64];
    let mut pages = [0_u64; 5];
    // SAFETY: both are as the call wants them: offset and length; five numbers, of which the first is wanted.
    let failed = unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), range.as_ptr(), pages.as_mut_ptr(), 0) };
    assert_eq!(failed, 0, "{}", io::Error::last_os_error());
    pages[0] as usize * PAGE
}

fn all(file: &File, bytes: &[u8]) -> bool {
    in_memory(file, bytes.len()) >= bytes.len()
}

/// Opens, reads and closes a file until the kernel has all of its pages.
#[track_caller]
fn until_kept(mount: &Mount, name: &str, bytes: &[u8]) {
    until(|| {
        let file = File::open(mount.at(name)).unwrap();
        assert_shows(&file, bytes);
        all(&file, bytes)
    });
}

fn assert_shows(file: &File, bytes: &[u8]) {
    let mut read = vec![0; bytes.len() + 1];
    assert_eq!(file.read_at(&mut read[..PAGE], bytes.len() as u64 - 5).unwrap(), 5);
    assert!(read[..5] == *slice(bytes, bytes.len() as u64 - 5, 5));
    file.read_exact_at(&mut read[..bytes.len()], 0).unwrap();
    assert!(read[..bytes.len()] == *bytes);
}

#[test]
fn x4_a_file_that_is_opened_again_is_in_memory_for_those_who_ask() {
    // Ends within a page, at its end, and small.
    let (server, files) = database_of(&[("x", 9 * MIB + 77), ("y", 9 * MIB), ("small", MIB)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    for (name, bytes) in &files {
        until_verified(&mounting, name, bytes);
        until_by_the_kernel_alone(&mount, name, bytes);
    }
    for (name, bytes) in &files[..2] {
        until_kept(&mount, name, bytes);
        // A moment later the last close is known, and the next open is of its pages.
        let pages = until_read_from_pages(&mount, name, bytes);
        by_the_kernel_alone(&mount, || {
            assert_shows(&pages, bytes);
            assert!(Mapped::of(&pages, bytes.len(), libc::MAP_SHARED).fresh_bytes() == *bytes);
        });
        // What the kernel drops goes through the daemon for those who have it open,
        forget_pages(&pages);
        let before = mount.stats().reads;
        assert_shows(&pages, bytes);
        assert!(mount.stats().reads > before);
        drop(pages);
        // and is read by the kernel itself by those who come next.
        until_by_the_kernel_alone(&mount, name, bytes);
    }
    let small = File::open(mount.at("small")).unwrap();
    forget_pages(&small);
    by_the_kernel_alone(&mount, || assert_shows(&small, &files[2].1));
    assert_eq!(in_memory(&small, MIB), 0);
    drop(small);
    mount.unmount();
}

/// A handle whose reads fill the kernel's pages of the file: dropped pages come back.
#[track_caller]
fn until_read_from_pages(mount: &Mount, name: &str, bytes: &[u8]) -> File {
    let mut found = None;
    until(|| {
        let file = File::open(mount.at(name)).unwrap();
        // SAFETY: only advice about an open file: its first page is dropped.
        unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, FIRST_PAGE, libc::POSIX_FADV_DONTNEED) };
        let mut first = [0; PAGE];
        file.read_exact_at(&mut first, 0).unwrap();
        assert!(first == bytes[..PAGE]);
        // Kept open, it would decide how the next one is opened.
        found = all(&file, bytes).then_some(file);
        found.is_some()
    });
    found.unwrap()
}

#[test]
fn x4_a_file_read_in_small_pieces_comes_whole() {
    let (server, files) = database_of(&[("x", 24 * MIB + 77)]);
    let (name, bytes) = &files[0];
    let mounting = Mounting::at(&server.url(), "alice/d").arg("--no-passthrough");
    let mount = mounting.mount();
    until_verified(&mounting, name, bytes);
    mount.unmount();
    // A new mount, of which the kernel has no pages.
    let mount = mounting.mount();
    let x = File::open(mount.at(name)).unwrap();
    assert_eq!(in_memory(&x, bytes.len()), 0);
    let read = |reader: u64, n: u64| {
        let dice = noise(reader << 32 | n, 8);
        let at = u64::from_le_bytes(dice[..].try_into().unwrap()) % bytes.len() as u64;
        let mut read = vec![0; PAGE];
        let count = x.read_at(&mut read, at).unwrap();
        assert!(read[..count] == *slice(bytes, at, PAGE), "{at}");
    };
    std::thread::scope(|scope| {
        for reader in 0..4 {
            scope.spawn(move || (0..2000).for_each(|n| read(reader, n)));
        }
    });
    until(|| all(&x, bytes));
    by_the_kernel_alone(&mount, || {
        assert_shows(&x, bytes);
        assert_right(&mount.path(), &files);
    });
    assert_eq!(mount.stats().bytes_fetched, 0);
    drop(x);
    mount.unmount();
}

#[test]
fn rule_20_what_is_stored_late_is_never_the_content_of_another_version() {
    let (server, files) = database_of(&[("x", 9 * MIB + 77)]);
    let mounting = quick(&server.url());
    let mount = mounting.mount();
    let mut bytes = files[0].1.clone();
    for revision in 1..5 {
        // Who had an older version open waits a moment for the next.
        until(|| File::open(mount.at("x")).is_ok());
        until_verified(&mounting, "x", &bytes);
        // Stored before, while or after the revision changes.
        (0..revision).for_each(|_| assert_shows(&File::open(mount.at("x")).unwrap(), &bytes));
        let held = File::open(mount.at("x")).unwrap();
        let next = noise(100 + revision, bytes.len());
        let stop = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                    let Ok(file) = File::open(mount.at("x")) else { continue };
                    let mut read = vec![0; bytes.len()];
                    if file.read_exact_at(&mut read, 0).is_ok() {
                        assert!(read == bytes || read == next, "two versions in one handle");
                    }
                }
            });
            move_on(&server, &mount, revision, &[("x", &next)], &[]);
            stop.store(true, std::sync::atomic::Ordering::SeqCst);
        });
        for _ in 0..2 {
            assert_shows(&held, &bytes);
            forget_pages(&held);
        }
        bytes = next;
    }
    until(|| File::open(mount.at("x")).is_ok());
    until_verified(&mounting, "x", &bytes);
    until_kept(&mount, "x", &bytes);
    assert_shows(&File::open(mount.at("x")).unwrap(), &bytes);
    mount.unmount();
}
