//! F17: manifest entries that would leave the directory, or cannot be files, are refused before anything is
//! written.

use serde_json::{Value, json};

use super::{ID, assert_untouched, fake_remote, manifest};
use crate::harness::{Cli, Reply, Request, TempTree, answer, describe_entry, put_entry, sha256};

const CONTENT: &[u8] = b"hostile";

/// Answers every request for a file with the content, correctly.
fn content(_: &Request) -> Reply {
    let etag = format!("\"{}\"", sha256(CONTENT));
    answer(206, &[("ETag", &etag), ("Content-Range", "bytes 0-6/7")], CONTENT)
}

/// A pull of that manifest writes nothing, fetches nothing and ends with 8.
#[track_caller]
fn assert_refused(what: &str, document: impl Into<Vec<u8>>) {
    let remote = fake_remote(document, content);
    for more in [&[][..], &["--dry-run"]] {
        let copy = TempTree::new();
        let refused = Cli::at(&remote.url()).pull("alice/x", copy.path(), more);
        assert_eq!(refused.code, 8, "{what}: {refused:?}");
        assert!(!refused.stderr.contains('\0') && !refused.stderr.contains('\u{1b}'), "{what}: {refused:?}");
        assert_untouched(&copy);
    }
    let fetched = remote.asked().into_iter().filter(|line| !line.ends_with("manifest.json")).count();
    assert_eq!(fetched, 2, "only the description is asked for besides: {:?}", remote.asked());
}

/// The control: the same remote with a decent path is pulled.
#[test]
fn a_decent_manifest_from_the_same_remote_is_pulled() {
    let remote = fake_remote(manifest(&[("d/f", put_entry("d/f", CONTENT))]), content);
    let copy = TempTree::new();
    Cli::at(&remote.url()).pull("alice/x", copy.path(), &[]).expect(0);
    assert_eq!(copy.read("d/f").as_deref(), Some("hostile"));
}

#[test]
fn paths_that_escape_or_cannot_be() {
    let long_name = "n".repeat(256);
    let long_path = ["d"; 1600].join("/");
    let paths = [
        "../x",
        "..",
        "a/../../x",
        "a/..",
        "a/../b",
        "/x",
        "/tmp/parquedb-hostile",
        "//x",
        "a//b",
        "a/",
        "./a",
        "a/./b",
        ".",
        "",
        "a\0b",
        "\0",
        ".parquedb/sync.json",
        ".parquedb",
        ".parquedb/x/y",
        "_meta/manifest.json",
        "_meta/locks",
        "_meta/locks/x",
        &long_name,
        &long_path,
        "../\u{1b}[31m",
    ];
    for path in paths {
        let decent = ("decent", put_entry("decent", CONTENT));
        assert_refused(path, manifest(&[decent, (path, put_entry(path, CONTENT))]));
    }
}

#[test]
fn a_path_listed_twice_under_another_name_or_as_file_and_directory() {
    let entry = |path: &str| put_entry(path, CONTENT).to_string();
    let with = |files: String| {
        format!(
            r#"{{"version":1,"databaseId":"{ID}","name":"x","visibility":"public","lastSyncedAt":"","files":{{{files}}}}}"#
        )
    };
    assert_refused("twice", with(format!(r#""a":{0},"a":{0}"#, entry("a"))));
    // A reader that keeps the first of two equal keys must not see another file than one that keeps the last.
    assert_refused("escaped twice", with(format!(r#""a":{0},"\u0061":{0}"#, entry("a"))));
    assert_refused("another path inside", with(format!(r#""a":{}"#, entry("../b"))));
    assert_refused("file and directory", with(format!(r#""a":{},"a/b":{}"#, entry("a"), entry("a/b"))));
    assert_refused(
        "deep",
        with(format!(r#""a":{},"a.b":{},"a/b/c":{}"#, entry("a"), entry("a.b"), entry("a/b/c"))),
    );
    assert_refused("two lists", r#"{"version":1,"databaseId":"d","name":"x","files":{},"files":{}}"#);
}

#[test]
fn entries_that_make_no_sense() {
    let whole = put_entry("f", CONTENT);
    let changed = |field: &str, value: Value| {
        let mut entry = whole.clone();
        entry[field] = value;
        manifest(&[("f", entry)])
    };
    for (field, value) in [
        ("size", json!(-1)),
        ("size", json!(1.5)),
        ("size", json!("7")),
        ("size", json!(u64::MAX)),
        ("hash", json!("")),
        ("hash", json!("00")),
        ("hash", json!("../../../../etc/passwd")),
        ("hash", json!("zz".repeat(32))),
        ("hashAlgorithm", json!("md5")),
        ("hashAlgorithm", json!("crc32")),
        ("hash", Value::Null),
    ] {
        assert_refused(&format!("{field}: {value}"), changed(field, value));
    }
    assert_refused("no object", manifest(&[("f", json!("f"))]));
    assert_refused("no list", format!(r#"{{"version":1,"databaseId":"{ID}","name":"x","files":[]}}"#));
}

#[test]
fn a_manifest_of_another_database_is_not_applied() {
    let other = String::from_utf8(manifest(&[("f", put_entry("f", CONTENT))])).unwrap();
    let remote = fake_remote(other.replace(ID, "db_ffffffffffffffffffffffff"), content);
    let copy = TempTree::new();
    let refused = Cli::at(&remote.url()).pull("alice/x", copy.path(), &[]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert_untouched(&copy);
}

#[test]
fn a_file_said_to_be_larger_than_any_disk_fails_without_filling_it() {
    let entry = describe_entry("f", 1 << 60, &sha256(CONTENT));
    let etag = format!("\"{}\"", sha256(CONTENT));
    let remote = fake_remote(manifest(&[("f", entry)]), move |request| {
        let (from, size) = (request.first_byte(), 1_u64 << 60);
        let range = format!("Content-Range: bytes {from}-{}/{size}", size - 1);
        let length = size - from;
        Reply::Bytes(
            format!("HTTP/1.1 206 X\r\nETag: {etag}\r\n{range}\r\nContent-Length: {length}\r\n\r\nfew")
                .into_bytes(),
        )
    });
    let copy = TempTree::new();
    Cli::at(&remote.url()).pull("alice/x", copy.path(), &[]).expect(6);
    assert_untouched(&copy);
}
