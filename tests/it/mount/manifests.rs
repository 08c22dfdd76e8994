//! F17: manifests that are damaged, newer or hostile: refused before anything is mounted, or harmless.

use std::fs;

use serde_json::{Value, json};

use super::refusals::refused;
use super::{errno, proxy, read_directly};
use crate::harness::{Mounting, Responder, Server, answer, bytes_of, get, json_answer, put_entry, sha256};

/// A manifest with these files, each of one byte.
fn manifest(paths: &[&str]) -> Value {
    let files = paths.iter().map(|path| (path.to_string(), entry(path)));
    json!({
        "version": 1, "databaseId": "db_x", "name": "d", "lastSyncedAt": "2024-01-01T00:00:00Z",
        "files": files.collect::<serde_json::Map<_, _>>(),
    })
}

fn entry(path: &str) -> Value {
    put_entry(path, b"x")
}

/// The manifest with one field of the entry "x" replaced.
fn with_field(name: &str, value: Value) -> String {
    let mut manifest = manifest(&["x"]);
    manifest["files"]["x"][name] = value;
    manifest.to_string()
}

#[track_caller]
fn manifest_is_refused(body: &str, code: i32, words: &[&str]) {
    let body = body.to_owned();
    let remote =
        Responder::start(move |_| answer(200, &[("Content-Type", "application/json")], body.as_bytes()));
    refused(&Mounting::at(&remote.url(), "alice/d"), code, words);
}

#[test]
fn f17_a_damaged_manifest_is_not_mounted() {
    let good = manifest(&["x"]).to_string();
    for body in
        ["", "{", "[]", "null", "<html>log in</html>", &good[..good.len() - 1], &format!("{good}{good}")]
    {
        manifest_is_refused(body, 8, &["damaged", "publish it again"]);
    }
    for field in ["version", "files", "databaseId"] {
        let mut without = manifest(&["x"]);
        without.as_object_mut().unwrap().remove(field);
        manifest_is_refused(&without.to_string(), 8, &[field]);
    }
    for (field, value) in [
        ("size", json!(-1)),
        ("size", json!(1.5)),
        ("size", json!("1")),
        ("hash", json!("abc")),
        ("hash", json!(null)),
        ("hash", json!("../".repeat(21) + "x")),
        ("hashAlgorithm", json!("crc32")),
        ("path", json!("y")),
    ] {
        manifest_is_refused(&with_field(field, value), 8, &["damaged"]);
    }
    let mut newer = manifest(&["../x"]);
    newer["version"] = 2.into();
    manifest_is_refused(&newer.to_string(), 9, &["format 2", "newer"]);
}

#[test]
fn f17_an_entry_that_leaves_its_root_stops_the_mount() {
    let (long, deep) = ("n".repeat(256), "d/".repeat(1600) + "x");
    let paths = [
        "..",
        "../x",
        "a/../../x",
        "a/..",
        "/etc/passwd",
        "//x",
        "a//b",
        "./x",
        "a/./b",
        "a/",
        "",
        ".",
        "nul\0byte",
        &long,
        &deep,
        "_meta/manifest.json",
        ".parquedb/sync.json",
        "_meta/locks/x",
    ];
    for path in paths {
        manifest_is_refused(&manifest(&["good", path]).to_string(), 8, &["damaged"]);
    }
    manifest_is_refused(&manifest(&["a", "a/b"]).to_string(), 8, &["a/b"]);
    let twice =
        manifest(&["x"]).to_string().replace(r#""files":{"#, &format!(r#""files":{{"x":{},"#, entry("x")));
    manifest_is_refused(&twice, 8, &["twice"]);
}

#[test]
fn f17_a_manifest_cut_short_on_its_way_is_not_mounted() {
    let server = Server::start();
    let id = server.register("d", "public");
    server.publish(&id, &[("a", b"1"), ("b", b"2")]);
    let honest = get("/db/alice/d/_meta/manifest.json").send(&server.address).expect(200);
    let cut = Responder::start(move |_| {
        proxy::framed(&honest, &format!("Content-Length: {}", honest.body.len()), &honest.body[..50])
    });
    refused(&Mounting::at(&cut.url(), "alice/d"), 6, &["cannot be reached"]);
    let elsewhere = Responder::start(|_| answer(302, &[("Location", "http://localhost:1/")], b""));
    refused(&Mounting::at(&elsewhere.url(), "alice/d"), 8, &["--remote"]);
}

#[test]
fn an_entry_that_cannot_be_read_fails_alone() {
    let mut odd = manifest(&["good", "md5", "huge", "largest"]);
    odd["files"]["md5"]["hash"] = "d41d8cd98f00b204e9800998ecf8427e".into();
    odd["files"]["md5"]["hashAlgorithm"] = "md5".into();
    for (name, size) in [("huge", 1_u64 << 53), ("largest", i64::MAX as u64)] {
        odd["files"][name]["size"] = size.into();
        odd["files"][name]["hash"] = sha256(name.as_bytes()).into();
    }
    let remote = Responder::start(move |request| match request.target.as_str() {
        "/db/alice/d/_meta/manifest.json" => json_answer(200, &odd),
        _ => {
            let etag = format!("\"{}\"", sha256(b"x"));
            answer(206, &[("ETag", &etag), ("Content-Range", "bytes 0-0/1")], b"x")
        }
    });
    let mount = Mounting::at(&remote.url(), "alice/d").mount();
    assert_eq!(errno(mount.read("md5")), Some(libc::EOPNOTSUPP));
    for (name, size) in [("huge", 1_u64 << 53), ("largest", i64::MAX as u64)] {
        assert_eq!(fs::metadata(mount.at(name)).unwrap().len(), size);
        assert_eq!(errno(read_directly(&mount.at(name), 0, 10)), Some(libc::EIO), "{name}");
    }
    assert_eq!(mount.read("good").unwrap(), b"x", "the daemon lives");
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 4);
    mount.unmount();
}

#[test]
fn an_empty_database_is_an_empty_folder() {
    let server = Server::start();
    let id = server.register("d", "public");
    server.publish(&id, &[("x", b"x")]);
    server.commit(&id, "commit-2", 1, &[], &["x"]).expect(200);
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    assert!(bytes_of(&mount.path()).is_empty());
    mount.unmount();
}
