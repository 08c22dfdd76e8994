//! A simulation of two to eight mounts of one database, from a seed: writes, removals and renames on each, rounds that are lost,
//! heard twice, not heard, or killed in the middle, files that stay open over a round, networks that are parted, disks that are full or
//! break in the middle of something, a server whose store fails, clocks that are wrong. In the end everybody is reached: all show
//! the same, which is what the server has; nothing that somebody wrote is lost, nothing goes that nobody has removed, nothing that
//! was removed is there, and no file was published half. The same seed gives the same, which a digest of all revisions shows.
//!
//! `PARQUEDB_TEST_SEEDS=N` runs more of them, `PARQUEDB_TEST_SEED=N` one again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::schedule::Scope;
use super::simulated::{Dice, Fault, Network, SimulatedMount};
use crate::disk::{TestRoom, count_on};
use crate::model::{DbPath, DbRef, Revision, Sha256, Token, Visibility};
use crate::remote::{Remote, RemoteOptions};
use crate::server::{Server, ServerOptions};
use crate::store::{Faulty, Registration, Store};
use crate::sync::Strategy;
use crate::vfs::{HandleId, VfsError};
use crate::wire::CommitRequest;

const STEPS: u32 = 60;
const PATHS: u32 = 8;

/// How many faults were met.
#[derive(Debug, Default)]
struct Fired {
    network: BTreeMap<String, u32>,
    store: u64,
    disk: u32,
}

struct Player {
    network: Arc<Network>,
    url: String,
    dir: tempfile::TempDir,
    mount: Option<SimulatedMount>,
    /// What was written here last, path by path, as far as nothing here has taken its place.
    wrote: BTreeMap<String, String>,
    /// A file that is being written: where, and what is there so far.
    open: Option<(HandleId, String, String)>,
}

struct World {
    dice: Dice,
    /// What all mounts' disks have.
    room: Arc<TestRoom>,
    /// What the server's store lies on.
    objects: Arc<Faulty>,
    /// To the server, past every fault.
    remote: Remote,
    id: String,
    token: Token,
    strategy: Strategy,
    players: Vec<Player>,
    /// What was shown at a path when it was removed there, or moved away.
    removed: Vec<(String, Sha256)>,
    /// How often somebody has tried to remove or move what is at a path.
    removals: BTreeMap<String, u32>,
    /// What files were in the middle of being written by those who came to an end with it.
    halves: Vec<Sha256>,
}

impl World {
    async fn of(seed: u64, room: Arc<TestRoom>) -> Self {
        let mut dice = Dice::of(seed);
        let (store, objects) = Store::failing(seed).await;
        let token = Token::new("simulated-token");
        store.ensure_account("alice").await.unwrap();
        store.allow_token(&token, "alice").await.unwrap();
        let reference: DbRef = "alice/d".parse().unwrap();
        let wanted = Registration { reference, name: "d".into(), visibility: Some(Visibility::Public) };
        let id = store.register(&wanted).await.unwrap().id().to_owned();
        let server = Server::new(store, ServerOptions::default()).await.unwrap();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        tokio::spawn(server.serve(listener, std::future::pending()));
        let direct = format!("http://{address}").parse().unwrap();
        let remote = Remote::new(&direct, Some(&token), &RemoteOptions::default()).unwrap();
        // What nothing was published to cannot be mounted.
        let first = CommitRequest {
            commit_id: "the-first-revision".into(),
            base: Revision::NONE,
            put: Vec::new(),
            delete: Vec::new(),
            message: None,
        };
        remote.commit(&id, &first).await.unwrap();
        let strategies = [Strategy::Newest, Strategy::LocalWins, Strategy::RemoteWins];
        let strategy = strategies[dice.below(3) as usize];
        let mut players = Vec::new();
        for _ in 0..2 + dice.below(7).min(dice.below(7)) {
            let network = Arc::new(Network::default());
            let url = network.lead_to(address.clone()).await;
            let dir = tempfile::tempdir().unwrap();
            let mount = SimulatedMount::open(dir.path(), &url, &token, strategy).await;
            players.push(Player { network, url, dir, mount, wrote: BTreeMap::new(), open: None });
        }
        let (removed, removals, halves) = Default::default();
        Self { dice, room, objects, remote, id, token, strategy, players, removed, removals, halves }
    }

