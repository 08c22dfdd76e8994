//! F47: the stream of events, heard by the library's client from a real server.

use std::future::Future;
use std::time::{Duration, Instant};

use parquedb_mount::config::token_from_file;
use parquedb_mount::model::Revision;
use parquedb_mount::remote::{Events, Remote, RemoteError, RemoteEvent, RemoteOptions};
use serde_json::json;

use crate::harness::{Server, allow_account, get, put_entry, request};

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(20);

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE, future).await.expect("it takes too long") })
}

fn owner(server: &Server) -> Remote {
    let token = token_from_file(&server.token_file()).unwrap();
    let options = RemoteOptions { retries: 0, ..RemoteOptions::default() };
    Remote::new(&server.url().parse().unwrap(), Some(&token), &options).unwrap()
}

fn nobody(server: &Server) -> Remote {
    Remote::new(&server.url().parse().unwrap(), None, &RemoteOptions::default()).unwrap()
}

/// Publishes one file of each of these names.
fn publish(server: &Server, id: &str, names: &[&str], delete: &[&str]) -> u64 {
    let base = server.revision(id);
    let content = format!("after {base}");
    names.iter().for_each(|name| server.upload(id, name, content.as_bytes()));
    let put: Vec<_> = names.iter().map(|name| put_entry(name, content.as_bytes())).collect();
    server.commit(id, &format!("commit-{base}"), base, &put, delete).expect(200);
    base + 1
}

/// Hears the events up to and with `caught-up`.
async fn beginning(events: &mut Events) -> Vec<RemoteEvent> {
    let mut all = Vec::new();
    loop {
        all.push(events.next().await.unwrap());
        if matches!(all.last(), Some(RemoteEvent::CaughtUp(_))) {
            return all;
        }
    }
}

#[test]
fn f47_who_listens_is_told_of_each_revision_and_of_what_was_missed() {
    let server = Server::start();
    let id = server.register("x", "private");
    publish(&server, &id, &["data/users/f", "data/posts/f"], &[]);
    let remote = owner(&server);
    block_on(async {
        let mut events = remote.events(&id, None).await.unwrap();
        let now = Revision(1);
        assert_eq!(beginning(&mut events).await, [RemoteEvent::Connected(now), RemoteEvent::CaughtUp(now)]);
        publish(&server, &id, &["data/users/f", "rels/r", "data/top"], &["data/posts/f"]);
        let RemoteEvent::Change(change) = events.next().await.unwrap() else { panic!() };
        let paths: Vec<_> = change.paths.iter().map(|path| path.as_str()).collect();
        assert_eq!((change.revision, change.more), (Revision(2), 0));
        assert_eq!(change.collections, ["posts", "users"]);
        assert_eq!(paths, ["data/users/f", "rels/r", "data/top", "data/posts/f"]);
        publish(&server, &id, &["g"], &[]);
        publish(&server, &id, &["h"], &[]);
        drop(events);
        // What was published since comes first, in order.
        let mut later = remote.events(&id, Some(Revision(2))).await.unwrap();
        let told = beginning(&mut later).await;
        let missed: Vec<_> = told
            .iter()
            .filter_map(|event| match event {
                RemoteEvent::Change(change) => Some((change.revision.0, change.paths[0].as_str())),
                _ => None,
            })
            .collect();
        assert_eq!((told.len(), missed), (4, vec![(3, "g"), (4, "h")]));
        // A revision that there is not: whoever knows it knows another history.
        let mut other = remote.events(&id, Some(Revision(99))).await.unwrap();
        let now = Revision(4);
        let expected = [RemoteEvent::Connected(now), RemoteEvent::Outdated(now), RemoteEvent::CaughtUp(now)];
        assert_eq!(beginning(&mut other).await, expected);
    });
    let wrong = get(&format!("/api/sync/events/{id}")).bearer(&server.token).with("Last-Event-ID", "x");
    wrong.send(&server.address).expect(400);
}

#[test]
fn f47_what_another_server_publishes_is_told_too() {
    let server = Server::start();
    let id = server.register("x", "public");
    let beside = server.beside();
    let mut times = Vec::new();
    block_on(async {
        let mut events = nobody(&beside).events(&id, None).await.unwrap();
        beginning(&mut events).await;
        for n in 0..5 {
            publish(&server, &id, &[&format!("f{n}")], &[]);
            let published = Instant::now();
            let RemoteEvent::Change(change) = events.next().await.unwrap() else { panic!() };
            assert_eq!(change.revision, Revision(n + 1));
            times.push(published.elapsed());
        }
    });
    times.sort();
    println!("told after {times:?}");
    assert!(times[2] < Duration::from_secs(2), "{times:?}");
}

#[test]
fn rule_29_nobody_listens_who_may_not_see() {
    let server = Server::start();
    let id = server.register("x", "private");
    let bob = allow_account(&server.store(), "bob");
    let route = format!("/api/sync/events/{id}");
    let absent = "/api/sync/events/db_00000000000000000000";
    for (token, status) in [(None, 401), (Some(bob), 404)] {
        let ask = |path: &str| match &token {
            Some(token) => get(path).bearer(token),
            None => get(path),
        };
        let (hidden, absent) = (ask(&route).send(&server.address), ask(absent).send(&server.address));
        assert_eq!((hidden.status, hidden.text()), (status, absent.text()));
    }
    // What was allowed is not any more.
    let body =
        |visibility: &str| json!({ "name": "x", "slug": "x", "owner": "alice", "visibility": visibility });
    let register = |visibility: &str| {
        let request = request("POST", "/api/sync/register").bearer(&server.token).json(&body(visibility));
        request.send(&server.address).expect(201);
    };
    register("public");
    block_on(async {
        let mut events = nobody(&server).events(&id, None).await.unwrap();
        beginning(&mut events).await;
        register("private");
        publish(&server, &id, &["secret"], &[]);
        let ended = events.next().await;
        assert!(matches!(ended, Err(RemoteError::Unreachable { .. })), "{ended:?}");
    });
}

#[test]
fn a_server_that_stops_does_not_wait_for_listeners() {
    let mut server = Server::start();
    let id = server.register("x", "public");
    let remote = nobody(&server);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut events = runtime.block_on(remote.events(&id, None)).unwrap();
    runtime.block_on(beginning(&mut events));
    let asked = Instant::now();
    server.restart();
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
    let ended = runtime.block_on(events.next());
    assert!(matches!(ended, Err(RemoteError::Unreachable { .. })), "{ended:?}");
    runtime.block_on(async {
        let mut again = remote.events(&id, None).await.unwrap();
        beginning(&mut again).await;
    });
}
