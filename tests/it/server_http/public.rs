//! The public routes: listing, metadata, manifests, files by URL.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::harness::{Server, get, sample};

fn slugs(list: &Value) -> Vec<&str> {
    list["databases"].as_array().unwrap().iter().map(|one| one["slug"].as_str().unwrap()).collect()
}

#[test]
fn the_public_listing_shows_public_databases_in_pages() {
    let server = Server::start();
    for n in 0..7 {
        server.register(&format!("p{n}"), "public");
    }
    for n in 0..3 {
        server.register(&format!("u{n}"), "unlisted");
        server.register(&format!("a-private-{n}"), "private");
    }
    let list = |query: &str| get(&format!("/api/public{query}")).send(&server.address).expect(200).json();
    let all = ["p0", "p1", "p2", "p3", "p4", "p5", "p6"];
    for (query, expected, has_more) in [
        ("", &all[..], false),
        ("?limit=7", &all[..], false),
        ("?limit=3", &all[..3], true),
        ("?limit=3&offset=3", &all[3..6], true),
        ("?offset=6", &all[6..], false),
        ("?limit=3&offset=6", &all[6..], false),
        ("?offset=7", &[], false),
        ("?offset=100000", &[], false),
        ("?limit=1000", &all[..], false),
        ("?unknown=1", &all[..], false),
    ] {
        let page = list(query);
        assert_eq!(slugs(&page), expected, "{query}");
        assert_eq!((&page["total"], &page["hasMore"]), (&7.into(), &has_more.into()), "{query}");
        let keys: BTreeSet<_> = page.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(["databases", "hasMore", "total"]));
    }
    for bad in [
        "limit=0",
        "limit=1001",
        "limit=-1",
        "limit=x",
        "limit=",
        "limit=1.5",
        "limit=99999999999999999999999",
        "offset=-1",
        "offset=100001",
        "offset=x",
        "offset=",
    ] {
        let refused = get(&format!("/api/public?{bad}")).send(&server.address).expect(400);
        assert!(refused.json()["error"].as_str().unwrap().contains(&bad[..5]), "{bad}");
    }
    // The owner's token changes nothing about what is public.
    let owner = get("/api/public").bearer(&server.token).send(&server.address).expect(200).json();
    assert_eq!(slugs(&owner), all);
}

#[test]
fn more_than_a_page_is_listed_by_default_in_fifties() {
    let server = Server::start();
    for n in 0..53 {
        server.register(&format!("d{n:02}"), "public");
    }
    let list = |query: &str| get(&format!("/api/public{query}")).send(&server.address).expect(200).json();
    let first = list("");
    assert_eq!((slugs(&first).len(), &first["total"], &first["hasMore"]), (50, &53.into(), &true.into()));
    assert_eq!(slugs(&list("?offset=50")), ["d50", "d51", "d52"]);
}

#[test]
fn metadata_has_the_seeds_keys_and_real_counts() {
    let server = Server::start();
    let id = server.register("native", "public");
    let describe = || get("/api/db/alice/native").send(&server.address).expect(200).json();
    let empty = describe();
    assert_eq!(
        (&empty["collectionCount"], &empty["entityCount"], &empty["revision"]),
        (&0.into(), &0.into(), &0.into())
    );

    let files = ["data/posts/data.parquet", "data/users/data.parquet"];
    let read = |name: &str| std::fs::read(sample("native").join(name)).unwrap();
    let contents = files.map(|name| (name, read(name)));
    let count = |name: &str| {
        let entities = std::fs::read(sample(name)).unwrap();
        serde_json::from_slice::<Value>(&entities).unwrap().as_array().unwrap().len() as u64
    };
    let (posts, users) = (count("native.posts.entities.json"), count("native.users.entities.json"));
    assert!(posts > 0 && users > 0 && posts != users);
    server.publish(&id, &[(files[0], &contents[0].1)]);
    let one = describe();
    assert_eq!((&one["collectionCount"], &one["entityCount"]), (&1.into(), &posts.into()));
    // Files that are no collection's, or no Parquet, count nothing; a copy counts again.
    let users_file = contents[1].1.as_slice();
    server.publish(
        &id,
        &[
            (files[1], users_file),
            ("data/other/data.parquet", b"not Parquet at all"),
            ("data/other/short.parquet", b"x"),
            ("data/other/empty.parquet", b""),
            ("data/loose.parquet", users_file),
            ("data/users/notes.txt", b"x"),
            ("rels/forward/users.parquet", users_file),
        ],
    );
    let described = describe();
    assert_eq!(
        (&described["collectionCount"], &described["entityCount"]),
        (&3.into(), &(posts + users).into())
    );

    let keys: BTreeSet<_> = described.as_object().unwrap().keys().map(String::as_str).collect();
    let seed = ["id", "name", "owner", "slug", "visibility", "collectionCount", "entityCount", "createdAt"];
    let ours = ["bucket", "prefix", "updatedAt", "revision", "revisionHash", "manifestEtag"];
    assert_eq!(keys, seed.into_iter().chain(ours).collect());
    assert_eq!(described["id"], *id);
    assert_eq!((&described["name"], &described["owner"]), (&"native".into(), &"alice".into()));
    assert_eq!((&described["slug"], &described["visibility"]), (&"native".into(), &"public".into()));
    assert_eq!((&described["bucket"], &described["prefix"]), (&"parquedb".into(), &"alice/native".into()));
    assert_eq!(described["revision"], 2);
    let manifest = get("/db/alice/native/_meta/manifest.json").send(&server.address).expect(200);
    assert_eq!(manifest.header("etag"), described["manifestEtag"].as_str());
    assert_eq!(manifest.header("x-parquedb-revision"), Some("2"));
    for time in ["createdAt", "updatedAt"] {
        let text = described[time].as_str().unwrap();
        assert!(text.parse::<jiff::Timestamp>().is_ok() && text.ends_with('Z'), "{time} {text}");
    }
    assert_ne!(described["updatedAt"], empty["updatedAt"], "it changes with what is published");
    let listed = get("/api/public").send(&server.address).expect(200).json();
    assert_eq!(listed["databases"][0], described);
}

