//! `.parquedb` in a mount: it is entered by its name, is in no listing, and nothing in it can be changed.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::Value;

use super::{by_hand, ctl, database, sync};
use crate::harness::{Mounting, errno, names, noise, python, until, xattr};

fn status(dir: &Path) -> Value {
    serde_json::from_slice(&fs::read(dir.join(".parquedb/status.json")).unwrap()).unwrap()
}

#[test]
fn x2_earlier_revisions_are_read_in_the_mount_and_only_what_is_read_is_fetched() {
    const MIB: usize = 1 << 20;
    let (server, id) = database();
    let (old, new) = (noise(1, 8 * MIB), noise(2, 8 * MIB));
    server.publish(&id, &[("dir/big", &old), ("dir/sub/deep", b"deep")]);
    server.publish(&id, &[("dir/big", &new), ("one", b"changed")]);
    assert_eq!(server.commit(&id, "commit-gone", 3, &[], &["two"]).expect(200).json()["revision"], 4);
    let mounting = by_hand(&server);
    let mount = mounting.mount();
    let past = mount.at(".parquedb/revisions");

    let before = mount.stats().bytes_fetched;
    assert_eq!(names(&past.join("2")), ["data", "dir", "one", "two"]);
    assert_eq!(fs::read(past.join("2/two")).unwrap(), b"22");
    assert_eq!(fs::read(past.join("2/one")).unwrap(), b"1");
    assert_eq!(fs::read(past.join("3/one")).unwrap(), b"changed");
    assert_eq!(fs::read(past.join("2/dir/sub/deep")).unwrap(), b"deep");
    assert_eq!(fs::metadata(past.join("2/dir/big")).unwrap().len(), 8 * MIB as u64);
    assert!(mount.stats().bytes_fetched - before < 100, "what nobody reads is not fetched");
    assert!(fs::read(past.join("2/dir/big")).unwrap() == old, "as it was then");
    assert!(mount.read("dir/big").unwrap() == new);
    assert!(fs::read(past.join("3/dir/big")).unwrap() == new);
    let fetched = mount.stats().bytes_fetched - before;
    assert!(fetched < 17 * MIB as u64, "each content once: {fetched}");

    // What is published later is another revision; what was looked into stays as it is.
    fs::write(mount.at("one"), "mine").unwrap();
    sync(&server, &mount);
    assert_eq!(fs::read(past.join("4/one")).unwrap(), b"changed");
    assert_eq!(fs::read(past.join("5/one")).unwrap(), b"mine");
    assert_eq!(names(&past), ["1", "2", "3", "4", "5"]);
    assert!(
        fs::metadata(past.join("1")).unwrap().modified().unwrap()
            <= fs::metadata(past.join("5")).unwrap().modified().unwrap()
    );

    for absent in ["0", "6", "01", "+1", "-1", "1.", "x", "99999999999999999999", "1/nothing", "4/two"] {
        assert_eq!(errno(fs::metadata(past.join(absent))), Some(libc::ENOENT), "{absent}");
    }
    // More of them than are kept, and the first once more, under the same numbers.
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(past.join("1/dir/x")).unwrap().ino();
    for _ in 0..3 {
        for revision in 1..=5 {
            assert_eq!(fs::read(past.join(format!("{revision}/dir/x"))).unwrap(), b"x");
        }
    }
    assert_eq!(fs::metadata(past.join("1/dir/x")).unwrap().ino(), number);
    assert_eq!(xattr(&past.join("2/one"), "user.parquedb.revision").unwrap(), "2");
    mount.unmount();
}

#[test]
fn x2_earlier_revisions_that_cannot_be_reached_are_not_absent() {
    let (mut server, id) = database();
    server.publish(&id, &[("one", b"changed")]);
    let mount = by_hand(&server).mount();
    let past = mount.at(".parquedb/revisions");
    assert_eq!(fs::read(past.join("1/one")).unwrap(), b"1");
    server.kill();
    assert_eq!(errno(fs::read_dir(&past)), Some(libc::EIO));
    assert_eq!(errno(fs::metadata(past.join("2"))), Some(libc::EIO));
    assert_eq!(fs::read(past.join("1/one")).unwrap(), b"1", "that was looked into");
    assert_eq!(names(&past.join("1")), ["data", "dir", "one", "two"]);
    assert_eq!(status(&mount.path())["revision"], 2);
    mount.unmount();
}

