//! What is printed: the seed's lines for people, one object for programs; and a dry run that only prints.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Cli, Server, Snapshot, TempTree, copy_tree, sample, snapshot};

/// The seed's example of a push, whole.
const SEED_PUSH: &str = "\
Authenticating...
Logged in as username

Pushing to https://api.parque.db...
  Visibility: public
  Slug: username/my-dataset

Database registered: db_abc123

Uploading files...
Uploaded 5 files.

Database pushed successfully!
  URL: https://parque.db/username/my-dataset
";

/// The seed's example of a pull, whole.
const SEED_PULL: &str = "\
Fetching database info from https://api.parque.db...

Found database: my-dataset
  Visibility: public
  Collections: 3

Downloading to ./local-data...

Database pulled successfully!
  Location: ./local-data
";

/// The seed's example as this server and database make it.
fn seed(template: &str, server: &Server, id: &str) -> String {
    let text = template.replace("https://api.parque.db", &server.url());
    let text = text.replace("https://parque.db", &server.url());
    text.replace("username", "alice").replace("db_abc123", id)
}

fn five_files() -> TempTree {
    TempTree::with(&[
        ("data/posts/data.parquet", "posts"),
        ("data/users/data.parquet", "users"),
        ("data/tags/data.parquet", "tags"),
        ("rels/forward/posts.parquet", "rels"),
        ("events/current.parquet", "events"),
    ])
}

#[test]
fn a_first_push_and_later_ones_print_the_seeds_lines() {
    let (server, tree) = (Server::start(), five_files());
    let cli = Cli::owner(&server);
    let first = cli.push(tree.path(), &["--visibility", "public", "--slug", "my-dataset"]).expect(0);
    let id = tree.manifest()["databaseId"].as_str().unwrap().to_owned();
    assert!(id.starts_with("db_"), "{id}");
    let template = seed(SEED_PUSH, &server, &id);
    assert_eq!(first.stdout, template);

    // The visibility is not asked for again, and stays.
    let idle = cli.push(tree.path(), &["--slug", "my-dataset"]).expect(0);
    assert_eq!(idle.stdout, template.replace("5 files", "0 files"));

    tree.write(&[("data/posts/data.parquet", "posts 2")]);
    let one = cli.push(tree.path(), &["--slug", "my-dataset"]).expect(0);
    assert_eq!(one.stdout, template.replace("5 files", "1 file"));

    tree.remove("data/tags/data.parquet");
    let deleted = cli.push(tree.path(), &["--slug", "my-dataset"]).expect(0);
    let expected = template.replace("Uploaded 5 files.\n", "Uploaded 0 files.\nDeleted 1 file.\n");
    assert_eq!(deleted.stdout, expected);

    let quiet = cli.push(tree.path(), &["--slug", "my-dataset", "--quiet"]).expect(0);
    assert_eq!(quiet.stdout, "");
}

#[test]
fn a_pull_prints_the_seeds_lines() {
    let (server, tree) = (Server::start(), five_files());
    Cli::owner(&server).push(tree.path(), &["--visibility", "public", "--slug", "my-dataset"]).expect(0);
    let cli = Cli::at(&server.url());
    for _ in 0..2 {
        let pulled = cli.run(&["pull", "alice/my-dataset", "--directory", "./local-data"]).expect(0);
        assert_eq!(pulled.stdout, seed(SEED_PULL, &server, ""));
    }
    let quiet = cli.run(&["pull", "alice/my-dataset", "--directory", "./quiet", "--quiet"]).expect(0);
    assert_eq!(quiet.stdout, "");
    assert!(cli.home().join("quiet/events/current.parquet").exists());
}

/// Every object of the server's store, untouched since it was written.
fn objects(server: &Server) -> BTreeMap<PathBuf, Snapshot> {
    let mut objects = snapshot(&server.store());
    objects.retain(|path, _| path.is_file());
    objects
}

