//! F36, rule 11: what a sync is not about stays on both sides as it is.

use serde_json::json;

use super::Pair;

#[test]
fn f36_what_is_excluded_is_neither_sent_nor_fetched_nor_deleted() {
    let pair = Pair::with(&[("keep", "1"), ("x.tmp", "1"), ("gone.tmp", "1"), ("d/y.tmp", "1")]);
    pair.a.write(&[("keep", "2"), ("x.tmp", "2"), ("d/y.tmp", "2")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("new.tmp", "1"), ("new", "1")]);
    pair.b.remove("gone.tmp");
    let synced = pair.cli.sync(pair.b.path(), &["--exclude", "*.tmp", "--json"]).expect(0).json();
    assert_eq!((&synced["uploaded"], &synced["downloaded"]), (&json!(["new"]), &json!(["keep"])));
    assert_eq!(pair.b.read("x.tmp").as_deref(), Some("1"), "it is readable as it was");
    assert_eq!(pair.server.paths("x"), ["d/y.tmp", "gone.tmp", "keep", "new", "x.tmp"]);
    // Nothing was forgotten about it: without the filter it is synced.
    let all = pair.cli.sync(pair.b.path(), &["--json"]).expect(0).json();
    assert_eq!(all["uploaded"], json!(["new.tmp"]));
    assert_eq!(all["downloaded"], json!(["d/y.tmp", "x.tmp"]));
    assert_eq!(all["deletedThere"], json!(["gone.tmp"]));
}

#[test]
fn f36_only_what_is_included_is_synced() {
    let pair = Pair::with(&[("data/posts/data.parquet", "1"), ("events/1", "1")]);
    pair.a.write(&[("data/posts/data.parquet", "2"), ("events/1", "2"), ("data/users/data.parquet", "1")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    let synced = pair.cli.sync(pair.b.path(), &["--include", "data/posts", "--json"]).expect(0).json();
    assert_eq!(synced["downloaded"], json!(["data/posts/data.parquet"]));
    let synced = pair
        .cli
        .sync(pair.b.path(), &["--include", "data", "--include", "events", "--json"])
        .expect(0)
        .json();
    assert_eq!(synced["downloaded"], json!(["data/users/data.parquet", "events/1"]));
}

#[test]
fn f36_push_and_pull_filter_alike() {
    let pair = Pair::with(&[("f", "1"), ("x.tmp", "1")]);
    pair.a.write(&[("f", "2"), ("x.tmp", "2")]);
    pair.cli.push(pair.a.path(), &["--slug", "x", "--exclude", "*.tmp"]).expect(0);
    assert_eq!((pair.published("f").as_deref(), pair.published("x.tmp").as_deref()), (Some("2"), Some("1")));
    pair.cli.push(pair.a.path(), &["--slug", "x"]).expect(0);
    pair.cli.pull("alice/x", pair.b.path(), &["--exclude", "f"]).expect(0);
    assert_eq!((pair.b.read("f").as_deref(), pair.b.read("x.tmp").as_deref()), (Some("1"), Some("2")));
}

#[test]
fn a_pattern_that_is_none_is_wrong_usage() {
    let pair = Pair::with(&[("f", "1")]);
    let refused = pair.cli.sync(pair.b.path(), &["--exclude", "[a"]).expect(2);
    assert!(refused.stderr.contains("'[a' is no pattern"), "{refused:?}");
}
