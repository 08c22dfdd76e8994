//! F04, rule 20, X1: however the kernel reads a file, a handle and a mapping keep their version while the remote goes on;
//! names, sizes and times are those of the revision shown; and when the last handle is closed, nothing is left of it.

use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::process::Command;

use serde_json::Value;

use super::following::{id_of, quick};
use super::modes::{Mapped, by_the_kernel_alone, forget_cached, forget_pages, until_by_the_kernel_alone};
use super::{assert_right, database_of, errno, read_elsewhere};
use crate::harness::{Cli, Mount, Mounting, Server, names, noise, put_entry, text, until};

const MIB: usize = 1 << 20;

/// How the kernel reads what is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Passthrough,
    KeptPages,
}

impl Way {
    fn mounting(self, server: &Server) -> Mounting {
        let mounting = quick(&server.url()).args(&["--cache-size", "20MB"]);
        if self == Self::KeptPages { mounting.arg("--no-passthrough") } else { mounting }
    }
}

/// A revision's day, which all its files have for their date.
fn day(revision: u64) -> String {
    format!("2025-01-{revision:02}T00:00:00.000Z")
}

/// Publishes files of that day on top of a revision, and waits until the mount has moved there altogether.
pub(super) fn move_on(server: &Server, mount: &Mount, base: u64, files: &[(&str, &[u8])], delete: &[&str]) {
    let id = id_of(server);
    let put = files.iter().map(|(name, bytes)| {
        server.upload(&id, name, bytes);
        let mut entry = put_entry(name, bytes);
        entry["modifiedAt"] = Value::from(day(base + 1));
        entry
    });
    let flips = mount.stats().flips;
    let put: Vec<_> = put.collect();
    server.commit(&id, &format!("commit-{base}"), base, &put, delete).expect(200);
    until(|| mount.stats().flips > flips);
}

/// A file that is open and mapped, and what it must show for ever.
struct Held<'a> {
    name: &'static str,
    file: File,
    mapped: [Mapped; 2],
    bytes: &'a [u8],
}

impl<'a> Held<'a> {
    fn open(mount: &Mount, name: &'static str, bytes: &'a [u8]) -> Self {
        let file = File::open(mount.at(name)).unwrap();
        let mapped = [libc::MAP_SHARED, libc::MAP_PRIVATE].map(|kind| Mapped::of(&file, bytes.len(), kind));
        Self { name, file, mapped, bytes }
    }

    /// Fails unless it shows its own version, also where the kernel has forgotten it.
    fn check(&self, when: &str) {
        for kept in [true, false] {
            if !kept {
                forget_pages(&self.file);
            }
            let mut read = vec![0; self.bytes.len() + 1];
            let count = self.file.read_at(&mut read[..1000], self.bytes.len() as u64 - 500).unwrap();
            assert!(
                read[..count] == self.bytes[self.bytes.len() - 500..],
                "the end of {}, {when}",
                self.name
            );
            self.file.read_exact_at(&mut read[..self.bytes.len()], 0).unwrap();
            assert!(read[..self.bytes.len()] == *self.bytes, "{}, {when}", self.name);
            for mapped in &self.mapped {
                assert!(mapped.fresh_bytes() == self.bytes, "{} mapped, {when}", self.name);
            }
        }
        let meta = self.file.metadata().unwrap();
        assert_eq!(meta.len(), self.bytes.len() as u64, "{}, {when}", self.name);
    }
}

/// Reads a file in other processes until the daemon is not asked any more. What the kernel has forgotten it then reads
/// by itself, or not, as it should.
fn until_complete(mount: &Mount, way: Way, name: &str, bytes: &[u8]) {
    until(|| {
        let before = mount.stats().reads;
        assert!(read_elsewhere(&mount.at(name)) == bytes, "{name}");
        mount.stats().reads == before
    });
    let before = mount.stats().reads;
    let mut forget = Command::new("dd");
    forget.arg(format!("if={}", mount.at(name).display())).args(["iflag=nocache", "count=0", "status=none"]);
    assert!(forget.status().unwrap().success());
    assert!(read_elsewhere(&mount.at(name)) == bytes, "{name}");
    let asked = mount.stats().reads > before;
    assert_eq!(asked, way == Way::KeptPages, "{name} is read in its own way");
}

/// The inodes of the cached contents that somebody has open: the daemon, or the kernel for it.
fn cached_and_open(mounting: &Mounting) -> usize {
    let files = walkdir::WalkDir::new(mounting.cache().join("blocks-3")).into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_name() == "bytes");
    let inodes: Vec<String> = files.map(|entry| format!(":{} ", entry.metadata().unwrap().ino())).collect();
    let locks = fs::read_to_string("/proc/locks").unwrap();
    locks.lines().filter(|lock| inodes.iter().any(|inode| lock.contains(inode))).count()
}

fn evict_all(mounting: &Mounting) -> crate::harness::Outcome {
    Cli::new().run(&["cache", "evict", "--all", "--cache-dir", text(mounting.cache())])
}

