//! F12, rules 10 and 14: what is deleted stays deleted, what was edited does not go, and much at once halts.

use serde_json::json;

use super::Pair;
use crate::harness::{TempTree, data_files};

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("f{n:02}")).collect()
}

fn with_files(count: usize) -> Pair {
    let names = numbered(0..count);
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    Pair::with(&files)
}

#[test]
fn f12_what_is_deleted_on_one_side_is_deleted_on_the_other_and_does_not_come_back() {
    let pair = Pair::with(&[("f", "1"), ("d/g", "1"), ("stays", "1")]);
    pair.a.remove("f");
    std::fs::remove_dir_all(pair.a.at("d")).unwrap();
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    for _ in 0..2 {
        pair.cli.sync(pair.b.path(), &[]).expect(0);
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        assert_eq!(pair.server.paths("x"), ["stays"]);
        assert_eq!((pair.a.names(), pair.b.names()), (vec!["stays".to_owned()], vec!["stays".to_owned()]));
        assert!(!pair.b.at("d").exists(), "nor does an empty directory stay");
    }
    // The same name again is another file.
    pair.b.write(&[("f", "anew")]);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    assert_eq!(pair.a.read("f").as_deref(), Some("anew"));
}

#[test]
fn f12_an_edit_against_a_deletion_is_a_conflict_that_the_edit_wins() {
    for strategy in ["newest", "local-wins", "remote-wins"] {
        let pair = Pair::with(&[("edited-here", "1"), ("edited-there", "1"), ("stays", "1")]);
        pair.a.remove("edited-here");
        pair.a.write(&[("edited-there", "2")]);
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        pair.b.remove("edited-there");
        pair.b.write(&[("edited-here", "2")]);
        let synced = pair.cli.sync(pair.b.path(), &["--strategy", strategy, "--json"]).expect(0).json();
        let kinds: Vec<_> =
            synced["conflicts"].as_array().unwrap().iter().map(|c| c["kind"].clone()).collect();
        assert_eq!(kinds, [json!("edit-delete"), json!("edit-delete")], "{strategy}");
        pair.cli.sync(pair.a.path(), &[]).expect(0);
        for tree in [&pair.a, &pair.b] {
            assert_eq!(tree.read("edited-here").as_deref(), Some("2"), "{strategy}");
            assert_eq!(tree.read("edited-there").as_deref(), Some("2"), "{strategy}");
        }
    }
}

#[test]
fn rule_10_a_newcomer_in_a_directory_that_was_removed_here_arrives() {
    let pair = Pair::with(&[("d/a", "1"), ("d/b", "1"), ("f", "1")]);
    pair.a.write(&[("d/new", "1")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    std::fs::remove_dir_all(pair.b.at("d")).unwrap();
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.b.names(), ["d/new", "f"]);
    assert_eq!(pair.server.paths("x"), ["d/new", "f"]);
}

#[test]
fn rule_14_much_deleted_halts_in_either_direction() {
    let pair = with_files(20);
    for name in numbered(0..12) {
        pair.a.remove(&name);
    }
    pair.a.write(&[("new", "1")]);
    let halted = pair.cli.sync(pair.a.path(), &[]).expect(3);
    assert!(halted.stderr.contains("12 of 20 files would be deleted on the remote"), "{halted:?}");
    assert!(halted.stderr.contains("--allow-mass-delete"), "{halted:?}");
    assert_eq!(pair.server.paths("x").len(), 20, "additions wait, too");
    pair.cli.sync(pair.a.path(), &["--allow-mass-delete"]).expect(0);
    assert_eq!(pair.server.paths("x").len(), 9);
    let before = data_files(pair.b.path());
    let halted = pair.cli.sync(pair.b.path(), &[]).expect(3);
    assert!(halted.stderr.contains("12 of 20 files would be deleted here"), "{halted:?}");
    assert_eq!(data_files(pair.b.path()), before);
    pair.cli.sync(pair.b.path(), &["--allow-mass-delete"]).expect(0);
    assert_eq!(data_files(pair.b.path()), data_files(pair.a.path()));
}

#[test]
fn rule_14_what_goes_little_by_little_within_a_day_halts_too() {
    let pair = with_files(20);
    let mut halted = None;
    for (n, name) in numbered(0..20).iter().enumerate() {
        pair.a.remove(name);
        let synced = pair.cli.sync(pair.a.path(), &[]);
        if synced.code == 3 {
            halted = Some((n, synced));
            break;
        }
        assert_eq!(synced.code, 0);
    }
    let (n, synced) = halted.expect("it halts");
    assert_eq!(n, 9, "the tenth of twenty");
    assert!(
        synced.stderr.contains("1 of 11 files would be deleted on the remote, after 9 within a day"),
        "{synced:?}"
    );
    assert_eq!(pair.server.paths("x").len(), 11);
    // Once it is said to be meant, what went before counts no more.
    pair.cli.sync(pair.a.path(), &["--allow-mass-delete"]).expect(0);
    pair.a.remove("f10");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    assert_eq!(pair.server.paths("x").len(), 9);
}

#[test]
fn rule_14_an_emptied_or_replaced_directory_deletes_nothing() {
    let pair = with_files(3);
    for name in numbered(0..3) {
        pair.a.remove(&name);
    }
    let halted = pair.cli.sync(pair.a.path(), &[]).expect(3);
    assert!(halted.stderr.contains("3 of 3 files"), "{halted:?}");
    assert_eq!(pair.server.paths("x").len(), 3);
    // Another directory in its place has agreed to nothing.
    let empty = TempTree::named("x");
    pair.cli.sync(empty.path(), &["--allow-mass-delete"]).expect(0);
    assert_eq!(pair.server.paths("x").len(), 3);
    assert_eq!(empty.names().len(), 3);
}
