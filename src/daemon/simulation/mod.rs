//! A simulation of two to eight mounts of one database, from a seed: files are written, appended to, removed and renamed on each,
//! also while it is in the middle of a round; requests that are lost, carried out twice, not heard of, or during which the daemon is
//! killed; rounds of others in the middle of one; files that stay open over a round, networks that are parted, disks that are full or
//! break in the middle of something, a server whose store fails, clocks that are wrong. In the end everybody is reached: all show the
//! same, which is what the server has; nothing that somebody wrote is lost, nothing goes that nobody has removed, nothing that was
//! removed is there, and no file was published half. The same seed gives the same, which a digest of all revisions shows.
//!
//! `PARQUEDB_TEST_SEEDS=N` runs more of them, `PARQUEDB_TEST_SEED=N` one again.

mod ending;
mod mount;
mod network;
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use self::world::World;
use crate::disk::{TestRoom, count_on};

const STEPS: u32 = 60;

/// Numbers that follow from a seed.
struct Dice(TestRng);

impl Dice {
    fn of(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// One below `limit`.
    fn below(&mut self, limit: u32) -> u32 {
        self.0.next_u32() % limit
    }
}

/// How many faults were met.
#[derive(Debug, Default)]
struct Fired {
    network: BTreeMap<String, u32>,
    store: u64,
    disk: u32,
}

fn run(seed: u64) -> (String, Fired) {
    let _ = tracing_subscriber::fmt()
        .with_test_writer()
        .with_env_filter(tracing_subscriber::EnvFilter::from_env("PARQUEDB_LOG"))
        .try_init();
    let room = Arc::new(TestRoom::default());
    count_on(&room);
    let counting = room.clone();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.on_thread_start(move || count_on(&counting)).enable_all().build().unwrap();
    let ended = runtime.block_on(async {
        let mut world = World::of(seed, room).await;
        for _ in 0..STEPS {
            world.step().await;
        }
        world.check(seed).await
    });
    runtime.shutdown_background();
    ended
}

#[test]
fn mounts_converge_lose_nothing_and_bring_nothing_back() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    if let Some(seed) = number("PARQUEDB_TEST_SEED") {
        println!("seed {seed}: {:?}", run(seed));
        return;
    }
    let seeds = number("PARQUEDB_TEST_SEEDS").unwrap_or(64);
    let mut fired = Fired::default();
    for seed in 0..seeds {
        let (digest, faults) = run(seed);
        for (name, count) in faults.network {
            *fired.network.entry(name).or_default() += count;
        }
        fired.store += faults.store;
        fired.disk += faults.disk;
        if seed % 16 == 0 {
            assert_eq!(run(seed).0, digest, "seed {seed} once more");
        }
    }
    println!("{seeds} seeds: {fired:?}");
    assert!(fired.network.len() == 9 && fired.store > 0 && fired.disk > 0, "{fired:?}");
}
