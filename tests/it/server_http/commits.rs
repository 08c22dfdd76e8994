//! Publishing: by precondition, once for a commit id, whole or not at all.

use serde_json::json;

use crate::harness::{Server, bytes_of, describe_entry, get, put_entry, request, sha256};

fn database() -> (Server, String) {
    let server = Server::start();
    let id = server.register("x", "public");
    for content in [&b"one"[..], b"two", b"three"] {
        server.upload(&id, "any", content);
    }
    (server, id)
}

#[test]
fn a_commit_publishes_one_revision() {
    let (server, id) = database();
    let put = [put_entry("a", b"one"), put_entry("d/b", b"two"), put_entry("d/c", b"one")];
    let first = server.commit(&id, "commit-1", 0, &put, &[]).expect(200).json();
    assert_eq!(first["revision"], 1);
    assert_eq!(first["etag"].as_str(), server.manifest(&id).header("etag"));
    let manifest = server.manifest(&id).expect(200).json();
    assert_eq!(manifest["files"]["d/c"]["hash"], sha256(b"one"));
    let second = server.commit(&id, "commit-2", 1, &[put_entry("a", b"three")], &["d/b"]).expect(200).json();
    assert_eq!(second["revision"], 2);
    assert_ne!(second["etag"], first["etag"]);
    assert_eq!(get("/db/alice/x/a").send(&server.address).expect(200).body, b"three");
    get("/db/alice/x/d/b").send(&server.address).expect(404);
    let file = get("/db/alice/x/d/c").send(&server.address).expect(200);
    assert_eq!((file.text().as_str(), file.header("x-parquedb-revision")), ("one", Some("2")));
    assert_eq!(file.header("etag"), Some(format!("\"{}\"", sha256(b"one")).as_str()));
}

#[test]
fn rule_3_the_same_commit_again_is_answered_the_same_and_published_once() {
    let (server, id) = database();
    let put = [put_entry("a", b"one")];
    let first = server.commit(&id, "commit-1", 0, &put, &[]).expect(200);
    for _ in 0..3 {
        let again = server.commit(&id, "commit-1", 0, &put, &[]).expect(200);
        assert_eq!(again.json(), first.json());
    }
    assert_eq!(server.revision(&id), 1);
    // Still so after others have published, and after a restart.
    server.commit(&id, "commit-2", 1, &[put_entry("a", b"two")], &[]).expect(200);
    let late = server.commit(&id, "commit-1", 0, &put, &[]).expect(200);
    assert_eq!(late.json(), first.json());
    let mut server = server;
    server.restart();
    let later = server.commit(&id, "commit-1", 0, &put, &[]).expect(200);
    assert_eq!(later.json(), first.json());
    assert_eq!(server.revision(&id), 2);
    assert_eq!(get("/db/alice/x/a").send(&server.address).expect(200).text(), "two", "nothing went back");
}

#[test]
fn a_stale_base_is_told_the_current_revision() {
    let (server, id) = database();
    server.commit(&id, "commit-1", 0, &[put_entry("a", b"one")], &[]).expect(200);
    server.commit(&id, "commit-2", 1, &[put_entry("a", b"two")], &[]).expect(200);
    for base in [0, 1, 3, 1_000_000, u64::MAX] {
        let moved =
            server.commit(&id, "commit-late", base, &[put_entry("b", b"one")], &[]).expect(412).json();
        assert_eq!(moved["revision"], 2, "base {base}");
        assert!(moved["error"].is_string());
    }
    assert_eq!(server.paths("x"), ["a"]);
    assert_eq!(
        server.commit(&id, "commit-late", 2, &[put_entry("b", b"one")], &[]).expect(200).json()["revision"],
        3
    );
}

#[test]
fn what_cannot_be_is_refused_whole() {
    let (server, id) = database();
    let other = server.register("other", "public");
    server.upload(&other, "f", b"only in the other database");
    let first = [put_entry("a", b"one"), put_entry("d/b", b"two")];
    server.commit(&id, "commit-1", 0, &first, &[]).expect(200);
    let before = bytes_of(&server.store());
    let good = put_entry("good", b"one");
    let elsewhere = put_entry("c", b"only in the other database");
    let mut md5 = put_entry("c", b"one");
    md5["hashAlgorithm"] = json!("md5");
    md5["hash"] = json!("d41d8cd98f00b204e9800998ecf8427e");
    for (what, put, delete, paths) in [
        ("not stored", vec![good.clone(), put_entry("c", b"never uploaded")], vec![], vec!["c"]),
        ("rule 27: stored in another database", vec![good.clone(), elsewhere], vec![], vec!["c"]),
        ("another size", vec![good.clone(), describe_entry("c", 4, &sha256(b"one"))], vec![], vec!["c"]),
        ("MD5", vec![good.clone(), md5], vec![], vec!["c"]),
        ("twice", vec![good.clone(), good.clone()], vec![], vec!["good"]),
        ("put and deleted", vec![put_entry("a", b"two")], vec!["a"], vec!["a"]),
        ("deleted twice", vec![good.clone()], vec!["a", "a"], vec!["a"]),
        ("deleted although absent", vec![good.clone()], vec!["nothing"], vec!["nothing"]),
        ("below a file", vec![put_entry("a/b", b"one")], vec![], vec!["a/b"]),
        ("over a directory", vec![put_entry("d", b"one")], vec![], vec!["d"]),
    ] {
        let refused = server.commit(&id, "commit-bad", 1, &put, &delete);
        assert_eq!(refused.status, 422, "{what}: {}", refused.text());
        assert_eq!(refused.json()["paths"], json!(paths), "{what}");
    }
    for path in ["../x", "/x", "", "a\0", ".parquedb/x", "_meta/manifest.json", "_meta/locks/x"] {
        let refused = server.commit(&id, "commit-bad", 1, &[put_entry(path, b"one")], &[]);
        assert!(matches!(refused.status, 400 | 422), "{path:?}: {}", refused.status);
    }
    for commit_id in ["", "short", &"x".repeat(129), "with space", "new\nline"] {
        let refused = server.commit(&id, commit_id, 1, std::slice::from_ref(&good), &[]);
        assert!(matches!(refused.status, 400 | 422), "{commit_id:?}: {}", refused.status);
    }
    for body in [&b""[..], b"{", b"[]", b"{\"base\":1}", b"\xff"] {
        let ask = request("POST", &format!("/api/sync/commit/{id}")).bearer(&server.token).body(body);
        ask.send(&server.address).expect(400);
    }
    assert_eq!(bytes_of(&server.store()), before, "nothing of all that is stored");
    assert_eq!(server.revision(&id), 1);
    server.commit(&id, "commit-good", 1, &[good], &[]).expect(200);
}

#[test]
fn a_reader_never_sees_half_a_revision() {
    let (server, id) = database();
    let both = |content: &[u8]| [put_entry("a", content), put_entry("b", content)];
    server.commit(&id, "commit-0", 0, &both(b"one"), &[]).expect(200);
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = 0;
                    while !done.load(std::sync::atomic::Ordering::SeqCst) {
                        let manifest = server.manifest(&id).expect(200).json();
                        assert_eq!(manifest["files"]["a"]["hash"], manifest["files"]["b"]["hash"]);
                        seen += 1;
                    }
                    seen
                })
            })
            .collect();
        for n in 1..=30 {
            let content: &[u8] = if n % 2 == 0 { b"one" } else { b"two" };
            server.commit(&id, &format!("commit-{n}"), n, &both(content), &[]).expect(200);
        }
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        for reader in readers {
            assert!(reader.join().unwrap() > 0);
        }
    });
}
