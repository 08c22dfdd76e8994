//! What never leaves a directory, and where nothing is ever written: secrets, other tools' files, and whatever
//! lies behind a symbolic link.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::{Cli, Server, TempTree, bytes_of};

#[test]
fn rule_11_protected_names_never_leave() {
    let (server, tree, copy) = (Server::start(), TempTree::with(&[("kept", "data")]), TempTree::new());
    let secret = "never-to-be-published";
    let protected = [
        ".env",
        ".env.local",
        ".ENV",
        "sub/.env.production",
        "owner.token",
        "a/b/API.TOKEN",
        "server.key",
        "cert.pem",
        "id_rsa",
        "id_ed25519",
        ".npmrc",
        ".netrc",
        ".pypirc",
        ".DS_Store",
        "node_modules/x/index.js",
        "sub/node_modules/y.js",
        ".git/config",
        "sub/.git/HEAD",
        ".parquedb/own",
        "sub/.parquedb/own",
    ];
    for name in protected {
        tree.write(&[(name, secret)]);
    }
    let cli = Cli::owner(&server).secret(secret);
    let pushed = cli.push(tree.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!(pushed["uploaded"], serde_json::json!(["kept"]));
    assert_eq!(server.paths("x"), ["kept"]);
    for (path, bytes) in bytes_of(&server.store()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(secret), "{path}");
    }
    let named: Vec<_> =
        pushed["notPublished"].as_array().unwrap().iter().map(|one| one["path"].clone()).collect();
    assert!(named.contains(&"sub/.env.production".into()), "{named:?}");
    // Neither are they taken for deleted or touched from the other side.
    cli.pull("alice/x", copy.path(), &[]).expect(0);
    copy.write(&[("more", "1")]);
    cli.push(copy.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", tree.path(), &[]).expect(0);
    for name in protected {
        assert_eq!(tree.read(name).as_deref(), Some(secret), "{name}");
    }
}

#[test]
fn a_published_file_replaced_by_a_protected_thing_is_not_deleted() {
    let (server, tree) = (Server::start(), TempTree::with(&[("f", "1"), ("g", "1")]));
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    tree.remove("f");
    symlink("g", tree.at("f")).unwrap();
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x"), ["f", "g"]);
}

#[test]
fn files_moved_behind_a_link_are_not_deleted() {
    let (server, tree, disk) =
        (Server::start(), TempTree::with(&[("d/f", "1"), ("d/e/g", "1"), ("d2", "1")]), TempTree::new());
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    fs::rename(tree.at("d"), disk.at("d")).unwrap();
    symlink(disk.at("d"), tree.at("d")).unwrap();
    tree.remove("d2");
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    assert_eq!(server.paths("x"), ["d/e/g", "d/f"]);
    cli.pull("alice/x", tree.path(), &[]).expect(0);
    assert_eq!((disk.read("d/f").as_deref(), disk.read("d/e/g").as_deref()), (Some("1"), Some("1")));
}

#[test]
fn symbolic_links_are_not_followed_out_or_in() {
    let (server, tree, outside) = (Server::start(), TempTree::with(&[("f", "1")]), TempTree::new());
    outside.write(&[("secret", "outside"), ("d/inner", "outside")]);
    symlink(outside.at("secret"), tree.at("link")).unwrap();
    symlink(outside.path(), tree.at("linked-dir")).unwrap();
    symlink("f", tree.at("inside")).unwrap();
    symlink("nowhere", tree.at("dangling")).unwrap();
    let cli = Cli::owner(&server);
    let pushed = cli.push(tree.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!(server.paths("x"), ["f"]);
    let skipped = pushed["notPublished"].as_array().unwrap();
    assert_eq!(skipped.len(), 4, "{skipped:?}");
    assert!(skipped.iter().all(|one| one["reason"] == "symbolic link"), "{skipped:?}");
}

#[test]
fn a_pull_never_writes_through_a_link() {
    let (server, tree) =
        (Server::start(), TempTree::with(&[("f", "1"), ("d/g", "1"), ("h", "1"), ("e/i", "1")]));
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);

    let (copy, outside) = (TempTree::new(), TempTree::with(&[("target", "outside")]));
    symlink(outside.path(), copy.at("d")).unwrap();
    symlink(outside.at("target"), copy.at("f")).unwrap();
    symlink(outside.at("to be made"), copy.at("h")).unwrap();
    let before = bytes_of(outside.path());
    let pulled = cli.pull("alice/x", copy.path(), &["--json"]).expect(3).json();
    assert_eq!(bytes_of(outside.path()), before);
    assert_eq!(pulled["conflicts"], serde_json::json!(["d/g", "f", "h"]));
    assert_eq!(copy.read("e/i").as_deref(), Some("1"), "the others arrive");
    for link in ["d", "f", "h"] {
        assert!(fs::symlink_metadata(copy.at(link)).unwrap().is_symlink(), "{link}");
    }
    // Nor does it delete through one.
    let (later, outside) = (TempTree::new(), TempTree::with(&[("g", "1")]));
    cli.pull("alice/x", later.path(), &[]).expect(0);
    fs::remove_dir_all(later.at("d")).unwrap();
    symlink(outside.path(), later.at("d")).unwrap();
    tree.remove("d/g");
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    cli.pull("alice/x", later.path(), &[]);
    assert_eq!(outside.read("g").as_deref(), Some("1"));
}

#[test]
fn the_tools_own_files_are_never_written_through_a_link() {
    let (server, tree) = (Server::start(), TempTree::with(&[("f", "1")]));
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    let directories = ["_meta", ".parquedb", ".parquedb/incoming"];
    let files = [
        ".parquedb/lock",
        ".parquedb/sync.json",
        ".parquedb/commit",
        ".parquedb/arriving",
        ".parquedb/asides",
        ".parquedb/hashes",
    ];
    for link in directories.into_iter().chain(files) {
        for existing in [true, false] {
            let (copy, outside) = (TempTree::new(), TempTree::with(&[("target", "outside"), ("d/x", "1")]));
            let to_file = files.contains(&link);
            let target = match (to_file, existing) {
                (true, true) => outside.at("target"),
                (false, true) => outside.at("d"),
                (_, false) => outside.at("to be made"),
            };
            fs::create_dir_all(copy.at(link).parent().unwrap()).unwrap();
            symlink(target, copy.at(link)).unwrap();
            let before = bytes_of(outside.outer());
            let ended = cli.pull("alice/x", copy.path(), &[]);
            assert_eq!(bytes_of(outside.outer()), before, "{link}: {ended:?}");
        }
    }
}
