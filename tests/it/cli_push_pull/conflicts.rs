//! Both sides have changed: neither direction overwrites what the other side wrote, and says so with exit 3.

use std::fs;

use serde_json::json;

use crate::harness::{Cli, Reply, Responder, Server, TempTree, allow_account, data_files, get};

fn two_clients(files: &[(&str, &str)]) -> (Server, Cli, TempTree, TempTree) {
    let (server, a, b) = (Server::start(), TempTree::with(files), TempTree::new());
    let cli = Cli::owner(&server);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", b.path(), &[]).expect(0);
    (server, cli, a, b)
}

/// The published text of a file.
fn published(server: &Server, path: &str) -> String {
    get(&format!("/db/alice/x/{path}")).bearer(&server.token).send(&server.address).expect(200).text()
}

#[test]
fn f15_a_pull_never_overwrites_a_local_edit_and_the_others_arrive() {
    let (_server, cli, a, b) =
        two_clients(&[("both", "1"), ("theirs", "1"), ("edit-delete", "1"), ("mine", "1")]);
    a.write(&[("both", "a"), ("theirs", "2"), ("new", "1")]);
    a.remove("edit-delete");
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    b.write(&[("both", "b"), ("edit-delete", "b"), ("mine", "b"), ("untracked", "b")]);
    for _ in 0..2 {
        let pulled = cli.pull("alice/x", b.path(), &[]).expect(3);
        let named = "2 files changed on both sides and left alone:\n  ! both\n  ! edit-delete\n";
        assert!(pulled.stdout.contains(named), "{pulled:?}");
        assert!(!pulled.stdout.contains("successfully"), "{pulled:?}");
        for (name, text) in [
            ("both", "b"),
            ("edit-delete", "b"),
            ("mine", "b"),
            ("untracked", "b"),
            ("theirs", "2"),
            ("new", "1"),
        ] {
            assert_eq!(b.read(name).as_deref(), Some(text), "{name}");
        }
    }
    let object = cli.pull("alice/x", b.path(), &["--json"]).expect(3).json();
    assert_eq!(object["conflicts"], json!(["both", "edit-delete"]));
    assert_eq!(object["changedHere"], json!(["mine"]));
    // The way out the message names.
    fs::rename(b.at("both"), b.at("mine of both")).unwrap();
    b.remove("edit-delete");
    cli.pull("alice/x", b.path(), &[]).expect(0);
    assert_eq!((b.read("both").as_deref(), b.read("mine of both").as_deref()), (Some("a"), Some("b")));
}