    async fn step(&mut self, number: u32) {
        let who = self.dice.below(self.players.len() as u32) as usize;
        // Now and then no mount has room, or the server's store fails.
        self.room.is_full(self.dice.below(12) == 0);
        self.objects.fail_one_in(if self.dice.below(8) == 0 { 10 } else { 0 });
        match self.dice.below(22) {
            0..=8 => self.change(who, number).await,
            9..=16 => self.round(who).await,
            17 => {
                let parted = self.dice.below(2) == 0;
                self.players[who].network.part(parted);
            }
            18 => self.reopen(who).await,
            19 => self.begin(who, number),
            20 => self.end(who, number),
            _ => {
                // Only news.
                if let Some(mount) = &mut self.players[who].mount {
                    let _ = mount.follower.poll().await;
                }
            }
        }
    }

    fn path(&mut self) -> String {
        let n = self.dice.below(PATHS);
        if n < 3 { format!("d{n}/f{n}") } else { format!("f{n}") }
    }

    async fn change(&mut self, who: usize, number: u32) {
        let (path, what) = (self.path(), self.dice.below(10));
        let date = self.dice.below(8);
        let player = &mut self.players[who];
        let Some(mount) = &mut player.mount else { return };
        match what {
            // Whoever is writing it comes to an end first.
            0..=5 if player.open.as_ref().is_some_and(|(_, open, _)| *open == path) => {}
            0..=5 => {
                let text = format!("step {number} of {who}");
                let written = mount.write(&path, &text);
                tracing::debug!(who, path, text, ?written, "wrote");
                if written.is_err() {
                    // Emptied, perhaps, and no more.
                    player.wrote.remove(&path);
                } else {
                    player.wrote.insert(path.clone(), text);
                    // The kernel's clock does not tell two steps apart; now and then a mount's is wrong.
                    let seconds = match date {
                        0 => 4_000_000_000,
                        1 => 1000,
                        _ => 1_700_000_000 + i64::from(number),
                    };
                    let _ = mount.date(&path, seconds);
                }
            }
            _ => {
                let wrote = player.wrote.get(&path).map(|text| Sha256::of(text.as_bytes()));
                let shown = mount.hash(&path).or(wrote);
                // Names are used once, so that nothing comes back by a rename.
                let to = (what > 7).then(|| format!("moved-{number}-{who}"));
                let done = match &to {
                    None => mount.remove(&path),
                    Some(to) => mount.rename(&path, to),
                };
                tracing::debug!(who, path, ?to, ?shown, ?done, "removed or moved");
                if matches!(done, Err(VfsError::NotFound)) {
                    return;
                }
                *self.removals.entry(path.clone()).or_default() += 1;
                if done.is_ok() {
                    if let (Some((_, open, _)), Some(to)) = (&mut player.open, &to)
                        && *open == path
                    {
                        open.clone_from(to);
                    }
                    let wrote = player.wrote.remove(&path);
                    player.wrote.extend(to.zip(wrote));
                    self.removed.extend(shown.map(|shown| (path, shown)));
                }
            }
        }
    }

    /// Somebody begins to write a file.
    fn begin(&mut self, who: usize, number: u32) {
        let path = self.path();
        let player = &mut self.players[who];
        let Some(mount) = player.mount.as_mut().filter(|_| player.open.is_none()) else { return };
        let half = format!("half of step {number} of {who}");
        let begun = mount.begin(&path, &half);
        tracing::debug!(who, path, half, ?begun, "began");
        match begun {
            Ok(handle) => {
                player.wrote.insert(path.clone(), half.clone());
                player.open = Some((handle, path, half));
            }
            // Emptied, perhaps, and no more.
            Err(_) => drop(player.wrote.remove(&path)),
        }
    }

