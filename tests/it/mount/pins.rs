//! F26: what is pinned is fully available without the remote, and nothing evicts it.

use std::fs;

use serde_json::json;

use super::{database_of, errno, impatient};
use crate::harness::{Cli, Mounting, Outcome, text};

const MIB: usize = 1 << 20;
const FILES: &[(&str, usize)] = &[
    ("empty", 0),
    ("events/large", 5 * MIB + 17),
    ("events/small", 70_000),
    ("events2", 3 * MIB),
    ("other", 90_000),
];

fn parquedb(mounting: &Mounting, url: &str, args: &[&str]) -> Outcome {
    Cli::at(url).run(&[args, &["--cache-dir", text(mounting.cache())]].concat())
}

#[test]
fn f26_what_is_pinned_is_there_without_the_remote() {
    let (mut server, files) = database_of(FILES);
    let mounting = impatient(&server.url());
    let told = parquedb(&mounting, &server.url(), &["pin", "alice/d", "events/", "empty", "--json"])
        .expect(0)
        .json();
    assert_eq!(told["paths"], json!(["empty", "events/large", "events/small"]));
    assert_eq!(told["bytes"], 5 * MIB + 17 + 70_000);
    server.kill();
    // It was never mounted before.
    let mount = mounting.mount();
    for (name, bytes) in &files {
        let read = mount.read(name);
        if name.starts_with("events/") || name == "empty" {
            assert!(read.unwrap() == *bytes, "{name}");
        } else {
            assert_eq!(errno(read), Some(libc::EIO), "{name} was not pinned");
        }
    }
    mount.unmount();
}

#[test]
fn f26_nothing_evicts_what_is_pinned_until_it_is_unpinned() {
    let (mut server, files) = database_of(FILES);
    let mounting = impatient(&server.url()).args(&["--cache-size", "8MB"]);
    parquedb(&mounting, &server.url(), &["pin", "alice/d", "events"]).expect(0);
    let mount = mounting.mount();
    for _ in 0..3 {
        assert!(
            mount.read("events2").unwrap() == files[3].1,
            "it goes around the cache, or makes room for itself"
        );
    }
    let fetched = mount.stats().bytes_fetched;
    assert!(mount.read("events/large").unwrap() == files[1].1);
    assert_eq!(mount.stats().bytes_fetched, fetched, "it was here");
    mount.unmount();
    let unpinned = parquedb(&mounting, &server.url(), &["unpin", "alice/d", "events/small"]).expect(0);
    assert!(unpinned.stdout.contains("1 file"));
    server.kill();
    assert_eq!(
        parquedb(&mounting, &server.url(), &["unpin", "--all", "--json"]).expect(0).json(),
        json!({"contents": 1}),
        "it needs no remote"
    );
}

#[test]
fn rule_25_pins_that_exceed_the_limit_are_refused_when_made() {
    let (server, _) = database_of(FILES);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let run = |args: &[&str]| parquedb(&mounting, &server.url(), args);
    run(&["cache", "limit", "6MB"]).expect(0);
    let refused = run(&["pin", "alice/d"]).expect(2);
    assert!(
        refused.stderr.contains("nothing was pinned") && refused.stderr.contains("cache limit"),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(mounting.cache().join("blocks-3/pins")).unwrap().count(), 0);
    run(&["pin", "alice/d", "events"]).expect(0);
    let refused = run(&["pin", "alice/d", "events2"]).expect(2);
    assert!(refused.stderr.contains("are pinned"), "{refused:?}");
    run(&["pin", "alice/d", "events/large"]).expect(0);
}

#[test]
fn pins_of_what_is_not_there_or_not_reachable_say_so() {
    let (mut server, _) = database_of(FILES);
    let (mounting, url) = (Mounting::at(&server.url(), "alice/d"), server.url());
    let run = |args: &[&str]| parquedb(&mounting, &url, args);
    assert!(
        run(&["pin", "alice/d", "event"]).expect(5).stderr.contains("no 'event' in"),
        "no prefix of a name"
    );
    assert!(run(&["pin", "alice/d", "../x"]).expect(2).stderr.contains("'../x'"));
    run(&["pin", "alice"]).expect(2);
    run(&["pin", "alice/none"]).expect(4);
    run(&["unpin"]).expect(2);
    server.kill();
    run(&["pin", "alice/d"]).expect(6);
}
