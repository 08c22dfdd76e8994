//! `measure [--rounds N] NAME=DIR...`: how fast each directory is written, in rounds that take turns, for a machine's
//! speed wanders. The first directory is the disk. Of each figure the median and the range, and what it is of another
//! side's, with the goal where there is one.

#![expect(clippy::unwrap_used, reason = "a measurement that fails is none")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Barrier;
use std::time::{Duration, Instant};

const LENGTH: u64 = 512 << 20;
const RANDOM_WRITES: u64 = 50_000;
const FILES: u64 = 10_000;
const SYNCS: u64 = 100;
const WRITERS: u64 = 16;
/// Files of each kind that the remote has, for each round.
const REMOTE_FILES: usize = 20;
/// What the remote files of each round are called.
const KINDS: [&str; 2] = ["empty", "huge"];

const SEQUENTIAL: &str = "1 MiB appended, MiB/s";
const OVERWRITTEN: &str = "1 MiB overwritten, MiB/s";
const RANDOM: &str = "4 KiB anywhere, 1/s";
const CREATED: &str = "created, 1 KiB, closed, files/s";
const SYNCED: &str = "4 KiB, fsync, calls/s";
const SYNCED_BY_MANY: &str = "the same by 16 writers, calls/s";

const FIRST: &str = "first write to a remote file of 1 GiB, files/s";
const FIRST_OF_EMPTY: &str = "first write to an empty remote file, files/s";

/// What, of whom, compared with whom, and at least how much of it.
const GOALS: &[(&str, &str, &str, f64)] = &[
    (SEQUENTIAL, "mount", "disk", 0.9),
    (OVERWRITTEN, "mount", "disk", 0.9),
    (RANDOM, "mount", "disk", 0.5),
    (SEQUENTIAL, "daemon", "plainfs", 0.8),
    (OVERWRITTEN, "daemon", "plainfs", 0.8),
    (RANDOM, "daemon", "plainfs", 0.8),
    (CREATED, "mount", "disk", 0.25),
    (SYNCED, "mount", "disk", 1.0 / 3.0),
    (SYNCED_BY_MANY, "mount", "disk", 1.0 / 1.5),
    (SEQUENTIAL, "offline", "mount", 0.9),
    (RANDOM, "offline", "mount", 0.9),
    (CREATED, "offline", "mount", 0.9),
    (SYNCED, "offline", "mount", 0.9),
];

/// As quick, within what such a short time can be measured.
const FIRST_GOAL: f64 = 0.8;

type Figures = BTreeMap<(&'static str, String), Vec<f64>>;

fn main() {
    let mut rounds = 5;
    let mut sides: Vec<(String, PathBuf)> = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        if argument == "--rounds" {
            rounds = arguments.next().unwrap().parse().unwrap();
        } else {
            let (name, dir) = argument.split_once('=').unwrap();
            sides.push((name.to_owned(), dir.into()));
        }
    }
    let mut figures = Figures::new();
    for number in 0..rounds {
        for (name, directory) in &sides {
            round(directory, number, |what, figure| {
                figures.entry((what, name.clone())).or_default().push(figure);
            });
            // Else the disk would write this one's data during the next one's turn.
            File::open(directory).unwrap().sync_all().unwrap();
        }
        eprintln!("round {} of {rounds}", number + 1);
    }
    // Not before: a journal-less ext4 passes over inodes deleted in the last minutes, one by one, for each it creates.
    for (_, directory) in &sides {
        for number in 0..rounds {
            fs::remove_dir_all(files(directory, number)).unwrap();
        }
    }
    print(&mut figures, &sides);
}

fn print(figures: &mut Figures, sides: &[(String, PathBuf)]) {
    let mut medians = BTreeMap::new();
    for ((what, side), figures) in figures.iter_mut() {
        figures.sort_by(f64::total_cmp);
        medians.insert((*what, side.clone()), figures[figures.len() / 2]);
    }
    for what in [SEQUENTIAL, OVERWRITTEN, RANDOM, CREATED, SYNCED, SYNCED_BY_MANY, FIRST_OF_EMPTY, FIRST] {
        println!("{what}");
        for (side, _) in sides {
            let Some(all) = figures.get(&(what, side.clone())) else { continue };
            let median = medians[&(what, side.clone())];
            print!("  {side:10} {median:10.0}  ({:.0} to {:.0})", all[0], all[all.len() - 1]);
            for (_, _, base, goal) in GOALS.iter().filter(|(w, s, ..)| *w == what && s == side) {
                if let Some(base_median) = medians.get(&(what, (*base).to_owned())) {
                    let ratio = median / base_median;
                    let verdict = if ratio >= *goal { "holds" } else { "MISSED" };
                    print!("  {ratio:.2} of {base}, goal {goal:.2}: {verdict}");
                }
            }
            if let Some(empty) = medians.get(&(FIRST_OF_EMPTY, side.clone())).filter(|_| what == FIRST) {
                let ratio = median / empty;
                let verdict = if ratio >= FIRST_GOAL { "holds" } else { "MISSED" };
                print!("  {ratio:.2} of an empty one, goal {FIRST_GOAL:.2}: {verdict}");
            }
            println!();
        }
    }
}

