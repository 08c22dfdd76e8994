//! What happens: everybody who has a mount of the database, what they do and when, as a seed says.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Dice;
use super::mount::{Daemon, SimulatedMount};
use super::network::{Fault, Meanwhile, Network, Plan};
use crate::daemon::schedule::Scope;
use crate::disk::TestRoom;
use crate::model::{DbRef, Revision, Sha256, Token, Visibility};
use crate::remote::{Remote, RemoteOptions};
use crate::server::{Server, ServerOptions};
use crate::store::{Faulty, Registration, Store};
use crate::sync::Strategy;
use crate::vfs::{HandleId, VfsError};
use crate::wire::CommitRequest;

pub(super) const PATHS: u32 = 8;

pub(super) struct Player {
    pub(super) network: Arc<Network>,
    pub(super) url: String,
    pub(super) dir: tempfile::TempDir,
    pub(super) mount: Option<SimulatedMount>,
    /// What was written here last, path by path, as far as nothing here has taken its place.
    pub(super) wrote: BTreeMap<String, String>,
    /// Something was appended to: what was there before may be being read beside all else.
    pub(super) reads: bool,
    /// A file that is being written: where, and what is there so far.
    pub(super) open: Option<(HandleId, String, String)>,
}

pub(super) struct World {
    pub(super) dice: Dice,
    /// What all mounts' disks have.
    pub(super) room: Arc<TestRoom>,
    /// What the server's store lies on.
    pub(super) objects: Arc<Faulty>,
    /// To the server, past every fault.
    pub(super) remote: Remote,
    pub(super) id: String,
    pub(super) token: Token,
    pub(super) strategy: Strategy,
    pub(super) players: Vec<Player>,
    /// How often somebody has done something.
    pub(super) acts: u32,
    /// What was written anywhere, as a whole.
    pub(super) texts: BTreeMap<Sha256, String>,
    /// What was shown at a path when it was removed there, or moved away.
    pub(super) removed: Vec<(String, Sha256)>,
    /// How often somebody has tried to remove or move what is at a path.
    pub(super) removals: BTreeMap<String, u32>,
    /// What files were in the middle of being written by those who came to an end with it.
    pub(super) halves: Vec<Sha256>,
}

/// The path of that number, below [`PATHS`].
pub(super) fn path_of(n: u32) -> String {
    if n < 3 { format!("d{n}/f{n}") } else { format!("f{n}") }
}

/// Notes a text that is at a path as a whole by now.
fn note(
    texts: &mut BTreeMap<Sha256, String>,
    wrote: &mut BTreeMap<String, String>,
    path: &str,
    text: String,
) {
    texts.insert(Sha256::of(text.as_bytes()), text.clone());
    wrote.insert(path.to_owned(), text);
}

