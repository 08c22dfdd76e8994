//! What a changed mount shows, to those who change it and while the remote moves.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};

use super::{complete, database, mounting, remote};
use crate::harness::{names, noise, until, write_files};

#[test]
fn f07_what_is_written_stays_here() {
    let (server, id) = database();
    let mount = mounting(&server).mount();
    fs::write(mount.at("new"), "new").unwrap();
    fs::create_dir(mount.at("made")).unwrap();
    fs::write(mount.at("made/below"), "below").unwrap();
    fs::write(mount.at("text"), "other").unwrap();
    fs::rename(mount.at("dir/one"), mount.at("dir/two")).unwrap();
    File::options().write(true).open(mount.at("large")).unwrap().set_len(5).unwrap();
    fs::remove_file(mount.at("only/one")).unwrap();
    symlink("new", mount.at("link")).unwrap();
    assert_eq!(names(&mount.path()), ["dir", "large", "link", "made", "new", "only", "text"]);
    assert_eq!(names(&mount.at("only")), [""; 0], "an empty directory stays");
    assert_eq!(mount.read("dir/two").unwrap(), b"1");
    assert_eq!(mount.read("large").unwrap(), &noise(7, 3 << 20)[..5]);
    assert_eq!(mount.read("link").unwrap(), b"new");
    let remote = remote(&server, &id);
    let known: Vec<&str> = remote.keys().map(String::as_str).collect();
    assert_eq!(known, ["dir/one", "dir/two", "large", "only/one", "text"]);
    assert_eq!((remote["text"], remote["large"]), (6, 3 << 20));
}

#[test]
fn rule_10_whiteouts_bind_to_what_they_covered() {
    let (server, id) = database();
    let mount = mounting(&server).mount();
    fs::remove_file(mount.at("text")).unwrap();
    fs::remove_dir_all(mount.at("only")).unwrap();
    fs::rename(mount.at("dir"), mount.at("moved")).unwrap();
    assert_eq!(names(&mount.path()), ["large", "moved"]);
    // Others publish beside what was removed and moved here.
    server.publish(&id, &[("elsewhere", b"e")]);
    until(|| mount.at("elsewhere").exists());
    assert_eq!(names(&mount.path()), ["elsewhere", "large", "moved"], "what was removed stays removed");
    server.publish(&id, &[("dir/newcomer", b"n"), ("only/two", b"2"), ("text", b"newer\n")]);
    until(|| mount.at("dir/newcomer").exists());
    assert_eq!(names(&mount.at("dir")), ["newcomer"], "it is shown where it came, and nothing else");
    assert_eq!(names(&mount.at("moved")), ["one", "two"]);
    assert_eq!(names(&mount.at("only")), ["two"]);
    // Who looked a moment ago may be told to look again.
    until(|| mount.read("text").is_ok_and(|read| read == b"newer\n"));
    // The moved directory and the one that came in its place are two.
    let inode = |name: &str| fs::metadata(mount.at(name)).unwrap().ino();
    assert_ne!(inode("dir"), inode("moved"));
    fs::write(mount.at("dir/here"), "h").unwrap();
    fs::remove_file(mount.at("moved/one")).unwrap();
    assert_eq!(
        (names(&mount.at("dir")), names(&mount.at("moved"))),
        (vec!["here".into(), "newcomer".into()], vec!["two".to_owned()])
    );
}

#[test]
fn what_comes_from_the_remote_is_shown_in_directories_made_here() {
    let (server, id) = database();
    let mount = mounting(&server).mount();
    fs::create_dir_all(mount.at("a/b")).unwrap();
    fs::write(mount.at("a/b/here"), "h").unwrap();
    assert!(!mount.at("a/b/there").exists(), "and that is remembered");
    assert_eq!(names(&mount.at("a/b")), ["here"]);
    server.publish(&id, &[("a/b/there", b"t"), ("a/b/here", b"other")]);
    until(|| mount.at("a/b/there").exists());
    assert_eq!(names(&mount.at("a/b")), ["here", "there"]);
    assert_eq!(mount.read("a/b/here").unwrap(), b"h", "what is local hides the remote's of that name");
    // And what is left of a directory here when the remote has no more in it.
    fs::write(mount.at("dir/three"), "3").unwrap();
    server.commit(&id, "commit-of-gone", 2, &[], &["dir/one", "dir/two"]).expect(200);
    until(|| names(&mount.at("dir")) == ["three"]);
}

