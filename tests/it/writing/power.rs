//! The power fails while programs write: what was fsynced is there, and nothing is there that nobody wrote.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::thread;
use std::time::Duration;

use super::kills::{files, server};
use super::mounting;
use crate::harness::{Forgetful, Random, Tearing, noise, number};

/// What a file may be after a cut.
#[derive(Debug, Clone, Default)]
struct Promise {
    /// What it was at its last fsync.
    durable: Option<Vec<u8>>,
    /// What was written since, in order: where, and what.
    later: Vec<(usize, Vec<u8>)>,
    /// Saved by renaming, without an fsync: it is one of these, or what it was.
    saved: Vec<Vec<u8>>,
}

impl Promise {
    fn is_kept_by(&self, found: Option<&[u8]>) -> bool {
        let Some(durable) = &self.durable else {
            // Never synced: nothing, or a beginning of it.
            let whole: Vec<u8> = self.later.iter().flat_map(|(_, bytes)| bytes.clone()).collect();
            return found.is_none_or(|found| whole.starts_with(found));
        };
        let Some(found) = found else { return false };
        if self.saved.iter().any(|saved| saved == found) {
            return true;
        }
        let longest = self.later.iter().map(|(at, bytes)| at + bytes.len()).fold(durable.len(), usize::max);
        found.len() >= durable.len()
            && found.len() <= longest
            && found.iter().enumerate().all(|(at, byte)| {
                let written =
                    |(start, bytes): &(usize, Vec<u8>)| bytes.get(at.wrapping_sub(*start)) == Some(byte);
                durable.get(at) == Some(byte) || self.later.iter().any(written)
                    // Between the end that was durable and a write beyond it nothing was written.
                    || (*byte == 0 && at >= durable.len())
            })
    }
}

type Promises = BTreeMap<String, Promise>;

/// Writes with and without fsync until the daemon is gone. What fails may have been done.
fn work(
    dir: &Path,
    kind: usize,
    promises: &mut Promises,
    chance: &mut Random,
    round: usize,
) -> std::io::Result<()> {
    for n in 0.. {
        match kind {
            // New files, synced.
            0 => {
                let name = format!("new-{round}-{n}");
                let bytes = noise(n as u64, 1 + chance.index(20_000));
                let file = File::create_new(dir.join(&name))?;
                file.write_all_at(&bytes, 0)?;
                file.sync_all()?;
                promises.insert(name, Promise { durable: Some(bytes), ..Promise::default() });
            }
            // New files, not synced.
            1 => {
                let name = format!("unsynced-{round}-{n}");
                let bytes = noise(n as u64, 1 + chance.index(20_000));
                let written = Promise { later: vec![(0, bytes.clone())], ..Promise::default() };
                promises.insert(name.clone(), written);
                fs::write(dir.join(&name), &bytes)?;
            }
            // The remote's files, written here and there, synced now and then.
            2 => {
                let name = format!("base{}", 2 * chance.index(4));
                let file = File::options().write(true).open(dir.join(&name))?;
                let promise = promises.get_mut(&name).unwrap();
                let durable = promise.durable.as_mut().unwrap();
                let (at, bytes) =
                    (chance.index(durable.len() + 3000), noise(n as u64, 1 + chance.index(9000)));
                promise.later.push((at, bytes.clone()));
                file.write_all_at(&bytes, at as u64)?;
                if chance.index(4) == 0 {
                    file.sync_data()?;
                    for (at, bytes) in promise.later.drain(..) {
                        durable.resize(durable.len().max(at + bytes.len()), 0);
                        durable[at..at + bytes.len()].copy_from_slice(&bytes);
                    }
                }
            }
            // Saved by renaming, as editors do that do not sync.
            _ => {
                let name = format!("base{}", 2 * chance.index(4));
                let bytes = noise(n as u64 + 77, 1 + chance.index(30_000));
                promises.get_mut(&name).unwrap().saved.push(bytes.clone());
                fs::write(dir.join(format!("{name}.new")), &bytes)?;
                fs::rename(dir.join(format!("{name}.new")), dir.join(&name))?;
            }
        }
    }
    Ok(())
}

