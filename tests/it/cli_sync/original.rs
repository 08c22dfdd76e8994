//! What the original implementation gets wrong, each fault a test.

use std::fs;

use serde_json::json;

use super::{Pair, kept, texts};
use crate::harness::{Cli, Reply, Responder, data_files};

#[test]
fn original_1_deleted_files_do_not_come_back_and_one_sided_edits_are_no_conflicts() {
    let pair = Pair::with(&[("f", "1"), ("gone", "1")]);
    pair.a.remove("gone");
    pair.a.write(&[("f", "2")]);
    pair.cli.sync(pair.a.path(), &["--strategy", "manual"]).expect(0);
    pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(0);
    assert_eq!((pair.b.read("f").as_deref(), pair.b.read("gone")), (Some("2"), None));
    pair.cli.sync(pair.a.path(), &["--strategy", "manual"]).expect(0);
    assert_eq!(pair.server.paths("x"), ["f"]);
}

#[test]
fn original_2_a_pull_compares_files_and_not_what_a_manifest_says_of_them() {
    let pair = Pair::with(&[("f", "1")]);
    pair.a.write(&[("f", "2")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.b.write(&[("f", "edited here")]);
    pair.cli.pull("alice/x", pair.b.path(), &[]).expect(3);
    assert_eq!(pair.b.read("f").as_deref(), Some("edited here"));
}

/// A pair whose second directory goes through a proxy that does what `spoil` says with requests, and its address.
fn through(pair: &Pair, spoil: impl Fn(&str, &str) -> bool + Send + Sync + 'static) -> (Responder, Cli) {
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |request| {
        if spoil(&request.method, &request.target) { Reply::HangUp } else { request.forward(&address).into() }
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    (proxy, cli)
}

#[test]
fn original_3_f09_a_failed_upload_publishes_nothing() {
    let pair = Pair::with(&[("f", "1")]);
    let (proxy, cli) = through(&pair, |method, target| method == "PUT" && target.contains("bad"));
    pair.b.write(&[("f", "2"), ("good", "good bytes"), ("bad", "bad bytes")]);
    let before = (pair.revision(), data_files(pair.b.path()));
    cli.sync(pair.b.path(), &["--retries", "0"]).expect(6);
    assert!(proxy.asked().iter().any(|line| line.contains("bad")), "the fault was met");
    assert_eq!((pair.revision(), data_files(pair.b.path())), before);
    assert_eq!(pair.published("f").as_deref(), Some("1"), "the old revision is served whole");
    assert_eq!(pair.server.paths("x"), ["f"]);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.revision(), before.0 + 1, "then all of it is one revision");
    assert_eq!(pair.server.paths("x"), ["bad", "f", "good"]);
}

#[test]
fn original_4_the_last_writer_does_not_win() {
    let pair = Pair::with(&[("f", "1"), ("g", "1")]);
    pair.a.write(&[("f", "a")]);
    pair.b.write(&[("g", "b")]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!((pair.published("f").as_deref(), pair.published("g").as_deref()), (Some("a"), Some("b")));
}

#[test]
fn original_5_a_pending_conflict_is_remembered() {
    let pair = Pair::with(&[("f", "1")]);
    pair.change_on_both_sides("f");
    for run in 0..3 {
        pair.b.write(&[("another", &run.to_string())]);
        pair.cli.sync(pair.b.path(), &["--strategy", "manual"]).expect(3);
    }
    assert_eq!(pair.published("f").as_deref(), Some("there"));
    assert_eq!(pair.b.read("f").as_deref(), Some("here"));
}

#[test]
fn original_6_what_arrives_is_checked_whole_and_put_in_place_at_once() {
    let pair = Pair::with(&[("f", "1")]);
    pair.a.write(&[("f", &"right".repeat(1000))]);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    let address = pair.server.address.clone();
    let proxy = Responder::start(move |request| {
        let mut response = request.forward(&address);
        if request.target.starts_with("/db/alice/x/f") {
            response.body[2500] ^= 1;
        }
        response.into()
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    let failed = cli.sync(pair.b.path(), &["--retries", "0"]).expect(8);
    assert!(failed.stderr.contains("other bytes than the manifest names"), "{failed:?}");
    assert_eq!(pair.b.read("f").as_deref(), Some("1"), "nothing of it is in place");
    assert_eq!(fs::read_dir(pair.b.at(".parquedb/incoming")).unwrap().count(), 0);
}

#[test]
fn original_7_deletions_are_published_and_leave_nothing_behind() {
    let pair = Pair::with(&[("f", "1"), ("d/g", "1")]);
    pair.a.remove("d/g");
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    assert_eq!(pair.published("d/g"), None);
    assert_eq!(pair.server.paths("x"), ["f"]);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert_eq!(pair.b.names(), ["f"]);
}

#[test]
fn original_8_a_conflict_that_was_decided_has_not_lost_the_other_side() {
    let pair = Pair::with(&[("f", "1")]);
    pair.change_on_both_sides("f");
    let synced = pair.cli.sync(pair.b.path(), &["--strategy", "remote-wins", "--json"]).expect(0).json();
    assert_eq!(synced["conflicts"][0]["resolution"], json!("keep-remote"));
    assert_eq!(kept(&pair.b), texts(&[("f.local.conflict", "here")]));
}
