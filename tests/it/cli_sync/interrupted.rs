//! What a run that did not come to its end leaves to the next, and what somebody does to a file while a run is at work.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use super::{Pair, kept, texts};
use crate::harness::{Cli, Reply, Responder, Server, TempTree, text};

fn is_content(target: &str) -> bool {
    target.ends_with("/data.parquet") || target.ends_with("/big")
}

fn outcomes(pair: &Pair) -> Vec<(String, String)> {
    let listed = pair.cli.conflicts(pair.b.path(), &["--json"]).expect(0).json();
    let all = ["open", "decided"].into_iter().flat_map(|list| listed[list].as_array().unwrap().clone());
    let text = |one: &Value, name: &str| one[name].as_str().unwrap_or_default().to_owned();
    let mut all: Vec<_> = all.map(|one| (text(&one, "path"), text(&one, "outcome"))).collect();
    all.sort();
    all
}

#[test]
fn f34_what_a_failed_pull_has_received_is_not_asked_for_again() {
    let (server, tree, to) = (Server::start(), TempTree::new(), TempTree::new());
    let names: Vec<String> = (0..40).map(|n| format!("data/c{n}/data.parquet")).collect();
    for name in &names {
        tree.write(&[(name, &name.repeat(1000))]);
    }
    Cli::owner(&server).push(tree.path(), &["--slug", "x"]).expect(0);
    let (address, contents) = (server.address.clone(), AtomicUsize::new(0));
    let proxy = Responder::start(move |incoming| {
        if is_content(&incoming.target) && contents.fetch_add(1, Ordering::SeqCst) >= 20 {
            return crate::harness::answer(403, &[], b"{\"error\":\"enough\"}");
        }
        incoming.forward(&address).into()
    });
    let failed = Cli::at(&proxy.url()).token(&server.token).pull("alice/x", to.path(), &[]);
    assert_ne!(failed.code, 0, "{failed:?}");
    assert!(to.names().is_empty(), "nothing is in place: {:?}", to.names());
    // Bytes that a power cut has taken are no content.
    let incoming = to.at(".parquedb/incoming");
    let mut received: Vec<_> = fs::read_dir(&incoming).unwrap().map(|entry| entry.unwrap().path()).collect();
    received.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("got-"));
    assert!(received.len() >= 12, "{received:?}");
    fs::write(&received[0], vec![0; fs::metadata(&received[0]).unwrap().len() as usize]).unwrap();
    let address = server.address.clone();
    let proxy = Responder::start(move |incoming| incoming.forward(&address).into());
    Cli::at(&proxy.url()).token(&server.token).pull("alice/x", to.path(), &[]).expect(0);
    let asked = proxy.seen().iter().filter(|request| is_content(&request.target)).count();
    assert_eq!(asked, 40 - received.len() + 1);
    for name in &names {
        assert_eq!(to.read(name), Some(name.repeat(1000)));
    }
    assert_eq!(fs::read_dir(&incoming).unwrap().count(), 0, "nothing is left lying about");
}

#[test]
fn f34_a_file_that_breaks_off_goes_on_from_there() {
    let (server, tree, to) = (Server::start(), TempTree::new(), TempTree::new());
    let content: String = (0..60_000).map(|n| format!("{n:5}")).collect();
    tree.write(&[("big", &content)]);
    Cli::owner(&server).push(tree.path(), &["--slug", "x"]).expect(0);
    let address = server.address.clone();
    let proxy = Responder::start(move |incoming| {
        let response = incoming.forward(&address);
        if !is_content(&incoming.target) {
            return response.into();
        }
        // Each answer breaks off after 70,000 bytes.
        let Reply::Bytes(mut bytes) = Reply::from(response) else { panic!() };
        bytes.truncate(70_000);
        Reply::Bytes(bytes)
    });
    Cli::at(&proxy.url()).token(&server.token).pull("alice/x", to.path(), &[]).expect(0);
    assert_eq!(to.read("big"), Some(content));
    let asked: Vec<_> = proxy.seen().into_iter().filter(|request| is_content(&request.target)).collect();
    assert!(asked.len() > 4, "{}", asked.len());
    let starts: Vec<u64> = asked.iter().map(|request| request.first_byte()).collect();
    assert!(starts.is_sorted() && starts.last() > starts.first(), "{starts:?}");
}

