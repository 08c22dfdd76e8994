//! Local changes outlast the daemon, however it ends.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{FileType, Mode};

use super::{database, mounting};
use crate::harness::{Mount, names, until};

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

/// What only a local file system knows of everything in a mount; and of what was made here, the inode's number.
fn attributes(mount: &Mount) -> Vec<(String, Option<u64>)> {
    let mut all = Vec::new();
    for entry in walkdir::WalkDir::new(mount.path()).min_depth(1).sort_by_file_name() {
        let entry = entry.unwrap();
        let (path, found) = (entry.path(), entry.metadata().unwrap());
        let name = path.strip_prefix(mount.path()).unwrap();
        let mut value = [0; 64];
        let xattr =
            rustix::fs::lgetxattr(path, "user.mine", &mut value).map(|length| value[..length].to_vec());
        let told = format!(
            "{name:?}: {:o} {}:{} {} links, modified {}.{}, device {}, {xattr:?}, {:?}",
            found.mode(),
            found.uid(),
            found.gid(),
            found.nlink(),
            found.mtime(),
            found.mtime_nsec(),
            found.rdev(),
            fs::read_link(path).ok(),
        );
        let is_made_here = !["dir", "dir/one", "dir/two", "large", "only", "only/one", "text"]
            .iter()
            .any(|other| name == Path::new(other));
        all.push((told, is_made_here.then(|| found.ino())));
    }
    all
}

#[test]
fn rule_22_what_only_this_machine_knows_stays_and_never_travels() {
    let (server, id) = database();
    let mounting = mounting(&server);
    let mount = mounting.mount();
    let mode = |name: &str, mode: u32| {
        fs::set_permissions(mount.at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    fs::write(mount.at("made"), "made").unwrap();
    mode("made", 0o2640);
    mode("text", 0o400);
    mode("dir", 0o700);
    chown(mount.at("large"), Some(12), Some(34)).unwrap();
    symlink("../no/where", mount.at("link")).unwrap();
    fs::hard_link(mount.at("made"), mount.at("dir/again")).unwrap();
    fs::create_dir_all(mount.at("empty/inside")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(rustix::fs::CWD, mount.at(name), kind, Mode::from_raw_mode(0o604), device)
            .unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("device", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    for name in ["made", "text", "only"] {
        let flags = rustix::fs::XattrFlags::empty();
        rustix::fs::setxattr(mount.at(name), "user.mine", name.as_bytes(), flags).unwrap();
    }
    let odd = OsStr::from_bytes(b"odd-\xff");
    fs::write(mount.path().join(odd), "a name that is no text").unwrap();
    let then = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 5);
    for name in ["made", "text", "empty"] {
        File::open(mount.at(name)).unwrap().set_modified(then).unwrap();
    }
    let expected = attributes(&mount);
    assert_eq!(expected.len(), 15, "{expected:#?}");
    type End = fn(Mount);
    let mut mount = mount;
    for end in [Mount::kill9 as End, Mount::sigterm, Mount::unmount] {
        end(mount);
        mount = mounting.mount();
        assert_eq!(attributes(&mount), expected);
    }
    // Nor does the remote's moving change them.
    server.publish(&id, &[("newcomer", b"n")]);
    until(|| mount.at("newcomer").exists());
    fs::remove_file(mount.at("newcomer")).unwrap();
    assert_eq!(attributes(&mount), expected);
    let status = server.status(&mount);
    for told in ["odd-", "link", "fifo", "empty/inside"] {
        assert!(status.contains(told), "{told}: {status}");
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
    let path = Path::new(&state).join("replica.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"format\": 1", "\"format\": 2");
    fs::write(&path, text).unwrap();
    let refused = mounting.run().expect(9);
    assert!(refused.stderr.contains("newer parquedb-mount"), "{refused:?}");
}
