//! F45, F46: a sync costs what has changed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::sync::{Event, Reporter};

use super::Pair;
use crate::harness::{Cli, Responder, Response};

fn size(response: &Response) -> u64 {
    let headers = response.headers.iter().map(|(name, value)| name.len() + value.len() + 4);
    (headers.sum::<usize>() + response.body.len()) as u64
}

/// A proxy that counts the bytes of answers.
fn counted(pair: &Pair) -> (Responder, Cli, Arc<AtomicU64>) {
    let (address, bytes) = (pair.server.address.clone(), Arc::new(AtomicU64::new(0)));
    let counter = bytes.clone();
    let proxy = Responder::start(move |request| {
        let response = request.forward(&address);
        counter.fetch_add(size(&response), Ordering::Relaxed);
        response.into()
    });
    let cli = Cli::at(&proxy.url()).token(&pair.server.token);
    (proxy, cli, bytes)
}

#[test]
fn f45_an_idle_sync_is_one_small_request() {
    let names: Vec<String> = (0..200).map(|n| format!("data/c{n}/data.parquet")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let pair = Pair::with(&files);
    let (proxy, cli, bytes) = counted(&pair);
    for tree in [&pair.a, &pair.b] {
        let asked = proxy.asked().len();
        bytes.store(0, Ordering::Relaxed);
        let synced = cli.sync(tree.path(), &[]).expect(0);
        assert!(synced.stdout.contains("Logged in as alice"), "{synced:?}");
        assert_eq!(proxy.asked().len() - asked, 1, "{:?}", proxy.asked());
        assert!(bytes.load(Ordering::Relaxed) < 2000, "{}", bytes.load(Ordering::Relaxed));
    }
}

#[test]
fn f45_one_change_is_one_content_and_as_much_besides_as_one_change_needs() {
    let names: Vec<String> = (0..200).map(|n| format!("data/c{n}/data.parquet")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), name.as_str())).collect();
    let pair = Pair::with(&files);
    let (proxy, cli, bytes) = counted(&pair);
    pair.a.write(&[("data/c7/data.parquet", "changed")]);
    cli.sync(pair.a.path(), &[]).expect(0);
    let asked = proxy.asked();
    assert_eq!(asked.iter().filter(|line| line.contains("PUT")).count(), 1, "{asked:?}");
    assert!(asked.len() <= 4, "{asked:?}");
    assert!(bytes.load(Ordering::Relaxed) < 6000, "{}", bytes.load(Ordering::Relaxed));
    bytes.store(0, Ordering::Relaxed);
    cli.sync(pair.b.path(), &[]).expect(0);
    let asked = &proxy.asked()[asked.len()..];
    assert!(asked.len() <= 2 && bytes.load(Ordering::Relaxed) < 4000, "{asked:?}");
    assert_eq!(pair.b.read("data/c7/data.parquet").as_deref(), Some("changed"));
}

#[test]
fn f46_a_rename_and_a_copy_send_no_content() {
    let pair = Pair::with(&[("f", "the same bytes"), ("g", "1")]);
    std::fs::rename(pair.a.at("f"), pair.a.at("renamed")).unwrap();
    pair.a.write(&[("copy", "the same bytes"), ("d/copy", "the same bytes")]);
    let synced = pair.cli.sync(pair.a.path(), &["--json"]).expect(0).json();
    assert_eq!((&synced["contentsSent"], &synced["bytesSent"]), (&0.into(), &0.into()), "{synced}");
    assert_eq!(pair.server.paths("x"), ["copy", "d/copy", "g", "renamed"]);
    pair.a.write(&[("new", "new bytes"), ("twice", "new bytes")]);
    let synced = pair.cli.sync(pair.a.path(), &["--json"]).expect(0).json();
    assert_eq!((&synced["contentsSent"], &synced["bytesSent"]), (&1.into(), &9.into()), "{synced}");
}

/// What a run reads of the directory's files.
#[derive(Default)]
struct Hashed(Mutex<u64>);

impl Reporter for Hashed {
    fn report(&self, event: Event<'_>) {
        if let Event::Hashing { bytes } = event {
            *self.0.lock().unwrap() += bytes;
        }
    }
}

/// Syncs by the library, and says how many bytes of files were read for it.
fn hashed_by(pair: &Pair, tree: &crate::harness::TempTree) -> u64 {
    let hashed = Hashed::default();
    super::by_library(pair, &pair.server.url(), tree, &RemoteOptions::default(), &hashed).unwrap();
    hashed.0.into_inner().unwrap()
}

#[test]
fn rule_23_only_files_that_may_have_changed_are_read_again() {
    let pair = Pair::with(&[("f", "123456789"), ("g", "1234")]);
    // Written just now: they are read once more, since a change in the same moment would not show.
    assert_eq!(hashed_by(&pair, &pair.a), 13);
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(hashed_by(&pair, &pair.a), 13, "they were not trusted yet");
    assert_eq!(hashed_by(&pair, &pair.a), 0);
    // The same size and the same time as before: the change shows all the same.
    let modified = std::fs::metadata(pair.a.at("g")).unwrap().modified().unwrap();
    pair.a.write(&[("g", "4321")]);
    std::fs::File::options().write(true).open(pair.a.at("g")).unwrap().set_modified(modified).unwrap();
    assert_eq!(hashed_by(&pair, &pair.a), 4);
    assert_eq!(pair.published("g").as_deref(), Some("4321"));
    // What is wrong with the index costs time and nothing else.
    std::fs::write(pair.a.at(".parquedb/hashes"), "rubbish").unwrap();
    pair.a.write(&[("f", "987654321")]);
    assert_eq!(hashed_by(&pair, &pair.a), 13);
    assert_eq!(pair.published("f").as_deref(), Some("987654321"));
}

#[test]
fn rule_23_files_that_came_from_the_remote_are_not_read_at_all() {
    let pair = Pair::with(&[("f", "1")]);
    pair.a.write(&[("big", &"x".repeat(100_000))]);
    let old = super::age(&pair.a, "big", 3600);
    pair.cli.sync(pair.a.path(), &[]).expect(0);
    pair.cli.sync(pair.b.path(), &[]).expect(0);
    assert!(hashed_by(&pair, &pair.b) < 100_000);
    assert_eq!(
        std::fs::metadata(pair.b.at("big")).unwrap().modified().unwrap(),
        old,
        "rule 9: with its time"
    );
}