#[test]
fn rule_13_a_plan_that_is_made_again_keeps_what_loses_once() {
    let pair = Pair::with(&[("f", "base"), ("g", "base"), ("h", "1")]);
    pair.a.write(&[("f", "there"), ("g", "there")]);
    super::age(&pair.a, "g", 60);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("f", "here"), ("g", "here")]);
    super::age(&pair.b, "f", 60);
    // Somebody else publishes just before this run does, and then its commit is refused for good.
    let (address, moved, commits) =
        (pair.server.address.clone(), AtomicBool::new(false), AtomicUsize::new(0));
    let a = pair.a.path().to_owned();
    let other = Cli::owner(&pair.server);
    let proxy = Responder::start(move |incoming| {
        if incoming.target.starts_with("/api/sync/commit/") {
            if !moved.swap(true, Ordering::SeqCst) {
                fs::write(a.join("h"), "2").unwrap();
                other.sync(&a, &[]).expect(0);
            }
            if commits.fetch_add(1, Ordering::SeqCst) == 1 {
                return crate::harness::answer(403, &[], b"{\"error\":\"no\"}");
            }
        }
        incoming.forward(&address).into()
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    let failed = cli.sync(pair.b.path(), &[]);
    assert_ne!(failed.code, 0, "{failed:?}");
    let open = |path: &str| (path.to_owned(), "open".to_owned());
    assert_eq!(outcomes(&pair), [open("f"), open("g")], "nothing is decided that is not done");
    let asked = proxy.asked().iter().filter(|line| line.contains("/manifest")).count();
    assert_eq!(asked, 0, "what is new is asked for, not everything: {:?}", proxy.asked());
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!((pair.b.read("f").as_deref(), pair.published("g").as_deref()), (Some("there"), Some("here")));
    assert_eq!(
        outcomes(&pair),
        [("f".to_owned(), "kept-remote".to_owned()), ("g".to_owned(), "kept-local".to_owned())]
    );
    assert_eq!(kept(&pair.b), texts(&[("f.local.conflict", "here"), ("g.remote.conflict", "there")]));
    pair.cli.conflicts(pair.b.path(), &["dismiss"]).expect(0);
    assert_eq!((kept(&pair.b), outcomes(&pair)), (Vec::new(), Vec::new()));
    assert!(!pair.b.at(".parquedb/conflicts").exists());
}

#[test]
fn rule_23_a_file_that_is_being_written_is_not_replaced_and_can_be_decided() {
    let pair = Pair::with(&[("f", "base"), ("gone", "base"), ("g", "1")]);
    pair.a.write(&[("f", "there"), ("g", "2")]);
    pair.a.remove("gone");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    let writers = ["f", "gone"].map(|name| fs::File::options().append(true).open(pair.b.at(name)).unwrap());
    let held = pair.cli.sync(pair.b.path(), &[]).expect(3);
    assert!(held.stdout.contains("  ! f\n") && held.stdout.contains("  ! gone\n"), "{held:?}");
    assert_eq!(pair.b.read("f").as_deref(), Some("base"));
    assert_eq!(pair.b.read("g").as_deref(), Some("2"), "the others are synced");
    let (met, copies) = (outcomes(&pair), kept(&pair.b));
    assert_eq!(met.len(), 2);
    // The next run meets the same conflicts, and keeps nothing twice; what else is decided is decided once.
    pair.change_on_both_sides("g");
    pair.cli.sync(pair.b.path(), &["--strategy", "local-wins"]).expect(3);
    let mut more = copies.clone();
    more.push(("g.remote.conflict".into(), "there".into()));
    more.sort();
    assert_eq!(kept(&pair.b), more);
    let decided = ("g".to_owned(), "kept-local".to_owned());
    assert_eq!(outcomes(&pair), [met[0].clone(), decided, met[1].clone()]);
    assert_eq!(pair.published("g").as_deref(), Some("here"));
    pair.cli.sync(pair.b.path(), &[]).expect(3);
    assert_eq!(kept(&pair.b), more);
    for mut writer in writers {
        std::io::Write::write_all(&mut writer, b" and more").unwrap();
    }
    // A decision is made of what is here by now.
    pair.cli.resolve(pair.b.path(), "f", &["--remote"]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("there"));
    assert!(kept(&pair.b).contains(&("f.local.conflict".into(), "base and more".into())));
    // And what nobody decides is a conflict like any other: an edit beats a deletion.
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.published("gone").as_deref(), Some("base and more"));
}

