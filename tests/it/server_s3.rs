//! F40 and F22: stores on a real S3 server, by one process and by several, and with the faults such a store has.

// What a run raced and met is told to whoever runs it by hand.
#![allow(clippy::print_stdout)]

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::harness::{
    Cli, End, Fault, Kind, Mounting, S3Server, Server, TempTree, creates, data_files, get, noise, number,
    put_entry, sha256,
};

/// An S3 server and a parquedb server with its store in the bucket.
fn on_s3(kind: Kind, dir: &Path) -> (S3Server, Server) {
    let s3 = S3Server::start(kind, dir);
    let server = Server::with(&store_of(&s3), &[], &s3.env());
    (s3, server)
}

fn store_of(s3: &S3Server) -> String {
    format!("s3://{}/some/prefix", s3.bucket())
}

/// A command that can get at the bucket.
fn cli_on(s3: &S3Server) -> Cli {
    s3.env()
        .iter()
        .fold(Cli::new().secret(crate::harness::SECRET_KEY), |cli, (name, value)| cli.env(name, value))
}

/// What every store must do, whatever it is made of.
fn conforms(server: &mut Server, restart: bool) {
    let id = server.register("x", "public");
    let (small, large) = (noise(1, 70_000), noise(2, 20 << 20));
    assert_eq!(
        server.publish(&id, &[("d/small", &small), ("large", &large), ("empty", b""), ("ü", b"1")]),
        1
    );
    assert!(server.has(&id, &large) && !server.has(&id, b"another"));
    assert_eq!(server.publish(&id, &[("d/small", b"2")]), 2);
    let read = |server: &Server, path: &str| {
        get(&format!("/db/alice/x/{path}")).send(&server.address).expect(200).body
    };
    let check = |server: &Server| {
        assert!(read(server, "large") == large && read(server, "empty").is_empty());
        assert_eq!(
            (read(server, "d/small"), read(server, "d/small?revision=1")),
            (b"2".to_vec(), small.clone())
        );
        let part =
            get("/db/alice/x/large").with("Range", "bytes=8388600-8388700").send(&server.address).expect(206);
        assert_eq!(part.body, large[8_388_600..=8_388_700]);
        let blob = get(&format!("/api/sync/blob/{id}/{}", sha256(&small))).send(&server.address).expect(200);
        assert_eq!(blob.body, small);
    };
    check(server);
    // What is not as announced leaves nothing.
    let target =
        server.announce(&id, &serde_json::json!({"path": "w", "size": 7, "hash": sha256(b"right 1")}));
    server.put_upload(&target, b"wrong 1").expect(422);
    assert!(!server.has(&id, b"right 1"));
    // Without a hash: stored under its own.
    let target = server.announce(&id, &serde_json::json!({"path": "w", "size": 2_000_000}));
    server.put_upload(&target, &noise(3, 2_000_000)).expect(200);
    assert!(server.has(&id, &noise(3, 2_000_000)));
    let same =
        server.commit(&id, "commit-3", 2, &[put_entry("w", &noise(3, 2_000_000))], &["ü"]).expect(200).json();
    assert_eq!(
        server.commit(&id, "commit-3", 2, &[put_entry("w", &noise(3, 2_000_000))], &["ü"]).expect(200).json(),
        same
    );
    server.commit(&id, "commit-4", 2, &[put_entry("w", b"2")], &[]).expect(412);
    assert_eq!(server.paths("x"), ["d/small", "empty", "large", "w"]);
    if restart {
        server.crash_and_restart();
        check(server);
        assert_eq!(server.revision(&id), 3);
    }
}

#[test]
fn a_directory_conforms() {
    conforms(&mut Server::start(), true);
}

#[test]
fn f40_s3_conforms() {
    for kind in [Kind::S3sFs, Kind::Moto] {
        let place = tempfile::tempdir().unwrap();
        let (s3, mut server) = on_s3(kind, place.path());
        conforms(&mut server, true);
        let said = cli_on(&s3).run(&["fsck", "--deep", "--store", &store_of(&s3), "--json"]).expect(0).json();
        assert_eq!((&said["revisions"], &said["findings"]), (&3.into(), &serde_json::json!([])), "{kind:?}");
        assert!(!server.log().contains(crate::harness::SECRET_KEY));
    }
}

