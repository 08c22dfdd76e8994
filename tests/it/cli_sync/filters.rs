//! F36, rule 11: what a sync is not about stays on both sides as it is.

use serde_json::json;

use super::Pair;
use crate::harness::{Responder, TempTree};

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
    // Nobody is asked for that.
    let away = crate::harness::Cli::at("http://127.0.0.1:1").token(&pair.server.token);
    let directory = pair.b.path();
    for flag in ["--exclude", "--include", "--critical-first"] {
        for refused in [
            away.sync(directory, &[flag, "[a"]),
            away.push(directory, &[flag, "[a"]),
            away.pull("alice/x", directory, &[flag, "[a"]),
        ] {
            assert!(refused.expect(2).stderr.contains("'[a' is no pattern"));
        }
    }
}

#[test]
fn f33_what_is_critical_is_published_first_and_by_itself() {
    let pair = Pair::with(&[("old", "1"), ("data/f.parquet", "1"), ("gone", "1")]);
    pair.a.write(&[
        ("data/f.parquet", "2"),
        ("data/new.parquet", "1"),
        ("data/skipped.parquet", "1"),
        ("other", "1"),
    ]);
    pair.a.remove("gone");
    let flags = ["--critical-first", "*.parquet", "--exclude", "skipped*", "--json"];
    let synced = pair.cli.sync(pair.a.path(), &flags).expect(0).json();
    assert_eq!(synced["uploaded"], json!(["data/f.parquet", "data/new.parquet", "other"]), "{synced}");
    assert_eq!((&synced["deletedThere"], &synced["revision"]), (&json!(["gone"]), &json!(3)));
    // In between, a reader saw the critical ones, whole, and nothing else.
    let (between, last) = (TempTree::new(), TempTree::new());
    pair.cli.pull("alice/x", between.path(), &["--at", "2"]).expect(0);
    assert_eq!(between.names(), ["data/f.parquet", "data/new.parquet", "gone", "old"]);
    pair.cli.pull("alice/x", last.path(), &[]).expect(0);
    assert_eq!(last.names(), ["data/f.parquet", "data/new.parquet", "old", "other"]);
    // Nothing is published twice, or for nothing.
    pair.cli.sync(pair.a.path(), &flags).expect(0);
    assert_eq!(pair.revision(), 3);
}

#[test]
fn rule_12_files_that_are_out_of_view_are_not_deleted() {
    // Another view of a database is another database, by its id, and has fewer files.
    let pair = Pair::with(&[("public", "1"), ("hidden", "1")]);
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |incoming| {
        // By the id of the whole, there is nothing any more.
        if incoming.target.contains("db_") {
            return crate::harness::answer(404, &[], b"{\"error\":\"no such database\"}");
        }
        let mut incoming = incoming.clone();
        let dropped = ["if-none-match", "accept-encoding"];
        incoming.headers.retain(|(name, _)| !dropped.iter().any(|one| name.eq_ignore_ascii_case(one)));
        let mut response = incoming.forward(&address);
        let mut body = String::from_utf8_lossy(&response.body).into_owned();
        if let Some(at) = body.find("db_") {
            let id = body[at..at + 27].to_owned();
            body = body.replace(&id, "db_ffffffffffffffffffffffff");
        }
        if incoming.target.ends_with("manifest.json") {
            let mut manifest: serde_json::Value = serde_json::from_str(&body).unwrap();
            manifest["files"].as_object_mut().unwrap().remove("hidden");
            body = manifest.to_string();
        }
        response.body = body.into_bytes();
        response.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("etag"));
        response.headers.push(("ETag".into(), "\"view\"".into()));
        response.into()
    });
    let cli = crate::harness::Cli::at(&proxy.url()).token(&pair.server.token);
    for halted in [cli.sync(pair.b.path(), &[]), cli.pull("alice/x", pair.b.path(), &[])] {
        assert!(halted.expect(3).stderr.contains("last synced with"));
    }
    assert_eq!(pair.b.names(), ["hidden", "public"]);
    assert_eq!(pair.server.paths("x"), ["hidden", "public"]);
}
