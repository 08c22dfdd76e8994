//! Rule 14: mass deletions halt, in both directions, until they are said to be meant.

use crate::harness::{Cli, Server, TempTree, data_files};

fn twenty_files() -> TempTree {
    let tree = TempTree::new();
    for n in 0..20 {
        tree.write(&[(&format!("data/c{n}/data.parquet"), &format!("content {n}"))]);
    }
    tree
}

fn remove(tree: &TempTree, range: std::ops::Range<usize>) {
    for n in range {
        tree.remove(&format!("data/c{n}/data.parquet"));
    }
}

#[test]
fn a_push_that_deletes_much_halts() {
    let (server, tree) = (Server::start(), twenty_files());
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    remove(&tree, 0..9);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x").len(), 11, "nine are not many");

    remove(&tree, 9..19);
    tree.write(&[("new", "1")]);
    for more in [&["--slug", "x"][..], &["--slug", "x", "--force"]] {
        let halted = cli.push(tree.path(), more).expect(3);
        let stderr = &halted.stderr;
        assert!(stderr.contains("10 of 11 files") && stderr.contains("--allow-mass-delete"), "{halted:?}");
        assert_eq!(server.paths("x").len(), 11, "nothing is published, additions included");
    }
    cli.push(tree.path(), &["--slug", "x", "--allow-mass-delete"]).expect(0);
    assert_eq!(server.paths("x"), ["data/c19/data.parquet", "new"]);
}

#[test]
fn a_pull_that_deletes_much_halts() {
    let (server, tree, copy) = (Server::start(), twenty_files(), TempTree::new());
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", copy.path(), &[]).expect(0);
    remove(&tree, 0..10);
    tree.write(&[("new", "1")]);
    cli.push(tree.path(), &["--slug", "x", "--allow-mass-delete"]).expect(0);
    let before = data_files(copy.path());
    let halted = cli.pull("alice/x", copy.path(), &[]).expect(3);
    assert!(
        halted.stderr.contains("10 of 20 files") && halted.stderr.contains("--allow-mass-delete"),
        "{halted:?}"
    );
    assert_eq!(data_files(copy.path()), before, "nothing is applied, additions included");
    cli.pull("alice/x", copy.path(), &["--allow-mass-delete"]).expect(0);
    assert_eq!(data_files(copy.path()), data_files(tree.path()));
}

#[test]
fn a_few_of_many_do_not_halt() {
    let (server, tree) = (Server::start(), twenty_files());
    for n in 20..44 {
        tree.write(&[(&format!("data/c{n}/data.parquet"), "x")]);
    }
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    remove(&tree, 0..11);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x").len(), 33, "eleven of forty-four are a quarter, not more");
}

#[test]
fn an_emptied_or_replaced_directory_deletes_nothing() {
    let (server, tree) = (Server::start(), twenty_files());
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    // An unmounted disk, or a directory made anew: what was known of the database is gone too.
    let empty = TempTree::new();
    cli.push(empty.path(), &["--slug", "x", "--allow-mass-delete", "--force"]).expect(0);
    assert_eq!(server.paths("x").len(), 20);
    cli.pull("alice/x", empty.path(), &[]).expect(0);
    assert_eq!(data_files(empty.path()), data_files(tree.path()));
}