#[test]
fn f40_racing_publishes_over_two_servers_on_one_bucket() {
    let publishes = number("PARQUEDB_TEST_PUBLISHES", 60);
    let place = tempfile::tempdir().unwrap();
    let (s3, one) = on_s3(Kind::S3sFs, place.path());
    let two = one.beside();
    let id = one.register("x", "private");
    for n in 0..=publishes {
        one.upload(&id, "counter", n.to_string().as_bytes());
    }
    // Replies get lost, before and after what they tell of was done.
    let faults = [
        s3.front().order(Fault::LoseReply(End::Reset), publishes as usize / 12, every(7, true)),
        s3.front().order(Fault::RefuseAfterwards, publishes as usize / 12, every(5, true)),
        s3.front().order(Fault::Conflict, publishes as usize / 12, every(11, true)),
        s3.front().order(Fault::Refuse, publishes as usize / 3, every(31, false)),
    ];
    let (next, moved) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..4 {
            let server = if client % 2 == 0 { &one } else { &two };
            let (id, next, moved) = (&id, &next, &moved);
            scope.spawn(move || {
                while next.fetch_add(1, Ordering::SeqCst) < publishes {
                    count_up(server, id, client, moved);
                }
            });
        }
    });
    // Each counted one up, in one line, and none was lost.
    assert_eq!((one.revision(&id), two.revision(&id)), (publishes, publishes));
    let log = get(&format!("/api/sync/log/{id}?limit=1000"))
        .bearer(&one.token)
        .send(&two.address)
        .expect(200)
        .json();
    let mut commits: Vec<_> =
        log["log"].as_array().unwrap().iter().map(|entry| entry["commitId"].to_string()).collect();
    commits.sort();
    commits.dedup();
    assert_eq!(commits.len() as u64, publishes.min(1000), "a commit was published twice");
    for revision in 1..=publishes {
        let target = format!("/db/alice/x/counter?revision={revision}");
        assert_eq!(
            get(&target).bearer(&one.token).send(&one.address).expect(200).text(),
            revision.to_string()
        );
    }
    cli_on(&s3).run(&["fsck", "--deep", "--store", &store_of(&s3)]).expect(0);
    let hits: Vec<_> = faults.iter().map(|order| order.hits()).collect();
    println!(
        "{publishes} publishes by 4 clients over 2 servers, {} told to plan again, faults {hits:?}",
        moved.load(Ordering::SeqCst)
    );
    assert!(hits.iter().all(|hits| *hits > 0), "{hits:?}");
    assert!(moved.load(Ordering::SeqCst) > 0, "nobody ever raced");
}

/// Every n-th request, or every n-th that creates an object.
fn every(n: u64, creating: bool) -> impl Fn(&crate::harness::Request) -> bool + Send + Sync {
    let seen = AtomicU64::new(0);
    move |request| (!creating || creates(request)) && seen.fetch_add(1, Ordering::SeqCst) % n == n - 1
}

fn count_up(server: &Server, id: &str, client: u64, moved: &AtomicU64) {
    let mut base = server.revision(id);
    loop {
        let number = (base + 1).to_string();
        let put = [put_entry("counter", number.as_bytes())];
        let commit_id = format!("client-{client}-at-{base}");
        let answer = loop {
            // Whoever has no answer, or one that tells nothing, sends the same again (rule 3).
            let answer = server.commit(id, &commit_id, base, &put, &[]);
            if answer.status != 500 {
                break answer;
            }
        };
        if answer.status == 200 {
            assert_eq!(answer.json()["revision"], base + 1);
            return;
        }
        moved.fetch_add(1, Ordering::SeqCst);
        base = answer.expect(412).json()["revision"].as_u64().unwrap();
    }
}

#[test]
fn a_publish_costs_the_same_requests_whatever_the_database_has() {
    let place = tempfile::tempdir().unwrap();
    let (s3, server) = on_s3(Kind::S3sFs, place.path());
    let mut costs = Vec::new();
    for entries in [10_u64, 5_000] {
        let id = server.register(&format!("n{entries}"), "private");
        server.upload(&id, "same", b"the same in all");
        let put: Vec<_> = (0..entries).map(|n| put_entry(&format!("f{n}"), b"the same in all")).collect();
        server.commit(&id, "commit-1", 0, &put, &[]).expect(200);
        let publish = |n: u64| {
            let content = format!("{entries} {n}");
            let before = s3.front().requests();
            server.upload(&id, "one", content.as_bytes());
            let put = [put_entry("one", content.as_bytes())];
            server.commit(&id, &format!("commit-x{n}"), n, &put, &[]).expect(200);
            s3.front().requests() - before
        };
        // The first one may look at the store's clock.
        publish(1);
        costs.push(publish(2));
    }
    println!("requests for a publish: {costs:?}");
    assert_eq!(costs[0], costs[1]);
}