#[test]
fn what_is_in_nobodys_way_is_no_conflict() {
    let pair = Pair::with(&[("d", "1"), ("e/f", "1"), ("g", "1")]);
    pair.a.remove("d");
    fs::remove_dir_all(pair.a.at("e")).unwrap();
    pair.a.write(&[("new", "1"), ("e", "now a file")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    // Empty directories where files are to be, and a file that somebody has deleted, too.
    fs::create_dir_all(pair.b.at("new/empty/empty")).unwrap();
    fs::create_dir_all(pair.b.at("e/empty")).unwrap();
    pair.b.remove("d");
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.b.names(), ["e", "g", "new"]);
    assert_eq!(outcomes(&pair), []);
}

#[test]
fn rule_3_a_database_that_was_made_anew_is_known_again_after_its_first_publish_went_unheard() {
    let mut pair = Pair::with(&[("f", "1"), ("g", "1")]);
    // Another server, which knows nothing of it.
    pair.server = Server::start();
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |incoming| {
        let response = incoming.forward(&address);
        if incoming.target.starts_with("/api/sync/commit/") { Reply::HangUp } else { response.into() }
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    pair.a.write(&[("f", "2")]);
    cli.push(pair.a.path(), &["--slug", "x"]).expect(6);
    assert_eq!(pair.revision(), 1, "it landed");
    pair.a.write(&[("f", "3")]);
    let pushed = Cli::owner(&pair.server).push(pair.a.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!(pushed["uploaded"], json!(["f"]), "{pushed}");
    assert_eq!((pair.revision(), pair.published("f").as_deref()), (2, Some("3")));
}

/// A sync of `b` that is killed while it changes files there: twenty of each kind, one after the other. Returns what it was about.
fn killed_while_it_applies() -> Pair {
    let named = |kind: &str| (0..20).map(|n| format!("{kind}{n}")).collect::<Vec<_>>();
    let stay: Vec<String> = (0..200).map(|n| format!("stays{n}")).collect();
    for _ in 0..20 {
        let tree = TempTree::new();
        for name in named("edited").iter().chain(&named("gone")).chain(&stay) {
            tree.write(&[(name, "1")]);
        }
        let pair = Pair::of(tree);
        for name in named("edited").iter().chain(&named("new")) {
            pair.a.write(&[(name, "2")]);
        }
        for name in named("gone") {
            pair.a.remove(&name);
        }
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        let base = pair.b.read("_meta/manifest.json");
        let mut sync = pair.cli.command(&["sync", "--directory", text(pair.b.path())]);
        let mut child = sync.stdout(Stdio::null()).spawn().unwrap();
        let first = pair.b.at("new0");
        // One of the last that are changed: all kinds of changes are made by then.
        while !first.exists() && child.try_wait().unwrap().is_none() {}
        let _ = child.kill();
        child.wait().unwrap();
        if first.exists() && pair.b.read("_meta/manifest.json") == base {
            return pair;
        }
    }
    panic!("it was never killed in time");
}

#[test]
fn rule_8_what_a_killed_run_has_brought_is_nobodys_edit() {
    for then in [&[&["sync"][..]][..], &[&["pull"]], &[&["sync", "--include", "edited*"], &["sync"]]] {
        let pair = killed_while_it_applies();
        // Meanwhile, it is taken back there.
        let files: Vec<String> = pair.a.names();
        for name in files.iter().filter(|name| name.starts_with("new")) {
            pair.a.remove(name);
        }
        for n in 0..20 {
            pair.a.write(&[(&format!("edited{n}"), "1"), (&format!("gone{n}"), "1")]);
        }
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        let (revision, expected) = (pair.revision(), pair.a.names());
        let planned = pair.cli.sync(pair.b.path(), &["--dry-run", "--json"]).expect(0).json();
        assert_eq!((&planned["uploaded"], &planned["deletedThere"]), (&json!([]), &json!([])), "{planned}");
        for command in then {
            match command {
                ["pull"] => pair.cli.pull("alice/x", pair.b.path(), &[]).expect(0),
                ["sync", more @ ..] => pair.cli.sync(pair.b.path(), more).expect(0),
                _ => unreachable!(),
            };
        }
        assert_eq!(pair.revision(), revision, "nothing is published: {then:?}");
        assert_eq!(pair.b.names(), expected, "{then:?}");
        assert!(expected.iter().all(|name| pair.b.read(name).as_deref() == Some("1")), "{then:?}");
        assert_eq!(outcomes(&pair), [], "{then:?}");
        assert!(!pair.b.at(".parquedb/arriving").exists());
    }
}

#[test]
fn rule_14_a_pull_that_was_killed_makes_nobody_elses_database() {
    let tree = TempTree::new();
    for n in 0..40 {
        tree.write(&[(&format!("f{n}"), "1")]);
    }
    let pair = Pair::of(tree);
    let mut killed = None;
    for _ in 0..20 {
        let to = TempTree::new();
        let mut pull = pair.cli.command(&["pull", "alice/x", "--directory", text(to.path())]);
        let mut child = pull.stdout(Stdio::null()).spawn().unwrap();
        while !to.at("f0").exists() && child.try_wait().unwrap().is_none() {}
        let _ = child.kill();
        child.wait().unwrap();
        if to.at("f0").exists() && !to.at("_meta/manifest.json").exists() {
            killed = Some(to);
            break;
        }
    }
    let to = killed.expect("it was never killed in time");
    for halted in [pair.cli.sync(to.path(), &[]), pair.cli.push(to.path(), &["--slug", "y"])] {
        assert_eq!(halted.code, 3, "{halted:?}");
        assert!(halted.stderr.contains("finish it with 'parquedb pull alice/x'"), "{halted:?}");
    }
    assert_eq!(pair.cli.run(&["list", "--json"]).expect(0).json()["databases"].as_array().unwrap().len(), 1);
    // What was deleted there meanwhile is nobody's newcomer.
    pair.a.remove("f0");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.cli.pull("alice/x", to.path(), &[]).expect(0);
    assert_eq!(to.names(), pair.a.names());
    assert!(!to.at(".parquedb/arriving").exists());
}
