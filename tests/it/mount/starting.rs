//! Starting from the manifest on disk: asking costs little where nothing is new, and without the remote the mount
//! shows what it showed.

use std::fs;
use std::sync::{Arc, Mutex};

use super::static_host::StaticHost;
use super::{assert_right, database_of, errno, impatient};
use crate::harness::{Mounting, Reply, Responder, get, until};

/// What was asked, and how many bytes came.
type Asked = Arc<Mutex<Vec<(String, usize)>>>;

#[test]
fn a_restart_asks_only_for_what_is_new() {
    let sizes: Vec<(String, usize)> = (0..200).map(|n| (format!("d{}/f{n}", n % 7), 100 + n)).collect();
    let sizes: Vec<(&str, usize)> = sizes.iter().map(|(name, size)| (name.as_str(), *size)).collect();
    let (server, files) = database_of(&sizes);
    let asked = Asked::default();
    let (seen, address) = (asked.clone(), server.address.clone());
    let front = Responder::start(move |request| {
        let reply = request.forward(&address).into();
        let Reply::Bytes(bytes) = &reply else { panic!("an answer") };
        seen.lock().unwrap().push((request.target.clone(), bytes.len()));
        reply
    });
    let mounting = Mounting::at(&front.url(), "alice/d");
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    // The manifest is written down beside the mount.
    let kept = mounting.cache().join("manifests-1");
    until(|| {
        fs::read_dir(&kept)
            .is_ok_and(|mut dir| dir.any(|f| f.unwrap().path().extension().unwrap() == "manifest"))
    });
    mount.unmount();
    asked.lock().unwrap().clear();
    let mount = mounting.mount();
    assert_right(&mount.path(), &files);
    let seen = std::mem::take(&mut *asked.lock().unwrap());
    assert!(seen.len() == 1 && seen[0].1 < 2048, "{seen:?}");
    mount.unmount();

    let id = get("/db/alice/d/_meta/manifest.json").send(&server.address).json()["databaseId"].clone();
    let id = id.as_str().unwrap();
    server.publish(id, &[("new", b"new")]);
    let base = server.revision(id);
    server.commit(id, "commit-delete", base, &[], &["d0/f0"]).expect(200);
    for _ in 0..2 {
        let mount = mounting.mount();
        let seen = std::mem::take(&mut *asked.lock().unwrap());
        assert!(seen.len() == 1 && seen[0].1 < 2048, "{seen:?}");
        assert_eq!(mount.read("new").unwrap(), b"new");
        assert_eq!(errno(fs::metadata(mount.at("d0/f0"))), Some(libc::ENOENT));
        assert_right(&mount.path(), &files[1..]);
        mount.unmount();
        asked.lock().unwrap().clear();
    }
}

#[test]
fn a_restart_on_a_static_host_is_answered_304() {
    let host = StaticHost::with(&[("a", b"1"), ("b/c", b"2")]);
    let mounting = Mounting::at(&host.responder.url(), "alice/d");
    let kept = mounting.cache().join("manifests-1");
    let mount = mounting.mount();
    until(|| {
        fs::read_dir(&kept)
            .is_ok_and(|mut dir| dir.any(|f| f.unwrap().path().extension().unwrap() == "manifest"))
    });
    mount.unmount();
    let before = host.responder.seen().len();
    let mount = mounting.mount();
    let seen = host.responder.seen();
    assert_eq!(seen.len(), before + 1);
    assert!(seen[before].header("if-none-match").is_some());
    assert_eq!((mount.read("a").unwrap(), mount.read("b/c").unwrap()), (b"1".to_vec(), b"2".to_vec()));
    mount.unmount();
    host.replace(&[("a", b"changed")]);
    let mount = mounting.mount();
    assert_eq!(mount.read("a").unwrap(), b"changed");
    assert_eq!(errno(fs::metadata(mount.at("b"))), Some(libc::ENOENT));
    mount.unmount();
}

#[test]
fn f06_without_the_remote_a_mount_starts_with_what_it_showed_last() {
    let (mut server, files) = database_of(&[("cached", 3 << 20), ("never", 100_000)]);
    let mounting = impatient(&server.url()).args(&["--poll", "0.3"]);
    let mount = mounting.mount();
    assert!(mount.read("cached").unwrap() == files[0].1);
    // A revision that came while it was mounted.
    let id = get("/db/alice/d/_meta/manifest.json").send(&server.address).json()["databaseId"].clone();
    server.publish(id.as_str().unwrap(), &[("late", b"late")]);
    until(|| mount.read("late").is_ok());
    until(|| {
        let mut kept = fs::read_dir(mounting.cache().join("manifests-1")).unwrap();
        kept.any(|file| file.unwrap().path().extension().unwrap() == "changes")
    });
    mount.unmount();
    server.kill();
    let mount = mounting.mount();
    assert!(mount.log().contains("mounting the revision seen last"), "{}", mount.log());
    assert!(mount.read("cached").unwrap() == files[0].1, "cached reads go on");
    assert_eq!(mount.read("late").unwrap(), b"late");
    assert_eq!(errno(mount.read("never")), Some(libc::EIO), "and what is not cached is not absent");
    server.crash_and_restart();
    assert!(mount.read("never").unwrap() == files[1].1);
    server.publish(id.as_str().unwrap(), &[("later", b"later")]);
    until(|| mount.read("later").is_ok());
    mount.unmount();

    // A damaged one is as good as none: then the remote is needed.
    for file in fs::read_dir(mounting.cache().join("manifests-1")).unwrap() {
        let path = file.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0x20;
        fs::write(&path, bytes).unwrap();
    }
    let mount = mounting.mount();
    assert_eq!(mount.read("later").unwrap(), b"later");
    mount.unmount();
}
