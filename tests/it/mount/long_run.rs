//! F01, F05, F06, F26 at once: random reads compared with the original while the link fails in every way, blocks are
//! evicted all the time, and the cache rots. A read gives the right bytes and nothing else, unless no byte of the
//! content can be had for longer than a read is patient: then it may be EIO.
//!
//! `scripts/test-long` makes a million reads of it. `PARQUEDB_TEST_READS` says how many instead, and
//! `PARQUEDB_TEST_SEED` repeats a run's choices.

// What a run has measured is part of what it says.
#![allow(clippy::print_stdout, clippy::print_stderr)]

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::cache::taken;
use super::faults::{FaultyOrigin, Outage};
use super::random_reads::{Failed, Tally, read_some};
use super::rot::{Rot, rot_somewhere, words};
use super::{assert_right, database_of};
use crate::harness::{Mount, Mounting, Random, number};

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
/// On each mount.
const READERS: u64 = 8;
/// One answer of so many is spoilt.
const ONE_IN: u64 = 12;
const PATIENCE: &str = "5";
/// Longer than any read is patient.
const OUTAGE: Duration = Duration::from_secs(6);
/// Marks in the headers of slots.
const YES: u64 = u64::from_le_bytes(*b"yes yes ");

#[test]
fn every_read_is_right_whatever_goes_wrong() {
    run(10_000, 1);
}

#[test]
#[ignore = "takes many minutes: scripts/test-long"]
fn a_million_reads_are_right_whatever_goes_wrong() {
    run(number("PARQUEDB_TEST_READS", 1_000_000), 12);
}

/// One of the mounts that are read, each with a cache of its own.
struct Side {
    mount: Mount,
    mounting: Mounting,
    rot: Rot,
    tally: Tally,
    rotted: AtomicU64,
    /// How often a content was seen in the kernel's hands.
    handed_out: AtomicU64,
}

impl Side {
    fn new(origin: &FaultyOrigin, rot: Rot, args: &[&str], lasting: Duration) -> Self {
        let mounting = Mounting::at(&origin.url(), "alice/d").args(args).lasting(lasting);
        let mounting = mounting.args(&["--read-timeout", PATIENCE, "--poll", "0"]);
        let mounting = mounting.args(&["--cache-size", &CACHE.to_string()]);
        let (tally, rotted, handed_out) = (Tally::default(), AtomicU64::new(0), AtomicU64::new(0));
        Self { mount: mounting.mount(), mounting, rot, tally, rotted, handed_out }
    }

    fn failed(&self) -> Vec<Failed> {
        self.tally.failed.lock().unwrap().clone()
    }

    /// Prints what became of it, and fails if that is not what must be.
    fn conclude(&self, name: &str, origin: &FaultyOrigin) {
        let (stats, tally) = (self.mount.stats(), &self.tally);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let failed = self.failed();
        let (files, memory) = self.daemon();
        println!(
            "{name}: {} reads right ({} mapped, {} unbuffered), {} MB; {} EIO; the longest took {} ms",
            read(&tally.right),
            read(&tally.mapped),
            read(&tally.unbuffered),
            read(&tally.bytes) / 1_000_000,
            failed.len(),
            read(&tally.longest),
        );
        println!(
            "  the daemon answered {} reads in {} requests, {} MB fetched, {} wrong answers refused; \
             {} MB ({} blocks) evicted; rotted {} times, {} rotten blocks found; {memory} MB of memory, {files} files open",
            stats.reads,
            stats.requests,
            stats.bytes_fetched / 1_000_000,
            stats.responses_refused,
            stats.bytes_evicted / 1_000_000,
            stats.bytes_evicted >> 15,
            read(&self.rotted),
            stats.blocks_rotten,
        );
        for Failed { began, ended, error } in failed {
            assert_eq!(error, libc::EIO);
            assert!(origin.was_out(began, ended), "EIO after {:?}, and no outage", ended - began);
        }
        assert!(stats.bytes_evicted > 0, "blocks were evicted");
        assert!(taken(self.mounting.cache()) <= CACHE + CACHE / 4, "the cache keeps to its limit");
        assert!(stats.blocks_rotten > 0 && stats.responses_refused > 0, "rot was found, and wrong answers");
        assert!(files < 200 && memory < 400, "{files} files are open, {memory} MB are in use");
    }