#[test]
fn rule_9_an_edit_there_beats_a_deletion_here() {
    let (server, cli, a, b) = two_clients(&[("f", "1"), ("g", "1")]);
    a.write(&[("f", "2")]);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    b.remove("f");
    b.remove("g");
    cli.push(b.path(), &["--slug", "x"]).expect(3);
    assert_eq!(server.paths("x"), ["f"], "what nobody edited is deleted");
    cli.pull("alice/x", b.path(), &[]).expect(0);
    assert_eq!(b.read("f").as_deref(), Some("2"));
    cli.push(b.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x"), ["f"]);
}

#[test]
fn a_push_never_overwrites_another_clients_change_unless_forced() {
    let (server, cli, a, b) = two_clients(&[("both", "1"), ("mine", "1"), ("edit-delete", "1")]);
    a.write(&[("both", "a"), ("edit-delete", "a")]);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    b.write(&[("both", "b"), ("mine", "b")]);
    b.remove("edit-delete");
    for _ in 0..2 {
        let pushed = cli.push(b.path(), &["--slug", "x"]).expect(3);
        let named = "2 files changed on both sides and left alone:\n  ! both\n  ! edit-delete\n";
        assert!(pushed.stdout.contains(named), "{pushed:?}");
        assert!(pushed.stdout.contains("--force") && !pushed.stdout.contains("successfully"), "{pushed:?}");
        assert_eq!(published(&server, "both"), "a");
        assert_eq!(published(&server, "edit-delete"), "a", "edit beats delete");
        assert_eq!(published(&server, "mine"), "b", "the others are published");
        assert_eq!(b.read("both").as_deref(), Some("b"));
    }
    let dry = cli.push(b.path(), &["--slug", "x", "--dry-run", "--json"]).expect(3).json();
    assert_eq!(dry["conflicts"], json!(["both", "edit-delete"]));
    // An edit beats a deletion, said with force or not; a person may say otherwise.
    cli.push(b.path(), &["--slug", "x", "--force"]).expect(3);
    assert_eq!(published(&server, "both"), "b");
    cli.resolve(b.path(), "edit-delete", &["--local"]).expect(0);
    cli.push(b.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x"), ["both", "mine"]);
}

#[test]
fn the_same_change_on_both_sides_is_no_conflict() {
    let (_server, cli, a, b) = two_clients(&[("f", "1"), ("g", "1")]);
    for tree in [&a, &b] {
        tree.write(&[("f", "2"), ("new", "same")]);
        tree.remove("g");
    }
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    let again = cli.push(b.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!(again["revision"], 2, "there is nothing left to publish: {again}");
    cli.pull("alice/x", b.path(), &[]).expect(0);
    assert_eq!(data_files(a.path()), data_files(b.path()));
}

#[test]
fn files_that_were_there_before_the_first_pull_are_kept() {
    let (_server, cli, a, _b) = two_clients(&[("f", "1"), ("same", "1"), ("d/g", "1")]);
    let other = TempTree::with(&[("f", "mine"), ("same", "1"), ("d", "a file where a directory would be")]);
    let pulled = cli.pull("alice/x", other.path(), &["--json"]).expect(3).json();
    assert_eq!(pulled["conflicts"], json!(["d/g", "f"]));
    assert_eq!(other.read("f").as_deref(), Some("mine"));
    assert_eq!(other.read("d").as_deref(), Some("a file where a directory would be"));
    let pushed = cli.push(other.path(), &["--slug", "x"]);
    assert_ne!(pushed.code, 0, "{pushed:?}");
    assert_eq!(cli.pull("alice/x", a.path(), &["--json"]).expect(0).json()["downloaded"], json!([]));
}

#[test]
fn a_directory_of_another_database_halts_both_ways() {
    let (server, cli, a, _b) = two_clients(&[("f", "1")]);
    let other = TempTree::with(&[("f", "other"), ("g", "other")]);
    cli.push(other.path(), &["--slug", "other"]).expect(0);
    let before = data_files(a.path());
    for halted in [cli.pull("alice/other", a.path(), &[]), cli.push(a.path(), &["--slug", "other"])] {
        let halted = halted.expect(3);
        assert_eq!(halted.stderr.lines().count(), 1, "{halted:?}");
        assert!(halted.stderr.contains("another directory"), "{halted:?}");
    }
    assert_eq!(data_files(a.path()), before);
    assert_eq!(server.paths("other"), ["f", "g"]);
    // The same with --force, which is about files, not about databases.
    cli.push(a.path(), &["--slug", "other", "--force", "--allow-mass-delete"]).expect(3);
    assert_eq!(server.paths("other"), ["f", "g"]);
}

#[test]
fn only_the_owner_pushes() {
    let (server, cli, a, b) = two_clients(&[("f", "1")]);
    cli.push(a.path(), &["--slug", "x", "--visibility", "public"]).expect(0);
    let bob = Cli::at(&server.url()).token(&allow_account(&server.store(), "bob"));
    bob.pull("alice/x", &bob.home().join("x"), &[]).expect(0);
    // A push goes to the pusher's own databases: alice's is another one for bob.
    b.write(&[("f", "b")]);
    let pushed = bob.push(b.path(), &["--slug", "x", "--json"]);
    assert_ne!(pushed.json()["database"], "alice/x");
    assert_eq!(published(&server, "f"), "1");
    let anonymous = Cli::at(&server.url()).push(a.path(), &["--slug", "x"]).expect(4);
    assert!(anonymous.stderr.contains("parquedb login"), "{anonymous:?}");
}

#[test]
fn rule_3_a_lost_answer_makes_no_conflict_and_no_second_revision() {
    let server = Server::start();
    let address = server.address.clone();
    // Passes everything on, and hangs up instead of answering while the commits are to be lost.
    let lose = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let left = lose.clone();
    let proxy = Responder::start(move |request| {
        let response = request.forward(&address);
        let commit = request.target.starts_with("/api/sync/commit/");
        let decrement = |left: usize| left.checked_sub(1);
        let order = std::sync::atomic::Ordering::SeqCst;
        if commit && left.fetch_update(order, order, decrement).is_ok() {
            Reply::HangUp
        } else {
            response.into()
        }
    });
    let cli = Cli::at(&proxy.url()).token(&server.token);
    let tree = TempTree::with(&[("f", "1"), ("g", "1")]);
    // Lost once, it is asked again and answered the same.
    lose.store(1, std::sync::atomic::Ordering::SeqCst);
    let first = cli.push(tree.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!(first["revision"], 1);
    assert_eq!(proxy.asked().iter().filter(|line| line.contains("/commit/")).count(), 2);
    // Lost for good, the next run finds its own commit and is in step.
    tree.write(&[("f", "2"), ("new", "1")]);
    tree.remove("g");
    lose.store(usize::MAX, std::sync::atomic::Ordering::SeqCst);
    cli.push(tree.path(), &["--slug", "x"]).expect(6);
    lose.store(0, std::sync::atomic::Ordering::SeqCst);
    tree.write(&[("f", "3")]);
    let settled = cli.push(tree.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!(settled["revision"], 3, "{settled}");
    assert_eq!(settled["uploaded"], json!(["f"]));
    assert_eq!(server.paths("x"), ["f", "new"]);
    assert_eq!(published(&server, "f"), "3");
}

#[test]
fn rule_4_a_remote_that_was_rolled_back_halts_and_nothing_is_deleted() {
    let (mut server, cli, a, b) = two_clients(&[("f", "1")]);
    let backup = TempTree::new();
    crate::harness::copy_tree(&server.store(), &backup.at("store"));
    a.write(&[("f", "2"), ("new", "1")]);
    cli.push(a.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", b.path(), &[]).expect(0);
    server.kill();
    fs::remove_dir_all(server.store()).unwrap();
    crate::harness::copy_tree(&backup.at("store"), &server.store());
    server.crash_and_restart();
    let before = data_files(b.path());
    for halted in [cli.pull("alice/x", b.path(), &[]), cli.push(b.path(), &["--slug", "x"])] {
        let halted = halted.expect(3);
        assert!(halted.stderr.contains("rolled back"), "{halted:?}");
    }
    assert_eq!(data_files(b.path()), before);
    assert_eq!(server.paths("x"), ["f"]);
}
