//! F01, F05, F06, F26 at once: random reads compared with the original while the link fails in every way, blocks are
//! evicted all the time, and the cache rots. A read gives the right bytes, or EIO or ESTALE, and nothing else.
//!
//! `scripts/test-long` makes a million reads of it. `PARQUEDB_TEST_SEED` repeats a run's choices.

// What a run has measured is part of what it says.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use super::cache::taken;
use super::faults::FaultyOrigin;
use super::{assert_right, database_of, impatient, read_at_directly, slice};

const MIB: usize = 1 << 20;
/// All files together are five times as large, and each of the largest is larger.
const CACHE: u64 = 24_000_000;
const FILES: &[(&str, usize)] = &[
    ("large", 40 * MIB + 12_345),
    ("large.parquet", 40 * MIB),
    ("middle/a", 3 * MIB + 1),
    ("middle/b", 5 * MIB),
    ("small/a", 10_000),
    ("small/b", 300_000),
    ("small/c", MIB),
    ("small/d", MIB - 1),
    ("tiny", 1),
];
const READERS: u64 = 16;
/// The longest read.
const LONGEST: u64 = 3 << 20;

#[test]
fn every_read_is_right_or_an_error_whatever_goes_wrong() {
    run(6_000);
}

#[test]
#[ignore = "takes many minutes: scripts/test-long"]
fn a_million_reads_are_right_or_errors_whatever_goes_wrong() {
    run(1_000_000);
}

/// Random numbers, the same for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }

    /// A length from 1 to the longest, short ones mostly.
    fn length(&mut self) -> u64 {
        let bits = self.below(22).min(self.below(22));
        (1 + (1 << bits) + self.below(1 << bits)).min(LONGEST)
    }
}

/// What became of the reads.
#[derive(Debug, Default)]
struct Tally {
    right: AtomicU64,
    failed: AtomicU64,
    bytes: AtomicU64,
}

fn run(reads: u64) {
    let seed = std::env::var("PARQUEDB_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs())
    });
    println!("PARQUEDB_TEST_SEED={seed}");
    let (server, files) = database_of(FILES);
    let origin = FaultyOrigin::before(&server, seed, 12);
    let mounting = impatient(&origin.url()).args(&["--cache-size", &CACHE.to_string(), "--poll", "0"]);
    let mounting = mounting.lasting(Duration::from_secs(120 + reads / 50));
    let (cache, mount) = (mounting.cache().to_owned(), mounting.mount());
    let (tally, begun, over) = (Tally::default(), AtomicU64::new(0), AtomicBool::new(false));
    let (mut removals, mut handed_out) = (0, 0);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..READERS)
            .map(|number| {
                let (tally, begun, files, dir) = (&tally, &begun, &files, mount.path());
                scope.spawn(move || {
                    let mut random = Random(seed ^ (number << 48));
                    while begun.load(Ordering::Relaxed) < reads {
                        let (name, bytes) =
                            &files[random.below(files.len() as u64 + 4) as usize % files.len()];
                        begun.fetch_add(
                            read_some(&dir.join(name), bytes, &mut random, tally),
                            Ordering::Relaxed,
                        );
                    }
                })
            })
            .collect();
        let rot = scope.spawn(|| {
            let mut random = Random(!seed);
            while !over.load(Ordering::Relaxed) {
                rot_somewhere(&cache, &mut random);
                std::thread::sleep(Duration::from_millis(3));
            }
        });
        while readers.iter().any(|reader| !reader.is_finished()) {
            removals = removals.max(words(&cache, 56).into_iter().max().unwrap_or(0));
            let yes = u64::from_le_bytes(*b"yes yes ");
            handed_out += words(&cache, 40).iter().filter(|word| **word == yes).count();
            std::thread::sleep(Duration::from_millis(100));
        }
        over.store(true, Ordering::Relaxed);
        rot.join().unwrap();
        for reader in readers {
            reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        }
    });
    let stats = mount.stats();
    println!("{tally:?}, each fault struck {} times, {stats:?}", origin.each_struck());
    let (right, failed) = (tally.right.into_inner(), tally.failed.into_inner());
    assert!(right + failed >= reads && failed < right / 4, "most reads are right: {right}, {failed} are not");
    assert!(origin.each_struck() > 0, "each fault struck");
    assert!(removals > 0 && taken(&cache) <= CACHE + CACHE / 4, "blocks were evicted");
    assert!(stats.blocks_rotten > 0 && stats.responses_refused > 0, "rot was found, and wrong answers");
    assert!(handed_out > 0, "the kernel read some files by itself");
    // When nothing is wrong any more, nothing fails.
    origin.honest();
    std::thread::sleep(Duration::from_secs(3));
    for _ in 0..2 {
        assert_right(&mount.path(), &files);
    }
    mount.unmount();
}

