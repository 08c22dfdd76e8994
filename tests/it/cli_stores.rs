//! The life of a store, by the commands that look after it: checked, collected, copied, brought back, exported, imported.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::harness::{
    Cli, Mounting, Nginx, Server, TempTree, bytes_of, data_files, noise, put_entry, set_modified, sha256,
    text, until,
};

/// A server with three revisions of alice/x, the first of which has a file above a mebibyte.
fn filled() -> (Server, String) {
    let server = Server::start();
    let id = server.register("x", "public");
    let large = noise(1, 3 << 20);
    server.publish(&id, &[("large", &large), ("a", b"one")]);
    server.publish(&id, &[("a", b"two")]);
    server.publish(&id, &[("a", b"three"), ("b", b"two")]);
    (server, id)
}

fn content(store: &Path, id: &str, bytes: &[u8]) -> PathBuf {
    let hash = sha256(bytes);
    store.join("databases").join(id).join("contents").join(&hash[..2]).join(hash)
}

/// Makes everything in a store look as old as that.
fn age(store: &Path, days: u64) {
    let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
    for name in bytes_of(store).keys() {
        set_modified(&store.join(name), then);
    }
}

#[test]
fn a_sound_store_is_found_sound() {
    let (server, _) = filled();
    let cli = Cli::new();
    let store = server.store();
    for more in [&[][..], &["--deep"], &["--deep", "--repair"]] {
        let said = cli.run(&[&["fsck", "--store", text(&store), "--json"], more].concat()).expect(0).json();
        assert_eq!(
            (&said["revisions"], &said["contents"], &said["findings"]),
            (&3.into(), &4.into(), &serde_json::json!([]))
        );
    }
    cli.run(&["fsck", "--store", "/nowhere/at/all"]).expect(5);
    let other = TempTree::with(&[("a", "no store")]);
    cli.run(&["fsck", "--store", other.arg()]).expect(2);
}

