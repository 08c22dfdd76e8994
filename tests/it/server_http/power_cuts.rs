//! Rule 7: the power fails at any moment, also in the middle of a publish, and what was acknowledged is there afterwards.

// How many cuts fell where is told to whoever runs these by hand.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::harness::{Cli, Forgetful, Server, Tearing, get, noise, put_entry, text};

/// What was acknowledged: of each revision, its file and content.
type Acknowledged = Mutex<BTreeMap<u64, (String, Vec<u8>)>>;

/// Publishes until the server dies, and notes what was acknowledged.
fn publish_on(server: &Server, id: &str, round: u64, acknowledged: &Acknowledged) {
    for n in 0.. {
        // Some below the size from which on contents come in parts, some above.
        let length = if n % 4 == 3 { 1_200_000 } else { 5_000 };
        let content = noise(round << 32 | n, length);
        let path = format!("d{}/f{}", n % 3, n % 5);
        server.upload(id, &path, &content);
        let base = server.revision(id);
        let commit_id = format!("commit-{round}-{n}");
        let answer = server.commit(id, &commit_id, base, &[put_entry(&path, &content)], &[]).expect(200);
        let revision = answer.json()["revision"].as_u64().unwrap();
        acknowledged.lock().unwrap().insert(revision, (path, content));
    }
}

fn cut_the_power(tearing: Tearing, rounds: u64, seed: u64) {
    let place = tempfile::tempdir().unwrap();
    let disk = Forgetful::mount(place.path(), tearing);
    let store = place.path().join("store");
    let acknowledged: Arc<Acknowledged> = Arc::default();
    let mut server = Arc::new(Server::of(&store));
    let id = server.register("x", "public");
    for round in 0..rounds {
        let client = {
            let (server, id, acknowledged) = (server.clone(), id.clone(), acknowledged.clone());
            std::thread::spawn(move || publish_on(&server, &id, round, &acknowledged))
        };
        std::thread::sleep(Duration::from_millis(150 + (seed + round * 37) % 120));
        disk.power_off();
        server.kill_by_id();
        assert!(client.join().is_err(), "it publishes until the server dies");
        disk.power_on();
        drop(server);
        server = Arc::new(Server::of(&store));

        let acknowledged = acknowledged.lock().unwrap();
        let last = acknowledged.last_key_value().map_or(0, |(revision, _)| *revision);
        let now = server.revision(&id);
        assert!(
            now == last || now == last + 1,
            "round {round}: revision {now} after {last} was acknowledged"
        );
        for (revision, (path, content)) in acknowledged.iter().rev().take(20) {
            let target = format!("/db/alice/x/{path}?revision={revision}");
            assert_eq!(&get(&target).send(&server.address).expect(200).body, content, "{path} at {revision}");
        }
    }
    let said = Cli::new().run(&["fsck", "--deep", "--store", text(&store), "--json"]).expect(0).json();
    let published = acknowledged.lock().unwrap().len();
    assert!(published as u64 >= rounds, "only {published} publishes were acknowledged");
    let counts = disk.counts();
    println!("{rounds} power cuts, {published} acknowledged publishes, {counts:?}, {said}");
    assert!(counts.lost_writes + counts.lost_names > 0, "the cuts lost nothing: {counts:?}");
    drop(server);
}

#[test]
fn rule_7_a_power_cut_takes_nothing_that_was_acknowledged() {
    cut_the_power(Tearing::All, 6, 1);
}

#[test]
fn rule_7_a_power_cut_that_tears_takes_nothing_that_was_acknowledged() {
    for seed in [7, 8] {
        cut_the_power(Tearing::Random(seed), 4, seed);
    }
}
