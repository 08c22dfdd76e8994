//! Handles of all kinds on one file that is written: the kernel wants one way of reading and writing it from the first
//! open to the last close, and answers a mix with EIO (rule 20).

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

use super::{database, mounting, open_again};
use crate::harness::{Random, noise, number};

const BLOCK: usize = 4096;

/// Memory as `O_DIRECT` wants it.
#[repr(align(4096))]
struct Aligned([u8; BLOCK]);

/// Ways to open a file; whether it can be written through that.
const WAYS: [(bool, i32); 6] = [
    (false, 0),
    (true, 0),
    (true, libc::O_DIRECT),
    (true, libc::O_DSYNC),
    (false, libc::O_DIRECT),
    (true, libc::O_SYNC | libc::O_DIRECT),
];

#[test]
fn rule_20_no_order_of_opens_writes_and_closes_fails() {
    let seeds = number("PARQUEDB_TEST_OPENS", 6);
    let first = number("PARQUEDB_TEST_SEED", u64::from(std::process::id()));
    let (server, _) = database();
    let large = noise(7, 3 << 20);
    for seed in first..first + seeds {
        for flag in ["--read-timeout=9", "--no-passthrough"] {
            let mount = mounting(&server).arg(flag).mount();
            fs::write(mount.at("made"), &large).unwrap();
            if seed % 2 == 0 {
                // Complete in the cache, the kernel reads it by itself.
                for _ in 0..3 {
                    mount.read("large").unwrap();
                }
            }
            let mut chance = Random(seed);
            // A handle's bytes may stay those of the version it was opened with until somebody writes: so each file is written first.
            for name in ["large", "made"] {
                let path = mount.at(name);
                let mut expected = large.clone();
                let mut handles: Vec<(bool, File)> = Vec::new();
                let mut memory = Box::new(Aligned([0; BLOCK]));
                for step in 0..300 {
                    let (writes, flags) = WAYS[chance.index(WAYS.len())];
                    let about = format!("seed {seed}, {flag}, {name}, step {step}");
                    match chance.index(5) {
                        0 | 1 if handles.len() < 6 => {
                            let mut options = File::options();
                            options.read(true).write(writes || step == 0).custom_flags(flags);
                            handles.push((writes, open_again(&options, &path)));
                        }
                        2 if !handles.is_empty() => drop(handles.swap_remove(chance.index(handles.len()))),
                        3 => {
                            let at = chance.index(large.len() / BLOCK) * BLOCK;
                            if let Some((_, file)) = handles.iter().find(|(writes, _)| *writes) {
                                memory.0.copy_from_slice(&noise(step, BLOCK));
                                file.write_all_at(&memory.0, at as u64)
                                    .unwrap_or_else(|error| panic!("{about}: {error}"));
                                expected[at..at + BLOCK].copy_from_slice(&memory.0);
                            }
                        }
                        _ => {
                            let at = chance.index(large.len() / BLOCK) * BLOCK;
                            for (_, file) in &handles {
                                file.read_exact_at(&mut memory.0, at as u64)
                                    .unwrap_or_else(|error| panic!("{about}: {error}"));
                                let is_right = memory.0[..] == expected[at..at + BLOCK];
                                assert!(is_right, "{about}: wrong bytes at {at}");
                            }
                        }
                    }
                }
                drop(handles);
                assert!(mount.read(name).unwrap() == expected, "seed {seed}, {flag}, {name}");
            }
            mount.unmount();
        }
    }
}
