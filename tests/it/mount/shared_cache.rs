//! Rules 20, 24 and 26 from outside: several daemons, one cache.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::Value;

use super::cache::taken;
use super::{assert_right, database_of, read_directly, slice};
use crate::harness::{Cli, Mount, Mounting, Server, noise, text, until};

const MIB: usize = 1 << 20;

/// What `parquedb cache ls` says of a mounting's cache.
fn listed(mounting: &Mounting) -> Vec<Value> {
    let listed = Cli::new().run(&["cache", "ls", "--json", "--cache-dir", text(mounting.cache())]);
    listed.expect(0).json()["contents"].as_array().unwrap().clone()
}

fn until_all_is_verified(mounting: &Mounting) {
    until(|| {
        let listed = listed(mounting);
        !listed.is_empty() && listed.iter().all(|content| content["verified"] == true)
    });
}

/// One more mounting that uses the same cache.
fn beside(mounting: &Mounting, server: &Server, database: &str) -> Mounting {
    Mounting::at(&server.url(), database).cache_in(mounting.cache())
}

#[test]
fn rule_26_equal_files_of_two_databases_and_servers_are_fetched_once() {
    let (server, files) = database_of(&[("x", 3 * MIB + 5), ("y", 70_000)]);
    let id = server.register("twin", "public");
    server.publish(&id, &[("renamed", &files[0].1), ("y", &files[1].1)]);
    let (elsewhere, _) = database_of(&[("x", 3 * MIB + 5), ("y", 70_000)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    until_all_is_verified(&mounting);
    let twin = beside(&mounting, &server, "alice/twin").mount();
    assert!(twin.read("renamed").unwrap() == files[0].1 && twin.read("y").unwrap() == files[1].1);
    let third = beside(&mounting, &elsewhere, "alice/d").mount();
    assert_right(&third.path(), &files);
    for other in [&twin, &third] {
        assert_eq!(other.stats().bytes_fetched, 0, "what was verified is shared");
    }
    assert_eq!(listed(&mounting).len(), 2);
    mount.unmount();
    twin.unmount();
    third.unmount();
}

#[test]
fn rule_26_what_nobody_verified_is_not_shared() {
    let (server, files) = database_of(&[("x", 4 * MIB)]);
    let id = server.register("twin", "public");
    server.publish(&id, &[("x", &files[0].1)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let (one, two) = (mounting.mount(), beside(&mounting, &server, "alice/twin").mount());
    for mount in [&one, &two] {
        assert!(read_directly(&mount.at("x"), 0, 100_000).unwrap() == files[0].1[..100_000]);
        assert!(mount.stats().bytes_fetched >= 100_000, "each fetched its own");
    }
    let listed = listed(&mounting);
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().all(|content| !content["scope"]["databaseId"].is_null()), "{listed:?}");
    one.unmount();
    two.unmount();
}

#[test]
fn rule_24_two_daemons_fill_one_content_and_both_read_right() {
    let (server, files) = database_of(&[("x", 24 * MIB + 11)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mounts = [mounting.mount(), beside(&mounting, &server, "alice/d").mount()];
    std::thread::scope(|scope| {
        for (n, mount) in mounts.iter().enumerate() {
            let files = &files;
            scope.spawn(move || {
                // One from the front, the other from the back.
                let at = |step: usize| if n == 0 { step } else { 24 - step };
                for step in 0..=24 {
                    let offset = (at(step) * MIB) as u64;
                    let read = read_directly(&mount.at("x"), offset, MIB).unwrap();
                    assert!(read == slice(&files[0].1, offset, MIB), "{offset}");
                }
            });
        }
    });
    let fetched: u64 = mounts.iter().map(|mount| mount.stats().bytes_fetched).sum();
    assert!(fetched < 40 << 20, "each uses what the other has brought: {fetched}");
    assert!(mounts.iter().all(|mount| mount.stats().blocks_rotten == 0), "nobody met half of a block");
    until_all_is_verified(&mounting);
    assert_eq!(listed(&mounting).len(), 1);
    assert!(taken(mounting.cache()) < 25 << 20, "it is there once");
    for mount in mounts {
        assert_right(&mount.path(), &files);
        mount.unmount();
    }
}

#[test]
fn f26_two_daemons_keep_to_one_limit() {
    const LIMIT: u64 = 8_000_000;
    let (server, files) = database_of(&[("x", 12 * MIB), ("y", 12 * MIB + 1), ("z", MIB)]);
    let mounting = Mounting::at(&server.url(), "alice/d").args(&["--cache-size", "8MB"]);
    let other = beside(&mounting, &server, "alice/d").args(&["--cache-size", "8MB"]);
    let mounts = [mounting.mount(), other.mount()];
    let (ended, cache) = (AtomicBool::new(false), mounting.cache());
    let most = std::thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let mut most = 0;
            while !ended.load(Ordering::Relaxed) {
                // What moves while it is looked at may be met twice, but not as often again.
                let look = || taken(&cache.join("blocks-3"));
                most = most.max(look().min(look()).min(look()));
                std::thread::sleep(Duration::from_millis(2));
            }
            most
        });
        let reading: Vec<_> = mounts
            .iter()
            .enumerate()
            .map(|(n, mount)| {
                let files = &files;
                scope.spawn(move || {
                    for round in 0..4 {
                        let (name, bytes) = &files[(n + round) % 3];
                        for offset in (0..bytes.len() as u64).step_by(MIB) {
                            let read = read_directly(&mount.at(name), offset, MIB).unwrap();
                            assert!(read == slice(bytes, offset, MIB), "{name} {offset}");
                        }
                    }
                })
            })
            .collect();
        let results: Vec<_> = reading.into_iter().map(|thread| thread.join()).collect();
        ended.store(true, Ordering::Relaxed);
        assert!(results.iter().all(Result::is_ok));
        watching.join().unwrap()
    });
    assert!(most <= LIMIT, "{most} bytes were taken");
    assert!(most > LIMIT / 2, "the cache was used: {most}");
    mounts.into_iter().for_each(Mount::unmount);
}

/// The cache's files of one kind.
fn stored(mounting: &Mounting, kind: &str) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(mounting.cache()).into_iter().filter_map(Result::ok);
    all.map(walkdir::DirEntry::into_path).filter(|path| path.file_name() == Some(kind.as_ref())).collect()
}

