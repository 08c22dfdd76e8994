//! Uploads: a permission is for one file, once; what does not hold its announcement leaves nothing; and what is
//! uploaded is not yet published.

use serde_json::{Value, json};

use crate::harness::{Server, allow_account, bytes_of, get, noise, put_entry, request, sha256};

const CONTENT: &[u8] = b"an uploaded content";

fn announced(content: &[u8]) -> Value {
    json!({"path": "d/f", "size": content.len(), "hash": sha256(content)})
}

/// A PUT to `target` as announced, but for what the caller changes.
fn put(server: &Server, target: &Value) -> crate::harness::Request {
    let route = target["url"].as_str().unwrap().strip_prefix(&server.url()).unwrap().to_owned();
    request("PUT", &route).with("X-Upload-Token", target["headers"]["x-upload-token"].as_str().unwrap())
}

#[test]
fn an_announced_upload_is_taken_once() {
    let server = Server::start();
    let id = server.register("x", "private");
    let target = server.announce(&id, &announced(CONTENT));
    assert_eq!(target["path"], "d/f");
    assert!(target["url"].as_str().unwrap().ends_with(&format!("/api/sync/upload/{id}/d%2Ff")), "{target}");
    assert!(
        target["expiresAt"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap() > jiff::Timestamp::now()
    );
    assert!(!server.has(&id, CONTENT));

    let done = put(&server, &target).body(CONTENT).send(&server.address).expect(200).json();
    assert_eq!((&done["success"], &done["path"]), (&true.into(), &"d/f".into()));
    assert!(server.has(&id, CONTENT));
    put(&server, &target).body(CONTENT).send(&server.address).expect(401);
    let again = server.announce(&id, &announced(CONTENT));
    assert_eq!((&again["exists"], &again["url"]), (&true.into(), &"".into()), "it need not be sent again");
}

#[test]
fn a_permission_is_for_its_path_and_database_only() {
    let server = Server::start();
    let (id, other) = (server.register("x", "public"), server.register("y", "public"));
    let target = server.announce(&id, &announced(CONTENT));
    let token = target["headers"]["x-upload-token"].as_str().unwrap();
    let before = bytes_of(&server.store());
    for route in [
        format!("/api/sync/upload/{id}/d%2Fother"),
        format!("/api/sync/upload/{id}/d%252Ff"),
        format!("/api/sync/upload/{id}/..%2Fd%2Ff"),
        format!("/api/sync/upload/{other}/d%2Ff"),
        "/api/sync/upload/db_000000000000000000000000/d%2Ff".to_owned(),
    ] {
        let ask = request("PUT", &route).with("X-Upload-Token", token).bearer(&server.token).body(CONTENT);
        assert_eq!(ask.send(&server.address).status, 401, "{route}");
    }
    let route = format!("/api/sync/upload/{id}/d%2Ff");
    for wrong in
        [None, Some(""), Some("000000000000000000000000000000000000000000000000"), Some(&server.token)]
    {
        let ask = request("PUT", &route).bearer(&server.token).body(CONTENT);
        let ask = if let Some(wrong) = wrong { ask.with("X-Upload-Token", wrong) } else { ask };
        assert_eq!(ask.send(&server.address).status, 401, "{wrong:?}");
    }
    assert_eq!(bytes_of(&server.store()), before, "nothing was stored");
    // A mistaken path has not used the permission up; it needs no other token.
    put(&server, &target).body(CONTENT).send(&server.address).expect(200);
}

#[test]
fn what_is_not_as_announced_is_refused_and_nothing_is_stored() {
    let server = Server::start();
    let id = server.register("x", "private");
    let before = bytes_of(&server.store());
    // The larger one is written in parts while it arrives.
    for content in [CONTENT.to_vec(), noise(3, 9 << 20)] {
        let mut altered = content.clone();
        altered[10] ^= 1;
        let longer = [&content[..], b"!"].concat();
        let shorter = &content[..content.len() - 1];
        for (what, sent) in
            [("altered", &altered[..]), ("longer", &longer), ("shorter", shorter), ("nothing", b"")]
        {
            for hashed in [true, false] {
                if what == "altered" && !hashed {
                    continue;
                }
                let mut file = announced(&content);
                if !hashed {
                    file.as_object_mut().unwrap().remove("hash");
                }
                let told = put(&server, &server.announce(&id, &file)).body(sent).send(&server.address);
                assert_eq!(told.status, 422, "{what} of {} bytes: {}", content.len(), told.text());
                let untold = put(&server, &server.announce(&id, &file)).chunked(sent).send(&server.address);
                assert_eq!(
                    untold.status,
                    422,
                    "{what} of {} bytes, chunked: {}",
                    content.len(),
                    untold.text()
                );
            }
        }
        assert!(!server.has(&id, &content) && !server.has(&id, &altered));
        let left: Vec<_> =
            bytes_of(&server.store()).into_keys().filter(|key| !before.contains_key(key)).collect();
        assert!(left.is_empty(), "left in the store: {left:?}");
    }
    let target = server.announce(&id, &announced(CONTENT));
    put(&server, &target).chunked(CONTENT).send(&server.address).expect(200);
}

#[test]
fn an_upload_without_a_hash_is_found_by_its_own() {
    let server = Server::start();
    let id = server.register("x", "private");
    for content in [CONTENT.to_vec(), noise(4, 2 << 20), Vec::new()] {
        let target = server.announce(&id, &json!({"path": "f", "size": content.len()}));
        put(&server, &target).body(&content).send(&server.address).expect(200);
        assert!(server.has(&id, &content), "{} bytes", content.len());
    }
}

#[test]
fn requests_that_cannot_be_are_refused() {
    let server = Server::start();
    let id = server.register("x", "private");
    let ask = |body: Value| {
        request("POST", "/api/sync/upload-urls")
            .bearer(&server.token)
            .json(&body)
            .send(&server.address)
            .status
    };
    for path in ["", "../x", "/x", "a//b", "a\0b", &"n".repeat(256)] {
        assert_eq!(ask(json!({"databaseId": id, "files": [{"path": path, "size": 1}]})), 400, "{path:?}");
    }
    for file in
        [json!({"path": "f"}), json!({"path": "f", "size": -1}), json!({"path": "f", "size": 1, "hash": "x"})]
    {
        assert_eq!(ask(json!({"databaseId": id, "files": [file]})), 400, "{file}");
    }
    let many: Vec<_> = (0..1001).map(|n| json!({"path": format!("f{n}"), "size": 1})).collect();
    assert_eq!(ask(json!({"databaseId": id, "files": many})), 400);
    assert_eq!(ask(json!({"databaseId": id, "files": many[..1000]})), 200);
    assert_eq!(ask(json!({"databaseId": "db_000000000000000000000000", "files": []})), 404);
    assert_eq!(ask(json!({"databaseId": "../../accounts", "files": []})), 404);
}

#[test]
fn what_is_not_published_cannot_be_read() {
    let server = Server::start();
    let id = server.register("x", "public");
    server.publish(&id, &[("published", b"published")]);
    let secret = b"not yet for anyone's eyes";
    server.upload(&id, "d/f", secret);
    let hash = sha256(secret);
    for target in [
        "/db/alice/x/d/f".to_owned(),
        format!("/db/alice/x/{hash}"),
        format!("/db/alice/x/contents/{}/{hash}", &hash[..2]),
        format!("/api/sync/blob/{id}/{hash}"),
        format!("/api/sync/upload/{id}/d%2Ff"),
    ] {
        for ask in [get(&target), get(&target).bearer(&server.token)] {
            let answer = ask.send(&server.address);
            assert!(answer.status >= 400, "{target}: {}", answer.status);
            assert!(!answer.body.windows(6).any(|part| part == b"anyone"), "{target}");
        }
    }
    // Its existence is the publisher's own knowledge.
    let bob = allow_account(&server.store(), "bob");
    let body = json!({"databaseId": id, "files": [announced(secret)]});
    request("POST", "/api/sync/upload-urls").bearer(&bob).json(&body).send(&server.address).expect(403);
    // Published and then deleted, it is out of sight again.
    server.commit(&id, "publish-it", 1, &[put_entry("d/f", secret)], &[]).expect(200);
    assert_eq!(get("/db/alice/x/d/f").send(&server.address).expect(200).body, secret);
    server.commit(&id, "delete-it", 2, &[], &["d/f"]).expect(200);
    get("/db/alice/x/d/f").bearer(&server.token).send(&server.address).expect(404);
}
