//! Publishing by a whole manifest: with `If-Match`, and as the original client does it, without (rule 5).

use md5::Digest;
use serde_json::{Value, json};

use crate::harness::{Response, Server, get, put_entry, request, sha256};

/// A client that publishes by manifests, with a token of its own.
struct Original<'a> {
    server: &'a Server,
    id: &'a str,
    token: &'a str,
}

impl Original<'_> {
    fn fetch(&self) -> Response {
        get(&format!("/api/sync/manifest/{}", self.id)).bearer(self.token).send(&self.server.address)
    }

    /// Uploads without a hash, as the original does, and sends a manifest of these files and no others.
    fn put(&self, files: &[(&str, &[u8])], if_match: Option<&str>) -> Response {
        for (path, content) in files {
            let target = self.server.announce(self.id, &json!({"path": path, "size": content.len()}));
            self.server.put_upload(&target, content).expect(200);
        }
        self.send(files.iter().map(|(path, content)| put_entry(path, content)), if_match)
    }

    fn send(&self, entries: impl Iterator<Item = Value>, if_match: Option<&str>) -> Response {
        let files: serde_json::Map<_, _> =
            entries.map(|entry| (entry["path"].as_str().unwrap().to_owned(), entry)).collect();
        let document = json!({
            "version": 1, "databaseId": self.id, "name": "x", "owner": "alice", "visibility": "private",
            "lastSyncedAt": "2026-01-01T00:00:00Z", "files": files,
        });
        let ask =
            request("PUT", &format!("/api/sync/manifest/{}", self.id)).bearer(self.token).json(&document);
        let ask = if let Some(etag) = if_match { ask.with("If-Match", etag) } else { ask };
        ask.send(&self.server.address)
    }
}

fn read(server: &Server, path: &str) -> String {
    get(&format!("/db/alice/x/{path}")).bearer(&server.token).send(&server.address).expect(200).text()
}

#[test]
fn rule_5_what_others_changed_since_stays_and_the_loser_is_kept() {
    let server = Server::start();
    let id = server.register("x", "private");
    server.publish(
        &id,
        &[("same", b"1"), ("edited", b"1"), ("deleted", b"1"), ("both", b"1"), ("del-edit", b"1")],
    );
    let original = Original { server: &server, id: &id, token: &server.token };
    original.fetch().expect(200);
    // Meanwhile, by another client, whose requests are not this token's.
    let bob = crate::harness::allow_account(&server.store(), "alice");
    let theirs = [("both", &b"theirs"[..]), ("del-edit", b"theirs"), ("added", b"theirs")];
    for (path, content) in theirs {
        server.upload(&id, path, content);
    }
    let put: Vec<_> = theirs.iter().map(|(path, content)| put_entry(path, content)).collect();
    let body = json!({"commitId": "others-commit", "base": 1, "put": put, "delete": []});
    request("POST", &format!("/api/sync/commit/{id}"))
        .bearer(&bob)
        .json(&body)
        .send(&server.address)
        .expect(200);

    let sent =
        original.put(&[("same", b"1"), ("edited", b"mine"), ("both", b"mine"), ("new", b"mine")], None);
    let answer = sent.expect(200).json();
    assert_eq!((&answer["success"], &answer["revision"]), (&true.into(), &3.into()));
    assert_eq!(server.paths("x"), ["added", "both", "del-edit", "edited", "new", "same"]);
    assert_eq!((read(&server, "edited"), read(&server, "both")), ("mine".into(), "theirs".into()));
    assert_eq!(read(&server, "del-edit"), "theirs", "an edit beats a deletion");
    let log =
        get(&format!("/api/sync/log/{id}")).bearer(&server.token).send(&server.address).expect(200).json();
    let aside = &log["log"][0]["setAside"];
    assert_eq!((&aside[0]["path"], aside.as_array().unwrap().len()), (&"both".into(), 1));
    let hash = aside[0]["hash"].as_str().unwrap();
    let blob =
        get(&format!("/api/sync/blob/{id}/{hash}")).bearer(&server.token).send(&server.address).expect(200);
    assert_eq!(blob.text(), "mine");
}

#[test]
fn rule_5_without_having_fetched_it_adds_and_replaces_and_deletes_nothing() {
    let server = Server::start();
    let id = server.register("x", "private");
    let original = Original { server: &server, id: &id, token: &server.token };
    original.fetch().expect(404);
    assert_eq!(original.put(&[("a", b"1"), ("b", b"1")], None).expect(200).json()["revision"], 1);
    // It has fetched nothing since: what it leaves out may never have been seen by it.
    let answer = original.put(&[("a", b"2"), ("c", b"1")], None).expect(200).json();
    assert_eq!(answer["revision"], 2);
    assert_eq!((server.paths("x").len(), read(&server, "a")), (3, "2".into()));
    // The same again changes nothing.
    assert_eq!(original.put(&[("a", b"2"), ("c", b"1")], None).expect(200).json()["revision"], 2);
    original.fetch().expect(200);
    original.put(&[("a", b"2"), ("c", b"1")], None).expect(200);
    assert_eq!(server.paths("x"), ["a", "c"], "now it has seen what it leaves out");
}