/// Opens a file, in one way of several, and reads from it in one of several; tells how often.
fn read_some(path: &Path, bytes: &[u8], random: &mut Random, tally: &Tally) -> u64 {
    let flags = if random.below(2) == 0 { libc::O_DIRECT } else { 0 };
    let open = || File::options().read(true).custom_flags(flags).open(path).unwrap();
    // Two handles at times: they need not be open in the same mode.
    let files = [open(), open()];
    let (times, size) = (1 + random.below(12), bytes.len() as u64);
    if random.below(5) == 0 {
        return read_mapped(&files[0], bytes, times, random, tally);
    }
    let (way, length, stride) = (random.below(4), random.length(), random.below(size / 8 + 1));
    let mut offset = random.below(size + 1);
    for n in 0..times {
        let length = if way == 0 { random.length() } else { length };
        read_and_compare(&files[n as usize % 2], offset, length as usize, bytes, tally);
        offset = match way {
            0 => random.below(size + 1),
            1 => offset + length,
            2 => offset.saturating_sub(length),
            _ => offset + length + stride,
        };
    }
    times
}

fn read_and_compare(file: &File, mut offset: u64, length: usize, bytes: &[u8], tally: &Tally) {
    let expected = slice(bytes, offset, length);
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
                    tally.bytes.fetch_add(done as u64, Ordering::Relaxed);
                    tally.right.fetch_add(1, Ordering::Relaxed);
                    return;
                }
                assert!(!read.is_empty(), "nothing at {offset} of {}", bytes.len());
            }
            Err(error) => return explain(&error, tally),
        }
    }
}

#[track_caller]
fn explain(error: &io::Error, tally: &Tally) {
    let number = error.raw_os_error();
    assert!(matches!(number, Some(libc::EIO | libc::ESTALE)), "{error}");
    tally.failed.fetch_add(1, Ordering::Relaxed);
}

/// Reads through a mapping, in a process of its own: who waits for a page holds up whoever maps anything in the same
/// process, the threads of our proxy too. Tells how often it read.
fn read_mapped(file: &File, bytes: &[u8], times: u64, random: &mut Random, tally: &Tally) -> u64 {
    let places: Vec<(usize, usize)> = (0..times)
        .map(|_| {
            let offset = random.below(bytes.len() as u64);
            (offset as usize, slice(bytes, offset, random.length() as usize).len())
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
            tally.failed.fetch_add(1, Ordering::Relaxed);
            return number as u64 + 1;
        }
        tally.bytes.fetch_add(length as u64, Ordering::Relaxed);
        tally.right.fetch_add(1, Ordering::Relaxed);
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

/// The cache's files of that name, with their contents' sizes.
fn stored(cache: &Path, area: &str, name: &str) -> Vec<(PathBuf, u64)> {
    let files = walkdir::WalkDir::new(cache.join("blocks-2").join(area)).into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_name() == name).map(walkdir::DirEntry::into_path);
    let size = |path: &Path| path.parent()?.file_name()?.to_str()?.split_once('-')?.1.parse().ok();
    files.filter_map(|path| Some((path.clone(), size(&path)?))).collect()
}

/// A number from the header of every content's slots.
fn words(cache: &Path, at: u64) -> Vec<u64> {
    let word = |path: &Path| {
        let mut word = [0; 8];
        File::open(path).ok()?.read_exact_at(&mut word, at).ok()?;
        Some(u64::from_le_bytes(word))
    };
    let all = ["shared", "private"].into_iter().flat_map(|area| stored(cache, area, "slots"));
    all.filter_map(|(path, _)| word(&path)).collect()
}

/// Changes a byte, or punches a hole. Only in contents too large to be complete: what is complete is verified, and
/// handed to the kernel, which knows nothing of checksums.
fn rot_somewhere(cache: &Path, random: &mut Random) {
    let kind = if random.below(3) == 0 { "slots" } else { "bytes" };
    let mut files = stored(cache, "private", kind);
    files.retain(|(_, size)| *size > CACHE);
    if files.is_empty() {
        return;
    }
    let (path, _) = &files[random.below(files.len() as u64) as usize];
    // It may be evicted just now.
    let Ok(file) = File::options().read(true).write(true).open(path) else { return };
    let length = fs::metadata(path).map_or(0, |meta| meta.len());
    // No checksum guards the marks in a header.
    let from = if kind == "slots" { 64 } else { 0 };
    if length <= from {
        return;
    }
    let at = from + random.below(length - from);
    let Ok(at) = seek(&file, SeekFrom::Data(at)) else { return };
    if kind == "bytes" && random.below(3) == 0 {
        let hole = 1 + random.below(100_000);
        let _ = fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, hole);
        return;
    }
    let mut byte = [0];
    if file.read_exact_at(&mut byte, at).is_ok() {
        let _ = file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at);
    }
}
