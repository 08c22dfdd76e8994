//! F10: processes that publish at once; none of what they publish is lost.

use std::thread;

use super::Pair;
use crate::harness::{Cli, TempTree, number};

/// Publishes of each run; the long run has more.
const PUBLISHES: u64 = 50;
const CLIENTS: u64 = 4;

#[test]
fn f10_syncs_that_race_lose_no_update() {
    let pair = Pair::with(&[("shared", "0")]);
    let publishes = number("PARQUEDB_TEST_PUBLISHES", PUBLISHES) / CLIENTS;
    let trees: Vec<TempTree> = (0..CLIENTS).map(|_| TempTree::new()).collect();
    for tree in &trees {
        pair.cli.pull("alice/x", tree.path(), &[]).expect(0);
    }
    let planned_again: u64 = thread::scope(|scope| {
        let clients = trees.iter().enumerate().map(|(n, tree)| {
            let cli = Cli::owner(&pair.server);
            scope.spawn(move || {
                let mut again = 0;
                for round in 0..publishes {
                    tree.write(&[(&format!("client-{n}/{round}"), &format!("{n} {round}"))]);
                    // Five plans in one run; a run that lost them all is run again.
                    loop {
                        let synced = cli.sync(tree.path(), &["--retries", "0"]);
                        match synced.code {
                            0 => break,
                            7 => again += 1,
                            _ => panic!("{synced:?}"),
                        }
                    }
                }
                again
            })
        });
        let clients: Vec<_> = clients.collect();
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    println!(
        "{} publishes; {planned_again} runs were told that the remote kept changing",
        publishes * CLIENTS
    );
    let mut expected: Vec<String> =
        (0..CLIENTS).flat_map(|n| (0..publishes).map(move |round| format!("client-{n}/{round}"))).collect();
    expected.push("shared".into());
    expected.sort();
    assert_eq!(pair.server.paths("x"), expected);
    // Every publish is one revision: all of them, and no other.
    assert_eq!(pair.revision(), 1 + publishes * CLIENTS);
    for tree in &trees {
        pair.cli.sync(tree.path(), &[]).expect(0);
        assert_eq!(tree.names(), expected);
    }
    let last = format!("client-0/{}", publishes - 1);
    assert_eq!(pair.published(&last), Some(format!("0 {}", publishes - 1)));
}