#[test]
fn x6_what_lies_beside_the_files_is_in_no_listing_and_cannot_be_changed() {
    let (server, id) = database();
    let mounting = by_hand(&server).args(&["--strategy", "local-wins"]);
    let mount = mounting.mount();
    let root = mount.path();
    assert_eq!(names(&root), ["data", "dir", "one", "two"]);
    assert_eq!(names(&root.join(".parquedb")), ["conflicts", "revisions", "status.json"]);
    assert_eq!(names(&root.join(".parquedb/conflicts")), [""; 0]);

    fs::write(mount.at("one"), "mine").unwrap();
    assert_eq!(status(&root)["pending"], 1);
    server.publish(&id, &[("one", b"theirs")]);
    sync(&server, &mount);
    let status = status(&root);
    assert_eq!((&status["database"], &status["pending"]), (&"alice/d".into(), &0.into()), "{status}");
    assert!(status["lastSync"].is_string() && status["state"].is_string(), "{status}");

    // A version that lost can be read where it is kept.
    let runs = names(&root.join(".parquedb/conflicts"));
    let kept =
        root.join(".parquedb/conflicts").join(runs.iter().find(|name| !name.ends_with(".json")).unwrap());
    assert_eq!(fs::read(kept.join("one.remote.conflict")).unwrap(), b"theirs");
    // And no pattern meets it, nor any earlier revision.
    let found = python(
        "import sys, glob, os, json\n\
         root = sys.argv[1]\n\
         walked = [name for _, dirs, files in os.walk(root) for name in dirs + files]\n\
         print(json.dumps([sorted(walked), glob.glob(root + '/**/*conflict*', recursive=True)]))",
        &[&root],
    );
    assert_eq!(found[0].as_array().unwrap().len(), 8, "{found}");
    assert_eq!(found[1].as_array().unwrap().len(), 0, "{found}");

    let beside = |name: &str| root.join(".parquedb").join(name);
    let refused: [(&str, io::Result<()>); 9] = [
        ("mkdir", fs::create_dir(beside("new"))),
        ("create", fs::write(beside("new"), "x")),
        ("create below", fs::write(beside("revisions/1/new"), "x")),
        ("write", fs::OpenOptions::new().write(true).open(beside("status.json")).map(drop)),
        ("write below", fs::OpenOptions::new().append(true).open(beside("revisions/1/one")).map(drop)),
        ("unlink", fs::remove_file(beside("revisions/1/one"))),
        ("rename out", fs::rename(beside("status.json"), mount.at("status.json"))),
        ("rename in", fs::rename(mount.at("two"), beside("two"))),
        (
            "chmod",
            fs::set_permissions(beside("revisions"), std::os::unix::fs::PermissionsExt::from_mode(0o777)),
        ),
    ];
    for (what, result) in refused {
        assert_eq!(errno(result), Some(libc::EROFS), "{what}");
    }
    assert_eq!(errno(fs::create_dir(root.join(".parquedb"))), Some(libc::EEXIST));
    for (what, result) in [
        ("rmdir", fs::remove_dir(root.join(".parquedb"))),
        ("rename", fs::rename(root.join(".parquedb"), mount.at("x"))),
        ("rename over", fs::rename(mount.at("dir"), root.join(".parquedb"))),
    ] {
        assert_eq!(errno(result), Some(libc::EROFS), "{what}");
    }
    assert_eq!(mount.read("two").unwrap(), b"22");
    assert_eq!(server.paths("d"), ["data/t/a.bin", "dir/x", "dir/y", "one", "two"]);
    // Copied out by the kernel itself.
    fs::copy(beside("revisions/1/one"), mount.at("old-one")).unwrap();
    assert_eq!(mount.read("old-one").unwrap(), b"1");
    ctl(&server, &mount, &["sync"]).expect(0);
    mount.unmount();
}

#[test]
fn x2_a_mount_that_is_only_read_has_earlier_revisions_too() {
    let (server, id) = database();
    server.publish(&id, &[("one", b"changed")]);
    let mount = Mounting::owner(&server, "alice/d").arg("--read-only").mount();
    assert_eq!(names(&mount.at(".parquedb")), ["revisions", "status.json"]);
    assert_eq!(fs::read(mount.at(".parquedb/revisions/1/one")).unwrap(), b"1");
    mount.unmount();
    let mount = Mounting::owner(&server, "alice/d").args(&["--at", "1"]).mount();
    assert_eq!(fs::read(mount.at(".parquedb/revisions/2/one")).unwrap(), b"changed");
    until(|| status(&mount.path())["revision"] == 1);
    mount.unmount();
}