fn files(directory: &Path, round: usize) -> PathBuf {
    directory.join(format!("measured-{round}"))
}

fn round(directory: &Path, number: usize, mut add: impl FnMut(&'static str, f64)) {
    let block: Vec<u8> = (0..1_u32 << 20).map(|i| (i * 31) as u8).collect();
    let path = directory.join("measured");
    let mebibytes = (LENGTH >> 20) as f64;

    // The first time is not measured: a virtual machine's memory may have to be fetched from its host.
    for measured in [false, true] {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        let started = Instant::now();
        for offset in (0..LENGTH).step_by(block.len()) {
            file.write_all_at(&block, offset).unwrap();
        }
        if measured {
            add(SEQUENTIAL, mebibytes / started.elapsed().as_secs_f64());
            let started = Instant::now();
            for offset in (0..LENGTH).step_by(block.len()) {
                file.write_all_at(&block, offset).unwrap();
            }
            add(OVERWRITTEN, mebibytes / started.elapsed().as_secs_f64());
            add(RANDOM, random_writes(&file, &block[..4096]));
        }
        drop(file);
        fs::remove_file(&path).unwrap();
    }

    if let Some([empty, huge]) = first_writes(directory, number, &block[..4096]) {
        add(FIRST_OF_EMPTY, empty);
        add(FIRST, huge);
    }

    let path = files(directory, number);
    fs::create_dir(&path).unwrap();
    let started = Instant::now();
    for i in 0..FILES {
        File::create(path.join(format!("file-{i:05}"))).unwrap().write_all(&block[..1024]).unwrap();
    }
    add(CREATED, FILES as f64 / started.elapsed().as_secs_f64());
    // What was written so far is not to be synced with what follows.
    File::open(&path).unwrap().sync_all().unwrap();
    rustix::fs::sync();
    add(SYNCED, synced_writes(&path, 1, &block[..4096]));
    add(SYNCED_BY_MANY, synced_writes(&path, WRITERS, &block[..4096]));
}

/// Opens files that the remote has, writes something into each and closes it; on a side with a remote. Empty files and huge ones
/// take turns, whatever else the machine does meanwhile. Then they are removed, lest the rest of them be fetched while others are
/// measured. Returns how many of each kind in a second.
fn first_writes(directory: &Path, round: usize, block: &[u8]) -> Option<[f64; 2]> {
    let path = |kind: &str, n: usize| directory.join(format!("{kind}-{round}-{n}"));
    // Looked up before, as a program that lists a directory has.
    if !(0..REMOTE_FILES).all(|n| KINDS.iter().all(|kind| path(kind, n).exists())) {
        return None;
    }
    let mut took = [Duration::ZERO; KINDS.len()];
    for n in 0..REMOTE_FILES {
        for (kind, took) in KINDS.iter().zip(&mut took) {
            let started = Instant::now();
            OpenOptions::new().write(true).open(path(kind, n)).unwrap().write_all_at(block, 123_456).unwrap();
            *took += started.elapsed();
        }
    }
    for n in 0..REMOTE_FILES {
        for kind in KINDS {
            fs::remove_file(path(kind, n)).unwrap();
        }
    }
    Some(took.map(|took| REMOTE_FILES as f64 / took.as_secs_f64()))
}

fn random_writes(file: &File, block: &[u8]) -> f64 {
    let mut state = 1_u64;
    let started = Instant::now();
    for _ in 0..RANDOM_WRITES {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        file.write_all_at(block, (state >> 33) % (LENGTH / 4096) * 4096).unwrap();
    }
    RANDOM_WRITES as f64 / started.elapsed().as_secs_f64()
}

fn synced_writes(directory: &Path, writers: u64, block: &[u8]) -> f64 {
    let begin = Barrier::new(writers as usize + 1);
    let begin = &begin;
    let started = std::thread::scope(|scope| {
        for writer in 0..writers {
            scope.spawn(move || {
                let file = File::create(directory.join(format!("synced-{writers}-{writer}"))).unwrap();
                begin.wait();
                for n in 0..SYNCS {
                    file.write_all_at(block, n * block.len() as u64).unwrap();
                    file.sync_all().unwrap();
                }
            });
        }
        begin.wait();
        Instant::now()
    });
    (SYNCS * writers) as f64 / started.elapsed().as_secs_f64()
}
