//! X2, the server's side: what was published stays, and can be listed, compared, pulled, mounted and published again.

use crate::harness::{Cli, Mounting, Server, TempTree, data_files, get};

/// Three revisions: a file that changes, one that goes, one that comes.
fn three_revisions(server: &Server, tree: &TempTree) -> Cli {
    let cli = Cli::owner(server);
    for files in [
        &[("data/a", "one"), ("data/b", "stays")][..],
        &[("data/a", "two"), ("data/c", "new")],
        &[("data/a", "three")],
    ] {
        tree.write(files);
        cli.push(tree.path(), &["--slug", "x", "--visibility", "public"]).expect(0);
    }
    cli
}

#[test]
fn x2_the_log_tells_of_every_revision_the_latest_first() {
    let (server, tree) = (Server::start(), TempTree::new());
    let cli = three_revisions(&server, &tree);
    let log = cli.run(&["log", "alice/x", "--json"]).expect(0).json();
    let of =
        |key: &str| log["log"].as_array().unwrap().iter().map(|entry| entry[key].clone()).collect::<Vec<_>>();
    assert_eq!(of("revision"), [3, 2, 1]);
    assert_eq!(of("put"), [1, 2, 2]);
    assert_eq!(of("author"), ["alice", "alice", "alice"]);
    let shown = cli.run(&["log", "alice/x", "-n", "2"]).expect(0).stdout;
    let lines: Vec<_> = shown.lines().collect();
    assert!(
        lines.len() == 2 && lines[0].trim_start().starts_with("3 ") && lines[0].contains("+1 -0"),
        "{shown}"
    );
    cli.run(&["log", "alice/nope"]).expect(5);
    Cli::at(&server.url()).run(&["log", "alice/x"]).expect(0);
}

#[test]
fn x2_two_revisions_are_compared() {
    let (server, tree) = (Server::start(), TempTree::new());
    let cli = three_revisions(&server, &tree);
    let difference = cli.run(&["diff", "alice/x", "1", "--json"]).expect(0).json();
    assert_eq!(difference["added"], serde_json::json!(["data/c"]));
    assert_eq!(difference["changed"], serde_json::json!(["data/a"]));
    assert_eq!(difference["removed"], serde_json::json!([]));
    let whole = cli.run(&["diff", "alice/x", "0", "1", "--json"]).expect(0).json();
    assert_eq!(whole["added"], serde_json::json!(["data/a", "data/b"]));
    let none = cli.run(&["diff", "alice/x", "4"]).expect(5);
    assert!(none.stderr.contains("no revision 4"), "{none:?}");
}

#[test]
fn x2_a_pull_at_a_revision_brings_it_and_a_pull_brings_the_current_one() {
    let (server, tree, copy) = (Server::start(), TempTree::new(), TempTree::new());
    let cli = three_revisions(&server, &tree);
    cli.pull("alice/x", copy.path(), &["--at", "1"]).expect(0);
    assert_eq!(
        (copy.read("data/a"), copy.names()),
        (Some("one".into()), vec!["data/a".into(), "data/b".into()])
    );
    cli.pull("alice/x", copy.path(), &["--at", "2"]).expect(0);
    assert_eq!(copy.read("data/a").unwrap(), "two");
    // What was edited meanwhile is not touched, back or forth.
    copy.write(&[("data/b", "mine")]);
    cli.pull("alice/x", copy.path(), &["--at", "1"]).expect(0);
    assert_eq!((copy.read("data/a").unwrap(), copy.read("data/b").unwrap()), ("one".into(), "mine".into()));
    copy.write(&[("data/b", "stays")]);
    cli.pull("alice/x", copy.path(), &[]).expect(0);
    assert_eq!(data_files(copy.path()), data_files(tree.path()));
    cli.pull("alice/x", copy.path(), &["--at", "9"]).expect(5);
    assert_eq!(data_files(copy.path()), data_files(tree.path()));
}

#[test]
fn x2_an_old_directory_does_not_undo_what_came_after_it() {
    let (server, tree, copy) = (Server::start(), TempTree::new(), TempTree::new());
    let cli = three_revisions(&server, &tree);
    cli.pull("alice/x", copy.path(), &["--at", "1"]).expect(0);
    copy.write(&[("data/d", "from the past")]);
    cli.push(copy.path(), &["--slug", "x"]).expect(0);
    assert_eq!(get("/db/alice/x/data/a").send(&server.address).expect(200).text(), "three");
    assert_eq!(server.paths("x"), ["data/a", "data/b", "data/c", "data/d"]);
}

#[test]
fn x2_a_mount_shows_a_revision_and_stays_there() {
    let (server, tree) = (Server::start(), TempTree::new());
    let cli = three_revisions(&server, &tree);
    let mounting = Mounting::at(&server.url(), "alice/x").args(&["--at", "2", "--poll", "0.2"]);
    let mount = mounting.mount();
    let read = |name: &str| std::fs::read_to_string(mount.at(name)).ok();
    assert_eq!((read("data/a").unwrap(), read("data/c").unwrap()), ("two".into(), "new".into()));
    tree.write(&[("data/a", "four")]);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(read("data/a").unwrap(), "two");
    Mounting::at(&server.url(), "alice/x").args(&["--at", "77"]).run().expect(5);
}

#[test]
fn x2_reverting_publishes_an_earlier_revision_again_and_sends_nothing() {
    let (server, tree, copy) = (Server::start(), TempTree::new(), TempTree::new());
    let cli = three_revisions(&server, &tree);
    let dry = cli.run(&["revert", "alice/x", "1", "--dry-run", "--json"]).expect(0).json();
    assert_eq!((&dry["revision"], &dry["removed"]), (&3.into(), &serde_json::json!(["data/c"])));
    let done = cli.run(&["revert", "alice/x", "1", "--json"]).expect(0).json();
    assert_eq!(done["revision"], 4);
    cli.pull("alice/x", copy.path(), &[]).expect(0);
    assert_eq!((copy.read("data/a").unwrap(), copy.names().len()), ("one".into(), 2));
    let again = cli.run(&["revert", "alice/x", "1", "--json"]).expect(0).json();
    assert_eq!(again["revision"], 4, "there is nothing to do");
    let log = cli.run(&["log", "alice/x", "--json"]).expect(0).json();
    assert_eq!(log["log"][0]["message"], "revert to revision 1");
    // Reverting can be reverted.
    cli.run(&["revert", "alice/x", "3"]).expect(0);
    assert_eq!(get("/db/alice/x/data/a").send(&server.address).expect(200).text(), "three");
    cli.run(&["revert", "alice/x", "99"]).expect(5);
    Cli::at(&server.url()).run(&["revert", "alice/x", "1"]).expect(4);
}
