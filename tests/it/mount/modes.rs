//! Rule 20 and X4: what is complete and verified is read by the kernel itself, from the next open on; and however
//! handles of the two kinds follow on one another, a read gives the right bytes.

// What a run has measured is part of what it says.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::relay::Relay;
use super::{assert_right, database_of, plain_user, read_at_directly, slice};
use crate::harness::{Cli, Mount, Mounting, noise, sha256, text, until};

const MIB: usize = 1 << 20;

/// Reads a file until all of it lies in the cache, verified: what the cache was too busy to keep is kept the next time.
#[track_caller]
pub(super) fn until_verified(mounting: &Mounting, name: &str, bytes: &[u8]) {
    let path = mounting.path().join(name);
    let name = format!("{}-{}", sha256(bytes), bytes.len());
    let slots = mounting.cache().join("blocks-3/shared").join(&name[..2]).join(&name).join("slots");
    until(|| {
        assert!(fs::read(&path).unwrap() == bytes);
        let mut mark = [0; 8];
        File::open(&slots).is_ok_and(|file| file.read_exact_at(&mut mark, 32).is_ok()) && &mark == b"yes yes "
    });
}

/// A mapping of a whole file, shared or private, for reading.
pub(super) struct Mapped(*mut libc::c_void, usize);

impl Mapped {
    pub(super) fn of(file: &File, length: usize, flags: i32) -> Self {
        // SAFETY: a fresh read-only mapping, which lives until it is dropped.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, libc::PROT_READ, flags, file.as_raw_fd(), 0) };
        assert_ne!(start, libc::MAP_FAILED, "{}", std::io::Error::last_os_error());
        Self(start, length)
    }

    /// A copy of what it shows, once the kernel has dropped the pages it had of it.
    pub(super) fn fresh_bytes(&self) -> Vec<u8> {
        // SAFETY: the whole mapping, which is read-only: nothing is lost by dropping its pages, and nobody writes.
        unsafe {
            libc::madvise(self.0, self.1, libc::MADV_DONTNEED);
            std::slice::from_raw_parts(self.0.cast(), self.1).to_vec()
        }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that was made, of which nothing is borrowed.
        unsafe { libc::munmap(self.0, self.1) };
    }
}

/// Makes the kernel forget its pages of a file.
pub(super) fn forget_pages(file: &File) {
    // SAFETY: only advice about an open file.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
}

/// Fails unless this is read without the daemon.
#[track_caller]
pub(super) fn by_the_kernel_alone(mount: &Mount, read: impl FnOnce()) {
    // What the kernel reads ahead after an earlier read may still be on its way.
    let mut before = mount.stats().reads;
    until(|| {
        std::thread::sleep(Duration::from_millis(50));
        let now = mount.stats().reads;
        now == std::mem::replace(&mut before, now)
    });
    read();
    assert_eq!(mount.stats().reads, before, "the daemon was asked");
}

/// Reads a file until the daemon is not asked any more, not even for what the kernel has forgotten: a file that was
/// cached when the daemon began is checked once more first.
#[track_caller]
pub(super) fn until_by_the_kernel_alone(mount: &Mount, name: &str, bytes: &[u8]) {
    until(|| {
        let before = mount.stats().reads;
        let mut file = File::open(mount.at(name)).unwrap();
        forget_pages(&file);
        let mut read = Vec::new();
        file.read_to_end(&mut read).unwrap();
        assert!(read == bytes, "{name}");
        mount.stats().reads == before
    });
}