const KINDS: [&str; 4] = ["append", "names", "overwrite", "save"];

#[test]
fn rule_17_what_was_fsynced_survives_a_power_cut() {
    let seeds = number("PARQUEDB_TEST_POWER_CUTS", 6);
    let first = number("PARQUEDB_TEST_SEED", 1);
    let server = server();
    let (mut lost, mut kept, mut unsynced) = (0, 0, 0);
    for seed in first..first + seeds {
        let place = tempfile::tempdir().unwrap();
        let tearing = if seed % 3 == 0 { Tearing::All } else { Tearing::Random(seed) };
        let disk = Forgetful::mount(place.path(), tearing);
        let mut chance = Random(seed);
        let mut all: Vec<Promises> = KINDS
            .iter()
            .map(|kind| {
                let begins = |bytes| Promise { durable: Some(bytes), ..Promise::default() };
                files(kind).into_iter().map(|(name, bytes)| (name, begins(bytes))).collect()
            })
            .collect();
        for round in 0..3 {
            let boot = |n: usize| format!("boot-{seed}-{round}-{n}");
            let mounting = mounting(&server)
                .state_in(place.path())
                .lasting(Duration::from_secs(600))
                .env("PARQUEDB_TEST_BOOT", &boot(0));
            let mount = mounting.mount();
            let pause = Duration::from_millis(30 + chance.index(1500) as u64);
            let root = mount.path();
            thread::scope(|scope| {
                for (kind, promises) in all.iter_mut().enumerate() {
                    let (dir, seed) = (root.join(KINDS[kind]), chance.index(1 << 40) as u64);
                    scope.spawn(move || work(&dir, kind, promises, &mut Random(seed), round));
                }
                thread::sleep(pause);
                mount.kill9();
            });
            disk.power_off();
            drop(mounting);
            disk.power_on();
            // The next start may be cut short as well.
            let mounting = self::mounting(&server)
                .state_in(place.path())
                .lasting(Duration::from_secs(600))
                .env("PARQUEDB_TEST_BOOT", &boot(1));
            if chance.index(2) == 0 {
                let mut starting = mounting.command(&[]);
                let mut child = starting.arg("--foreground").spawn().unwrap();
                thread::sleep(Duration::from_millis(chance.index(60) as u64));
                child.kill().unwrap();
                child.wait().unwrap();
            }
            let mount = mounting.mount();
            for (kind, promises) in KINDS.iter().zip(&mut all) {
                let mut found: Promises = Promises::new();
                for entry in walkdir::WalkDir::new(mount.at(kind)) {
                    let entry = entry.unwrap();
                    if entry.file_type().is_file() {
                        let name =
                            entry.path().strip_prefix(mount.at(kind)).unwrap().to_str().unwrap().to_owned();
                        let bytes = fs::read(entry.path()).unwrap();
                        found.insert(name, Promise { durable: Some(bytes), ..Promise::default() });
                    }
                }
                for (name, promise) in promises.iter() {
                    let bytes = found.get(name).and_then(|found| found.durable.as_deref());
                    let told = bytes.map(|bytes| bytes.len());
                    assert!(
                        promise.is_kept_by(bytes),
                        "seed {seed}, round {round}, {kind}/{name}: {told:?} of {:?}, {} writes later, {} saves\n{}",
                        promise.durable.as_ref().map(Vec::len),
                        promise.later.len(),
                        promise.saved.len(),
                        mount.log()
                    );
                    match promise.durable {
                        Some(_) => kept += 1,
                        None => unsynced += 1,
                    }
                }
                found.retain(|name, _| !name.ends_with(".new"));
                *promises = found;
            }
            mount.unmount();
        }
        let counts = disk.counts();
        lost += counts.lost_writes + counts.lost_names;
        drop(disk);
    }
    println!(
        "{seeds} seeds, 3 cuts each: {kept} files that were synced kept, {unsynced} others, {lost} writes and names lost by the disk"
    );
    assert!(lost > seeds * 10, "the disk lost {lost}");
}
