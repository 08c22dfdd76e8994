//! Bytes and names come back as they were: odd names, empty and large files, other programs' databases.

use std::collections::BTreeMap;

use crate::harness::{
    Cli, Server, TempTree, bytes_of, copy_tree, data_files, get, noise, request, sample, write_files,
};

/// Pushes a directory, pulls it elsewhere, and compares.
#[track_caller]
fn round_trip(server: &Server, tree: &TempTree, slug: &str) -> TempTree {
    let (cli, copy) = (Cli::owner(server), TempTree::new());
    let before = data_files(tree.path());
    cli.push(tree.path(), &["--slug", slug]).expect(0);
    assert_eq!(data_files(tree.path()), before, "a push changes nothing here");
    cli.pull(&format!("alice/{slug}"), copy.path(), &[]).expect(0);
    assert!(data_files(copy.path()) == before, "{:?} and {:?} differ", copy.names(), tree.names());
    let around: Vec<_> = copy.outer().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(around, [copy.path().file_name().unwrap()], "something was written beside the directory");
    copy
}

#[test]
fn odd_names_travel() {
    let (server, tree) = (Server::start(), TempTree::new());
    let long = "l".repeat(255);
    let long_umlauts = "ü".repeat(127);
    let names = [
        "with space",
        " leading and trailing ",
        "100%",
        "%41",
        "%2F",
        "%2e%2e",
        "a+b",
        "c#d",
        "e?f=g&h",
        "ü",
        "u\u{308}",
        "日本語",
        "new\nline",
        "tab\tand\r",
        "-leading-dash",
        "--help",
        "..dots",
        "dots..",
        "...",
        "back\\slash",
        "quo\"te's",
        "semi;colon:star*",
        "C:\\x",
        "~",
        "{}[]|<>^`",
        "\u{7f}",
        "\u{1b}[31mred",
        "\u{202e}rtl",
        "🦆",
        &long,
        &long_umlauts,
        "_meta/schema.json",
        "data/with space/ü+%.txt",
        "data/?/#/%/+/-",
        "manifest.json",
    ];
    write_files(tree.path(), names.iter().enumerate().map(|(n, name)| (*name, noise(n as u64, n))));
    let deep = format!("{}/{}", "d".repeat(255), ["x"; 60].join("/"));
    write_files(tree.path(), [(deep, b"deep".to_vec())]);
    assert_eq!(tree.names().len(), names.len() + 1);
    let copy = round_trip(&server, &tree, "names");

    // A second round: they are found again under the same names, edited and deleted.
    let cli = Cli::owner(&server);
    for name in ["100%", "new\nline", "-leading-dash"] {
        copy.write(&[(name, "edited")]);
    }
    copy.remove("c#d");
    let pushed = cli.push(copy.path(), &["--slug", "names", "--json"]).expect(0).json();
    assert_eq!(pushed["uploaded"], serde_json::json!(["-leading-dash", "100%", "new\nline"]));
    assert_eq!(pushed["deleted"], serde_json::json!(["c#d"]));
    cli.pull("alice/names", tree.path(), &[]).expect(0);
    assert_eq!(data_files(tree.path()), data_files(copy.path()));
}

#[test]
fn control_characters_in_names_never_reach_the_terminal() {
    let (server, tree) = (Server::start(), TempTree::with(&[("\u{1b}[31mred\nline", "1"), ("f", "1")]));
    let cli = Cli::owner(&server);
    let copy = TempTree::new();
    let name = serde_json::json!({"name": "\u{1b}[31mred", "slug": "x", "owner": "alice"});
    request("POST", "/api/sync/register").bearer(&server.token).json(&name).send(&server.address).expect(201);
    let runs = [
        cli.push(tree.path(), &["--slug", "x", "--dry-run"]),
        cli.push(tree.path(), &["--slug", "x"]),
        cli.pull("alice/x", copy.path(), &["--dry-run"]),
        cli.pull("alice/x", copy.path(), &[]),
    ];
    for run in runs {
        assert!(!run.stdout.contains('\u{1b}') && !run.stdout.contains("red\nline"), "{run:?}");
    }
    std::os::unix::fs::symlink("f", tree.at("\u{1b}[31mlink")).unwrap();
    let skipped = cli.push(tree.path(), &["--slug", "x"]).expect(0);
    assert!(skipped.stdout.contains("symbolic link") && !skipped.stdout.contains('\u{1b}'), "{skipped:?}");
}