    /// And comes to an end with it.
    fn end(&mut self, who: usize, number: u32) {
        let player = &mut self.players[who];
        let (Some(mount), Some((handle, path, half))) = (&mut player.mount, player.open.take()) else {
            return;
        };
        let is_there = player.wrote.get(&path) == Some(&half);
        let ended = mount.end(handle, half.len() as u64, ", and whole");
        tracing::debug!(who, path, half, ?ended, "came to an end");
        if ended.is_err() {
            return;
        }
        self.halves.push(Sha256::of(half.as_bytes()));
        if is_there {
            player.wrote.insert(path.clone(), half + ", and whole");
            let _ = mount.date(&path, 1_700_000_000 + i64::from(number));
        }
    }

    async fn round(&mut self, who: usize) {
        let mut faults = BTreeMap::new();
        if self.dice.below(2) == 0 {
            let kinds = [Fault::Lost, Fault::Unheard, Fault::Twice, Fault::Killed, Fault::KilledBefore];
            faults.insert(1 + self.dice.below(6), kinds[self.dice.below(5) as usize]);
        }
        let polls = self.dice.below(2) == 0;
        let breaks = self.dice.below(4) == 0;
        let ends_after = breaks.then(|| self.dice.below(16));
        let player = &mut self.players[who];
        player.network.plan(faults);
        let Some(mut mount) = player.mount.take() else { return self.reopen(who).await };
        self.room.ends_after(ends_after);
        let round = async {
            if polls {
                let _ = mount.follower.poll().await;
            }
            // What fails is tried again some day.
            let done = mount.publisher.round(&mut mount.follower, Scope::All, None).await;
            tracing::debug!(who, ?done, "a round");
        };
        let ended = tokio::select! {
            () = round => true,
            () = player.network.hangs.notified() => false,
        };
        player.network.plan(BTreeMap::new());
        player.mount = Some(mount);
        let broke = self.room.has_ended();
        self.room.ends_after(None);
        if !ended || broke {
            self.reopen(who).await;
        }
    }

    /// The daemon is killed, and started again if it can be.
    async fn reopen(&mut self, who: usize) {
        let player = &mut self.players[who];
        player.open = None;
        if let Some(mount) = player.mount.take() {
            mount.kill(player.dir.path()).await;
        }
        player.network.calms_down().await;
        tracing::debug!(who, "begins anew");
        player.mount = SimulatedMount::open(player.dir.path(), &player.url, &self.token, self.strategy).await;
    }

    /// Everybody is reached, and syncs until nothing is left to do.
    async fn settle(&mut self) {
        self.room.is_full(false);
        self.objects.fail_one_in(0);
        for who in 0..self.players.len() {
            self.players[who].network.part(false);
            self.players[who].network.plan(BTreeMap::new());
            self.end(who, STEPS);
        }
        for _ in 0..8 {
            for who in 0..self.players.len() {
                if self.players[who].mount.is_none() {
                    self.reopen(who).await;
                }
                let mount = self.players[who].mount.as_mut().expect("everybody is reached");
                mount.follower.poll().await.unwrap();
                mount.publisher.round(&mut mount.follower, Scope::All, None).await.unwrap();
                mount.follower.catch_up().await;
            }
        }
    }

    /// Everything that was ever published: in order, revision by revision.
    async fn published(&self) -> Vec<Vec<(DbPath, Option<Sha256>)>> {
        let mut all = Vec::new();
        loop {
            let page = self.remote.changes(&self.id, Revision(all.len() as u64)).await.unwrap();
            for change in page.changes {
                let put = change.put.into_iter().map(|put| (put.path, put.entry.hash.sha256()));
                all.push(put.chain(change.delete.into_iter().map(|path| (path, None))).collect());
            }
            if all.len() as u64 == page.revision.0 {
                return all;
            }
        }
    }

