//! F16: what is printed, and a dry run that only prints.

use serde_json::json;

use super::Pair;
use crate::harness::snapshot;

/// The seed's example, whole.
const SEED_SYNC: &str = "\
Authenticating...
Logged in as username

Checking sync status...
  Strategy: newest

Local manifest:
  Database: my-dataset
  Last synced: 2026-02-03T10:30:00Z
  Files: 12

Syncing...

Sync complete!
";

#[test]
fn f16_a_sync_says_what_the_seed_says() {
    let pair = Pair::with(&[("f", "1"), ("g", "1")]);
    let last = pair.b.manifest()["lastSyncedAt"].as_str().unwrap().to_owned();
    let expected = SEED_SYNC
        .replace("username", "alice")
        .replace("my-dataset", "x")
        .replace("2026-02-03T10:30:00Z", &last)
        .replace("Files: 12", "Files: 2");
    assert_eq!(pair.cli.sync(pair.b.path(), &[]).expect(0).stdout, expected);
    assert_eq!(pair.b.manifest()["lastSyncedAt"], json!(last), "an idle sync writes nothing");
}

#[test]
fn f16_status_and_dry_run_show_all_six_lists_and_touch_nothing() {
    let pair = Pair::with(&[
        ("same", "1"),
        ("here", "1"),
        ("there", "1"),
        ("both", "1"),
        ("gone-here", "1"),
        ("gone-there", "1"),
    ]);
    pair.a.write(&[("there", "2"), ("both", "a")]);
    pair.a.remove("gone-there");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("here", "2"), ("both", "b")]);
    pair.b.remove("gone-here");
    let before = (snapshot(pair.b.outer()), snapshot(&pair.server.store()));
    for flag in ["--status", "--dry-run"] {
        let shown = pair.cli.sync(pair.b.path(), &[flag, "--json"]).expect(0).json();
        let expected = json!({
            "toUpload": ["here"], "toDownload": ["there"], "conflicts": ["both"], "unchanged": ["same"],
            "deletedLocally": ["gone-here"], "deletedRemotely": ["gone-there"],
        });
        assert_eq!(shown["diff"], expected, "{flag}");
        assert_eq!(shown["conflicts"][0]["resolution"], "keep-local");
        pair.cli.sync(pair.b.path(), &[flag, "--strategy", "manual"]).expect(3);
        let told = pair.cli.sync(pair.b.path(), &[flag]).expect(0).stdout;
        for line in ["To upload: 1\n  + here\n", "To download: 1\n  < there\n", "Conflicts: 1\n  ! both\n"] {
            assert!(told.contains(line), "{told}");
        }
        assert!(!told.contains("complete"), "{told}");
        assert_eq!((snapshot(pair.b.outer()), snapshot(&pair.server.store())), before, "{flag}");
    }
    let told = pair.cli.sync(pair.b.path(), &["--dry-run"]).expect(0).stdout;
    assert!(told.contains("Would upload 2 files.\n  + both\n  + here\n"), "{told}");
}

#[test]
fn f16_a_directory_that_was_never_synced_is_one_of_the_callers_own() {
    let pair = Pair::with(&[("f", "1")]);
    let own = crate::harness::TempTree::named("my-data");
    own.write(&[("g", "1")]);
    let synced = pair.cli.sync(own.path(), &["--json"]).expect(0).json();
    assert_eq!((&synced["database"], &synced["revision"]), (&json!("alice/my-data"), &json!(1)));
    assert_eq!(pair.server.paths("my-data"), ["g"]);
    let missing = pair.cli.sync(&own.at("nowhere"), &[]).expect(2);
    assert!(missing.stderr.contains("is not a directory"), "{missing:?}");
    pair.cli.sync(own.path(), &["--strategy", "mine"]).expect(2);
}
