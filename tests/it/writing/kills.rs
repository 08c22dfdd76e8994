//! `kill -9` of the daemon in the middle of what eight workloads do: nothing that was acknowledged is lost.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::model::{Likes, Model, NOTHING, Op};
use super::mounting;
use crate::harness::{Random, Server, noise, number};

/// What each workload likes to do, in a directory of its own.
const WORKLOADS: [(&str, Likes); 8] = [
    ("append", Likes { append: 9, names: 1, ..NOTHING }),
    ("overwrite", Likes { write: 1, ..NOTHING }),
    ("truncate", Likes { write: 4, set_len: 3, ..NOTHING }),
    ("punch", Likes { write: 3, punch: 3, append: 1, ..NOTHING }),
    ("save", Likes { save: 1, ..NOTHING }),
    ("names", Likes { names: 9, write: 1, ..NOTHING }),
    ("dirs", Likes { dirs: 5, names: 4, append: 1, ..NOTHING }),
    ("all", Likes { write: 5, append: 3, set_len: 2, punch: 2, save: 2, names: 5, dirs: 3, ..NOTHING }),
];

/// The remote's files that a workload begins with.
pub fn files(workload: &str) -> Vec<(String, Vec<u8>)> {
    let file = |n: usize| {
        let dir = if n.is_multiple_of(2) { "" } else { "sub/" };
        (format!("{dir}base{n}"), noise((workload.len() * 100 + n) as u64, 20_000 * n))
    };
    (0..8).map(file).collect()
}

/// A server with the files of all workloads.
pub fn server() -> Server {
    let server = Server::start();
    let id = server.register("d", "public");
    let all: Vec<(String, Vec<u8>)> = WORKLOADS
        .iter()
        .flat_map(|(name, _)| {
            files(name).into_iter().map(move |(path, bytes)| (format!("{name}/{path}"), bytes))
        })
        .collect();
    let borrowed: Vec<(&str, &[u8])> = all.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    server.publish(&id, &borrowed);
    server
}

/// Does what the workload likes until an operation fails; which one, for it may be done.
fn work(model: &mut Model, likes: &Likes, chance: &mut Random, dir: &Path, done: &AtomicUsize) -> Op {
    loop {
        let op = model.choose(likes, chance);
        if op.run(dir).is_err() {
            return op;
        }
        model.apply(&op);
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn f08_kill_9_loses_nothing_that_was_acknowledged() {
    let kills = number("PARQUEDB_TEST_KILLS", 13);
    let seed = number("PARQUEDB_TEST_SEED", u64::from(std::process::id()));
    println!("seed {seed}");
    let server = server();
    for flag in ["--read-timeout=9", "--no-passthrough"] {
        let mounting = mounting(&server).arg(flag).lasting(Duration::from_secs(3600));
        let mut chance = Random(seed);
        let mut models: Vec<Model> = WORKLOADS.iter().map(|(name, _)| Model::with(&files(name))).collect();
        let mut acknowledged = 0;
        for kill in 0..kills {
            let mount = mounting.mount();
            let done = AtomicUsize::new(0);
            let pause = Duration::from_millis(5 + chance.index(400) as u64);
            let seeds: Vec<u64> = WORKLOADS.iter().map(|_| chance.index(1 << 40) as u64).collect();
            let (root, killed) = (mount.path(), &done);
            let in_flight: Vec<Op> = thread::scope(|scope| {
                let working: Vec<_> = models
                    .iter_mut()
                    .zip(&WORKLOADS)
                    .zip(seeds)
                    .map(|((model, (name, likes)), seed)| {
                        let dir = root.join(name);
                        scope.spawn(move || work(model, likes, &mut Random(seed), &dir, killed))
                    })
                    .collect();
                thread::sleep(pause);
                mount.kill9();
                working.into_iter().map(|working| working.join().unwrap()).collect()
            });
            acknowledged += done.load(Ordering::Relaxed);
            let mount = mounting.mount();
            let status = server.status(&mount);
            assert!(
                status.contains("not published") && !status.contains("Nothing"),
                "nothing was pending: {status}"
            );
            for ((model, (name, _)), op) in models.iter_mut().zip(&WORKLOADS).zip(&in_flight) {
                let dir = mount.at(name);
                if let Some(what) = model.differs_but_for(op, &dir) {
                    panic!("seed {seed}, kill {kill}, {name}: {what}\n{}", mount.log());
                }
                *model = Model::of(&dir);
            }
            mount.unmount();
        }
        println!("{kills} kills, {acknowledged} operations acknowledged, {flag}");
        assert!(acknowledged as u64 > kills * 100, "{acknowledged}");
    }
}
