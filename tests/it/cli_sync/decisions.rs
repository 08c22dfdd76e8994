//! F14: a conflict that waits for a person, and the person.

use std::fs;

use serde_json::{Value, json};

use super::{Pair, kept, texts};
use crate::harness::{Cli, Responder, TempTree, answer, sha256};

fn manual() -> Pair {
    let pair = Pair::with(&[("f", "base"), ("g", "1")]);
    pair.a.write(&[("f", "there"), ("g", "2")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("f", "here"), ("new", "1")]);
    pair
}

#[test]
fn f14_a_conflict_is_reported_until_it_is_decided_and_stops_nothing_else() {
    let pair = manual();
    for _ in 0..3 {
        let synced = pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
        assert!(
            synced.stdout.contains("  ! f\n") && synced.stdout.contains("parquedb resolve"),
            "{synced:?}"
        );
        assert!(!synced.stdout.contains("Sync complete!"), "{synced:?}");
        // Nothing of that file moves, the others are synced, and all three versions can be read.
        assert_eq!(pair.b.read("f").as_deref(), Some("here"));
        assert_eq!(pair.published("f").as_deref(), Some("there"));
        assert_eq!((pair.b.read("g").as_deref(), pair.published("new").as_deref()), (Some("2"), Some("1")));
        assert_eq!(kept(&pair.b), texts(&[("f.base.conflict", "base"), ("f.remote.conflict", "there")]));
        let listed = pair.cli.conflicts(pair.b.path(), &["--json"]).expect(0).json();
        let open = listed["open"].as_array().unwrap();
        assert_eq!((open.len(), &open[0]["path"], &open[0]["kind"]), (1, &json!("f"), &json!("edit-edit")));
        // What is open is not dismissed.
        pair.cli.conflicts(pair.b.path(), &["dismiss"]).expect(0);
    }
    assert_eq!(pair.revision(), 3);
}

#[test]
fn f14_resolve_ends_it_for_what_is_here() {
    let pair = manual();
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    pair.cli.resolve(pair.b.path(), "f", &["--local"]).expect(0);
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(0);
    assert_eq!(pair.published("f").as_deref(), Some("here"));
    assert!(kept(&pair.b).contains(&("f.remote.conflict".into(), "there".into())));
}

#[test]
fn f14_resolve_ends_it_for_what_is_there() {
    let pair = manual();
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    // Without the remote: all that is needed is here.
    let away = Cli::at("http://127.0.0.1:1");
    away.resolve(pair.b.path(), "f", &["--remote"]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("there"));
    assert!(kept(&pair.b).contains(&("f.local.conflict".into(), "here".into())));
    let synced = pair.cli.sync(pair.b.path(), &["--strategy", "manual", "--json"]).expect(0).json();
    assert_eq!((&synced["uploaded"], &synced["downloaded"]), (&json!([]), &json!([])));
}

#[test]
fn f14_resolve_ends_it_with_another_file() {
    let pair = manual();
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    fs::write(pair.cli.home().join("merged"), "here and there").unwrap();
    let merged = pair.cli.home().join("merged");
    pair.cli.resolve(pair.b.path(), "f", &["--file", merged.to_str().unwrap()]).expect(0);
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(0);
    assert_eq!(pair.published("f").as_deref(), Some("here and there"));
    assert!(kept(&pair.b).contains(&("f.local.conflict".into(), "here".into())));
    pair.cli.sync(pair.a.path(), &["--strategy", "manual"]).expect(0);
    assert_eq!(pair.a.read("f").as_deref(), Some("here and there"));
}

#[test]
fn an_edit_against_a_deletion_is_decided_either_way() {
    for (choice, expected) in [("--local", Some("here")), ("--remote", None)] {
        let pair = Pair::with(&[("f", "base"), ("g", "1")]);
        pair.a.remove("f");
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        pair.b.write(&[("f", "here")]);
        pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
        assert_eq!(kept(&pair.b), texts(&[("f.base.conflict", "base")]));
        pair.cli.resolve(pair.b.path(), "f", &[choice]).expect(0);
        pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(0);
        assert_eq!(pair.b.read("f").as_deref(), expected, "{choice}");
        assert_eq!(pair.published("f").as_deref(), expected, "{choice}");
    }
}

