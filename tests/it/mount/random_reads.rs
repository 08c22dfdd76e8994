//! Reads of every kind at random places, each compared with the original: some through mappings, some past the kernel's
//! pages, near one another and far apart, forwards and backwards.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::{read_at_directly, slice};
use crate::harness::Random;

/// The longest read.
const LONGEST: u64 = 3 << 20;
/// Readers stay near where they began, most often.
const NEAR: u64 = 512 << 10;
/// Reads of one open.
const READS: u64 = 100;

/// A length from 1 to the longest, short ones mostly.
fn some_length(random: &mut Random) -> u64 {
    let bits = random.below(22).min(random.below(22));
    (1 + (1 << bits) + random.below(1 << bits)).min(LONGEST)
}

/// What became of the reads.
#[derive(Debug, Default)]
pub struct Tally {
    pub right: AtomicU64,
    pub mapped: AtomicU64,
    pub unbuffered: AtomicU64,
    pub bytes: AtomicU64,
    /// The longest that any took, in milliseconds.
    pub longest: AtomicU64,
    pub failed: Mutex<Vec<Failed>>,
}

/// A read that gave an error.
#[derive(Debug, Clone, Copy)]
pub struct Failed {
    pub began: Instant,
    pub ended: Instant,
    /// The error's number.
    pub error: i32,
}

impl Tally {
    fn right(&self, bytes: usize, kind: &AtomicU64, began: Instant) {
        self.right.fetch_add(1, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        kind.fetch_add(1, Ordering::Relaxed);
        self.took(began.elapsed());
    }

    fn failed(&self, error: i32, began: Instant) {
        self.failed.lock().unwrap().push(Failed { began, ended: Instant::now(), error });
        self.took(began.elapsed());
    }

    fn took(&self, time: Duration) {
        self.longest.fetch_max(time.as_millis() as u64, Ordering::Relaxed);
    }
}

/// Opens a file, in one way of several, and reads from it in one of several; tells how often.
pub fn read_some(path: &Path, bytes: &[u8], random: &mut Random, tally: &Tally) -> u64 {
    let flags = if random.below(2) == 0 { libc::O_DIRECT } else { 0 };
    let open = || File::options().read(true).custom_flags(flags).open(path).unwrap();
    // Two handles at times: they need not be open in the same mode.
    let files = [open(), open()];
    if random.below(8) == 0 {
        // SAFETY: only advice about an open file.
        unsafe { libc::posix_fadvise(files[0].as_raw_fd(), 0, 0, libc::POSIX_FADV_DONTNEED) };
    }
    let (times, size) = (1 + random.below(READS), bytes.len() as u64);
    if random.below(5) == 0 {
        return read_mapped(&files[0], bytes, times, random, tally);
    }
    let ignored = AtomicU64::new(0);
    let kind = if flags == 0 { &ignored } else { &tally.unbuffered };
    let (way, length, stride) = (random.below(6), some_length(random), random.below(size / 8 + 1));
    let start = random.below(size + 1);
    let near = |random: &mut Random| random.below(size.saturating_sub(start).min(NEAR) + 1) + start;
    let mut offset = start;
    for n in 0..times {
        let length = if way < 3 { some_length(random) } else { length };
        read_and_compare(&files[n as usize % 2], offset, length as usize, bytes, (tally, kind));
        offset = match way {
            0 if random.below(8) == 0 => random.below(size + 1),
            0..3 => near(random),
            3 => offset + length,
            4 => offset.saturating_sub(length),
            _ => offset + length + stride,
        };
        if offset > size {
            offset = near(random);
        }
    }
    times
}

fn read_and_compare(
    file: &File,
    mut offset: u64,
    length: usize,
    bytes: &[u8],
    (tally, kind): (&Tally, &AtomicU64),
) {
    let (expected, began) = (slice(bytes, offset, length), Instant::now());
    let mut done = 0;
    // The kernel reads a large range in pieces: those before one that fails are a short read, and then comes the error.
    loop {
        match read_at_directly(file, offset, length - done) {
            Ok(read) => {
                let right = expected[done..].get(..read.len()) == Some(&read[..]);
                assert!(right, "{} wrong bytes at {offset} of {}", read.len(), bytes.len());
                done += read.len();
                offset += read.len() as u64;
                if done == expected.len() {
                    return tally.right(done, kind, began);
                }
                assert!(!read.is_empty(), "nothing at {offset} of {}", bytes.len());
            }
            Err(error) => return tally.failed(error.raw_os_error().unwrap_or(0), began),
        }
    }
}

/// Reads through a mapping, in a process of its own: who waits for a page holds up whoever maps anything in the same
/// process, the threads of our proxy too. Tells how often it read.
fn read_mapped(file: &File, bytes: &[u8], times: u64, random: &mut Random, tally: &Tally) -> u64 {
    let (began, size) = (Instant::now(), bytes.len() as u64);
    let start = random.below(size);
    let places: Vec<(usize, usize)> = (0..times)
        .map(|_| {
            let offset = start + random.below((size - start).min(NEAR));
            (offset as usize, slice(bytes, offset, some_length(random) as usize).len())
        })
        .collect();
    let flags = if random.below(2) == 0 { libc::MAP_SHARED } else { libc::MAP_PRIVATE };
    let (mut from_child, to_parent) = io::pipe().unwrap();
    let (file, pipe) = (file.as_raw_fd(), to_parent.as_raw_fd());
    // SAFETY: the child makes plain system calls only, allocates nothing, and does not return.
    let child = unsafe {
        match libc::fork() {
            0 => show_mapped(file, pipe, bytes.len(), flags, &places),
            child => child,
        }
    };
    assert!(child > 0, "{}", io::Error::last_os_error());
    drop(to_parent);
    let mut shown = Vec::new();
    from_child.read_to_end(&mut shown).unwrap();
    // SAFETY: our own child, waited for once.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) };
    let mut rest = &shown[..];
    for (number, (offset, length)) in places.into_iter().enumerate() {
        let (now, later) = rest.split_at(length.min(rest.len()));
        let right = now == &bytes[offset..offset + now.len()];
        assert!(right, "a mapping shows wrong bytes at {offset} of {}", bytes.len());
        if now.len() < length {
            // A mapping knows one error only.
            tally.failed(libc::EIO, began);
            return number as u64 + 1;
        }
        tally.right(length, &tally.mapped, began);
        rest = later;
    }
    times
}

/// Maps a file and copies places of it into a pipe; ends at the first that cannot be had. To touch it would be a
/// deadly signal: the kernel, asked to copy it, gives an error.
///
/// # Safety
/// For a process that has just been forked: it closes all files and ends.
unsafe fn show_mapped(file: i32, pipe: i32, size: usize, flags: i32, places: &[(usize, usize)]) -> ! {
    // SAFETY: the mapping is as large as the file, and all places lie inside.
    unsafe {
        // Connections of other threads are not held open by this process.
        libc::dup2(file, 0);
        libc::dup2(pipe, 1);
        libc::close_range(2, libc::c_uint::MAX, 0);
        let start = libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ, flags, 0, 0);
        if start == libc::MAP_FAILED {
            libc::_exit(1);
        }
        for (offset, length) in places {
            let mut done = 0;
            while done < *length {
                let count = libc::write(1, start.byte_add(offset + done), length - done);
                if count <= 0 {
                    libc::_exit(1);
                }
                done += count as usize;
            }
        }
        libc::_exit(0)
    }
}
