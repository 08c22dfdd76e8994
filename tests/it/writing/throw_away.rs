//! `--overlay memory`: written, and gone with the mount.

use std::fs;

use super::{database, mounting};

#[test]
fn what_is_written_to_memory_is_gone_with_the_mount() {
    let (server, _) = database();
    let mounting = mounting(&server).args(&["--overlay", "memory"]);
    let mount = mounting.mount();
    fs::write(mount.at("new"), "new").unwrap();
    fs::write(mount.at("text"), "other").unwrap();
    assert_eq!(mount.read("text").unwrap(), b"other");
    let state = crate::harness::xattr(&mount.path(), "user.parquedb.state").unwrap();
    assert!(fs::metadata(&state).is_ok());
    mount.unmount();
    assert!(fs::metadata(&state).is_err(), "nothing is left of it");
    let mount = mounting.mount();
    assert!(!mount.at("new").exists());
    assert_eq!(mount.read("text").unwrap(), b"hello\n");
    let killed = crate::harness::xattr(&mount.path(), "user.parquedb.state").unwrap();
    mount.kill9();
    drop(mounting.mount());
    assert!(fs::metadata(&killed).is_err(), "who comes next clears it away");
}