#[test]
fn rule_5_two_machines_with_one_token_do_not_undo_each_other() {
    let server = Server::start();
    let id = server.register("x", "private");
    server.publish(&id, &[("a", b"1"), ("b", b"1")]);
    let one = Original { server: &server, id: &id, token: &server.token };
    one.fetch().expect(200);
    // Another machine publishes, and this one's token fetches what it did; the first one knows nothing of it.
    server.publish(&id, &[("z", b"new")]);
    one.fetch().expect(200);
    one.put(&[("a", b"2"), ("b", b"1")], None).expect(200);
    assert_eq!(server.paths("x"), ["a", "b", "z"], "what it has never seen is not deleted");
    // Both fetch the same; one publishes, and the other does not undo it.
    one.fetch().expect(200);
    one.fetch().expect(200);
    one.put(&[("a", b"3"), ("b", b"1"), ("z", b"new")], None).expect(200);
    one.put(&[("a", b"2"), ("b", b"other"), ("z", b"new")], None).expect(200);
    assert_eq!((read(&server, "a"), read(&server, "b")), ("3".into(), "other".into()));
}

#[test]
fn rule_5_what_is_set_aside_must_be_stored_as_well() {
    let server = Server::start();
    let id = server.register("x", "private");
    server.publish(&id, &[("a", b"1")]);
    let original = Original { server: &server, id: &id, token: &server.token };
    original.fetch().expect(200);
    server.publish(&id, &[("a", b"theirs")]);
    let refused = original.send([put_entry("a", b"never uploaded")].into_iter(), None).expect(422).json();
    assert_eq!(refused["paths"], json!(["a"]));
    assert_eq!(server.revision(&id), 2);
}

#[test]
fn with_if_match_it_is_all_or_nothing() {
    let server = Server::start();
    let id = server.register("x", "private");
    let original = Original { server: &server, id: &id, token: &server.token };
    server.publish(&id, &[("a", b"1"), ("b", b"1")]);
    let etag = original.fetch().expect(200).header("etag").unwrap().to_owned();
    let answer = original.put(&[("a", b"2")], Some(&etag)).expect(200).json();
    assert_eq!(answer["revision"], 2);
    assert_eq!(server.paths("x"), ["a"]);
    let moved = original.put(&[("a", b"3")], Some(&etag)).expect(412).json();
    assert_eq!(moved["revision"], 2);
    assert_eq!(read(&server, "a"), "2");
    let now = original.fetch().header("etag").map(str::to_owned);
    assert_eq!(Some(answer["etag"].as_str().unwrap().to_owned()), now);
}

#[test]
fn rule_5_md5s_become_sha256s_of_what_was_uploaded() {
    let server = Server::start();
    let id = server.register("x", "private");
    let original = Original { server: &server, id: &id, token: &server.token };
    let content = b"named by its MD5";
    let target = server.announce(&id, &json!({"path": "a", "size": content.len()}));
    server.put_upload(&target, content).expect(200);
    let entry = |content: &[u8]| {
        let mut entry = put_entry("a", content);
        entry["hash"] = hex::encode(md5::Md5::digest(content)).into();
        entry["hashAlgorithm"] = "md5".into();
        entry
    };
    original.send([entry(content)].into_iter(), None).expect(200);
    let manifest = server.manifest(&id).expect(200).json();
    assert_eq!(manifest["files"]["a"]["hash"], sha256(content));
    let refused = original.send([entry(b"never uploaded")].into_iter(), None).expect(422).json();
    assert_eq!(refused["paths"], json!(["a"]));
}

#[test]
fn what_is_no_manifest_of_this_database_is_refused() {
    let server = Server::start();
    let (id, other) = (server.register("x", "public"), server.register("y", "public"));
    let original = Original { server: &server, id: &id, token: &server.token };
    server.publish(&id, &[("a", b"1")]);
    original.send([put_entry("b", b"never uploaded")].into_iter(), None).expect(422);
    let of_other = Original { id: &other, ..original };
    server.upload(&other, "b", b"of y");
    let entry = put_entry("b", b"of y");
    assert_eq!(
        original.send([entry.clone()].into_iter(), None).status,
        422,
        "rule 27: it is of another database"
    );
    of_other.send([entry].into_iter(), None).expect(200);
    let put = |body: &Value| {
        let ask = request("PUT", &format!("/api/sync/manifest/{id}")).bearer(&server.token).json(body);
        ask.send(&server.address).status
    };
    let document = |version: u64, id: &str| json!({"version": version, "databaseId": id, "name": "x", "lastSyncedAt": "", "files": {}});
    assert_eq!(put(&json!({"version": 1})), 400);
    assert_eq!(put(&document(2, &id)), 422);
    assert_eq!(put(&document(1, &other)), 422);
    let anonymous = request("PUT", &format!("/api/sync/manifest/{id}")).json(&document(1, &id));
    anonymous.send(&server.address).expect(401);
    assert_eq!(server.revision(&id), 1);
}
