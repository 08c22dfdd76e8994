//! F13: strategies decide what both sides changed, and what loses stays readable.

use std::fs;
use std::time::{Duration, SystemTime};

use serde_json::json;

use super::{Pair, age, kept, texts};
use crate::harness::{bytes_of, data_files};

/// Both sides edit `f`; the one here `seconds` later than the one there.
fn edited_on_both_sides(seconds: i64) -> Pair {
    let pair = Pair::with(&[("f", "1"), ("other", "1")]);
    pair.a.write(&[("f", "there")]);
    age(&pair.a, "f", 1000);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("f", "here")]);
    age(&pair.b, "f", 1000_u64.saturating_add_signed(-seconds));
    pair
}

#[test]
fn f13_each_strategy_decides_as_it_says_and_the_loser_is_kept() {
    for (strategy, seconds, winner) in [
        ("newest", 10, "here"),
        ("newest", -10, "there"),
        ("local-wins", -10, "here"),
        ("remote-wins", 10, "there"),
    ] {
        let pair = edited_on_both_sides(seconds);
        let synced = pair.cli.sync(pair.b.path(), &["--strategy", strategy]).expect(0);
        assert!(synced.stdout.contains("Sync complete!"), "{synced:?}");
        assert_eq!(pair.b.read("f").as_deref(), Some(winner), "{strategy}");
        assert_eq!(pair.published("f").as_deref(), Some(winner), "{strategy}");
        let (loser, text) = if winner == "here" { ("remote", "there") } else { ("local", "here") };
        assert_eq!(kept(&pair.b), texts(&[(&format!("f.{loser}.conflict"), text)]), "{strategy}");
        // It stays until it is dismissed, and the other side gets the winner.
        pair.cli.sync(pair.b.path(), &[]).expect(0);
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        assert_eq!(data_files(pair.a.path()), data_files(pair.b.path()));
        assert_eq!(kept(&pair.b).len(), 1);
        let listed = pair.cli.conflicts(pair.b.path(), &["--json"]).expect(0).json();
        assert_eq!(listed["open"], json!([]));
        assert_eq!(listed["decided"][0]["path"], "f");
        assert_eq!(
            listed["decided"][0]["outcome"],
            if winner == "here" { "kept-local" } else { "kept-remote" }
        );
        pair.cli.conflicts(pair.b.path(), &["dismiss"]).expect(0);
        assert!(kept(&pair.b).is_empty());
        assert!(!pair.b.at(".parquedb/conflicts").exists(), "nothing is left of it");
    }
}

#[test]
fn newest_is_the_default_and_a_date_in_the_future_loses() {
    let pair = edited_on_both_sides(10);
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    fs::File::options().write(true).open(pair.b.at("f")).unwrap().set_modified(tomorrow).unwrap();
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("there"), "a clock that is wrong decides nothing");
    assert_eq!(kept(&pair.b), texts(&[("f.local.conflict", "here")]));
}

#[test]
fn f11_one_sided_changes_and_the_same_on_both_sides_are_no_conflict() {
    let pair =
        Pair::with(&[("mine", "1"), ("theirs", "1"), ("both", "1"), ("gone-here", "1"), ("gone-there", "1")]);
    pair.a.write(&[("theirs", "2"), ("both", "same"), ("new-there", "1"), ("new-both", "same")]);
    pair.a.remove("gone-there");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("mine", "2"), ("both", "same"), ("new-here", "1"), ("new-both", "same")]);
    pair.b.remove("gone-here");
    let before = pair.revision();
    let synced = pair.cli.sync(pair.b.path(), &["--strategy", "manual", "--json"]).expect(0).json();
    assert_eq!(synced["conflicts"], json!([]));
    assert_eq!(synced["uploaded"], json!(["mine", "new-here"]));
    assert_eq!(synced["downloaded"], json!(["new-there", "theirs"]));
    assert_eq!(synced["deletedThere"], json!(["gone-here"]));
    assert_eq!(synced["deletedHere"], json!(["gone-there"]));
    assert_eq!(pair.revision(), before + 1, "all of it is one revision");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    assert_eq!(data_files(pair.a.path()), data_files(pair.b.path()));
    assert!(kept(&pair.b).is_empty() && kept(&pair.a).is_empty());
}

#[test]
fn a_file_and_a_directory_of_one_name_are_left_to_a_person() {
    let pair = Pair::with(&[("f", "1")]);
    pair.a.write(&[("d/g", "there"), ("other", "1")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("d", "here")]);
    let synced = pair.cli.sync(pair.b.path(), &["--strategy", "remote-wins"]).expect(3);
    assert!(synced.stdout.contains("  ! d\n  ! d/g\n"), "{synced:?}");
    assert_eq!(pair.b.read("d").as_deref(), Some("here"));
    assert_eq!(pair.b.read("other").as_deref(), Some("1"), "the others arrive");
    assert_eq!(pair.published("d/g").as_deref(), Some("there"));
    // Decided for theirs: what is in the way is kept, and goes.
    pair.cli.resolve(pair.b.path(), "d/g", &["--remote"]).expect(0);
    assert_eq!(pair.b.read("d/g").as_deref(), Some("there"));
    assert!(kept(&pair.b).contains(&("d.local.conflict".to_owned(), "here".to_owned())));
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.server.paths("x"), ["d/g", "f", "other"]);
}