#[test]
fn every_damage_is_found_and_what_can_be_made_anew_is() {
    let (mut server, id) = filled();
    server.kill();
    let (store, cli) = (server.store(), Cli::new());
    let database = store.join("databases").join(&id);
    let tree = bytes_of(&database.join("trees")).into_keys().next().unwrap();
    let tree = database.join("trees").join(tree);
    let flip = |path: &Path, at: usize| {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= 1;
        fs::write(path, bytes).unwrap();
    };
    let kinds = |outcome: crate::harness::Outcome| -> Vec<String> {
        let said = outcome.json();
        said["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|found| found["kind"].as_str().unwrap().to_owned())
            .collect()
    };
    let fsck = |more: &[&str]| cli.run(&[&["fsck", "--store", text(&store), "--json"], more].concat());

    flip(&tree, 100);
    assert!(kinds(fsck(&[]).expect(0)).is_empty(), "the nodes are not looked at");
    assert_eq!(kinds(fsck(&["--deep"]).expect(0)), ["wrongBlockTree"]);
    fs::remove_file(&tree).unwrap();
    assert_eq!(kinds(fsck(&[]).expect(0)), ["wrongBlockTree"]);
    fsck(&["--repair"]).expect(0);
    assert!(kinds(fsck(&["--deep"]).expect(0)).is_empty(), "mended");

    let two = content(&store, &id, b"two");
    flip(&two, 0);
    assert!(kinds(fsck(&[]).expect(0)).is_empty(), "contents are not read");
    assert_eq!(kinds(fsck(&["--deep"]).expect(8)), ["wrongContent"]);
    fs::remove_file(&two).unwrap();
    let lost = fsck(&[]).expect(8);
    assert_eq!(lost.json()["lostData"], true);
    assert_eq!(kinds(lost), ["missingContent"]);
    fs::write(&two, b"two").unwrap();

    let record = database.join("revisions").join(format!("{:020}.json", 2));
    let right = fs::read(&record).unwrap();
    fs::write(&record, &right[..right.len() - 1]).unwrap();
    assert_eq!(kinds(fsck(&[]).expect(8))[0], "unreadableRevision");
    let altered = String::from_utf8(right.clone()).unwrap().replace("alice", "alicf");
    fs::write(&record, altered).unwrap();
    assert_eq!(kinds(fsck(&[]).expect(8)), ["brokenChain"], "the next one does not continue it");
    fs::remove_file(&record).unwrap();
    assert_eq!(kinds(fsck(&[]).expect(8)), ["gap"]);
    fs::write(&record, right).unwrap();
    assert!(kinds(fsck(&["--deep"]).expect(0)).is_empty());
}

#[test]
fn what_has_rotted_is_brought_back_from_a_copy() {
    let (mut server, id) = filled();
    let (cli, copy) = (Cli::new(), TempTree::new());
    let store = server.store();
    cli.run(&["backup", "--store", text(&store), copy.arg()]).expect(0);
    let two = content(&store, &id, b"two");
    fs::write(&two, b"TWO").unwrap();
    cli.run(&["fsck", "--store", text(&store), "--deep", "--repair"]).expect(8);
    assert!(!server.has(&id, b"two"), "it is given up, so that it can be brought again");
    let said = cli.run(&["restore", copy.arg(), "--store", text(&store), "--json"]).expect(0).json();
    assert_eq!((&said["contents"], &said["revisions"]), (&1.into(), &0.into()));
    server.restart();
    let file = crate::harness::get("/db/alice/x/b").send(&server.address).expect(200);
    assert_eq!(file.text(), "two");
    cli.run(&["fsck", "--store", text(&store), "--deep"]).expect(0);
}

#[test]
fn rule_6_collection_takes_what_nobody_names_after_its_week() {
    let (server, id) = filled();
    server.upload(&id, "never", b"never published");
    let (cli, store) = (Cli::new(), server.store());
    let gc = |more: &[&str]| {
        cli.run(&[&["gc", "--store", text(&store), "--json"], more].concat()).expect(0).json()
    };
    assert_eq!(gc(&[])["databases"][0]["removed"], 0, "its claim is young");
    age(&store, 8);
    assert_eq!(gc(&["--dry-run"])["databases"][0]["removed"], 1);
    assert!(content(&store, &id, b"never published").exists());
    let said = gc(&["alice/x"]);
    assert_eq!((&said["databases"][0]["removed"], &said["databases"][0]["named"]), (&1.into(), &4.into()));
    assert!(!content(&store, &id, b"never published").exists());
    // Whoever has it can bring it again, while the server runs.
    assert!(!server.has(&id, b"never published"));
    server.publish(&id, &[("never", b"never published")]);
    let read = crate::harness::get("/db/alice/x/never").send(&server.address).expect(200);
    assert_eq!(read.text(), "never published");
    cli.run(&["fsck", "--store", text(&store), "--deep"]).expect(0);
}

#[test]
fn rule_6_publishing_refuses_a_claim_that_is_older_than_a_day() {
    let server = Server::start();
    let id = server.register("x", "private");
    server.upload(&id, "a", b"content");
    age(&server.store(), 2);
    let put = [put_entry("a", b"content")];
    let refused = server.commit(&id, "commit-1", 0, &put, &[]).expect(422).json();
    assert_eq!(refused["paths"], serde_json::json!(["a"]));
    assert!(server.has(&id, b"content"), "asking renews it");
    server.commit(&id, "commit-1", 0, &put, &[]).expect(200);
}

#[test]
fn rule_2_what_expires_leaves_a_marker_and_its_number_is_not_given_again() {
    let (server, id) = filled();
    let (cli, store, copy) = (Cli::owner(&server), server.store(), TempTree::new());
    age(&store, 8);
    let said = cli.run(&["gc", "--store", text(&store), "--keep", "1", "--json"]).expect(0).json();
    assert_eq!((&said["databases"][0]["expired"], &said["databases"][0]["removed"]), (&2.into(), &1.into()));
    let log = cli.run(&["log", "alice/x", "--json"]).expect(0).json();
    let expired: Vec<_> =
        log["log"].as_array().unwrap().iter().map(|entry| entry["expired"] == true).collect();
    assert_eq!(expired, [false, true, true]);
    let gone = cli.pull("alice/x", copy.path(), &["--at", "2"]).expect(5);
    assert!(gone.stderr.contains("not kept any more") && gone.stderr.contains('3'), "{gone:?}");
    cli.pull("alice/x", copy.path(), &["--at", "3"]).expect(0);
    assert_eq!(copy.read("a").unwrap(), "three");
    // A commit of then is still known, and a server that starts anew reads the same.
    let again = server.commit(&id, "publish-0-whatever", 0, &[], &[]);
    assert_eq!(again.status, 412);
    let mut server = server;
    server.restart();
    assert_eq!(server.publish(&id, &[("a", b"four")]), 4);
    cli.run(&["fsck", "--store", text(&store), "--deep"]).expect(0);
    cli.run(&["gc", "--store", text(&store), "--keep", "0"]).expect(2);
    cli.run(&["gc", "--store", text(&store), "--keep", "soon"]).expect(2);
}

#[test]
fn rule_4_clients_that_saw_more_than_a_restored_copy_has_stop_and_lose_nothing() {
    let (server, tree, copy) = (Server::start(), TempTree::with(&[("a", "one")]), TempTree::new());
    let (cli, store) = (Cli::owner(&server), server.store());
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    cli.run(&["backup", "--store", text(&store), copy.arg()]).expect(0);
    tree.write(&[("a", "two"), ("b", "only here")]);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    // The store is lost, and its copy takes its place.
    let restored = TempTree::new();
    cli.run(&["restore", copy.arg(), "--store", restored.arg()]).expect(0);
    let server = Server::of(restored.path());
    let cli = Cli::owner(&server);
    let before = data_files(tree.path());
    for halted in [cli.push(tree.path(), &["--slug", "x"]), cli.pull("alice/x", tree.path(), &[])] {
        assert!(halted.expect(3).stderr.contains("rolled back"));
    }
    assert_eq!(data_files(tree.path()), before);
    // Nor does another history of the same length and more fool it.
    let other = TempTree::with(&[("a", "another two")]);
    cli.pull("alice/x", other.path(), &[]).expect(3);
    cli.push(other.path(), &["--slug", "x", "--force"]).expect(0);
    for content in ["another three", "another four"] {
        other.write(&[("a", content)]);
        cli.push(other.path(), &["--slug", "x"]).expect(0);
    }
    for halted in [cli.push(tree.path(), &["--slug", "x"]), cli.pull("alice/x", tree.path(), &[])] {
        assert!(halted.expect(3).stderr.contains("rolled back"));
    }
    assert_eq!(data_files(tree.path()), before);
    // Who has seen nothing later goes on.
    let fresh = TempTree::new();
    cli.pull("alice/x", fresh.path(), &[]).expect(0);
    assert_eq!(fresh.read("a").unwrap(), "another four");
}

#[test]
fn f22_an_export_is_the_seeds_tree_and_comes_back_as_the_same_database() {
    let (server, _) = filled();
    let (cli, tree, store) = (Cli::new(), TempTree::new(), server.store());
    let export = |more: &[&str]| {
        let args =
            [&["export", "--plain", "alice/x", tree.arg(), "--store", text(&store), "--json"], more].concat();
        cli.run(&args)
    };
    let said = export(&[]).expect(0).json();
    assert_eq!((&said["written"], &said["revision"]), (&3.into(), &3.into()));
    assert_eq!((tree.names().len(), tree.read("a").unwrap()), (3, "three".to_owned()));
    let manifest = tree.manifest();
    assert_eq!(manifest["files"]["b"]["hash"], sha256(b"two"));
    assert_eq!(export(&[]).expect(0).json()["written"], 0, "nothing has changed");
    let said = export(&["--at", "1"]).expect(0).json();
    assert_eq!((&said["written"], &said["removed"]), (&1.into(), &1.into()));
    assert_eq!((tree.names().len(), tree.read("a").unwrap()), (2, "one".to_owned()));
    export(&["--at", "9"]).expect(5);
    export(&[]).expect(0);

    let said =
        cli.run(&["import", tree.arg(), "alice/again", "--store", text(&store), "--json"]).expect(0).json();
    assert_eq!((&said["files"], &said["revision"]), (&3.into(), &1.into()));
    let of = |slug: &str| {
        crate::harness::get(&format!("/db/alice/{slug}/_meta/manifest.json"))
            .send(&server.address)
            .expect(200)
            .json()["files"]
            .clone()
    };
    assert_eq!(of("again"), of("x"));
    cli.run(&["import", tree.arg(), "alice/again", "--store", text(&store)]).expect(3);
    fs::write(tree.at("a"), "THREE").unwrap();
    let wrong = cli.run(&["import", tree.arg(), "alice/damaged", "--store", text(&store)]).expect(8);
    assert!(wrong.stderr.contains("a is not what the manifest says"), "{wrong:?}");
    let nothing = TempTree::with(&[("a", "1")]);
    cli.run(&["import", nothing.arg(), "alice/y", "--store", text(&store)]).expect(2);
}

#[test]
fn f22_an_exported_tree_is_mounted_from_nginx_and_followed() {
    let (server, id) = filled();
    let (cli, site, store) = (Cli::new(), TempTree::new(), server.store());
    let tree = site.at("db/alice/x");
    let export = || {
        cli.run(&["export", "--plain", "alice/x", text(&tree), "--store", text(&store)]).expect(0);
    };
    export();
    // The web server is another user: what is exported for it is for everyone.
    let nginx = Nginx::on_a_port(site.path());
    let mount = Mounting::at(&nginx.url(), "alice/x").args(&["--poll", "0.3"]).mount();
    let read = |name: &str| fs::read(mount.at(name)).ok();
    assert_eq!(
        (read("large"), read("a"), read("b")),
        (Some(noise(1, 3 << 20)), Some(b"three".into()), Some(b"two".into()))
    );
    fs::write(mount.at("new"), "1").unwrap();
    assert!(!tree.join("new").exists(), "what is written stays here");
    server.publish(&id, &[("a", b"four"), ("c", b"new")]);
    export();
    until(|| read("c").as_deref() == Some(b"new"));
    assert_eq!((read("a"), read("large")), (Some(b"four".into()), Some(noise(1, 3 << 20))));
}

#[test]
fn an_export_touches_no_directory_but_its_own() {
    let (server, id) = filled();
    let (cli, store) = (Cli::owner(&server), server.store());
    let export = |database: &str, tree: &TempTree| {
        cli.run(&["export", "--plain", database, tree.arg(), "--store", text(&store)])
    };
    let precious = TempTree::with(&[("a", "precious")]);
    export("alice/x", &precious).expect(3);
    assert_eq!(precious.read("a").unwrap(), "precious");
    let synced = TempTree::new();
    cli.pull("alice/x", synced.path(), &[]).expect(0);
    export("alice/x", &synced).expect(3);
    let other = server.register("y", "public");
    server.publish(&other, &[("a", b"of y")]);
    let tree = TempTree::new();
    export("alice/x", &tree).expect(0);
    export("alice/y", &tree).expect(3);
    assert_eq!(tree.read("a").unwrap(), "three");
    server.publish(&id, &[(".env", b"SECRET=1"), ("a", b"four")]);
    let said = export("alice/x", &tree).expect(0).stdout;
    assert!(said.contains(".env") && !tree.at(".env").exists(), "{said}");
    assert!(tree.manifest()["files"].get(".env").is_none());
}

#[test]
fn an_export_follows_files_that_become_directories_and_spares_what_others_put_there() {
    let (server, id) = filled();
    let (cli, tree, store) = (Cli::new(), TempTree::new(), server.store());
    let export = || cli.run(&["export", "--plain", "alice/x", tree.arg(), "--store", text(&store)]);
    export().expect(0);
    let base = server.revision(&id);
    server.upload(&id, "a/b", b"below");
    server.commit(&id, "to-a-directory", base, &[put_entry("a/b", b"below")], &["a"]).expect(200);
    export().expect(0);
    assert_eq!(tree.read("a/b").unwrap(), "below");
    server.upload(&id, "a", b"above");
    server.commit(&id, "to-a-file", base + 1, &[put_entry("a", b"above")], &["a/b"]).expect(200);
    export().expect(0);
    assert_eq!(tree.read("a").unwrap(), "above");
    // Somebody's own file, where the database gets one later; and one that was edited.
    tree.write(&[("index.html", "mine"), ("b", "edited")]);
    server.publish(&id, &[("index.html", b"theirs")]);
    let refused = export().expect(3);
    assert!(refused.stderr.contains("left alone"), "{refused:?}");
    assert_eq!((tree.read("index.html").unwrap(), tree.read("b").unwrap()), ("mine".into(), "edited".into()));
    tree.remove("index.html");
    let base = server.revision(&id);
    server.commit(&id, "without-file-b", base, &[], &["b"]).expect(200);
    export().expect(0);
    assert_eq!(tree.read("b").unwrap(), "edited", "it is not what was exported: it stays");
}
