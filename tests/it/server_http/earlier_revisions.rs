//! `?revision=N`: files and manifests as an earlier revision had them.

use crate::harness::{Response, Server, allow_account, get, head, put_entry, sha256};

fn at(server: &Server, path: &str, revision: &str) -> Response {
    get(&format!("/db/alice/x/{path}?revision={revision}")).bearer(&server.token).send(&server.address)
}

/// A private database of three revisions: `f` is put, put again, deleted; `kept` stays.
fn three_revisions(server: &Server) -> String {
    let id = server.register("x", "private");
    server.publish(&id, &[("f", b"the first"), ("kept", b"kept")]);
    server.publish(&id, &[("f", b"the second one")]);
    server.commit(&id, "commit-3", 2, &[], &["f"]).expect(200);
    id
}

#[test]
fn a_file_is_answered_as_that_revision_had_it() {
    let server = Server::start();
    three_revisions(&server);
    for (revision, expected) in
        [("1", &b"the first"[..]), ("2", b"the second one"), ("002", b"the second one")]
    {
        let found = at(&server, "f", revision).expect(200);
        assert_eq!(found.body, expected);
        assert_eq!(found.header("etag"), Some(format!("\"{}\"", sha256(expected)).as_str()));
        assert_eq!(found.header("x-parquedb-revision"), Some(revision.trim_start_matches('0')));
        let target = format!("/db/alice/x/f?revision={revision}");
        let etag = format!("\"{}\"", sha256(expected));
        let ask = || get(&target).bearer(&server.token);
        let part = ask().with("Range", "bytes=4-").with("If-Match", &etag).send(&server.address).expect(206);
        assert_eq!(part.body, expected[4..]);
        assert_eq!(
            part.header("content-range"),
            Some(format!("bytes 4-{}/{}", expected.len() - 1, expected.len()).as_str())
        );
        ask().with("If-Match", "\"other\"").send(&server.address).expect(412);
        ask().with("If-None-Match", &etag).send(&server.address).expect(304);
        let described = head(&target).bearer(&server.token).send(&server.address).expect(200);
        assert_eq!(described.header("content-length"), Some(expected.len().to_string().as_str()));
    }
    assert_eq!(at(&server, "kept", "3").expect(200).body, b"kept");
    assert_eq!(at(&server, "kept", "1").expect(200).header("x-parquedb-revision"), Some("1"));
    let absent = get("/db/alice/x/never").bearer(&server.token).send(&server.address).expect(404);
    for (path, revision) in
        [("f", "3"), ("f", "0"), ("f", "4"), ("f", "18446744073709551615"), ("never", "1"), ("kept", "0")]
    {
        let found = at(&server, path, revision).expect(404);
        assert_eq!(found.body, absent.body, "{path} at {revision} is answered as what is absent");
    }
    for malformed in ["", "x", "-1", "+1", "1.0", "1x", "99999999999999999999999", "1&revision=2", "%201"] {
        at(&server, "f", malformed).expect(400);
    }
}

#[test]
fn a_manifest_is_answered_as_it_was() {
    let server = Server::start();
    let id = server.register("x", "private");
    let mut then = Vec::new();
    for n in 0..5_u8 {
        server.publish(&id, &[(format!("f{}", n % 2).as_str(), &[n; 3])]);
        then.push(at(&server, "_meta/manifest.json", &server.revision(&id).to_string()).expect(200));
    }
    for (earlier, expected) in then.iter().enumerate() {
        let revision = (earlier + 1).to_string();
        let found = at(&server, "_meta/manifest.json", &revision).expect(200);
        assert_eq!((&found.body, found.header("etag")), (&expected.body, expected.header("etag")));
        assert_eq!(found.header("x-parquedb-revision"), Some(revision.as_str()));
    }
    let now = get("/db/alice/x/_meta/manifest.json").bearer(&server.token).send(&server.address);
    assert_eq!((&now.body, now.header("etag")), (&then[4].body, then[4].header("etag")));
    for absent in ["0", "6"] {
        at(&server, "_meta/manifest.json", absent).expect(404);
    }
}

/// Longer than the stretch between two whole manifests, by a process that has read nothing yet.
#[test]
fn a_long_history_is_answered_after_a_restart() {
    let mut server = Server::start();
    let id = server.register("x", "private");
    server.publish(&id, &[("still", b"the same all along"), ("f", b"0")]);
    let contents: Vec<Vec<u8>> = (1..150_u32).map(|n| n.to_string().into_bytes()).collect();
    for content in &contents {
        server.upload(&id, "f", content);
    }
    for (n, content) in contents.iter().enumerate() {
        server.commit(&id, &format!("commit-{n}"), n as u64 + 1, &[put_entry("f", content)], &[]).expect(200);
    }
    server.restart();
    for revision in [1, 2, 127, 128, 129, 140, 150] {
        assert_eq!(at(&server, "f", &revision.to_string()).expect(200).text(), (revision - 1).to_string());
        assert_eq!(at(&server, "still", &revision.to_string()).expect(200).body, b"the same all along");
        at(&server, "never", &revision.to_string()).expect(404);
    }
}

#[test]
fn rule_29_earlier_revisions_are_judged_by_todays_visibility() {
    let server = Server::start();
    three_revisions(&server);
    let bob = allow_account(&server.store(), "bob");
    for target in
        ["/db/alice/x/f?revision=1", "/db/alice/x/f?revision=x", "/db/alice/x/_meta/manifest.json?revision=1"]
    {
        let nothing = target.replace("/x/", "/nothing/");
        assert_eq!(get(target).send(&server.address).expect(401), get(&nothing).send(&server.address));
        let ask = |target: &str| get(target).bearer(&bob).send(&server.address);
        assert_eq!(ask(target).expect(404), ask(&nothing));
    }
    server.register("x", "public");
    assert_eq!(get("/db/alice/x/f?revision=1").send(&server.address).expect(200).body, b"the first");
}

#[test]
fn rule_1_a_revision_is_a_number_beside_the_manifest_and_not_in_it() {
    let server = Server::start();
    let id = server.register("x", "private");
    for revision in 1..=3_u64 {
        assert_eq!(server.publish(&id, &[("f", revision.to_string().as_bytes())]), revision);
        let ask = |target: &str| get(target).bearer(&server.token).send(&server.address).expect(200);
        for target in [
            format!("/api/sync/manifest/{id}"),
            "/db/alice/x/_meta/manifest.json".to_owned(),
            "/db/alice/x/f".to_owned(),
        ] {
            let number = revision.to_string();
            assert_eq!(ask(&target).header("x-parquedb-revision"), Some(number.as_str()), "{target}");
        }
        let manifest = server.manifest(&id).json();
        assert_eq!(manifest["version"], 1, "the manifest's own format");
        assert!(manifest.get("revision").is_none(), "{manifest}");
        assert_eq!(ask("/api/db/alice/x").json()["revision"], revision);
        for earlier in 1..=revision {
            let target = format!("/api/sync/manifest/{id}?revision={earlier}");
            assert_eq!(ask(&target).header("x-parquedb-revision"), Some(earlier.to_string().as_str()));
        }
    }
}
