//! What changes on one side arrives on the other: edits, additions, deletions, times, between two clients.

use std::fs;
use std::time::{Duration, UNIX_EPOCH};

use crate::harness::{Cli, Server, TempTree, bytes_of, data_files, set_modified, snapshot};

/// Two directories in step with one database.
fn in_step(files: &[(&str, &str)]) -> (Server, Cli, TempTree, TempTree) {
    let (server, a, b) = (Server::start(), TempTree::with(files), TempTree::new());
    let cli = Cli::owner(&server);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", b.path(), &[]).expect(0);
    assert_eq!(data_files(a.path()), data_files(b.path()));
    (server, cli, a, b)
}

#[test]
fn edits_additions_and_deletions_travel_both_ways() {
    let (_server, cli, a, b) =
        in_step(&[("kept", "1"), ("edited", "1"), ("deleted", "1"), ("d/only", "1"), ("d2/e/f", "1")]);
    a.write(&[("edited", "2"), ("new/one", "1")]);
    a.remove("deleted");
    a.remove("d/only");
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", b.path(), &[]).expect(0);
    assert_eq!(b.names(), ["d2/e/f", "edited", "kept", "new/one"]);
    assert_eq!(b.read("edited").as_deref(), Some("2"));
    assert!(!b.at("d").exists(), "a directory goes with its last file");

    b.write(&[("edited", "3"), ("kept", "now longer"), ("another", "")]);
    b.remove("new/one");
    cli.push(b.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", a.path(), &[]).expect(0);
    assert_eq!(data_files(a.path()), data_files(b.path()));
    assert_eq!(a.names(), ["another", "d2/e/f", "edited", "kept"]);
}

#[test]
fn a_deleted_file_stays_deleted_on_both_sides() {
    let (server, cli, a, b) = in_step(&[("kept", "1"), ("gone", "1")]);
    a.remove("gone");
    // A pull in between must not bring it back here, nor must the other side's push publish it again.
    cli.pull("alice/x", a.path(), &[]).expect(0);
    assert_eq!(a.names(), ["kept"]);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x"), ["kept"]);
    cli.push(b.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x"), ["kept"]);
    for _ in 0..2 {
        cli.pull("alice/x", b.path(), &[]).expect(0);
        cli.push(b.path(), &["--slug", "x"]).expect(0);
        assert_eq!(b.names(), ["kept"]);
        assert_eq!(server.paths("x"), ["kept"]);
    }
}

#[test]
fn changes_of_two_clients_to_different_files_are_both_kept() {
    let (server, cli, a, b) = in_step(&[("of-a", "1"), ("of-b", "1")]);
    a.write(&[("of-a", "2")]);
    b.write(&[("of-b", "2"), ("new-of-b", "1")]);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    let second = cli.push(b.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!(second["newerOnRemote"], serde_json::json!(["of-a"]));
    assert_eq!(second["revision"], 3);
    assert_eq!(b.read("of-a").as_deref(), Some("1"), "a push changes nothing here");
    cli.pull("alice/x", a.path(), &[]).expect(0);
    cli.pull("alice/x", b.path(), &[]).expect(0);
    assert_eq!(data_files(a.path()), data_files(b.path()));
    assert_eq!(server.paths("x"), ["new-of-b", "of-a", "of-b"]);
    assert_eq!((a.read("of-a").as_deref(), a.read("of-b").as_deref()), (Some("2"), Some("2")));
}

#[test]
fn a_file_may_become_a_directory_and_back() {
    let (_server, cli, a, b) = in_step(&[("x", "file"), ("y/z", "in a directory")]);
    a.remove("x");
    a.write(&[("x/inner", "1")]);
    a.remove("y/z");
    fs::remove_dir(a.at("y")).unwrap();
    a.write(&[("y", "file now")]);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", b.path(), &[]).expect(0);
    assert_eq!(data_files(a.path()), data_files(b.path()));
    assert_eq!(b.read("x/inner").as_deref(), Some("1"));
}

#[test]
fn times_are_restored() {
    let (server, tree, copy) =
        (Server::start(), TempTree::with(&[("old", "1"), ("new", "1")]), TempTree::new());
    let times = [
        ("old", UNIX_EPOCH + Duration::new(1_000_000_000, 0)),
        ("new", UNIX_EPOCH + Duration::new(1_700_000_000, 123_456_789)),
    ];
    for (name, time) in times {
        set_modified(&tree.at(name), time);
    }
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", copy.path(), &[]).expect(0);
    for (name, time) in times {
        assert_eq!(fs::metadata(copy.at(name)).unwrap().modified().unwrap(), time, "{name}");
    }
}

#[test]
fn a_second_pull_and_an_idle_push_rewrite_nothing() {
    let (server, cli, a, b) = in_step(&[("data/x/data.parquet", "1"), ("f", "2"), ("empty", "")]);
    let (here, there) = (snapshot(b.path()), bytes_of(&server.store()));
    let again = cli.pull("alice/x", b.path(), &["--json"]).expect(0).json();
    assert_eq!((&again["downloaded"], &again["bytesReceived"]), (&serde_json::json!([]), &0.into()));
    // The lock is opened anew; all else, the manifest first of all, has its bytes, inode and time.
    let unlocked = |mut tree: std::collections::BTreeMap<_, _>| {
        tree.remove(&b.at(".parquedb/lock"));
        tree
    };
    let manifest = b.at("_meta/manifest.json");
    assert!(here.contains_key(&manifest));
    assert_eq!(unlocked(snapshot(b.path())), unlocked(here));
    let idle = cli.push(a.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!((&idle["revision"], &idle["contentsSent"]), (&1.into(), &0.into()));
    assert_eq!(bytes_of(&server.store()), there, "an idle push publishes nothing");
}

#[test]
fn a_directory_may_move_on_to_another_database_of_its_owner() {
    let (server, cli, a, b) = in_step(&[("f", "1")]);
    for version in ["2", "3"] {
        a.write(&[("f", version)]);
        cli.push(a.path(), &["--slug", "x"]).expect(0);
    }
    cli.pull("alice/x", b.path(), &[]).expect(0);
    cli.push(b.path(), &["--slug", "fork"]).expect(0);
    // The fork numbers its revisions anew: that is no roll-back.
    b.write(&[("f", "forked")]);
    cli.push(b.path(), &["--slug", "fork"]).expect(0);
    cli.pull("alice/fork", b.path(), &[]).expect(0);
    assert_eq!(server.paths("fork"), ["f"]);
    assert_eq!(b.read("f").as_deref(), Some("forked"));
}