    async fn check(mut self, seed: u64) -> (String, Fired) {
        self.settle().await;
        let published = self.published().await;
        let (mut now, mut ever, mut brought) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let mut deleted: BTreeMap<&str, u32> = BTreeMap::new();
        for (path, hash) in published.iter().flatten() {
            match hash {
                Some(hash) => {
                    let is_new = brought.insert((path.clone(), *hash)) || *hash == Sha256::of(b"");
                    assert!(is_new, "seed {seed}: {path} has come back");
                    ever.insert(*hash);
                    now.insert(path.clone(), *hash);
                }
                None => {
                    now.remove(path);
                    *deleted.entry(path.as_str()).or_default() += 1;
                }
            }
        }
        for (path, count) in deleted {
            let removals = self.removals.get(path).copied().unwrap_or_default();
            assert!(
                count <= removals,
                "seed {seed}: {path} has gone {count} times, removed {removals} times"
            );
        }
        for (path, hash) in self.removed.iter().filter(|(_, hash)| *hash != Sha256::of(b"")) {
            let there = now.get(&DbPath::parse(path).unwrap());
            assert!(there != Some(hash), "seed {seed}: {path} was removed, and is there");
        }
        for half in &self.halves {
            assert!(!ever.contains(half), "seed {seed}: a file was published while it was written");
        }
        let mut network = BTreeMap::new();
        for player in &self.players {
            for (name, count) in player.network.fired.lock().unwrap().iter() {
                *network.entry(name.clone()).or_default() += count;
            }
        }
        let store = self.objects.fired().values().sum();
        let fired = Fired { network, store, disk: self.room.refused() };
        for (who, player) in self.players.iter_mut().enumerate() {
            let mount = player.mount.as_mut().unwrap();
            assert_eq!(mount.pending(), 0, "seed {seed}: {who} has published all");
            for (path, hash) in &now {
                let read = mount.read(path.as_str()).await;
                let read = read.unwrap_or_else(|error| panic!("seed {seed}: {path} on {who}: {error}"));
                assert_eq!(Sha256::of(read.as_bytes()), *hash, "seed {seed}: {path} on {who} is {read}");
            }
            for n in 0..PATHS {
                let path = if n < 3 { format!("d{n}/f{n}") } else { format!("f{n}") };
                let there = now.contains_key(&DbPath::parse(&path).unwrap());
                assert_eq!(mount.has(&path), there, "seed {seed}: {path} on {who}");
            }
            let kept = copies(&player.dir.path().join("state"));
            for (path, text) in &player.wrote {
                let hash = Sha256::of(text.as_bytes());
                assert!(
                    ever.contains(&hash) || kept.contains(&hash),
                    "seed {seed}: what {who} wrote to {path} is lost: {text}"
                );
            }
        }
        (format!("{} {}", published.len(), Sha256::of(format!("{published:?}").as_bytes())), fired)
    }
}

/// The contents of all conflict copies below a directory.
fn copies(dir: &Path) -> BTreeSet<Sha256> {
    let (mut open, mut found) = (vec![dir.to_owned()], BTreeSet::new());
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|end| end == "conflict") {
                found.insert(Sha256::of(&std::fs::read(&entry).unwrap()));
            }
        }
    }
    found
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
        for number in 0..STEPS {
            world.step(number).await;
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
        if seed < 4 || seed % 50 == 0 {
            assert_eq!(run(seed).0, digest, "seed {seed} once more");
        }
    }
    println!("{seeds} seeds: {fired:?}");
    assert!(fired.network.len() == 6 && fired.store > 0 && fired.disk > 0, "{fired:?}");
}