    /// How many files its daemon has open, and how many megabytes of memory it had at most.
    fn daemon(&self) -> (usize, u64) {
        let place = format!("/proc/{}", self.mount.pid().as_raw_nonzero());
        let status = fs::read_to_string(format!("{place}/status")).unwrap();
        let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        let most: u64 = most.trim().trim_end_matches(" kB").parse().unwrap();
        (fs::read_dir(format!("{place}/fd")).unwrap().count(), most / 1000)
    }
}

fn run(reads: u64, outages: u64) {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |since| since.as_secs());
    let seed = number("PARQUEDB_TEST_SEED", now);
    println!("{reads} reads are running; PARQUEDB_TEST_SEED={seed}");
    let (server, files) = database_of(FILES);
    let origin = FaultyOrigin::before(&server, seed, ONE_IN);
    let lasting = Duration::from_secs(120 + reads / 50);
    // One gives the kernel what is complete; the other, in whose cache everything rots, lets it keep its pages.
    let sides = [
        Side::new(&origin, Rot::LargerThan(CACHE), &[], lasting),
        Side::new(&origin, Rot::Everything, &["--no-passthrough"], lasting),
    ];
    // Some of it is complete when the faults begin.
    for side in &sides {
        for _ in 0..2 {
            assert_right(&side.mount.path(), &files[2..]);
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    origin.faulty();
    let (began, begun, over) = (Instant::now(), AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let (files, begun, over, origin) = (&files, &begun, &over, &origin);
        let mut readers = Vec::new();
        for (side, number) in sides.iter().zip(0_u64..) {
            readers.extend((0..READERS).map(|reader| {
                let random = Random(seed ^ (number << 56) ^ (reader << 48));
                scope.spawn(move || read_on(side, files, random, begun, reads))
            }));
            scope.spawn(move || rot_on(side, Random(!seed ^ number), over));
        }
        let kinds = [Outage::Closed, Outage::Silent, Outage::Overloaded];
        for (n, kind) in (0..outages).zip(kinds.into_iter().cycle()) {
            let due = reads * (n + 1) / (outages + 1);
            while begun.load(Ordering::Relaxed) < due && !readers.iter().all(|reader| reader.is_finished()) {
                std::thread::sleep(Duration::from_millis(20));
            }
            origin.breaks_down(kind);
            std::thread::sleep(OUTAGE);
            origin.recovered();
        }
        // Whoever fails ends the others as well, so that it is known at once.
        while !readers.iter().all(|reader| reader.is_finished()) {
            std::thread::sleep(Duration::from_millis(20));
        }
        over.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap_or_else(|e| std::panic::resume_unwind(e)));
    });
    println!("{:.0} s; {} outages; {:?}", began.elapsed().as_secs_f64(), origin.outages(), origin.struck());
    for (side, name) in sides.iter().zip(["passthrough", "kept pages"]) {
        side.conclude(name, &origin);
    }
    let [through, kept] = &sides;
    assert!(origin.struck().iter().all(|(_, times)| *times > 0), "each fault struck");
    assert!(through.handed_out.load(Ordering::Relaxed) > 0, "the kernel read some files by itself");
    assert_eq!(kept.handed_out.load(Ordering::Relaxed), 0, "what rots is not in the kernel's hands");
    // When nothing is wrong any more, nothing fails.
    origin.honest();
    std::thread::sleep(Duration::from_secs(3));
    for Side { mount, .. } in sides {
        for _ in 0..2 {
            assert_right(&mount.path(), &files);
        }
        mount.unmount();
    }
}

fn read_on(side: &Side, files: &[(String, Vec<u8>)], mut random: Random, begun: &AtomicU64, reads: u64) {
    while begun.load(Ordering::Relaxed) < reads {
        let (name, bytes) = &files[random.below(files.len() as u64 + 4) as usize % files.len()];
        let times = read_some(&side.mount.at(name), bytes, &mut random, &side.tally);
        begun.fetch_add(times, Ordering::Relaxed);
    }
}

fn rot_on(side: &Side, mut random: Random, over: &AtomicBool) {
    let cache = side.mounting.cache();
    while !over.load(Ordering::Relaxed) {
        let rotted = rot_somewhere(cache, side.rot, &mut random);
        side.rotted.fetch_add(u64::from(rotted), Ordering::Relaxed);
        let handed_out = words(cache, 40).into_iter().filter(|word| *word == YES).count();
        side.handed_out.fetch_add(handed_out as u64, Ordering::Relaxed);
        std::thread::sleep(Duration::from_millis(15));
    }
}