#[test]
fn what_the_remote_changes_after_a_decision_is_a_new_conflict() {
    let pair = manual();
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    pair.cli.resolve(pair.b.path(), "f", &["--local"]).expect(0);
    pair.a.write(&[("f", "there again")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    assert_eq!(pair.published("f").as_deref(), Some("there again"), "nobody has decided about that");
    assert!(kept(&pair.b).contains(&("f.remote.conflict".into(), "there again".into())));
    // A rule decides it later.
    pair.cli.sync(pair.b.path(), &["--strategy", "local-wins"]).expect(0);
    assert_eq!(pair.published("f").as_deref(), Some("here"));
    let listed = pair.cli.conflicts(pair.b.path(), &["--json"]).expect(0).json();
    assert_eq!(listed["open"], json!([]));
}

#[test]
fn deciding_what_is_no_conflict_is_told() {
    let pair = manual();
    let refused = pair.cli.resolve(pair.b.path(), "g", &["--local"]).expect(5);
    assert!(refused.stderr.contains("no conflict about 'g'"), "{refused:?}");
    pair.cli.resolve(pair.b.path(), "../f", &["--local"]).expect(2);
    pair.cli.resolve(pair.b.path(), "f", &[]).expect(2);
    pair.cli.resolve(pair.b.path(), "f", &["--local", "--remote"]).expect(2);
}

#[test]
fn deciding_against_a_file_brings_the_directory_in_whose_place_it_stood() {
    for (here, there) in [("d", "d/g"), ("d/x", "d"), ("README", "readme")] {
        let pair = Pair::with(&[("f", "1")]);
        pair.a.write(&[(there, "there")]);
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        pair.b.write(&[(here, "here")]);
        pair.cli.sync(pair.b.path(), &[]).expect(3);
        pair.cli.resolve(pair.b.path(), here, &["--remote"]).expect(0);
        pair.cli.sync(pair.b.path(), &[]).expect(0);
        assert_eq!(pair.b.read(there).as_deref(), Some("there"), "{here}, {there}");
        assert_eq!(pair.published(there).as_deref(), Some("there"), "{here}, {there}");
        assert!(kept(&pair.b).contains(&(format!("{here}.local.conflict"), "here".to_owned())));
    }
}

#[test]
fn a_decision_about_an_earlier_revision_does_not_hide_the_current_one() {
    let pair = Pair::with(&[("f", "1")]);
    for text in ["2", "3"] {
        pair.a.write(&[("f", text)]);
        pair.cli.sync(pair.a.path(), &[]).expect(0);
    }
    pair.cli.pull("alice/x", pair.b.path(), &[]).expect(0);
    pair.b.write(&[("f", "here")]);
    pair.cli.pull("alice/x", pair.b.path(), &["--at", "1"]).expect(3);
    pair.cli.resolve(pair.b.path(), "f", &["--remote"]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("1"));
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("3"), "what is current arrives");
}

#[test]
fn rule_23_what_was_set_aside_waits_for_a_person() {
    let pair = Pair::with(&[("d/f", "1")]);
    // As a run leaves it that could not put back what somebody wrote while it replaced the file.
    let when = "2026-01-02T03-04-05.678Z";
    let entry = json!({ "path": "d/f", "size": 4, "hash": "0".repeat(64),
        "hashAlgorithm": "sha256", "modifiedAt": "2026-01-02T03:04:05Z" });
    let record = json!({ "format": 1, "when": when, "revision": null, "conflicts": [{
        "path": "d/f", "kind": "edit-edit", "suggestion": "manual", "outcome": "set-aside",
        "base": null, "local": entry, "remote": null,
    }]});
    let copy = format!(".parquedb/conflicts/{when}/d/f.local.conflict");
    pair.b
        .write(&[(&format!(".parquedb/conflicts/{when}/record.json"), &record.to_string()), (&copy, "mine")]);
    for flags in [&[][..], &["--dry-run"], &["--status"]] {
        let told = pair.cli.sync(pair.b.path(), flags).expect(3).stdout;
        assert!(told.contains("  ! d/f\n") && told.contains("written to while being replaced"), "{told}");
    }
    let listed = pair.cli.conflicts(pair.b.path(), &[]).expect(0).stdout;
    assert!(listed.contains(&pair.b.at(&copy).display().to_string()), "{listed}");
    pair.cli.conflicts(pair.b.path(), &["dismiss"]).expect(0);
    assert_eq!(pair.b.read(&copy).as_deref(), Some("mine"), "it is not decided");
    pair.cli.conflicts(pair.b.path(), &["dismiss", "d/f"]).expect(0);
    assert!(!pair.b.at(".parquedb/conflicts").exists());
    pair.cli.sync(pair.b.path(), &[]).expect(0);
}

#[test]
fn rule_13_a_copy_that_has_become_another_version_is_kept_beside_the_one_that_loses() {
    let pair = Pair::with(&[("f", "base"), ("g", "1")]);
    pair.change_on_both_sides("f");
    pair.b.write(&[("g", "2")]);
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |incoming| {
        if incoming.target.starts_with("/api/sync/commit/") {
            return answer(403, &[], b"{\"error\":\"no\"}");
        }
        incoming.forward(&address).into()
    });
    let failing = Cli::at(&proxy.url()).token(&pair.server.token);
    let failed = failing.sync(pair.b.path(), &["--strategy", "remote-wins"]);
    assert_ne!(failed.code, 0, "{failed:?}");
    assert_eq!(kept(&pair.b), texts(&[("f.local.conflict", "here")]));
    // Somebody goes on writing to the file, which is the copy; and then puts the earlier text in its place.
    fs::write(pair.b.at("f"), "here, and more").unwrap();
    fs::remove_file(pair.b.at("f")).unwrap();
    fs::write(pair.b.at("f"), "here").unwrap();
    pair.cli.sync(pair.b.path(), &["--strategy", "remote-wins"]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("there"));
    assert_eq!(kept(&pair.b), texts(&[("f.local.conflict", "here"), ("f.local.conflict", "here, and more")]));
    // The same where a person decides.
    pair.change_on_both_sides("g");
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    let mut copies =
        fs::read_dir(pair.b.at(".parquedb/conflicts")).unwrap().map(|entry| entry.unwrap().path());
    let of_g = copies.find(|at| at.join("g.remote.conflict").exists()).unwrap();
    fs::write(of_g.join("g.local.conflict"), "what was here before").unwrap();
    pair.cli.resolve(pair.b.path(), "g", &["--remote"]).expect(0);
    assert_eq!(pair.b.read("g").as_deref(), Some("there"));
    let of_g: Vec<_> = kept(&pair.b).into_iter().filter(|(name, _)| name == "g.local.conflict").collect();
    assert_eq!(of_g, texts(&[("g.local.conflict", "here"), ("g.local.conflict", "what was here before")]));
}

