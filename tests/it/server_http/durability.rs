//! What was acknowledged is there: after a restart, after a kill, and with two processes on one store.

use std::collections::BTreeMap;
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::Value;

use crate::harness::{Server, bytes_of, get, noise, put_entry, sha256};

#[test]
fn a_restart_keeps_everything() {
    let mut server = Server::start();
    let id = server.register("x", "public");
    let large = noise(5, 3 << 20);
    server.publish(&id, &[("large", &large), ("empty", b""), ("d/f", b"1")]);
    server.publish(&id, &[("d/f", b"2")]);
    let ask = |server: &Server| {
        let manifest = server.manifest(&id).expect(200);
        let described = get("/api/db/alice/x").send(&server.address).expect(200).json();
        (manifest.header("etag").map(str::to_owned), manifest.body, described)
    };
    let before = ask(&server);
    let token = server.token.clone();
    server.restart();
    assert_eq!(ask(&server), before);
    assert_eq!(server.token, token);
    assert_eq!(get("/db/alice/x/large").send(&server.address).expect(200).body, large);
    assert_eq!(server.publish(&id, &[("d/f", b"3")]), 3);
}

#[test]
fn a_kill_right_after_the_answer_loses_nothing() {
    let mut server = Server::start();
    let id = server.register("x", "private");
    for revision in 1..=5_u64 {
        let content = noise(revision, 100_000);
        server.upload(&id, "f", &content);
        let commit_id = format!("commit-{revision}");
        let answer =
            server.commit(&id, &commit_id, revision - 1, &[put_entry("f", &content)], &[]).expect(200);
        server.crash_and_restart();
        assert_eq!(server.revision(&id), revision);
        assert_eq!(server.manifest(&id).header("etag"), answer.json()["etag"].as_str());
        let file = get("/db/alice/x/f").bearer(&server.token).send(&server.address).expect(200);
        assert_eq!(file.body, content);
    }
}

#[test]
fn an_upload_cut_by_a_kill_leaves_nothing_that_can_be_read() {
    use std::io::Write;
    let mut server = Server::start();
    let id = server.register("x", "private");
    let content = noise(6, 20 << 20);
    let file = serde_json::json!({"path": "f", "size": content.len(), "hash": sha256(&content)});
    let target = server.announce(&id, &file);
    let route = target["url"].as_str().unwrap().strip_prefix(&server.url()).unwrap().to_owned();
    let token = target["headers"]["x-upload-token"].as_str().unwrap();
    let mut stream = std::net::TcpStream::connect(&server.address).unwrap();
    let head = format!(
        "PUT {route} HTTP/1.1\r\nHost: x\r\nX-Upload-Token: {token}\r\nContent-Length: {}\r\n\r\n",
        content.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(&content[..18 << 20]).unwrap();
    server.crash_and_restart();
    assert!(!server.has(&id, &content));
    server.commit(&id, "commit-1", 0, &[put_entry("f", &content)], &[]).expect(422);
    server.upload(&id, "f", &content);
    server.commit(&id, "commit-1", 0, &[put_entry("f", &content)], &[]).expect(200);
}

#[test]
fn two_processes_see_what_the_other_does() {
    let (one, two) = {
        let one = Server::start();
        let two = one.beside();
        (one, two)
    };
    let id = one.register("x", "private");
    one.publish(&id, &[("f", b"1")]);
    assert_eq!(two.revision(&id), 1);
    assert_eq!(two.publish(&id, &[("f", b"2")]), 2);
    let read =
        |server: &Server| get("/db/alice/x/f").bearer(&server.token).send(&server.address).expect(200).text();
    assert_eq!((read(&one), read(&two)), ("2".to_owned(), "2".to_owned()));
    get("/db/alice/x/f").send(&one.address).expect(401);
    two.register("x", "public");
    assert_eq!(get("/db/alice/x/f").send(&one.address).expect(200).text(), "2");
    two.register("x", "private");
    get("/db/alice/x/f").send(&one.address).expect(401);
}

/// The records of a database's log, oldest first, as bytes.
fn records(server: &Server, id: &str) -> BTreeMap<u64, Vec<u8>> {
    let dir = server.store().join("databases").join(id).join("revisions");
    let files = bytes_of(&dir).into_iter();
    files.map(|(name, bytes)| (name.strip_suffix(".json").unwrap().parse().unwrap(), bytes)).collect()
}

#[test]
fn rule_2_fifty_commits_race_over_two_processes() {
    const COMMITS: usize = 50;
    let one = Server::start();
    let two = one.beside();
    let id = one.register("x", "private");
    one.upload(&id, "any", b"content");
    let (next, moved) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (id, next, moved) = (&id, &next, &moved);
            let server = if thread % 2 == 0 { &one } else { &two };
            scope.spawn(move || {
                loop {
                    let n = next.fetch_add(1, Ordering::SeqCst);
                    if n >= COMMITS {
                        return;
                    }
                    let mut base = server.revision(id);
                    // Everyone who is told so has lost to someone else's commit: never more often than there are.
                    for _ in 0..=COMMITS {
                        let put = [put_entry(&format!("f{n}"), b"content")];
                        let answer = server.commit(id, &format!("commit-{n}"), base, &put, &[]);
                        if answer.status == 200 {
                            assert_eq!(answer.json()["revision"], base + 1);
                            break;
                        }
                        moved.fetch_add(1, Ordering::SeqCst);
                        let current = answer.expect(412).json()["revision"].as_u64().unwrap();
                        assert!(current > base, "told to move from {base} to {current}");
                        base = current;
                    }
                }
            });
        }
    });
    let records = records(&one, &id);
    assert!(records.keys().copied().eq(1..=COMMITS as u64), "a gap or a lost commit: {:?}", records.keys());
    let mut parent = Value::Null;
    let mut ids = Vec::new();
    for (number, bytes) in &records {
        let record: Value = serde_json::from_slice(bytes).unwrap();
        assert_eq!(
            (&record["revision"], &record["parent"]),
            (&(*number).into(), &parent),
            "the chain at {number}"
        );
        ids.push(record["commitId"].as_str().unwrap().to_owned());
        parent = sha256(bytes).into();
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), COMMITS, "each was applied once");
    assert!(moved.load(Ordering::SeqCst) > 0, "nobody ever raced");
    for server in [&one, &two] {
        assert_eq!((server.revision(&id), server.paths("x").len()), (COMMITS as u64, COMMITS));
    }
    assert_eq!(one.manifest(&id).body, two.manifest(&id).body);
}

#[test]
fn a_directory_that_is_no_store_is_not_made_one() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("precious"), "data").unwrap();
    let cli = crate::harness::Cli::new();
    let store = dir.path().to_str().unwrap();
    cli.run(&["serve", "--listen", "127.0.0.1:0", "--owner", "alice", "--store", store]).expect(2);
    assert_eq!(bytes_of(dir.path()).into_keys().collect::<Vec<_>>(), ["precious"]);
    let server = Server::start();
    let store = server.store();
    let other = ["serve", "--listen", "127.0.0.1:0", "--owner", "bob", "--store", store.to_str().unwrap()];
    cli.run(&other).expect(2);
    cli.run(&["serve", "--owner", "Not A Name", "--store", store.to_str().unwrap()]).expect(2);
    let taken =
        ["serve", "--listen", &server.address, "--owner", "alice", "--store", store.to_str().unwrap()];
    cli.run(&taken).expect(2);
}