#[test]
fn f05_whatever_rots_under_a_live_mount_it_reads_right() {
    let (server, files) = database_of(&[("large", 9 * MIB + 100), ("small", 50_000)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    let mut random = noise(77, 400 * 12).into_iter();
    let mut number = || (0..4).fold(0_u64, |n, _| n << 8 | u64::from(random.next().unwrap()));
    for round in 0..300 {
        let (name, bytes) = &files[(number() % 2) as usize];
        let offset = number() % bytes.len() as u64;
        let read = read_directly(&mount.at(name), offset / 4096 * 4096, 300_000).unwrap();
        assert!(read == slice(bytes, offset / 4096 * 4096, 300_000), "{name} {offset} in round {round}");
        // While the kernel reads a file by itself, nothing notices what is done to it.
        std::thread::sleep(Duration::from_millis(10));
        let kind = if round % 3 == 0 { "slots" } else { "bytes" };
        let all = stored(&mounting, kind);
        let Some(path) = all.get(round % all.len().max(1)) else { continue };
        // It may just be moved.
        let Ok(file) = File::options().read(true).write(true).open(path) else { continue };
        let length = file.metadata().unwrap().len();
        match round % 50 {
            48 => file.set_len(length / 2).unwrap(),
            49 => drop(fs::remove_file(path)),
            _ => {
                let noise = noise(round as u64 + 1, 20);
                let at = if kind == "slots" { 64 } else { 0 };
                file.write_all_at(&noise, at + number() % (length - at).max(1)).unwrap();
                file.set_len(length).unwrap();
            }
        }
    }
    assert!(mount.stats().blocks_rotten > 0);
    mount.unmount();
}

#[test]
fn f26_a_running_mount_obeys_a_new_limit() {
    let (server, files) = database_of(&[("0", 2 * MIB), ("1", 2 * MIB), ("2", 2 * MIB), ("3", 2 * MIB)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    assert!(taken(mounting.cache()) > 8_000_000);
    let cache = text(mounting.cache());
    Cli::new().run(&["cache", "limit", "5MB", "--cache-dir", cache]).expect(0);
    until(|| taken(&mounting.cache().join("blocks-3")) <= 5_000_000);
    // The daemon reads the limit at most once a second.
    std::thread::sleep(Duration::from_millis(1100));
    for (name, bytes) in &files {
        assert!(read_directly(&mount.at(name), 0, bytes.len()).unwrap() == *bytes);
        let taken = taken(&mounting.cache().join("blocks-3"));
        assert!(taken <= 5_000_000, "{taken}");
    }
    mount.unmount();
}