#[test]
fn a_file_and_a_directory_of_one_name_can_be_decided_for_the_file() {
    let pair = Pair::with(&[("f", "1")]);
    pair.a.write(&[("d/g", "there"), ("d/h", "there")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("d", "here")]);
    pair.cli.sync(pair.b.path(), &[]).expect(3);
    pair.cli.resolve(pair.b.path(), "d", &["--local"]).expect(0);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.server.paths("x"), ["d", "f"]);
    assert!(kept(&pair.b).contains(&("d/g.remote.conflict".to_owned(), "there".to_owned())));
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    assert_eq!(pair.a.read("d").as_deref(), Some("here"));
}

#[test]
fn rule_9_names_that_differ_in_case_only_are_left_to_a_person() {
    let pair = Pair::with(&[("f", "1")]);
    pair.a.write(&[("README", "there")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("readme", "here")]);
    let synced = pair.cli.sync(pair.b.path(), &[]).expect(3);
    assert!(synced.stdout.contains("  ! README\n  ! readme\n"), "{synced:?}");
    assert_eq!(pair.server.paths("x"), ["README", "f"]);
    for only in ["README", "readme"] {
        let synced = pair.cli.sync(pair.b.path(), &["--include", only]).expect(3);
        assert!(synced.stdout.contains(&format!("  ! {only}\n")), "{synced:?}");
        assert_eq!(
            (pair.b.read("README"), pair.server.paths("x")),
            (None, vec!["README".into(), "f".into()])
        );
    }
    pair.cli.sync(pair.b.path(), &[]).expect(3);
    pair.cli.resolve(pair.b.path(), "readme", &["--local"]).expect(0);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.server.paths("x"), ["f", "readme"]);
}

#[test]
fn rule_13_at_the_limit_for_copies_conflicts_are_left_alone() {
    let pair = edited_on_both_sides(-10);
    let synced = pair.cli.sync(pair.b.path(), &["--conflict-limit", "3"]).expect(3);
    assert!(synced.stdout.contains("  ! f\n"), "{synced:?}");
    assert_eq!(pair.b.read("f").as_deref(), Some("here"));
    assert_eq!(pair.published("f").as_deref(), Some("there"));
    let refused = pair.cli.resolve(pair.b.path(), "f", &["--remote"]).expect(3);
    assert!(refused.stderr.contains("--conflict-limit"), "{refused:?}");
    assert_eq!(pair.b.read("f").as_deref(), Some("here"), "nothing is dropped");
    pair.cli.sync(pair.b.path(), &["--conflict-limit", "1KB"]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("there"));
    // The base was small enough the first time.
    assert_eq!(kept(&pair.b), texts(&[("f.base.conflict", "1"), ("f.local.conflict", "here")]));
}

#[test]
fn rule_13_the_limit_is_for_all_that_loses_together() {
    let pair = Pair::with(&[("f", "base"), ("g", "base"), ("h", "base")]);
    pair.a.write(&[("f", "there"), ("g", "there"), ("h", "there")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("f", "here"), ("g", "here"), ("h", "here")]);
    let limited = ["--strategy", "local-wins", "--conflict-limit", "12"];
    pair.cli.sync(pair.b.path(), &limited).expect(3);
    let published = |name| pair.published(name).unwrap();
    assert_eq!([published("f"), published("g"), published("h")], ["here", "here", "there"]);
    assert_eq!(kept(&pair.b), texts(&[("f.remote.conflict", "there"), ("g.remote.conflict", "there")]));
    // With more room, what was left is brought to be decided.
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    pair.cli.resolve(pair.b.path(), "h", &["--remote"]).expect(0);
    assert_eq!(pair.b.read("h").as_deref(), Some("there"));
}

#[test]
fn x6_copies_of_conflicts_are_in_no_glob_of_the_data() {
    let pair = Pair::with(&[("data/posts/data.parquet", "1")]);
    pair.change_on_both_sides("data/posts/data.parquet");
    pair.cli.sync(pair.b.path(), &["--strategy", "local-wins"]).expect(0);
    assert_eq!(kept(&pair.b), texts(&[("data/posts/data.parquet.remote.conflict", "there")]));
    assert_eq!(pair.b.names(), ["data/posts/data.parquet"]);
    let parquet = bytes_of(pair.b.path()).into_keys().filter(|path| path.ends_with(".parquet"));
    assert_eq!(parquet.count(), 1, "no other file ends in .parquet, hidden ones included");
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.server.paths("x"), ["data/posts/data.parquet"], "and none is published");
}

#[test]
fn f15_push_and_pull_with_force_keep_what_they_replace() {
    let pair = edited_on_both_sides(10);
    pair.cli.pull("alice/x", pair.b.path(), &["--force"]).expect(0);
    assert_eq!(pair.b.read("f").as_deref(), Some("there"));
    assert_eq!(kept(&pair.b), texts(&[("f.local.conflict", "here")]), "F15");
    let pair = edited_on_both_sides(-10);
    pair.cli.push(pair.b.path(), &["--slug", "x", "--force"]).expect(0);
    assert_eq!(pair.published("f").as_deref(), Some("here"));
    assert_eq!(kept(&pair.b), texts(&[("f.remote.conflict", "there")]));
}
