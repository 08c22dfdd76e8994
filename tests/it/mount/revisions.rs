//! F04: a mount shows one revision. The remote is published over while it is mounted: what is read is the revision
//! mounted, never a mix.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::{database_of, errno, read_directly, slice};
use crate::harness::{Mounting, get, noise};

const MIB: usize = 1 << 20;

#[test]
fn f04_a_replaced_file_reads_on_from_the_cache_and_from_its_revision() {
    let (server, files) = database_of(&[("replaced", 8 * MIB), ("deleted", 100_000), ("kept", 2 * MIB)]);
    let mounting = Mounting::owner(&server, "alice/d");
    let mount = mounting.mount();
    let open = File::open(mount.at("replaced")).unwrap();
    let cached = read_directly(&mount.at("replaced"), 0, 300_000).unwrap();
    assert!(cached == files[0].1[..300_000]);

    let id = get("/db/alice/d/_meta/manifest.json").send(&server.address).json()["databaseId"].clone();
    let id = id.as_str().unwrap();
    let newer = noise(77, 8 * MIB + 5);
    assert_eq!(server.publish(id, &[("replaced", &newer), ("added", b"new")]), 2);
    server.commit(id, "commit-3", 2, &[], &["deleted"]).expect(200);

    assert!(read_directly(&mount.at("replaced"), 0, 300_000).unwrap() == cached, "old bytes read on");
    let mut buffer = vec![0; 4096];
    for offset in [4 << 20, 8 * MIB as u64 - 4096] {
        open.read_exact_at(&mut buffer, offset).unwrap();
        assert!(buffer == slice(&files[0].1, offset, 4096), "bytes that were not fetched before");
    }
    // Part of it is cached: a read across the border must not be made up of two versions, nor cut short.
    assert!(read_directly(&mount.at("replaced"), 0, 8 * MIB).unwrap() == files[0].1);
    assert!(mount.read("replaced").unwrap() == files[0].1);
    assert!(mount.read("deleted").unwrap() == files[1].1);
    assert!(mount.read("kept").unwrap() == files[2].1, "what was not replaced is not stale");
    assert_eq!(std::fs::metadata(mount.at("replaced")).unwrap().len(), 8 * MIB as u64);
    assert_eq!(errno(std::fs::metadata(mount.at("added"))), Some(libc::ENOENT), "one revision is shown");
    drop(open);
    mount.unmount();

    let mount = mounting.mount();
    assert!(mount.read("replaced").unwrap() == newer && mount.read("added").unwrap() == b"new");
    assert_eq!(errno(std::fs::metadata(mount.at("deleted"))), Some(libc::ENOENT));
}

#[test]
fn f04_two_versions_in_one_cache_do_not_mix() {
    let (server, files) = database_of(&[("x", 4 * MIB)]);
    let id = get("/db/alice/d/_meta/manifest.json").send(&server.address).json()["databaseId"].clone();
    let old = Mounting::owner(&server, "alice/d");
    let before = old.mount();
    assert!(before.read("x").unwrap() == files[0].1);
    // The same size, and most of the same bytes.
    let mut newer = files[0].1.clone();
    newer[3 * MIB] ^= 1;
    server.publish(id.as_str().unwrap(), &[("x", &newer)]);
    let after = Mounting::owner(&server, "alice/d").cache_in(old.cache()).mount();
    assert!(after.read("x").unwrap() == newer);
    assert!(read_directly(&before.at("x"), 0, 4 * MIB).unwrap() == files[0].1);
    assert!(read_directly(&after.at("x"), 0, 4 * MIB).unwrap() == newer);
}

#[test]
fn a_content_stays_readable_by_the_path_that_still_has_it() {
    let (server, files) = database_of(&[("a", 3 * MIB)]);
    let id = get("/db/alice/d/_meta/manifest.json").send(&server.address).json()["databaseId"].clone();
    let id = id.as_str().unwrap();
    server.publish(id, &[("b", &files[0].1)]);
    let mount = Mounting::owner(&server, "alice/d").mount();
    let _open = File::open(mount.at("a")).unwrap();
    server.publish(id, &[("a", b"something else")]);
    assert!(mount.read("b").unwrap() == files[0].1, "b has not changed");
}