fn versions_are_kept(way: Way) {
    let (server, files) = database_of(&[("d/x", 5 * MIB + 77), ("d/gone", 2 * MIB), ("d/same", MIB + 1)]);
    let [x, gone, same] = [&files[0].1, &files[1].1, &files[2].1];
    let others: Vec<(String, Vec<u8>)> =
        (0..4).map(|n| (format!("other/{n}"), noise(90 + n, 4 * MIB))).collect();
    for (n, (name, bytes)) in (1..).zip(&others) {
        let id = id_of(&server);
        server.upload(&id, name, bytes);
        server.commit(&id, &format!("other-file-{n}"), n, &[put_entry(name, bytes)], &[]).expect(200);
    }
    let mounting = way.mounting(&server);
    let mount = mounting.mount();
    for (name, bytes) in &files {
        until_complete(&mount, way, name, bytes);
    }
    let held = [
        Held::open(&mount, "d/x", x),
        Held::open(&mount, "d/gone", gone),
        Held::open(&mount, "d/same", same),
    ];
    let check = |when: &str| {
        let check = || held.iter().for_each(|held| held.check(when));
        if way == Way::Passthrough { by_the_kernel_alone(&mount, check) } else { check() }
    };
    check("at first");
    let modified = |meta: fs::Metadata| -> String {
        let time = jiff::Timestamp::try_from(meta.modified().unwrap()).unwrap();
        format!("{time:.3}")
    };
    let first = held.each_ref().map(|held| modified(held.file.metadata().unwrap()));

    // Another content, another one, and the first once more.
    let versions = [&noise(50, 6 * MIB)[..], &noise(51, 4 * MIB + 1)[..], &x[..]];
    let mut base = server.revision(&id_of(&server));
    for (round, newer) in versions.into_iter().enumerate() {
        let when = format!("in round {round}");
        let new = noise(60 + round as u64, 1000);
        let added = format!("d/new-{round}");
        let delete: &[&str] = if round == 0 { &["d/gone"] } else { &[] };
        move_on(&server, &mount, base, &[("d/x", newer), ("d/same", same), (&*added, &new)], delete);
        base += 1;
        // At once.
        let meta = fs::metadata(mount.at("d/x")).unwrap();
        assert_eq!((meta.len(), modified(meta)), (newer.len() as u64, day(base)), "{when}");
        let mut there = vec!["same".to_owned(), "x".to_owned()];
        there.extend((0..=round).map(|round| format!("new-{round}")));
        there.sort();
        assert_eq!(names(&mount.at("d")), there, "{when}");
        assert_eq!(errno(fs::metadata(mount.at("d/gone"))), Some(libc::ESTALE), "{when}");
        // Whoever holds the old one gets the new one from another process only.
        assert_eq!(errno(File::open(mount.at("d/x"))), Some(libc::ESTALE), "{when}");
        assert!(read_elsewhere(&mount.at("d/x")) == newer, "{when}");
        assert!(read_elsewhere(&mount.at(&added)) == new, "{when}");
        check(&when);
        // The new one becomes what the old one is, each by itself.
        until_complete(&mount, way, "d/x", newer);
        check(&when);
        // There is no room for all.
        for (name, bytes) in &others {
            assert!(read_elsewhere(&mount.at(name)) == *bytes, "{name} {when}");
        }
        let evicted = evict_all(&mounting);
        assert!(evicted.code == 10, "{when}: {evicted:?}");
        rustix::fs::sync();
        forget_cached(mounting.cache());
        check(&format!("{when}, after eviction"));
        let now = held.each_ref().map(|held| modified(held.file.metadata().unwrap()));
        assert_eq!(
            now,
            [first[0].clone(), first[1].clone(), day(base)],
            "a date alone changes in place; {when}"
        );
    }
    // A content that is not there any more is freed with its last handle.
    assert!(cached_and_open(&mounting) >= 2);
    drop(held);
    until(|| cached_and_open(&mounting) == 0);
    evict_all(&mounting).expect(0);
    let left = walkdir::WalkDir::new(mounting.cache().join("blocks-3")).into_iter().filter_map(Result::ok);
    assert_eq!(left.filter(|entry| entry.file_name() == "bytes").count(), 0, "nothing is left");
    // And so is its place among the inodes, a moment after the last scan that may have seen it.
    let place = |name: &str| fs::metadata(mount.at(name)).unwrap().ino() & u64::from(u32::MAX);
    let before = place("d/x");
    for round in 0..16 {
        move_on(&server, &mount, base, &[("d/x", &noise(70 + round, 2000))], &[]);
        base += 1;
        assert!(read_elsewhere(&mount.at("d/x")) == noise(70 + round, 2000));
        assert!(place("d/x") < before + 10, "place {} after {before} in round {round}", place("d/x"));
    }
    read_again(&mount, way, &others);
    mount.unmount();
}

/// What was evicted comes again, and is read as before.
fn read_again(mount: &Mount, way: Way, files: &[(String, Vec<u8>)]) {
    assert_right(&mount.path(), files);
    if way == Way::Passthrough {
        until_by_the_kernel_alone(mount, &files[0].0, &files[0].1);
    }
    let mut read = Vec::new();
    File::open(mount.at(&files[0].0)).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == files[0].1);
}

#[test]
fn f04_a_handle_keeps_its_version_by_passthrough() {
    versions_are_kept(Way::Passthrough);
}

#[test]
fn f04_a_handle_keeps_its_version_by_kept_pages() {
    versions_are_kept(Way::KeptPages);
}