#[test]
fn a_dry_push_changes_nothing_on_either_side() {
    let (server, tree) = (Server::start(), five_files());
    let cli = Cli::owner(&server);
    let dry = |tree: &TempTree, more: &[&str]| {
        let before = (snapshot(tree.outer()), objects(&server));
        let args = [&["--dry-run", "--slug", "my-dataset"], more].concat();
        let outcome = cli.push(tree.path(), &args).expect(0);
        assert_eq!(snapshot(tree.outer()), before.0, "the directory");
        assert_eq!(objects(&server), before.1, "the server's store");
        outcome
    };
    let first = dry(&tree, &["--visibility", "public"]);
    assert!(first.stdout.contains("Would upload 5 files."), "{first:?}");
    assert!(first.stdout.contains("  + data/posts/data.parquet\n"), "{first:?}");
    assert!(!first.stdout.contains("registered") && !first.stdout.contains("successfully"), "{first:?}");

    cli.push(tree.path(), &["--slug", "my-dataset"]).expect(0);
    tree.write(&[("data/posts/data.parquet", "posts 2")]);
    tree.remove("data/tags/data.parquet");
    let later = dry(&tree, &["--visibility", "public"]);
    assert!(later.stdout.contains("Would upload 1 file.\n  + data/posts/data.parquet\n"), "{later:?}");
    assert!(later.stdout.contains("Would delete 1 file.\n  - data/tags/data.parquet\n"), "{later:?}");
    let object = dry(&tree, &["--json"]).json();
    assert_eq!(object["dryRun"], true);
    assert_eq!(object["uploaded"], json!(["data/posts/data.parquet"]));
    assert_eq!(object["deleted"], json!(["data/tags/data.parquet"]));
    assert_eq!(object["revision"], 1);
}

#[test]
fn a_dry_pull_changes_nothing_on_either_side() {
    let (server, tree, copy) = (Server::start(), five_files(), TempTree::new());
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "my-dataset"]).expect(0);
    let dry = |directory: &std::path::Path| {
        let before = (snapshot(copy.outer()), objects(&server));
        let outcome = cli.pull("alice/my-dataset", directory, &["--dry-run"]).expect(0);
        assert_eq!(snapshot(copy.outer()), before.0, "the directory");
        assert_eq!(objects(&server), before.1, "the server's store");
        outcome
    };
    for directory in [copy.path().to_owned(), copy.outer().join("not there yet")] {
        let first = dry(&directory);
        assert!(first.stdout.contains("Would download 5 files."), "{first:?}");
        assert!(!first.stdout.contains("Downloading") && !first.stdout.contains("successfully"), "{first:?}");
    }
    cli.pull("alice/my-dataset", copy.path(), &[]).expect(0);
    tree.write(&[("data/posts/data.parquet", "posts 2")]);
    tree.remove("data/tags/data.parquet");
    cli.push(tree.path(), &["--slug", "my-dataset"]).expect(0);
    let later = dry(copy.path());
    assert!(later.stdout.contains("Would download 1 file.\n  + data/posts/data.parquet\n"), "{later:?}");
    assert!(later.stdout.contains("Would delete 1 file.\n  - data/tags/data.parquet\n"), "{later:?}");
}

fn keys(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn programs_get_one_object() {
    let (server, tree, copy) = (Server::start(), TempTree::new(), TempTree::new());
    let cli = Cli::owner(&server);
    copy_tree(&sample("native"), tree.path());
    tree.write(&[(".env", "SECRET=1")]);
    let pushed = cli.push(tree.path(), &["--slug", "native", "--json"]).expect(0).json();
    let bytes: u64 = ["data/posts/data.parquet", "data/users/data.parquet"]
        .iter()
        .map(|name| fs::metadata(tree.at(name)).unwrap().len())
        .sum();
    assert_eq!(
        pushed,
        json!({
            "database": "alice/native", "revision": 1, "dryRun": false,
            "uploaded": ["data/posts/data.parquet", "data/users/data.parquet"],
            "deleted": [], "setAside": [], "conflicts": [], "newerOnRemote": [],
            "contentsSent": 2, "bytesSent": bytes,
            "notPublished": [{"path": ".env", "reason": "protected name"}],
        })
    );
    let pulled = cli.pull("alice/native", copy.path(), &["--json"]).expect(0).json();
    assert_eq!(
        pulled,
        json!({
            "database": "alice/native", "revision": 1, "dryRun": false, "location": copy.arg(),
            "downloaded": ["data/posts/data.parquet", "data/users/data.parquet"],
            "deleted": [], "setAside": [], "conflicts": [], "notPulled": [], "changedHere": [], "bytesReceived": bytes,
        })
    );
    let listed = cli.run(&["list", "--json"]).expect(0).json();
    assert_eq!(listed["databases"][0]["prefix"], "alice/native");
    let me = cli.run(&["whoami", "--json"]).expect(0).json();
    assert_eq!(keys(&me), BTreeSet::from(["id", "remote", "username"]));
    assert_eq!(me["username"], "alice");
    let failed = cli.run(&["pull", "alice/nothing", "--json"]).expect(5);
    assert_eq!(keys(&failed.json()), BTreeSet::from(["error", "exitCode"]));
    assert_eq!(failed.json()["exitCode"], 5);
    assert_eq!(failed.stderr, format!("parquedb: {}\n", failed.json()["error"].as_str().unwrap()));
}
