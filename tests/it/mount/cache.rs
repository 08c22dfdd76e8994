//! F26: the cache keeps to its limit; and a cache that cannot be written, or is full, costs speed and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{assert_right, database_of, read_directly};
use crate::harness::{Mounting, Server, Tmpfs};

const MIB: usize = 1 << 20;
const TEN: &[(&str, usize)] = &[
    ("0", MIB),
    ("1", MIB),
    ("2", MIB + 1),
    ("3", MIB - 1),
    ("4", 2 * MIB),
    ("5", 10),
    ("6", 0),
    ("7", MIB),
    ("8", MIB),
    ("9", MIB),
];

/// Bytes a directory takes on its disk.
pub(super) fn taken(dir: &Path) -> u64 {
    let files = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    files
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|meta| meta.blocks() * 512)
        .sum()
}

#[test]
fn f26_the_cache_keeps_to_its_limit() {
    let (server, files) = database_of(TEN);
    let mounting = Mounting::at(&server.url(), "alice/d").args(&["--cache-size", "1MB"]);
    for _ in 0..2 {
        let mount = mounting.mount();
        for _ in 0..2 {
            for (name, bytes) in &files {
                assert!(mount.read(name).unwrap() == *bytes, "{name}");
                let taken = taken(mounting.cache());
                assert!(taken <= 1_000_000 + 20 * 4096, "{taken} bytes after {name}");
            }
        }
        // All at once, and every one held open.
        let open: Vec<_> = files.iter().map(|(name, _)| fs::File::open(mount.at(name)).unwrap()).collect();
        std::thread::scope(|scope| {
            for (name, bytes) in &files {
                let path = mount.at(name);
                scope.spawn(move || assert!(fs::read(&path).unwrap() == *bytes, "{name}"));
            }
        });
        assert!(taken(mounting.cache()) <= 1_000_000 + 20 * 4096);
        drop(open);
        mount.unmount();
    }
}

#[test]
fn f26_what_was_used_last_is_kept() {
    let (server, files) = database_of(&[("first", 400_000), ("second", 400_000), ("third", 400_000)]);
    let mounting = Mounting::at(&server.url(), "alice/d").args(&["--cache-size", "1MB"]);
    for name in ["second", "first", "third"] {
        let mount = mounting.mount();
        assert!(mount.read(name).unwrap().len() == 400_000);
        mount.unmount();
    }
    let mount = mounting.mount();
    assert!(mount.read("third").unwrap() == files[2].1 && mount.read("first").unwrap() == files[0].1);
    assert_eq!(mount.stats().bytes_fetched, 0, "the oldest one made room");
    assert!(mount.read("second").unwrap() == files[1].1);
    assert_eq!(mount.stats().bytes_fetched, 400_000);
}

#[test]
fn a_limit_of_nothing_still_reads() {
    let (server, files) = database_of(TEN);
    let mounting = Mounting::at(&server.url(), "alice/d").args(&["--cache-size", "0"]);
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    assert!(taken(mounting.cache()) <= 20 * 4096, "{}", taken(mounting.cache()));
}

fn on_a_tiny_disk(server: &Server) -> (Mounting, Tmpfs) {
    let mounting = Mounting::at(&server.url(), "alice/d");
    let path = mounting.beside().join("tiny");
    fs::create_dir(&path).unwrap();
    let disk = Tmpfs::mount(&path, 2);
    (mounting.cache_in(disk.path()), disk)
}

#[test]
fn a_full_disk_costs_speed_only() {
    let (server, files) = database_of(TEN);
    let (mounting, disk) = on_a_tiny_disk(&server);
    for _ in 0..2 {
        let mount = mounting.mount();
        for _ in 0..2 {
            assert_right(&mount.path(), &files);
        }
        for (name, bytes) in &files {
            assert!(read_directly(&mount.at(name), 0, bytes.len()).unwrap() == *bytes, "{name}");
        }
        mount.unmount();
    }
    // Not even room for a directory.
    let _ = fs::write(disk.path().join("fill"), vec![1; 4 * MIB]);
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    mount.unmount();
}

#[test]
fn what_must_stay_free_stays_free() {
    // Of less than is left, or all of them go around the cache.
    let names: Vec<String> = (0..10).map(|n| n.to_string()).collect();
    let sizes: Vec<_> = names.iter().map(|name| (&**name, 150_000)).collect();
    let (server, files) = database_of(&sizes);
    let (mounting, disk) = on_a_tiny_disk(&server);
    let mount = mounting.args(&["--cache-min-free", "1200kB"]).mount();
    for (name, bytes) in &files {
        assert!(mount.read(name).unwrap() == *bytes, "{name}");
        let free = rustix::fs::statvfs(disk.path()).unwrap();
        let free = free.f_bavail * free.f_frsize;
        assert!(free >= 1_200_000, "{free} bytes are free after {name}");
    }
    assert!(taken(disk.path()) > 300_000, "the rest is used");
    mount.unmount();
}

#[test]
fn a_cache_that_becomes_read_only_costs_speed_only() {
    let (server, files) = database_of(&[("cached", 500_000), ("partly", 3 * MIB), ("never", 100_000)]);
    let (mounting, disk) = on_a_tiny_disk(&server);
    let mount = mounting.mount();
    assert!(mount.read("cached").unwrap() == files[0].1);
    assert!(read_directly(&mount.at("partly"), 0, 100_000).unwrap() == files[1].1[..100_000]);
    // Contents of this mount are open for writing: the next mount meets the disk as it is then.
    mount.unmount();
    disk.make_read_only();
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    mount.unmount();
}

#[test]
fn the_cache_is_for_its_owner_alone() {
    let (server, files) = database_of(&[("x", 100)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    for entry in walkdir::WalkDir::new(mounting.cache()) {
        let entry = entry.unwrap();
        assert_eq!(entry.metadata().unwrap().mode() & 0o077, 0, "{}", entry.path().display());
    }
}