#[test]
fn a_store_that_overwrites_is_refused_and_one_writer_may_use_it() {
    let place = tempfile::tempdir().unwrap();
    let s3 = S3Server::start(Kind::S3sFs, place.path());
    s3.front().lie(true);
    let store = store_of(&s3);
    let refused = cli_on(&s3)
        .run(&["serve", "--owner", "alice", "--listen", "127.0.0.1:0", "--store", &store])
        .expect(2);
    assert!(
        refused.stderr.contains("overwrites") && refused.stderr.contains("--single-writer"),
        "{refused:?}"
    );
    let mut one = Server::with(&store, &["--single-writer"], &s3.env());
    conforms(&mut one, false);
    let id = one.register("x", "public");
    // Another one that takes it over is noticed before anything is overwritten.
    let two = Server::with(&store, &["--single-writer"], &s3.env());
    two.upload(&id, "ü", b"by two");
    two.commit(&id, "commit-by-two", 3, &[put_entry("ü", b"by two")], &[]).expect(200);
    one.upload(&id, "ü", b"by one");
    one.commit(&id, "commit-by-one", 4, &[put_entry("ü", b"by one")], &[]).expect(500);
    assert_eq!(get("/db/alice/x/%C3%BC").send(&one.address).expect(200).text(), "by two");
    assert_eq!((one.revision(&id), two.revision(&id)), (4, 4));
}

#[test]
fn a_store_that_is_away_is_not_empty() {
    let place = tempfile::tempdir().unwrap();
    let (mut s3, server) = on_s3(Kind::S3sFs, place.path());
    let id = server.register("x", "public");
    server.publish(&id, &[("f", b"1")]);
    s3.kill();
    for target in
        ["/db/alice/x/f", "/db/alice/x/never", "/db/alice/never/f", "/api/db/alice/x", "/api/public"]
    {
        assert_eq!(get(target).send(&server.address).status, 500, "{target}: rule 15");
    }
    s3.start_again();
    assert_eq!(get("/db/alice/x/f").send(&server.address).expect(200).text(), "1");
    assert_eq!(server.publish(&id, &[("f", b"2")]), 2);
    let nowhere = cli_on(&s3).env("AWS_ENDPOINT", "http://127.0.0.1:9");
    nowhere.run(&["fsck", "--store", &store_of(&s3)]).expect(1);
}

#[test]
fn f22_what_lies_in_a_bucket_is_copied_exported_and_mounted() {
    let place = tempfile::tempdir().unwrap();
    let (s3, server) = on_s3(Kind::S3sFs, place.path());
    let tree = TempTree::with(&[("data/a", "one"), ("data/b", "two")]);
    let cli = Cli::owner(&server);
    cli.push(tree.path(), &["--slug", "x", "--visibility", "public"]).expect(0);
    // A rename sends nothing (F46).
    std::fs::rename(tree.at("data/b"), tree.at("data/c")).unwrap();
    let said = cli.push(tree.path(), &["--slug", "x", "--json"]).expect(0).json();
    assert_eq!((&said["bytesSent"], &said["revision"]), (&0.into(), &2.into()), "{said}");
    let mount = Mounting::at(&server.url(), "alice/x").mount();
    assert_eq!(std::fs::read_to_string(mount.at("data/c")).unwrap(), "two");
    let (copy, exported) = (TempTree::new(), TempTree::new());
    let on_s3 = cli_on(&s3);
    on_s3.run(&["backup", "--store", &store_of(&s3), copy.arg()]).expect(0);
    on_s3.run(&["export", "--plain", "alice/x", exported.arg(), "--store", &store_of(&s3)]).expect(0);
    assert_eq!(data_files(exported.path()), data_files(tree.path()));
    let other = format!("s3://{}/other", s3.bucket());
    on_s3.run(&["restore", copy.arg(), "--store", &other]).expect(0);
    let restored = Server::with(&other, &[], &s3.env());
    assert_eq!(get("/db/alice/x/data/c").send(&restored.address).expect(200).text(), "two");
    assert_eq!(get("/db/alice/x/data/b?revision=1").send(&restored.address).expect(200).text(), "two");
    on_s3.run(&["gc", "--store", &store_of(&s3), "--keep", "1"]).expect(0);
    on_s3.run(&["fsck", "--deep", "--store", &store_of(&s3)]).expect(0);
    on_s3.run(&["fsck", "--store", &format!("s3://{}/nothing", s3.bucket())]).expect(5);
}
