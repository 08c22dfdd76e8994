//! F01: the mount is the manifest. The paths, sizes, times and bytes it shows are those published, and nothing can
//! be changed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::time::{Duration, SystemTime};

use super::errno;
use crate::harness::{
    Cli, Mounting, Server, TempTree, bytes_of, copy_tree, get, put_entry, sample, sha256, xattr,
};

fn pushed(tree: &TempTree) -> Server {
    let server = Server::start();
    let pushed = Cli::owner(&server).push(tree.path(), &["--slug", "d", "--visibility", "public"]);
    pushed.expect(0);
    server
}

/// What the server's manifest says: path to size and hash.
fn manifest(server: &Server) -> BTreeMap<String, (u64, String)> {
    let manifest = get("/db/alice/d/_meta/manifest.json").send(&server.address).expect(200).json();
    let files = manifest["files"].as_object().unwrap().iter();
    let entry = |entry: &serde_json::Value| {
        (entry["size"].as_u64().unwrap(), entry["hash"].as_str().unwrap().to_owned())
    };
    files.map(|(path, file)| (path.clone(), entry(file))).collect()
}

#[track_caller]
fn assert_is_mounted_as_published(tree: &TempTree) {
    let mut original = bytes_of(tree.path());
    let server = pushed(tree);
    let published = manifest(&server);
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    let found = bytes_of(&mount.path());
    original.retain(|path, _| published.contains_key(path));
    assert!(!original.is_empty());
    assert!(found.keys().eq(published.keys()), "find: {:?}\nmanifest: {:?}", found.keys(), published.keys());
    assert!(found == original, "the bytes are those of the directory pushed");
    for (path, bytes) in &found {
        assert_eq!((bytes.len() as u64, sha256(bytes)), published[path], "{path}");
        assert_eq!(xattr(&mount.at(path), "user.parquedb.sha256").unwrap(), published[path].1);
        assert_eq!(fs::metadata(mount.at(path)).unwrap().len(), published[path].0);
    }
    mount.unmount();
}

#[test]
fn f01_every_sample_database_mounts_as_it_was_published() {
    for name in ["native", "delta", "iceberg", "eventsourced-rels"] {
        let tree = TempTree::new();
        copy_tree(&sample(name), tree.path());
        assert_is_mounted_as_published(&tree);
    }
    // This one was pulled by another program, whose configuration names an owner elsewhere.
    let tree = TempTree::new();
    copy_tree(&sample("cli-pulled"), tree.path());
    for file in ["_meta/manifest.json", "parquedb.json"] {
        tree.remove(file);
    }
    assert_is_mounted_as_published(&tree);
}

#[test]
fn f01_odd_names_are_kept() {
    let tree = TempTree::new();
    let names = [
        "empty",
        "with space",
        "%41",
        "100%",
        "a+b",
        "#hash",
        "que?ry",
        "ü",
        "u\u{308}",
        "line\nend",
        "tab\there",
        "-rf",
        "--help",
        "back\\slash",
        "\"quoted\"",
        "'",
        "a&b=c;d",
        "...",
        "..a",
        ".hidden",
        "日本語/ファイル.parquet",
        "deep/er/and/deep er/%2F/x",
        "\u{1f980}",
        "a:b",
        "*",
        "~",
        "$HOME",
        "\u{1b}[31m",
        "COM1",
        "x.slots",
        "@",
    ];
    for (n, name) in names.iter().enumerate() {
        tree.write(&[(name, &"x".repeat(n))]);
    }
    let longest =
        ["n".repeat(255), "é".repeat(127) + "x", format!("{}/{}", "d".repeat(255), "f".repeat(255))];
    longest.iter().for_each(|name| tree.write(&[(name, name)]));
    assert_is_mounted_as_published(&tree);
}

#[test]
fn f01_names_that_are_not_there_are_not_found() {
    let server = pushed(&TempTree::with(&[("a/b.txt", "b"), ("c", "c")]));
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    for name in
        ["b", "a/b", "a/B.txt", "a/b.txt ", "_meta", "_meta/manifest.json", ".parquedb/sync.json", "C"]
    {
        // Twice: the kernel remembers what is not there.
        for _ in 0..2 {
            assert_eq!(errno(fs::metadata(mount.at(name))), Some(libc::ENOENT), "{name}");
        }
    }
    assert_eq!(errno(fs::metadata(mount.at(&"n".repeat(255)))), Some(libc::ENOENT));
    assert_eq!(errno(fs::metadata(mount.at(&"n".repeat(256)))), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(fs::metadata(mount.at("c/d"))), Some(libc::ENOTDIR));
    assert_eq!(errno(fs::read(mount.at("a"))), Some(libc::EISDIR));
    let not_utf8 = <std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff");
    assert_eq!(errno(fs::metadata(mount.path().join(not_utf8))), Some(libc::ENOENT));
    assert_eq!(mount.read("a/b.txt").unwrap(), b"b");
}