#[test]
fn rule_8_both_sides_agree_path_by_path() {
    let pair = manual();
    let base = |name: &str| {
        let manifest: Value = serde_json::from_str(&pair.b.read("_meta/manifest.json").unwrap()).unwrap();
        manifest["files"][name]["hash"].as_str().map(str::to_owned)
    };
    let before = ["f", "g", "new"].map(base);
    assert_eq!(before[2], None);
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    let hash = |text: &str| Some(sha256(text.as_bytes()));
    assert_eq!(["f", "g", "new"].map(base), [before[0].clone(), hash("2"), hash("1")]);
    // What nobody has decided is compared with what both had, however often the others move on.
    pair.b.write(&[("g", "3")]);
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    assert_eq!(["f", "g"].map(base), [before[0].clone(), hash("3")]);
}

#[test]
fn deciding_for_what_was_here_after_a_killed_run_has_replaced_it_brings_it_back() {
    let pair = manual();
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    // As a run leaves it that was killed when it had replaced the file: what was here lies beside the remote's version.
    let mut records = fs::read_dir(pair.b.at(".parquedb/conflicts")).unwrap();
    let record = records.next().unwrap().unwrap().path();
    fs::rename(pair.b.at("f"), record.join("f.local.conflict")).unwrap();
    pair.b.write(&[("f", "there")]);
    pair.cli.resolve(pair.b.path(), "f", &["--local"]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("here"));
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.published("f").as_deref(), Some("here"));
}

#[test]
fn a_decision_before_any_sync_has_come_to_its_end_is_refused() {
    let pair = Pair::with(&[("f", "there"), ("g", "1")]);
    let to = TempTree::with(&[("f", "here")]);
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |incoming| match incoming.target.ends_with("/g") {
        true => answer(403, &[], b"{\"error\":\"no\"}"),
        false => incoming.forward(&address).into(),
    });
    let failed = Cli::at(&proxy.url()).token(&pair.server.token).pull("alice/x", to.path(), &[]);
    assert_ne!(failed.code, 0, "{failed:?}");
    let refused = pair.cli.resolve(to.path(), "f", &["--local"]).expect(3);
    assert!(refused.stderr.contains("run 'parquedb sync' first"), "{refused:?}");
    pair.cli.pull("alice/x", to.path(), &[]).expect(3);
    pair.cli.resolve(to.path(), "f", &["--local"]).expect(0);
}

#[test]
fn a_file_that_a_pull_is_not_about_is_told_where_a_directory_is_to_be() {
    let pair = Pair::with(&[("f", "1")]);
    pair.b.write(&[("d", "mine")]);
    pair.a.write(&[("d/g", "there"), ("h", "there")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    for _ in 0..2 {
        pair.cli.pull("alice/x", pair.b.path(), &[]).expect(3);
        assert_eq!((pair.b.read("d").as_deref(), pair.b.read("h").as_deref()), (Some("mine"), Some("there")));
        let listed = pair.cli.conflicts(pair.b.path(), &["--json"]).expect(0).json();
        let [open] = &listed["open"].as_array().unwrap()[..] else { panic!("{listed}") };
        assert_eq!((&open["path"], &open["against"]), (&json!("d/g"), &json!(["d"])), "{listed}");
    }
    fs::remove_file(pair.b.at("d")).unwrap();
    pair.cli.pull("alice/x", pair.b.path(), &[]).expect(0);
    assert_eq!(pair.b.read("d/g").as_deref(), Some("there"));
}