#[test]
fn x4_the_kernel_reads_complete_files_by_itself() {
    let (server, files) = database_of(&[("x", 5 * MIB + 77), ("small", 1000), ("empty", 0)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    for (name, bytes) in &files[..2] {
        until_verified(&mounting, name, bytes);
        until_by_the_kernel_alone(&mount, name, bytes);
    }
    by_the_kernel_alone(&mount, || {
        assert_right(&mount.path(), &files);
        let (x, bytes) = (File::open(mount.at("x")).unwrap(), &files[0].1);
        // Not from pages it kept of earlier reads, either.
        forget_pages(&x);
        let second = File::open(mount.at("x")).unwrap();
        for file in [&x, &second] {
            assert!(read_at_directly(file, 4097, 3 * MIB).unwrap() == slice(bytes, 4097, 3 * MIB));
        }
        for flags in [libc::MAP_SHARED, libc::MAP_PRIVATE] {
            assert!(Mapped::of(&second, bytes.len(), flags).fresh_bytes() == *bytes);
        }
        drop(x);
        forget_pages(&second);
        let mut read = Vec::new();
        (&second).read_to_end(&mut read).unwrap();
        assert!(read == *bytes);
    });
    mount.unmount();
    // So it is after a restart, from the first open on: the check of the process before counts.
    let mount = mounting.mount();
    by_the_kernel_alone(&mount, || {
        for (name, bytes) in &files {
            let mut file = File::open(mount.at(name)).unwrap();
            forget_pages(&file);
            let mut read = Vec::new();
            file.read_to_end(&mut read).unwrap();
            assert!(read == *bytes, "{name}");
        }
    });
    assert_eq!(mount.stats().bytes_fetched, 0);
    mount.unmount();
}

#[test]
fn x4_handles_of_every_kind_follow_on_one_another() {
    let (server, files) = database_of(&[("x", 6 * MIB + 5)]);
    let bytes = &files[0].1;
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    let open = || File::open(mount.at("x")).unwrap();
    let right = |file: &File| {
        let mut read = vec![0; bytes.len()];
        file.read_exact_at(&mut read, 0).unwrap();
        assert!(read == *bytes);
    };
    let first = open();
    assert!(read_at_directly(&first, 0, 2 * MIB).unwrap() == bytes[..2 * MIB]);
    // Mapped while most of it is missing.
    let mapped = Mapped::of(&first, bytes.len(), libc::MAP_SHARED);
    right(&open());
    until_verified(&mounting, "x", bytes);
    // The first is read through the daemon, so this one is as well.
    let kept = open();
    for file in [&kept, &first, &kept] {
        right(file);
    }
    assert!(mapped.fresh_bytes() == *bytes);
    assert!(Mapped::of(&kept, bytes.len(), libc::MAP_SHARED).fresh_bytes() == *bytes);
    drop((first, kept));
    // The mapping holds the file open.
    right(&open());
    assert!(mapped.fresh_bytes() == *bytes);
    drop(mapped);
    // The last handle is closed, and the kernel tells of it a moment later.
    until_by_the_kernel_alone(&mount, "x", bytes);
    mount.unmount();
}

#[test]
fn x4_what_was_evicted_and_has_come_again_is_for_the_kernel_again() {
    let (server, files) = database_of(&[("x", 3 * MIB + 5)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    for _ in 0..2 {
        until_by_the_kernel_alone(&mount, "x", &files[0].1);
        // The kernel tells of the last close a moment later.
        let evict = ["cache", "evict", "--all", "--cache-dir", text(mounting.cache())];
        until(|| Cli::new().run(&evict).code == 0);
    }
    mount.unmount();
}

#[test]
fn rule_20_no_order_of_opens_and_closes_fails() {
    let sizes: Vec<(String, usize)> = (0..6).map(|n| (format!("{n}"), 3 * MIB + n * 4099)).collect();
    let sizes: Vec<(&str, usize)> = sizes.iter().map(|(name, size)| (&**name, *size)).collect();
    let (server, files) = database_of(&sizes);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    let fetched_whole = AtomicBool::new(false);
    for (name, bytes) in &files {
        fetched_whole.store(false, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let (path, whole) = (mount.at(name), &fetched_whole);
                scope.spawn(move || open_and_close(&path, bytes, thread, whole));
            }
            let (path, whole) = (mount.at(name), &fetched_whole);
            scope.spawn(move || {
                std::thread::sleep(Duration::from_millis(20));
                assert!(fs::read(path).unwrap() == *bytes);
                std::thread::sleep(Duration::from_millis(250));
                whole.store(true, Ordering::SeqCst);
            });
        });
        until_by_the_kernel_alone(&mount, name, bytes);
        by_the_kernel_alone(&mount, || assert!(mount.read(name).unwrap() == *bytes));
    }
    mount.unmount();
}

/// Opens, reads, maps and closes in an order of its own until told to stop.
fn open_and_close(path: &Path, bytes: &[u8], thread: u64, stop: &AtomicBool) {
    let mut open: Vec<File> = Vec::new();
    let mut round = 0;
    while !stop.load(Ordering::SeqCst) {
        round += 1;
        let dice = noise(thread << 32 | round, 8);
        let at = u64::from_le_bytes(dice[..].try_into().unwrap()) % bytes.len() as u64;
        match dice[7] % 4 {
            0 | 1 if open.len() < 4 => open.push(File::open(path).unwrap()),
            2 => drop(open.pop()),
            _ => {}
        }
        let Some(file) = open.get(dice[6] as usize % open.len().max(1)) else { continue };
        let length = 1 + usize::from(dice[5]) * 300;
        if dice[4].is_multiple_of(8) {
            let mapped = Mapped::of(file, bytes.len(), libc::MAP_SHARED);
            assert!(mapped.fresh_bytes() == *bytes, "mapped in round {round}");
        } else {
            let read = read_at_directly(file, at, length).unwrap();
            assert!(read == slice(bytes, at, length), "in round {round}");
        }
    }
}

#[test]
fn rule_20_what_the_kernel_reads_is_not_evicted_under_it() {
    let (server, files) = database_of(&[("mapped", 5 * MIB), ("a", 4 * MIB), ("b", 4 * MIB), ("c", 4 * MIB)]);
    let bytes = &files[0].1;
    let mounting = Mounting::at(&server.url(), "alice/d").args(&["--cache-size", "10MB"]);
    let mount = mounting.mount();
    until_by_the_kernel_alone(&mount, "mapped", bytes);
    let file = File::open(mount.at("mapped")).unwrap();
    let mapped = Mapped::of(&file, bytes.len(), libc::MAP_SHARED);
    by_the_kernel_alone(&mount, || assert!(mapped.fresh_bytes() == *bytes));
    for round in 0..3 {
        for (name, bytes) in &files[1..] {
            assert!(mount.read(name).unwrap() == *bytes, "{name}");
        }
        // What was read last is open for a moment longer, while it is checked.
        until(|| {
            let evict = Cli::new().run(&["cache", "evict", "--all", "--cache-dir", text(mounting.cache())]);
            assert_eq!(evict.code, 10, "one is open all the time: {evict:?}");
            evict.stdout.contains("1 are open")
        });
        // The cached file's pages, too, come from the disk again.
        rustix::fs::sync();
        forget_cached(mounting.cache());
        forget_pages(&file);
        assert!(mapped.fresh_bytes() == *bytes, "round {round}");
        assert!(read_at_directly(&file, 0, bytes.len()).unwrap() == *bytes, "round {round}");
    }
    drop((mapped, file));
    assert_right(&mount.path(), &files);
    mount.unmount();
}

pub(super) fn forget_cached(cache: &Path) {
    for entry in walkdir::WalkDir::new(cache).into_iter().filter_map(Result::ok) {
        if let Ok(file) = File::open(entry.path()) {
            forget_pages(&file);
        }
    }
}

#[test]
fn f05_what_was_written_to_since_it_was_checked_is_not_for_the_kernel() {
    let (server, files) = database_of(&[("x", 5 * MIB)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    until_verified(&mounting, "x", &files[0].1);
    let stored = walkdir::WalkDir::new(mounting.cache()).into_iter().filter_map(Result::ok);
    let stored = stored.into_iter().find(|entry| entry.file_name() == "bytes").unwrap().into_path();
    std::thread::sleep(Duration::from_millis(20));
    File::options().write(true).open(stored).unwrap().write_all_at(b"rot", 3 << 20).unwrap();
    let file = File::open(mount.at("x")).unwrap();
    forget_pages(&file);
    assert!(read_at_directly(&file, 0, 5 * MIB).unwrap() == files[0].1);
    assert_eq!(mount.stats().blocks_rotten, 1);
    drop(file);
    mount.unmount();
}

/// `$1` is a directory of the test's own, `$2` the program, the rest is the mount command.
const KEPT: &str = r#"
user "$@" >&2
trap 'fusermount3 -uz "$mnt"' EXIT
reads() {
    user python3 -c 'import json, os, sys; print(json.loads(os.getxattr(sys.argv[1], "user.parquedb.stats"))["reads"])' "$mnt"
}
sum() { user sha256sum "$mnt/x" | cut -d' ' -f1; }
sum
reads
for n in $(seq 200); do
    before=$(reads); sum >/dev/null; after=$(reads)
    if [ "$before" = "$after" ]; then break; fi
    sleep 0.05
done
sum
echo $(($(reads) - before))
reads
trap - EXIT
user fusermount3 -u "$mnt"
"#;

#[test]
fn x4_a_plain_users_kernel_keeps_what_it_has_read() {
    let (server, files) = database_of(&[("x", 5 * MIB + 77)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let ended = plain_user::run(&mounting, KEPT);
    assert_eq!(ended.code, 0, "{ended:?}");
    let lines: Vec<&str> = ended.stdout.lines().collect();
    let [first, reads, last, more, all] = lines[..] else { panic!("{ended:?}") };
    assert_eq!((first, last), (&*sha256(&files[0].1), first), "{ended:?}");
    assert_eq!(more, "0", "the daemon was asked again: {ended:?}");
    // Once more through the daemon, when the file was complete: it is no passthrough.
    let [reads, all] = [reads, all].map(|count| count.parse::<u64>().unwrap());
    assert!(reads > 0 && all > reads, "{ended:?}");
}

#[test]
fn sixty_four_readers_of_a_slow_remote_take_little_memory() {
    const MOST: u64 = 256 << 20;
    let (server, files) = database_of(&[("x", 160 * MIB)]);
    let bytes = &files[0].1;
    let relay = Relay::narrow(&server, 2 << 20);
    let mount = Mounting::at(&relay.url(), "alice/d").args(&["--read-timeout", "60"]).mount();
    std::thread::scope(|scope| {
        for reader in 0..64 {
            let path = mount.at("x");
            scope.spawn(move || {
                let file = File::open(path).unwrap();
                let mut buffer = vec![0; 2 * MIB];
                for n in 0..2 {
                    let offset = ((reader * 5 + n * 2) * MIB / 2 % (158 * MIB)) as u64;
                    file.read_exact_at(&mut buffer, offset).unwrap();
                    assert!(buffer == slice(bytes, offset, buffer.len()), "reader {reader} at {offset}");
                }
            });
        }
    });
    let status = fs::read_to_string(format!("/proc/{}/status", mount.pid().as_raw_nonzero())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
    println!("{most} kB, {:?}", mount.stats());
    assert!(most << 10 < MOST, "{most} kB at most");
    mount.unmount();
}
