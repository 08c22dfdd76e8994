//! F03, F05, F26: the cache outlives the mount, also one that was killed; and what has rotted in it is noticed.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::{assert_right, database_of, read_directly};
use crate::harness::{Mounting, noise, until};

const MIB: usize = 1 << 20;
const BLOCK: u64 = 32 << 10;
const FILES: &[(&str, usize)] =
    &[("large", 3 * MIB + 17), ("medium", 700_000), ("small", 100), ("block", 32 << 10), ("empty", 0)];

/// The cache's files of one kind.
fn cached(mounting: &Mounting, kind: &str) -> Vec<PathBuf> {
    let all = walkdir::WalkDir::new(mounting.cache().join("blocks-3")).into_iter();
    // What is removed meanwhile is none of them.
    let found: Vec<PathBuf> = all
        .filter_map(|entry| Some(entry.ok()?.into_path()))
        .filter(|path| path.file_name() == Some(kind.as_ref()))
        .collect();
    assert!(!found.is_empty());
    found
}

/// Whether nothing is cached in a directory.
fn is_empty(dir: &Path) -> bool {
    let all = walkdir::WalkDir::new(dir).into_iter().filter_map(Result::ok);
    all.filter(|entry| entry.file_name() == "bytes").count() == 0
}

/// Changes one byte.
fn flip(path: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

#[test]
fn f03_the_second_mount_fetches_nothing_also_after_a_crash() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    let total: usize = FILES.iter().map(|(_, size)| size).sum();
    assert_eq!(mount.stats().bytes_fetched, total as u64);
    mount.kill9();
    // Twice: once after the crash, and once after an orderly end.
    for _ in 0..2 {
        let mount = mounting.mount();
        assert_right(&mount.path(), &files);
        let stats = mount.stats();
        assert_eq!((stats.requests, stats.bytes_fetched, stats.blocks_rotten), (1, 0, 0), "{stats:?}");
        assert_eq!(stats.bytes_from_cache, stats.bytes_read);
        mount.unmount();
    }
    let elsewhere = mounting.clone().cache_in(&mounting.beside().join("another")).mount();
    assert_right(&elsewhere.path(), &files);
    assert!(elsewhere.stats().bytes_fetched > 0, "it was that cache that served");
}

#[test]
fn f05_a_kill_while_fetching_leaves_nothing_wrong() {
    let (server, files) = database_of(&[("x", 24 * MIB)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mut fetched = 0;
    for _ in 0..4 {
        let mount = mounting.mount();
        let path = mount.at("x");
        let reader = std::thread::spawn(move || fs::read(path));
        until(|| mount.stats().bytes_fetched > 2 << 20 || reader.is_finished());
        fetched += mount.stats().bytes_fetched;
        mount.kill9();
        let _ = reader.join();
    }
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    let stats = mount.stats();
    assert_eq!(stats.blocks_rotten, 0, "what was recorded was there");
    assert!(
        fetched + stats.bytes_fetched < 60 << 20,
        "what was fetched before is used: {fetched}, {stats:?}"
    );
}

#[test]
fn f05_bytes_that_rot_are_noticed_and_fetched_again() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    // In a running mount, past the kernel's pages, once everything is where it stays.
    until(|| {
        fs::read_dir(mounting.cache().join("blocks-3/private"))
            .unwrap()
            .all(|scope| is_empty(&scope.unwrap().path()))
    });
    let damaged = cached(&mounting, "bytes");
    damaged.iter().for_each(|path| flip(path, fs::metadata(path).unwrap().len() / 2));
    for (name, bytes) in &files {
        assert!(read_directly(&mount.at(name), 0, bytes.len()).unwrap() == *bytes, "{name}");
    }
    let stats = mount.stats();
    assert_eq!(stats.blocks_rotten, damaged.len() as u64, "each is counted once: {stats:?}");
    mount.unmount();

    // Between two mounts: the first byte and the last.
    for path in &damaged {
        flip(path, 0);
        flip(path, fs::metadata(path).unwrap().len() - 1);
    }
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    let stats = mount.stats();
    assert!(stats.blocks_rotten >= damaged.len() as u64, "{stats:?}");
    assert!(stats.bytes_fetched < files[0].1.len() as u64, "only what rotted is fetched: {stats:?}");
    mount.unmount();
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    assert_eq!(mount.stats().requests, 1, "and kept");
}

#[test]
fn f05_no_damage_to_the_caches_files_shows_in_the_mount() {
    let (server, files) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    mount.unmount();
    let half = |path: &Path| fs::metadata(path).map(|meta| meta.len() / 2);
    let cut = |path: &Path, length: u64| File::options().write(true).open(path)?.set_len(length);
    let spoil = |path: &Path, from: u64| {
        let length = fs::metadata(path)?.len() - from;
        File::options().write(true).open(path)?.write_all_at(&noise(5, length as usize), from)
    };
    type Damage<'a> = Box<dyn Fn(&Path) -> io::Result<()> + 'a>;
    let damages: Vec<(&str, &str, Damage<'_>)> = vec![
        ("slots", "cut in half", Box::new(|path| cut(path, half(path)?))),
        ("slots", "empty", Box::new(|path| cut(path, 0))),
        ("slots", "too long", Box::new(|path| cut(path, 4 + 2 * half(path)?))),
        ("slots", "noise", Box::new(|path| spoil(path, 0))),
        ("slots", "noise after a good header", Box::new(|path| spoil(path, 24))),
        ("slots", "removed", Box::new(|path| fs::remove_file(path))),
        (
            "slots",
            "of another content",
            Box::new(|path| {
                let other = cached(&mounting, "slots").into_iter().find(|other| other != path);
                fs::copy(other.unwrap(), path).map(drop)
            }),
        ),
        ("bytes", "cut in half", Box::new(|path| cut(path, half(path)?))),
        ("bytes", "empty", Box::new(|path| cut(path, 0))),
        ("bytes", "too long", Box::new(|path| cut(path, 3 * BLOCK + 2 * half(path)?))),
        ("bytes", "noise", Box::new(|path| spoil(path, 0))),
        ("bytes", "removed", Box::new(|path| fs::remove_file(path))),
        ("bytes", "a directory", Box::new(|path| fs::remove_file(path).and_then(|()| fs::create_dir(path)))),
        ("slots", "a directory", Box::new(|path| fs::remove_file(path).and_then(|()| fs::create_dir(path)))),
    ];
    for (kind, what, damage) in &damages {
        for path in cached(&mounting, kind) {
            damage(&path).unwrap();
        }
        let mount = mounting.mount();
        for (name, bytes) in &files {
            let read = mount.read(name).unwrap_or_else(|error| panic!("{kind} {what}: {name}: {error}"));
            assert!(read == *bytes, "{kind} {what}: {name}");
        }
        mount.unmount();
    }
}