#[test]
fn a_manifest_is_answered_304_where_it_is_known() {
    let server = Server::start();
    let id = server.register("x", "unlisted");
    get(&format!("/api/sync/manifest/{id}")).send(&server.address).expect(404);
    server.publish(&id, &[("f", b"1")]);
    for target in [format!("/api/sync/manifest/{id}"), "/db/alice/x/_meta/manifest.json".to_owned()] {
        let first = get(&target).send(&server.address).expect(200);
        let etag = first.header("etag").unwrap().to_owned();
        assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 2, "strong: {etag}");
        let again = get(&target).with("If-None-Match", &etag).send(&server.address).expect(304);
        assert_eq!(again.header("etag"), Some(etag.as_str()));
        get(&target).with("If-None-Match", "\"other\"").send(&server.address).expect(200);
    }
    let etag = server.manifest(&id).header("etag").unwrap().to_owned();
    server.publish(&id, &[("f", b"2")]);
    let moved = get(&format!("/api/sync/manifest/{id}")).with("If-None-Match", &etag).send(&server.address);
    assert_ne!(moved.expect(200).header("etag"), Some(etag.as_str()));
}

#[test]
fn api_answers_may_be_compressed_files_never() {
    let server = Server::start();
    let id = server.register("x", "public");
    let text = "the same again and again ".repeat(1000);
    server.publish(&id, &[("f.txt", text.as_bytes())]);
    let ask =
        |target: &str| get(target).with("Accept-Encoding", "gzip, br").send(&server.address).expect(200);
    let file = ask("/db/alice/x/f.txt");
    assert_eq!((file.header("content-encoding"), file.body == text.as_bytes()), (None, true));
    assert_eq!(ask("/api/db/alice/x").header("content-encoding"), Some("gzip"));
}

#[test]
fn urls_are_decoded_once_segment_by_segment() {
    let server = Server::start();
    let id = server.register("x", "public");
    server.publish(
        &id,
        &[
            ("we ird/ü+%.txt", b"odd"),
            ("%41", b"percent"),
            ("A", b"letter"),
            ("a/b", b"nested"),
            ("q?x=1#y", b"question"),
        ],
    );
    for (target, expected) in [
        ("we%20ird/%C3%BC%2B%25.txt", Some("odd")),
        ("we%20ird/%c3%bc+%25.txt", Some("odd")),
        ("%2541", Some("percent")),
        ("%41", Some("letter")),
        ("A?x=y", Some("letter")),
        ("a/b", Some("nested")),
        ("q%3Fx=1%23y", Some("question")),
        ("a%2Fb", None),
        ("a/./b", None),
        ("a/../A", None),
        ("a/%2e%2e/A", None),
        ("a//b", None),
        ("/a/b", None),
        ("a/b/", None),
        ("a", None),
        ("A%00", None),
        ("%FF", None),
        ("", None),
    ] {
        let answer = get(&format!("/db/alice/x/{target}")).send(&server.address);
        match expected {
            Some(text) => assert_eq!((answer.status, answer.text().as_str()), (200, text), "{target}"),
            None => assert_eq!(answer.status, 404, "{target}: {}", answer.text()),
        }
    }
}