impl World {
    pub(super) async fn of(seed: u64, room: Arc<TestRoom>) -> Self {
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
            players.push(Player {
                network,
                url,
                dir,
                mount,
                wrote: BTreeMap::new(),
                reads: false,
                open: None,
            });
        }
        let (acts, texts, removed, removals, halves) = Default::default();
        Self {
            dice,
            room,
            objects,
            remote,
            id,
            token,
            strategy,
            players,
            acts,
            texts,
            removed,
            removals,
            halves,
        }
    }

    /// What is being read is here, or cannot be had: the same always comes before what comes then.
    async fn has_read(&mut self, who: usize) {
        let player = &mut self.players[who];
        if std::mem::take(&mut player.reads) {
            player.network.calms_down().await;
        }
    }

    pub(super) async fn step(&mut self) {
        let who = self.dice.below(self.players.len() as u32) as usize;
        // Now and then no mount has room, or the server's store fails.
        self.room.is_full(self.dice.below(12) == 0);
        self.objects.fail_one_in(if self.dice.below(8) == 0 { 10 } else { 0 });
        match self.dice.below(22) {
            0..=8 => {
                self.change(who);
                self.has_read(who).await;
            }
            9..=16 => self.round(who).await,
            17 => {
                let parted = self.dice.below(2) == 0;
                self.players[who].network.part(parted);
            }
            18 => self.reopen(who).await,
            19 => self.begin(who),
            20 => self.end(who),
            _ => {
                // Only news.
                if let Some(mount) = &mut self.players[who].mount {
                    let _ = mount.daemon.as_mut().unwrap().follower.poll().await;
                }
            }
        }
    }

    fn path(&mut self) -> String {
        path_of(self.dice.below(PATHS))
    }

    fn change(&mut self, who: usize) {
        let (path, what) = (self.path(), self.dice.below(12));
        let date = self.dice.below(8);
        let number = self.act();
        let player = &mut self.players[who];
        let Some(mount) = &mut player.mount else { return };
        // The kernel's clock does not tell two steps apart; now and then a mount's is wrong.
        let seconds = match date {
            0 => 4_000_000_000,
            1 => 1000,
            _ => 1_700_000_000 + i64::from(number),
        };
        let wrote = player.wrote.get(&path).map(|text| Sha256::of(text.as_bytes()));
        match what {
            // Whoever is writing it comes to an end first.
            0..=6 if player.open.as_ref().is_some_and(|(_, open, _)| *open == path) => {}
            0..=4 => {
                let text = format!("step {number} of {who}");
                let written = mount.write(&path, &text);
                tracing::debug!(who, path, text, ?written, "wrote");
                if written.is_err() {
                    // Emptied, perhaps, and no more.
                    player.wrote.remove(&path);
                } else {
                    note(&mut self.texts, &mut player.wrote, &path, text);
                    let _ = mount.date(&path, seconds);
                }
            }
            5..=6 => {
                let there = mount.hash(&path).or(wrote).and_then(|there| self.texts.get(&there));
                let Some(there) = there else { return };
                let more = format!(", and step {number} of {who}");
                let appended = mount.append(&path, &more);
                player.reads = true;
                tracing::debug!(who, path, there, more, ?appended, "appended");
                if appended.is_err() {
                    // It is there, perhaps, and nobody was told so.
                    player.wrote.remove(&path);
                } else {
                    let text = format!("{there}{more}");
                    note(&mut self.texts, &mut player.wrote, &path, text);
                    let _ = mount.date(&path, seconds);
                }
            }
            _ => {
                let shown = mount.hash(&path).or(wrote);
                // Names are used once, so that nothing comes back by a rename.
                let above = path.split_once('/').filter(|_| what > 10);
                if above.is_some() && !mount.has(&path) {
                    // A directory with nothing in it.
                    return;
                }
                let moved = format!("moved-{number}-{who}");
                let (done, to) = match above {
                    Some((above, name)) => (mount.rename(above, &moved), Some(format!("{moved}/{name}"))),
                    None if what > 9 => (mount.rename(&path, &moved), Some(moved)),
                    None => (mount.remove(&path), None),
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

    fn act(&mut self) -> u32 {
        self.acts += 1;
        self.acts
    }

    /// Somebody begins to write a file.
    fn begin(&mut self, who: usize) {
        let path = self.path();
        let number = self.act();
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
    fn end(&mut self, who: usize) {
        let number = self.act();
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
            note(&mut self.texts, &mut player.wrote, &path, half + ", and whole");
            let _ = mount.date(&path, 1_700_000_000 + i64::from(number));
        }
    }

    async fn round(&mut self, who: usize) {
        let mut plan = Plan { no_reads: self.dice.below(10) == 0, ..Plan::default() };
        if self.dice.below(2) == 0 {
            let kinds = [Fault::Lost, Fault::Unheard, Fault::Twice, Fault::Killed, Fault::KilledBefore];
            plan.faults.insert(1 + self.dice.below(6), kinds[self.dice.below(5) as usize]);
        }
        for _ in 0..self.dice.below(3) {
            let whens = [Meanwhile::Before, Meanwhile::After];
            plan.work.insert(1 + self.dice.below(8), whens[self.dice.below(2) as usize]);
        }
        let polls = self.dice.below(2) == 0;
        let breaks = self.dice.below(4) == 0;
        self.room.ends_after(breaks.then(|| self.dice.below(16)));
        let ended = self.round_with(who, polls, plan, !breaks).await;
        let broke = self.room.has_ended();
        self.room.ends_after(None);
        if !ended || broke {
            self.reopen(who).await;
        }
    }

    /// A round. `false`: it would wait for ever.
    async fn round_with(&mut self, who: usize, polls: bool, plan: Plan, others_go_on: bool) -> bool {
        let player = &mut self.players[who];
        let daemon = player.mount.as_mut().and_then(|mount| mount.daemon.take());
        let Some(mut daemon) = daemon else { return false };
        let network = player.network.clone();
        let mut waits = network.plan(plan);
        let ended = {
            let Daemon { follower, publisher } = &mut daemon;
            let mut round = Box::pin(async move {
                if polls {
                    let _ = follower.poll().await;
                }
                // What fails is tried again some day.
                let done = publisher.round(follower, Scope::All, None).await;
                tracing::debug!(who, ?done, "a round");
            });
            loop {
                tokio::select! {
                    biased;
                    () = &mut round => break true,
                    () = network.hangs.notified() => break false,
                    Some(waiting) = waits.recv() => {
                        self.meanwhile(who, others_go_on).await;
                        drop(waiting);
                    }
                }
            }
        };
        if ended {
            self.has_read(who).await;
            network.calm();
        }
        if let Some(mount) = &mut self.players[who].mount {
            mount.daemon = Some(daemon);
        }
        ended
    }

    /// What goes on while a round waits for an answer.
    async fn meanwhile(&mut self, who: usize, others_go_on: bool) {
        if let Some(mount) = &self.players[who].mount {
            mount.is_quiet().await;
        }
        let times = 1 + self.dice.below(3);
        tracing::debug!(who, times, "somebody works");
        for _ in 0..times {
            match self.dice.below(8) {
                0 => self.begin(who),
                1 => self.end(who),
                2 if others_go_on => {
                    let other = self.dice.below(self.players.len() as u32) as usize;
                    // Whoever is in the middle of one goes on with that.
                    Box::pin(self.round_with(other, true, Plan::default(), false)).await;
                }
                _ => self.change(who),
            }
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
        player.network.calm();
        tracing::debug!(who, "begins anew");
        player.mount = SimulatedMount::open(player.dir.path(), &player.url, &self.token, self.strategy).await;
    }

    /// Everybody is reached, and syncs until nothing is left to do.
    pub(super) async fn settle(&mut self) {
        self.room.is_full(false);
        self.objects.fail_one_in(0);
        for who in 0..self.players.len() {
            self.players[who].network.part(false);
            self.players[who].network.calm();
            self.end(who);
        }
        for _ in 0..8 {
            for who in 0..self.players.len() {
                if self.players[who].mount.is_none() {
                    self.reopen(who).await;
                }
                let mount = self.players[who].mount.as_mut().expect("everybody is reached");
                let Daemon { follower, publisher } = mount.daemon.as_mut().unwrap();
                follower.poll().await.unwrap();
                publisher.round(follower, Scope::All, None).await.unwrap();
                follower.catch_up().await;
            }
        }
    }
}
