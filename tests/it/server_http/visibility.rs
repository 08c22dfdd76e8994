//! F19: visibility by identity by route. What may not be seen cannot be told from what is not there (rule 29).

use serde_json::json;

use crate::harness::{Request, Response, Server, allow_account, get, head, request};

const CONTENT: &[u8] = b"the content of f";

/// A server with one published database of each visibility, and a second account's token.
fn three_databases() -> (Server, [(&'static str, String); 3], String) {
    let server = Server::start();
    let databases = ["public", "unlisted", "private"].map(|visibility| {
        let id = server.register(&format!("{visibility}-one"), visibility);
        server.publish(&id, &[("data/x/f", CONTENT)]);
        (visibility, id)
    });
    let bob = allow_account(&server.store(), "bob");
    (server, databases, bob)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Who {
    Anonymous,
    /// The original client sends an empty token where it has none.
    EmptyToken,
    Other,
    Owner,
    BadToken,
    NotBearer,
}

impl Who {
    const ALL: [Self; 6] =
        [Self::Anonymous, Self::EmptyToken, Self::Other, Self::Owner, Self::BadToken, Self::NotBearer];

    fn asks(self, request: Request, owner: &str, other: &str) -> Request {
        match self {
            Self::Anonymous => request,
            Self::EmptyToken => request.with("Authorization", "Bearer "),
            Self::Other => request.bearer(other),
            Self::Owner => request.bearer(owner),
            Self::BadToken => request.bearer("pqt_nobody_knows_me"),
            Self::NotBearer => request.with("Authorization", "Basic YWxpY2U6cHc="),
        }
    }
}

/// The read routes of a database that is called so.
fn reads(slug: &str, id: &str) -> [(&'static str, Request); 6] {
    [
        ("metadata", get(&format!("/api/db/alice/{slug}"))),
        ("metadata, HEAD", head(&format!("/api/db/alice/{slug}"))),
        ("file", get(&format!("/db/alice/{slug}/data/x/f"))),
        ("file, HEAD", head(&format!("/db/alice/{slug}/data/x/f")).with("Range", "bytes=0-0")),
        ("manifest", get(&format!("/db/alice/{slug}/_meta/manifest.json"))),
        ("manifest by id", get(&format!("/api/sync/manifest/{id}"))),
    ]
}

/// All of an answer but what changes from one moment to the next.
fn told(response: Response) -> Response {
    let headers = response.headers.into_iter().filter(|(name, _)| name != "date");
    Response { headers: headers.collect(), ..response }
}

#[test]
fn every_read_route_by_visibility_and_identity() {
    let (server, databases, bob) = three_databases();
    for (visibility, id) in &databases {
        let slug = format!("{visibility}-one");
        for (route, ask) in reads(&slug, id) {
            for who in Who::ALL {
                let response = who.asks(ask.clone(), &server.token, &bob).send(&server.address);
                let hidden = *visibility == "private";
                let expected = match who {
                    Who::BadToken | Who::NotBearer => 401,
                    Who::Owner => 200,
                    Who::Other if hidden => 404,
                    Who::Anonymous | Who::EmptyToken if hidden => 401,
                    _ => 200,
                };
                // Which of 200 and 206 a HEAD with a range is, is another test's matter.
                let status = if response.status == 206 { 200 } else { response.status };
                assert_eq!(status, expected, "{visibility} {route} {who:?}: {}", response.text());
                if route == "file" && expected == 200 {
                    assert_eq!(response.body, CONTENT);
                }
                let asks_for_token = response.header("www-authenticate") == Some("Bearer");
                assert_eq!(asks_for_token, expected == 401, "{visibility} {route} {who:?}");
                assert_eq!(response.header("access-control-allow-origin"), Some("*"));
            }
        }
    }
}

#[test]
fn rule_29_forbidden_and_absent_are_the_same_answer_byte_for_byte() {
    let (server, databases, bob) = three_databases();
    let private = &databases[2].1;
    let nowhere =
        [("absent-one", "db_000000000000000000000000"), ("Not A Slug", "db_zz"), ("private-on", "x")];
    for who in Who::ALL.into_iter().filter(|who| *who != Who::Owner) {
        for (slug, id) in nowhere {
            let absent = reads(&slug.replace(' ', "%20"), id);
            for ((route, forbidden), (_, absent)) in reads("private-one", private).into_iter().zip(absent) {
                let forbidden = told(who.asks(forbidden, &server.token, &bob).send(&server.address));
                let absent = told(who.asks(absent, &server.token, &bob).send(&server.address));
                assert_eq!(forbidden, absent, "{route} {who:?} {slug}");
                assert!(!forbidden.text().contains("private-one"), "{route} {who:?}");
            }
        }
    }
    // A path in a database that may not be seen tells nothing either.
    for path in
        ["data/x/f", "data/x/missing", "_meta/manifest.json", "data", "..", "%2e%2e/x", "", "data/x/f/"]
    {
        let ask = |slug: &str| told(get(&format!("/db/alice/{slug}/{path}")).send(&server.address));
        assert_eq!(ask("private-one"), ask("absent-one"), "{path}");
    }
}

#[test]
fn the_write_routes_by_visibility_and_identity() {
    let (server, databases, bob) = three_databases();
    let file = json!({"path": "new", "size": 1});
    for (visibility, id) in &databases {
        let urls = json!({"databaseId": id, "files": [file]});
        let commit = json!({"commitId": "commit-by-a-stranger", "base": 1, "delete": ["data/x/f"]});
        for who in Who::ALL.into_iter().filter(|who| *who != Who::Owner) {
            let hidden = *visibility == "private";
            let expected = match who {
                Who::Other if hidden => 404,
                Who::Other => 403,
                _ => 401,
            };
            for ask in [
                request("POST", "/api/sync/upload-urls").json(&urls),
                request("POST", &format!("/api/sync/commit/{id}")).json(&commit),
            ] {
                let target = ask.target.clone();
                let response = who.asks(ask, &server.token, &bob).send(&server.address);
                assert_eq!(response.status, expected, "{visibility} {target} {who:?}: {}", response.text());
                assert!(response.json()["error"].is_string());
            }
        }
        assert_eq!(server.revision(id), 1, "nothing was published");
    }
    // Absent and forbidden, for writes.
    for who in [Who::Anonymous, Who::Other] {
        let ask = |id: &str| {
            let ask = request("POST", &format!("/api/sync/commit/{id}"))
                .json(&json!({"commitId": "commit-by-a-stranger", "base": 0}));
            told(who.asks(ask, &server.token, &bob).send(&server.address))
        };
        assert_eq!(ask(&databases[2].1), ask("db_000000000000000000000000"), "{who:?}");
    }
}

#[test]
fn registering_is_for_oneself() {
    let (server, databases, bob) = three_databases();
    let register = |token: Option<&str>, body: serde_json::Value| {
        let ask = request("POST", "/api/sync/register").json(&body);
        let ask = if let Some(token) = token { ask.bearer(token) } else { ask };
        ask.send(&server.address)
    };
    let named = |owner: &str| json!({"name": "x", "owner": owner});
    register(None, named("alice")).expect(401);
    register(Some(""), named("alice")).expect(401);
    register(Some("pqt_bad"), named("alice")).expect(401);
    register(Some(&bob), named("alice")).expect(403);
    let created = register(Some(&bob), json!({"name": "My Data!", "owner": "bob"})).expect(201).json();
    assert_eq!((&created["bucket"], &created["prefix"]), (&"parquedb".into(), &"bob/my-data".into()));
    let again = register(Some(&bob), json!({"name": "Another", "slug": "my-data", "owner": "bob"}))
        .expect(201)
        .json();
    assert_eq!(again["id"], created["id"], "idempotent by owner and slug");
    let described = get("/api/db/bob/my-data").bearer(&bob).send(&server.address).expect(200).json();
    assert_eq!(described["visibility"], "private", "the default");
    let same = register(Some(&server.token), json!({"name": "x", "slug": "private-one", "owner": "alice"}));
    assert_eq!(same.expect(201).json()["id"], *databases[2].1);
    for bad in [
        json!({"name": "x", "owner": "alice", "slug": "Bad Slug"}),
        json!({"name": "x", "owner": "alice", "slug": ""}),
        json!({"name": "x", "owner": "alice", "slug": "../x"}),
        json!({"name": "x", "owner": "alice", "visibility": "secret"}),
        json!({"name": "", "owner": "alice"}),
        json!({"name": "日本", "owner": "alice"}),
        json!({"owner": "alice"}),
        json!([]),
    ] {
        let refused = register(Some(&server.token), bad.clone());
        assert_eq!(refused.status, 400, "{bad}: {}", refused.text());
    }
}

#[test]
fn who_one_is() {
    let (server, _, bob) = three_databases();
    let me = get("/me").bearer(&server.token).send(&server.address).expect(200).json();
    assert_eq!(me["username"], "alice");
    assert!(me["id"].as_str().unwrap().starts_with("user_"), "{me}");
    assert_eq!(get("/me").bearer(&bob).send(&server.address).expect(200).json()["username"], "bob");
    for who in [Who::Anonymous, Who::EmptyToken, Who::BadToken, Who::NotBearer] {
        who.asks(get("/me"), &server.token, &bob).send(&server.address).expect(401);
    }
    // The scheme's name has no case; a token's letters have.
    get("/me").with("Authorization", &format!("bearer {}", server.token)).send(&server.address).expect(200);
    get("/me").bearer(&server.token.to_uppercase()).send(&server.address).expect(401);
}