#[test]
fn sizes_around_every_boundary_travel() {
    let (server, tree) = (Server::start(), TempTree::new());
    let sizes = [0, 1, 4095, 4096, (256 << 10) - 1, 256 << 10, (1 << 20) - 1, 1 << 20, (1 << 20) + 1];
    let files = sizes.iter().map(|size| (format!("{size}.bin"), noise(*size as u64, *size)));
    write_files(tree.path(), files.chain([("empty/too".to_owned(), Vec::new())]));
    write_files(tree.path(), [("twenty-megabytes.bin", noise(20, 20 << 20))]);
    round_trip(&server, &tree, "sizes");
}

#[test]
fn f46_equal_contents_are_sent_once_and_a_rename_sends_nothing() {
    let (server, tree) = (Server::start(), TempTree::new());
    let cli = Cli::owner(&server);
    let large = noise(7, 2 << 20);
    write_files(
        tree.path(),
        [("a", large.clone()), ("b/c", large.clone()), ("d", large.clone()), ("e", vec![1])],
    );
    let push = || cli.push(tree.path(), &["--slug", "x", "--json"]).expect(0).json();
    let first = push();
    assert_eq!(first["uploaded"].as_array().unwrap().len(), 4);
    assert_eq!((&first["contentsSent"], &first["bytesSent"]), (&2.into(), &((2 << 20) + 1).into()));
    let stored = bytes_of(&server.store()).into_values().filter(|bytes| *bytes == large).count();
    assert_eq!(stored, 1, "it is stored once");

    std::fs::rename(tree.at("a"), tree.at("renamed")).unwrap();
    let renamed = push();
    assert_eq!((&renamed["contentsSent"], &renamed["bytesSent"]), (&0.into(), &0.into()));
    assert_eq!(renamed["uploaded"], serde_json::json!(["renamed"]));
    // Known from an earlier revision, although no current file has it any more.
    tree.write(&[("e", "2")]);
    push();
    write_files(tree.path(), [("e", vec![1])]);
    assert_eq!(push()["contentsSent"], 0);
}

#[test]
fn other_programs_databases_travel_byte_for_byte() {
    let server = Server::start();
    for name in ["native", "eventsourced-rels", "cli-pulled", "iceberg", "delta"] {
        let tree = TempTree::new();
        copy_tree(&sample(name), tree.path());
        assert!(!tree.names().is_empty(), "{name}");
        round_trip(&server, &tree, name);
    }
}

#[test]
fn the_manifest_here_and_there_says_what_the_files_are() {
    let (server, tree) = (Server::start(), TempTree::new());
    copy_tree(&sample("native"), tree.path());
    tree.write(&[("notes.txt", "x")]);
    Cli::owner(&server).push(tree.path(), &["--slug", "native", "--visibility", "unlisted"]).expect(0);
    let remote = get("/db/alice/native/_meta/manifest.json").send(&server.address).expect(200).json();
    let types = BTreeMap::from([
        ("data/posts/data.parquet", "application/vnd.apache.parquet"),
        ("data/users/data.parquet", "application/vnd.apache.parquet"),
        ("notes.txt", "text/plain; charset=utf-8"),
    ]);
    for manifest in [&remote, &tree.manifest()] {
        assert_eq!(manifest["version"], 1);
        assert_eq!((&manifest["owner"], &manifest["slug"]), (&"alice".into(), &"native".into()));
        assert_eq!(manifest["visibility"], "unlisted");
        assert_eq!(manifest["databaseId"], remote["databaseId"]);
        let files = manifest["files"].as_object().unwrap();
        assert_eq!(files.keys().collect::<Vec<_>>(), types.keys().collect::<Vec<_>>());
        for (path, entry) in files {
            let bytes = std::fs::read(tree.at(path)).unwrap();
            assert_eq!(entry["path"], **path);
            assert_eq!(entry["size"], bytes.len());
            assert_eq!(entry["hash"], crate::harness::sha256(&bytes));
            assert_eq!(entry["hashAlgorithm"], "sha256");
            assert_eq!(entry["contentType"], types[path.as_str()]);
        }
    }
}
