//! Local changes outlast the daemon, however it ends.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use super::{database, mounting, names};
use crate::harness::Mount;

fn change(mount: &Mount) {
    fs::write(mount.at("new"), "new").unwrap();
    File::options().write(true).open(mount.at("large")).unwrap().write_all_at(b"changed", 10).unwrap();
    fs::remove_file(mount.at("text")).unwrap();
    fs::rename(mount.at("dir"), mount.at("moved")).unwrap();
}

fn is_changed(mount: &Mount) {
    assert_eq!(names(&mount.path()), ["large", "moved", "new", "only"]);
    assert_eq!(mount.read("new").unwrap(), b"new");
    assert_eq!(mount.read("large").unwrap()[10..17], *b"changed");
    assert_eq!(mount.read("moved/two").unwrap(), b"two");
}

#[test]
fn f38_what_was_written_is_there_after_an_unmount_a_signal_and_a_kill() {
    let (server, _) = database();
    type End = fn(Mount);
    let ends: [(&str, End); 3] =
        [("unmount", Mount::unmount), ("SIGTERM", Mount::sigterm), ("SIGKILL", Mount::kill9)];
    for (how, end) in ends {
        let mounting = mounting(&server);
        let mount = mounting.mount();
        change(&mount);
        end(mount);
        let mount = mounting.mount();
        is_changed(&mount);
        let log = mount.log();
        if how != "SIGKILL" {
            assert!(
                log.contains("local changes are not published") && log.contains("pending=5"),
                "{how}: {log}"
            );
        }
        mount.unmount();
        is_changed(&mounting.mount());
    }
}

#[test]
fn rule_24_a_second_daemon_on_the_same_state_is_refused_with_the_pid() {
    let (server, _) = database();
    let first = mounting(&server);
    let mount = first.mount();
    fs::write(mount.at("new"), "first").unwrap();
    let state = first.state();
    let second = mounting(&server).state_in(state);
    let refused = second.run().expect(2);
    let pid = mount.pid().as_raw_nonzero().to_string();
    assert!(refused.stderr.contains(&pid) && refused.stderr.contains("--replica"), "{refused:?}");
    // A replica of its own has changes of its own.
    let other = mounting(&server).state_in(state).args(&["--replica", "other"]).mount();
    assert!(!other.at("new").exists());
    fs::write(other.at("new"), "second").unwrap();
    assert_eq!(mount.read("new").unwrap(), b"first");
    // And one that only reads needs none.
    let reading = mounting(&server).state_in(state).arg("--read-only").mount();
    assert!(!reading.at("new").exists());
    mount.unmount();
    let again = second.mount();
    assert_eq!(again.read("new").unwrap(), b"first", "the place of the mount does not matter");
}

#[test]
fn f38_a_state_of_a_later_format_is_refused() {
    let (server, _) = database();
    let mounting = mounting(&server);
    let mount = mounting.mount();
    let state = crate::harness::xattr(&mount.path(), "user.parquedb.state").unwrap();
    mount.unmount();
    let path = std::path::Path::new(&state).join("replica.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(&path, text).unwrap();
    let refused = mounting.run().expect(9);
    assert!(refused.stderr.contains("newer parquedb-mount"), "{refused:?}");
}
