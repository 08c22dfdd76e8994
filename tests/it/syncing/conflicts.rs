//! Both sides changed a path: nothing is lost, whoever decides.

use std::fs;

use super::{by_hand, ctl, database, pending, published, sync};
use crate::harness::{Cli, Mounting, Server, text, until, xattr};

/// Copies of what lost, by the ends of their paths.
fn copies(mounting: &Mounting) -> Vec<(String, Vec<u8>)> {
    let mut open = vec![mounting.state().join("replicas-1")];
    let mut found = Vec::new();
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|end| end == "conflict") {
                let name = entry.file_name().unwrap().to_str().unwrap().to_owned();
                found.push((name, fs::read(&entry).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Publishes so many small files below `many/`.
fn publish_many(server: &Server, id: &str, count: u8) {
    let files: Vec<(String, Vec<u8>)> = (0..count).map(|n| (format!("many/{n}"), vec![n; 3])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    server.publish(id, &files);
}

/// Follows nobody by itself, so that both sides are changed before either hears of the other.
fn deaf(server: &Server, strategy: &str) -> Mounting {
    by_hand(server).args(&["--strategy", strategy])
}

#[test]
fn f11_each_strategy_decides_and_keeps_what_loses() {
    for (strategy, wins, kept) in
        [("local-wins", "mine", "one.remote.conflict"), ("remote-wins", "theirs", "one.local.conflict")]
    {
        let (server, id) = database();
        let mounting = deaf(&server, strategy);
        let mount = mounting.mount();
        fs::write(mount.at("one"), "mine").unwrap();
        server.publish(&id, &[("one", b"theirs")]);
        sync(&server, &mount);
        let loses = if wins == "mine" { "theirs" } else { "mine" };
        assert_eq!(published(&server, "one").unwrap(), wins.as_bytes(), "{strategy}");
        until(|| mount.read("one").is_ok_and(|read| read == wins.as_bytes()));
        assert_eq!(copies(&mounting), [(kept.to_owned(), loses.as_bytes().to_vec())], "{strategy}");
        assert_eq!(pending(&server, &mount.path()), 0);
        mount.unmount();
        // And after a restart.
        let mount = mounting.mount();
        assert_eq!(mount.read("one").unwrap(), wins.as_bytes());
        mount.unmount();
    }
}

#[test]
fn manual_leaves_both_alone_and_goes_on_with_the_rest() {
    let (server, id) = database();
    let mounting = deaf(&server, "manual");
    let mount = mounting.mount();
    fs::write(mount.at("one"), "mine").unwrap();
    fs::write(mount.at("new"), "new").unwrap();
    server.publish(&id, &[("one", b"theirs")]);
    let told = ctl(&server, &mount, &["sync", "--json"]).expect(3).json();
    assert_eq!(
        (&told["status"]["state"], &told["status"]["conflicts"][0]),
        (&"conflict".into(), &"one".into()),
        "{told}"
    );
    assert_eq!(published(&server, "one").unwrap(), b"theirs");
    assert_eq!(published(&server, "new").unwrap(), b"new");
    assert_eq!(mount.read("one").unwrap(), b"mine");
    assert!(copies(&mounting).contains(&("one.remote.conflict".into(), b"theirs".to_vec())));
    // Again: it is one conflict, however often it is met.
    ctl(&server, &mount, &["sync"]).expect(3);
    assert_eq!(copies(&mounting).iter().filter(|(name, _)| name == "one.remote.conflict").count(), 1);
    // Somebody decides by making both the same.
    fs::write(mount.at("one"), "theirs").unwrap();
    sync(&server, &mount);
    assert_eq!(pending(&server, &mount.path()), 0);
    mount.unmount();
}

#[test]
fn rule_8_each_path_keeps_the_base_it_was_changed_on() {
    let (server, id) = database();
    let mounting = deaf(&server, "manual");
    let mount = mounting.mount();
    for name in ["one", "two"] {
        fs::write(mount.at(name), format!("my {name}")).unwrap();
    }
    server.publish(&id, &[("one", b"their one")]);
    let in_conflict = |mount: &crate::harness::Mount| {
        let told = ctl(&server, mount, &["sync", "--json"]).expect(3).json();
        assert_eq!(told["status"]["conflicts"], serde_json::json!(["one"]), "{told}");
    };
    in_conflict(&mount);
    // One base has moved, with what was published; the other has not, though the mount shows a later revision.
    assert_eq!(published(&server, "two").unwrap(), b"my two");
    server.publish(&id, &[("two", b"their two")]);
    until(|| mount.read("two").is_ok_and(|read| read == b"their two"));
    fs::write(mount.at("two"), "mine again").unwrap();
    in_conflict(&mount);
    assert_eq!(published(&server, "two").unwrap(), b"mine again", "on top of theirs, and no conflict");
    mount.kill9();
    let mount = mounting.mount();
    fs::remove_file(mount.at("two")).unwrap();
    in_conflict(&mount);
    assert_eq!(
        (published(&server, "one").unwrap(), published(&server, "two")),
        (b"their one".to_vec(), None)
    );
    assert_eq!(mount.read("one").unwrap(), b"my one");
    mount.unmount();
}

#[test]
fn a_person_decides_file_by_file_in_a_mount() {
    let (server, id) = database();
    let mounting = deaf(&server, "manual");
    let mount = mounting.mount();
    for name in ["one", "two", "dir/x", "dir/y"] {
        fs::write(mount.at(name), format!("my {name}")).unwrap();
    }
    let theirs: Vec<(&str, &[u8])> =
        vec![("one", b"their one"), ("two", b"their two"), ("dir/x", b"their x"), ("dir/y", b"their y")];
    server.publish(&id, &theirs);
    ctl(&server, &mount, &["sync"]).expect(3);
    let cli = Cli::owner(&server);
    let path = mount.path();
    let listed = cli.run(&["conflicts", "--directory", text(&path)]).expect(0).stdout;
    assert!(["one  ", "two  ", "dir/x  ", "dir/y  "].iter().all(|name| listed.contains(name)), "{listed}");
    let merged = mounting.beside().join("merged");
    fs::write(&merged, "merged").unwrap();
    let resolve = |args: &[&str]| {
        let mut all = vec!["resolve"];
        all.extend(args);
        all.extend(["--directory", text(&path)]);
        cli.run(&all)
    };
    resolve(&["one", "--local"]).expect(0);
    resolve(&["two", "--remote"]).expect(0);
    resolve(&["dir/x", "--file", text(&merged)]).expect(0);
    resolve(&["new", "--local"]).expect(5);
    let expected = [("one", "my one"), ("two", "their two"), ("dir/x", "merged"), ("dir/y", "their y")];
    for (name, bytes) in expected {
        assert_eq!(published(&server, name).unwrap(), bytes.as_bytes(), "{name}");
    }
    until(|| mount.read("two").is_ok_and(|read| read == b"their two"));
    assert_eq!(mount.read("dir/y").unwrap(), b"my dir/y", "nobody has decided about this one");
    let kept = copies(&mounting);
    for (name, bytes) in [
        ("two.local.conflict", "my two"),
        ("one.remote.conflict", "their one"),
        ("x.remote.conflict", "their x"),
    ] {
        assert!(kept.contains(&(name.to_owned(), bytes.as_bytes().to_vec())), "{name}: {kept:?}");
    }
    cli.run(&["conflicts", "dismiss", "--directory", text(&path)]).expect(0);
    assert!(!copies(&mounting).iter().any(|(name, _)| name.starts_with("one.")));
    mount.unmount();
}

#[test]
fn rule_9_an_edit_beats_a_deletion_on_either_side() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    fs::write(mount.at("one"), "edited here").unwrap();
    fs::remove_file(mount.at("two")).unwrap();
    let base = server.revision(&id);
    server.upload(&id, "two", b"edited there");
    let put = crate::harness::put_entry("two", b"edited there");
    server.commit(&id, "both-sides", base, &[put], &["one"]).expect(200);
    sync(&server, &mount);
    assert_eq!(published(&server, "one").unwrap(), b"edited here");
    assert_eq!(published(&server, "two").unwrap(), b"edited there");
    until(|| mount.read("two").is_ok_and(|read| read == b"edited there"));
    assert_eq!(pending(&server, &mount.path()), 0);
    mount.unmount();
}

#[test]
fn rule_10_a_newcomer_where_something_was_removed_or_moved_is_shown_and_stays() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    fs::rename(mount.at("dir"), mount.at("moved")).unwrap();
    fs::remove_file(mount.at("two")).unwrap();
    server.publish(&id, &[("dir/new", b"new"), ("two", b"again")]);
    until(|| mount.read("dir/new").is_ok_and(|read| read == b"new"));
    until(|| mount.read("two").is_ok_and(|read| read == b"again"));
    sync(&server, &mount);
    assert_eq!(server.paths("d"), ["data/t/a.bin", "dir/new", "moved/x", "moved/y", "one", "two"]);
    assert_eq!(mount.read("dir/new").unwrap(), b"new");
    mount.unmount();
}

#[test]
fn rule_21_nobody_decides_about_a_database_without_its_log() {
    let (server, id) = database();
    server.publish(&id, &[("x.db", b"database"), ("x.db-wal", b"log")]);
    let mounting = deaf(&server, "remote-wins");
    let mount = mounting.mount();
    until(|| mount.read("x.db").is_ok());
    fs::write(mount.at("x.db"), "my database").unwrap();
    fs::write(mount.at("x.db-wal"), "my log").unwrap();
    server.publish(&id, &[("x.db", b"their database")]);
    let revision = server.revision(&id);
    ctl(&server, &mount, &["sync"]).expect(3);
    let (cli, path) = (Cli::owner(&server), mount.path());
    let refused = cli.run(&["resolve", "x.db", "--remote", "--directory", text(&path)]).expect(3);
    assert!(refused.stderr.contains("'x.db' goes together with other files"), "{}", refused.stderr);
    assert_eq!(server.revision(&id), revision);
    assert_eq!(mount.read("x.db").unwrap(), b"my database");
    assert_eq!(mount.read("x.db-wal").unwrap(), b"my log");
    cli.run(&["resolve", "x.db", "--local", "--directory", text(&path)]).expect(0);
    assert_eq!(server.revision(&id), revision + 1, "both at once");
    assert_eq!(published(&server, "x.db").unwrap(), b"my database");
    assert_eq!(published(&server, "x.db-wal").unwrap(), b"my log");
    assert_eq!(pending(&server, &mount.path()), 0);
    assert!(copies(&mounting).contains(&("x.db.remote.conflict".into(), b"their database".to_vec())));
    mount.unmount();
}

#[test]
fn a_file_in_the_place_of_a_directory_waits_for_a_person() {
    let (server, id) = database();
    let mount = by_hand(&server).mount();
    fs::write(mount.at("thing"), "a file").unwrap();
    server.publish(&id, &[("thing/inside", b"a directory")]);
    ctl(&server, &mount, &["sync"]).expect(3);
    assert_eq!(published(&server, "thing/inside").unwrap(), b"a directory");
    assert_eq!(mount.read("thing").unwrap(), b"a file");
    fs::rename(mount.at("thing"), mount.at("thing-2")).unwrap();
    sync(&server, &mount);
    assert_eq!(published(&server, "thing-2").unwrap(), b"a file");
    until(|| mount.read("thing/inside").is_ok_and(|read| read == b"a directory"));
    mount.unmount();
}

#[test]
fn a_move_whose_arrival_is_in_conflict_leaves_the_remote_as_it_is() {
    let (server, id) = database();
    let mount = by_hand(&server).args(&["--strategy", "manual"]).mount();
    fs::rename(mount.at("dir/x"), mount.at("there")).unwrap();
    server.publish(&id, &[("there", b"somebody's")]);
    ctl(&server, &mount, &["sync"]).expect(3);
    assert_eq!(published(&server, "dir/x").unwrap(), b"x", "its content would be nowhere");
    assert_eq!(mount.read("there").unwrap(), b"x");
    fs::rename(mount.at("there"), mount.at("elsewhere")).unwrap();
    sync(&server, &mount);
    assert_eq!(
        (published(&server, "dir/x"), published(&server, "elsewhere").unwrap()),
        (None, b"x".to_vec())
    );
    until(|| mount.read("there").is_ok_and(|read| read == b"somebody's"));
    mount.unmount();
}

#[test]
fn rule_14_a_directory_that_moves_is_not_deleted() {
    let (server, id) = database();
    publish_many(&server, &id, 40);
    let mount = by_hand(&server).mount();
    fs::rename(mount.at("many"), mount.at("moved")).unwrap();
    sync(&server, &mount);
    assert_eq!(server.paths("d").iter().filter(|path| path.starts_with("moved/")).count(), 40);
    // What comes and goes adds nothing up.
    for n in 0_i32..15 {
        fs::write(mount.at(&format!("scratch-{n}")), "x").unwrap();
        fs::remove_file(mount.at(&format!("scratch-{}", n - 1))).ok();
        sync(&server, &mount);
    }
    mount.unmount();
}

#[test]
fn rule_14_mass_deletion_halts_and_says_how_to_mean_it() {
    let (server, id) = database();
    publish_many(&server, &id, 40);
    let mount = by_hand(&server).mount();
    until(|| fs::read_dir(mount.at("many")).is_ok_and(|dir| dir.count() == 40));
    fs::remove_dir_all(mount.at("many")).unwrap();
    let revision = server.revision(&id);
    let halted = ctl(&server, &mount, &["sync"]).expect(3);
    assert!(halted.stderr.contains("--allow-mass-delete"), "{halted:?}");
    assert_eq!(server.revision(&id), revision);
    assert!(xattr(&mount.path(), "user.parquedb.revision").is_ok());
    ctl(&server, &mount, &["sync", "--allow-mass-delete"]).expect(0);
    assert_eq!(server.paths("d").len(), 5);
    mount.unmount();
}

#[test]
fn rule_13_a_moved_file_that_loses_is_kept() {
    let (server, id) = database();
    let mounting = deaf(&server, "remote-wins");
    let mount = mounting.mount();
    fs::rename(mount.at("dir/x"), mount.at("there")).unwrap();
    server.publish(&id, &[("there", b"somebody's")]);
    ctl(&server, &mount, &["sync"]).expect(0);
    // What it was moved from goes when that is sure to be kept.
    sync(&server, &mount);
    assert_eq!(published(&server, "there").unwrap(), b"somebody's");
    assert!(
        copies(&mounting).contains(&("there.local.conflict".into(), b"x".to_vec())),
        "{:?}",
        copies(&mounting)
    );
    mount.unmount();
}

#[test]
fn what_is_moved_to_where_it_does_not_travel_is_local_before_the_remote_forgets_it() {
    let (server, _) = database();
    let mounting = by_hand(&server).args(&["--exclude", "*.bak"]);
    let mount = mounting.mount();
    fs::rename(mount.at("one"), mount.at("one.pem")).unwrap();
    fs::rename(mount.at("two"), mount.at("two.bak")).unwrap();
    fs::write(mount.at("two"), "anew").unwrap();
    // What is moved is made local by one round, and leaves its place by the next.
    for _ in 0..3 {
        ctl(&server, &mount, &["sync"]).expect(0);
    }
    assert_eq!((published(&server, "one"), published(&server, "one.pem")), (None, None));
    assert_eq!(published(&server, "two").unwrap(), b"anew");
    mount.unmount();
    // Without the remote, and without anything cached.
    fs::remove_dir_all(mounting.cache()).unwrap();
    let mount = mounting.mount();
    let requests = mount.stats().requests;
    assert_eq!(
        (mount.read("one.pem").unwrap(), mount.read("two.bak").unwrap()),
        (b"1".to_vec(), b"22".to_vec())
    );
    assert_eq!(mount.stats().requests, requests, "they are here");
    mount.unmount();
}

#[test]
fn a_directory_or_a_link_in_a_files_place_is_a_deletion() {
    let (server, _) = database();
    let mount = by_hand(&server).mount();
    fs::remove_file(mount.at("one")).unwrap();
    fs::create_dir(mount.at("one")).unwrap();
    fs::write(mount.at("one/inside"), "inside").unwrap();
    fs::remove_file(mount.at("two")).unwrap();
    std::os::unix::fs::symlink("one/inside", mount.at("two")).unwrap();
    sync(&server, &mount);
    assert_eq!(server.paths("d"), ["data/t/a.bin", "dir/x", "dir/y", "one/inside"]);
    mount.unmount();
}

#[test]
fn rule_14_links_of_one_moved_file_hide_no_deletions() {
    let (server, id) = database();
    publish_many(&server, &id, 30);
    let mount = by_hand(&server).mount();
    until(|| fs::read_dir(mount.at("many")).is_ok_and(|dir| dir.count() == 30));
    fs::rename(mount.at("one"), mount.at("moved")).unwrap();
    for n in 0..25 {
        fs::hard_link(mount.at("moved"), mount.at(&format!("link-{n}"))).unwrap();
        fs::remove_file(mount.at(&format!("many/{n}"))).unwrap();
    }
    ctl(&server, &mount, &["sync"]).expect(3);
    mount.unmount();
}