#[test]
fn f01_attributes_are_the_manifests() {
    let server = Server::start();
    let id = server.register("d", "public");
    let content = b"twelve bytes";
    server.upload(&id, "x", content);
    let entry = |path: &str, modified: &str| {
        let mut entry = put_entry(path, content);
        entry["modifiedAt"] = modified.into();
        entry
    };
    let times = [
        ("new", "2024-05-06T07:08:09.123Z", Some((1_714_979_289, 123_000_000))),
        ("dir/sub/zone", "2024-05-06T09:08:09.5+02:00", Some((1_714_979_289, 500_000_000))),
        ("dir/1970", "1970-01-01T00:00:00Z", Some((0, 0))),
        ("dir/1969", "1969-12-31T23:59:58.25Z", Some((-2, 250_000_000))),
        ("dir/2300", "2261-01-01T00:00:00Z", Some((9_183_110_400, 0))),
        ("no date", "yesterday", Some((0, 0))),
    ];
    let put: Vec<_> = times.iter().map(|(path, modified, _)| entry(path, modified)).collect();
    server.commit(&id, "commit-1", 0, &put, &[]).expect(200);

    let me = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    for (path, _, expected) in times {
        let meta = fs::metadata(mount.at(path)).unwrap();
        assert_eq!(Some((meta.mtime(), meta.mtime_nsec())), expected, "{path}");
        assert_eq!((meta.len(), meta.nlink(), meta.mode()), (12, 1, 0o100_644), "{path}");
        assert_eq!((meta.uid(), meta.gid()), me, "whoever mounts owns it");
    }
    for (path, links) in [("", 3), ("dir", 3), ("dir/sub", 2)] {
        let meta = fs::metadata(mount.at(path)).unwrap();
        assert_eq!((meta.nlink(), meta.mode()), (links, 0o40_755), "{path}");
        // Directories are as old as the revision.
        let age = SystemTime::now().duration_since(meta.modified().unwrap()).unwrap_or_default();
        assert!(age < Duration::from_secs(300), "{path}: {age:?}");
    }
    let inodes: std::collections::BTreeSet<u64> = walkdir::WalkDir::new(mount.path())
        .into_iter()
        .map(|entry| fs::metadata(entry.unwrap().path()).unwrap().ino())
        .collect();
    assert_eq!(inodes.len(), 3 + times.len(), "every file has its own inode");

    let entry = mount.entry().unwrap();
    let after = entry.iter().position(|word| word == "-").unwrap();
    assert_eq!(entry[after + 1..after + 3], ["fuse.parquedb", "alice/d"]);
    let options: Vec<&str> = entry[5].split(',').collect();
    for option in ["rw", "nosuid", "nodev"] {
        assert!(options.contains(&option), "{options:?}");
    }
    // Room is what the disk has that local changes lie on.
    let (space, disk) = (rustix::fs::statvfs(mount.path()).unwrap(), rustix::fs::statvfs("/tmp").unwrap());
    assert_eq!((space.f_namemax, space.f_files), (255, disk.f_files));
    assert!(space.f_bavail > 0);
    assert_eq!(xattr(&mount.path(), "user.parquedb.revision").unwrap(), "1");
    assert_eq!(errno(xattr(&mount.at("new"), "user.other")), Some(libc::ENODATA));
    let mut list = [0; 64];
    assert_eq!(rustix::fs::listxattr(mount.at("new"), &mut list), Ok(0), "nothing for copying tools to copy");
    assert_eq!(mount.stats().requests, 1, "the manifest has told it all");
}

#[test]
fn f01_nothing_can_be_changed_in_a_mount_that_is_read_only() {
    let server = pushed(&TempTree::with(&[("dir/file", "bytes"), ("other", "more")]));
    let mount = Mounting::at(&server.url(), "alice/d").arg("--read-only").mount();
    let (file, dir, new) = (mount.at("dir/file"), mount.at("dir"), mount.at("dir/new"));
    let read_only = File::options().read(true).open(&file).unwrap();
    let attempts = [
        ("create", errno(File::create_new(&new))),
        ("open to write", errno(File::options().write(true).open(&file))),
        ("open to append", errno(File::options().append(true).open(&file))),
        ("truncate", errno(File::options().write(true).truncate(true).open(&file))),
        ("mkdir", errno(fs::create_dir(&new))),
        ("rmdir", errno(fs::remove_dir(&dir))),
        ("unlink", errno(fs::remove_file(&file))),
        ("rename", errno(fs::rename(&file, &new))),
        ("rename over", errno(fs::rename(&file, mount.at("other")))),
        ("link", errno(fs::hard_link(&file, &new))),
        ("symlink", errno(symlink("file", &new))),
        ("chmod", errno(fs::set_permissions(&file, fs::Permissions::from_mode(0o666)))),
        ("chown", errno(std::os::unix::fs::chown(&file, Some(1), None))),
        ("utimens", errno(read_only.set_modified(SystemTime::now()))),
    ];
    for (what, number) in attempts {
        assert_eq!(number, Some(libc::EROFS), "{what}");
    }
    let set = rustix::fs::setxattr(&file, "user.x", b"y", rustix::fs::XattrFlags::empty());
    assert_eq!(set, Err(rustix::io::Errno::ROFS));
    assert_eq!(bytes_of(&mount.path()).len(), 2);
    assert_eq!(fs::read(&file).unwrap(), b"bytes");
}