#[test]
fn rule_16_local_writes_reach_every_handle_at_once() {
    let (server, _) = database();
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let mount = mounting(&server).arg(flag).mount();
        let mut before = File::open(mount.at("text")).unwrap();
        let mut text = String::new();
        before.read_to_string(&mut text).unwrap();
        let mut writer = File::options().append(true).open(mount.at("text")).unwrap();
        let mut beside = File::open(mount.at("text")).unwrap();
        writer.write_all(b"more\n").unwrap();
        before.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\nmore\n", "as tail -f does: {flag}");
        text.clear();
        beside.read_to_string(&mut text).unwrap();
        assert_eq!(text, "hello\nmore\n");
        writer.set_len(2).unwrap();
        beside.seek(SeekFrom::Start(0)).unwrap();
        text.clear();
        beside.read_to_string(&mut text).unwrap();
        assert_eq!(text, "he");
    }
}

#[test]
fn who_reads_a_cached_file_by_itself_keeps_its_version_when_somebody_writes() {
    let (server, _) = database();
    let large = noise(7, 3 << 20);
    let mount = mounting(&server).mount();
    complete(&mount);
    let reader = File::open(mount.at("large")).unwrap();
    let writer = File::options().read(true).write(true).open(mount.at("large")).unwrap();
    writer.write_all_at(b"written", 1000).unwrap();
    let mut changed = large.clone();
    changed[1000..1007].copy_from_slice(b"written");
    assert_eq!(mount.read("large").unwrap(), changed);
    let mut old = vec![0; 3 << 20];
    reader.read_exact_at(&mut old, 0).unwrap();
    assert!(old == large || old == changed, "one version or the other");
    drop((reader, writer));
    assert_eq!(mount.read("large").unwrap(), changed);
}

#[test]
fn a_file_opened_for_writing_and_left_alone_is_the_remotes_still() {
    let (server, id) = database();
    let mount = mounting(&server).mount();
    drop(File::options().read(true).write(true).open(mount.at("text")).unwrap());
    server.publish(&id, &[("text", b"newer\n")]);
    until(|| mount.read("text").is_ok_and(|read| read == b"newer\n"));
    fs::write(mount.at("text"), "ours").unwrap();
    server.publish(&id, &[("text", b"newest\n"), ("mark", b"m")]);
    until(|| mount.at("mark").exists());
    assert_eq!(mount.read("text").unwrap(), b"ours");
}

#[test]
fn a_listing_misses_nothing_that_was_there_all_along() {
    let (server, id) = database();
    let files: Vec<(String, Vec<u8>)> = (0..3000).map(|n| (format!("many/{n:04}"), b"x".to_vec())).collect();
    let borrowed: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    server.publish(&id, &borrowed);
    let mount = mounting(&server).mount();
    write_files(&mount.at("many"), (0..500).map(|n| (format!("local-{n}"), b"y".to_vec())));
    let mut seen = std::collections::BTreeSet::new();
    for (n, entry) in fs::read_dir(mount.at("many")).unwrap().enumerate() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(seen.insert(name), "twice");
        if n % 40 == 0 {
            // Names that come later in the listing become local, come and go.
            let last = 2999 - n / 2;
            fs::write(mount.at(&format!("many/{last:04}")), "changed").unwrap();
            fs::write(mount.at(&format!("many/new-{n}")), "new").unwrap();
            fs::remove_file(mount.at(&format!("many/new-{n}"))).unwrap();
        }
    }
    let there: Vec<_> = seen.iter().filter(|name| !name.starts_with("new-")).collect();
    assert_eq!(there.len(), 3500);
}
