//! Contents by their hash, and URLs that give one file to whoever has them.

use serde_json::{Value, json};

use crate::harness::{Server, allow_account, get, noise, request, sha256};

#[test]
fn rule_27_knowing_a_hash_grants_nothing() {
    let server = Server::start();
    let (id, other) = (server.register("x", "private"), server.register("y", "public"));
    let secret = noise(1, 100_000);
    server.publish(&id, &[("f", &secret)]);
    server.publish(&id, &[("f", b"later")]);
    server.publish(&other, &[("f", b"of y")]);
    server.upload(&id, "never", b"not published");
    let bob = allow_account(&server.store(), "bob");
    let blob = |id: &str, content: &[u8]| get(&format!("/api/sync/blob/{id}/{}", sha256(content)));
    for content in [&secret[..], b"later"] {
        let own = blob(&id, content).bearer(&server.token).send(&server.address).expect(200);
        assert_eq!(own.body, content, "any kept revision");
        blob(&id, content).send(&server.address).expect(401);
        blob(&id, content).bearer(&bob).send(&server.address).expect(404);
        blob(&other, content).bearer(&server.token).send(&server.address).expect(404);
    }
    blob(&id, b"not published").bearer(&server.token).send(&server.address).expect(404);
    blob(&other, b"of y").send(&server.address).expect(200);
    let part =
        blob(&id, &secret).bearer(&server.token).with("Range", "bytes=5-9").send(&server.address).expect(206);
    assert_eq!(part.body, secret[5..10]);
    server.publish(&id, &[("g", b"newer")]);
    assert_eq!(blob(&id, b"newer").bearer(&server.token).send(&server.address).expect(200).body, b"newer");
    get(&format!("/api/sync/blob/{id}/abc")).bearer(&server.token).send(&server.address).expect(400);

    // Nor may it be published elsewhere, or said to exist.
    assert!(!server.has(&other, &secret));
    let put = [crate::harness::put_entry("stolen", &secret)];
    server.commit(&other, "commit-x", 1, &put, &[]).expect(422);
}

#[test]
fn a_download_url_gives_one_file_as_it_was() {
    let server = Server::start();
    let id = server.register("x", "private");
    server.publish(&id, &[("d/ü f", b"first"), ("g", b"other")]);
    let ask = |token: Option<&str>, paths: Value| {
        let body = json!({"databaseId": id, "paths": paths});
        let ask = request("POST", "/api/sync/download-urls").json(&body);
        let ask = if let Some(token) = token { ask.bearer(token) } else { ask };
        ask.send(&server.address)
    };
    ask(None, json!(["g"])).expect(401);
    ask(Some(&server.token), json!(["never"])).expect(422);
    let urls = ask(Some(&server.token), json!(["d/ü f", "g"])).expect(200).json();
    let route =
        |n: usize| urls["urls"][n]["url"].as_str().unwrap().strip_prefix(&server.url()).unwrap().to_owned();
    assert_eq!(get(&route(0)).send(&server.address).expect(200).text(), "first");
    server.publish(&id, &[("d/ü f", b"second")]);
    assert_eq!(get(&route(0)).send(&server.address).expect(200).text(), "first", "as it was");
    let (path, token) = (route(0), route(1));
    let mixed = format!("{}?{}", path.split_once('?').unwrap().0, token.split_once('?').unwrap().1);
    get(&mixed).send(&server.address).expect(401);
    get(path.split_once('?').unwrap().0).send(&server.address).expect(401);
    get(&format!("{path}0")).send(&server.address).expect(401);
}
