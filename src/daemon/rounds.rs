//! The life of a mount beside its readers and writers: it hears of the remote's news and shows them, and publishes what is local
//! when that is due. One thing at a time, so that a revision is never planned with while another is being shown.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::{Timestamp, Unit};
use tokio::sync::{mpsc, oneshot, watch};

use super::follow::{Follower, Trouble};
use super::hearing::{Ear, Heard};
use super::publishing::{Publisher, RoundError};
use super::schedule::{Schedule, Scope};
use super::told::Told;
use crate::control::{Counts, Failed, HeldBack, Order, Request};
use crate::disk::random_below_one;
use crate::dotdir::DotDir;
use crate::manifest::family;
use crate::model::{DbPath, ExitCode};
use crate::remote::RemoteError;
use crate::sync::{Brake, Filter, Side, Waits};
use crate::vfs::{Held, Vfs};

/// The kernel has told of a close by then.
const CLOSES_WITHIN: Duration = Duration::from_secs(1);

/// Of so many files that wait, it is found out whom they wait for.
const FOUND_OUT: usize = 10;

/// What works beside a mount.
pub(super) struct Rounds {
    pub(super) follower: Follower,
    /// How often the remote is asked for news where it does not tell, if at all.
    pub(super) poll: Option<Duration>,
    pub(super) publishing: Option<Publishing>,
    pub(super) told: Told,
    pub(super) orders: mpsc::Receiver<Order>,
    pub(super) dotdir: Arc<DotDir>,
}

/// What publishes, and when.
pub(super) struct Publishing {
    pub(super) publisher: Publisher,
    pub(super) schedule: Schedule,
    /// Counts changes that people make.
    pub(super) stirs: watch::Receiver<u64>,
    /// Of those, what the schedule knows.
    pub(super) seen: u64,
}

/// What ends a wait.
enum Woken {
    Poll,
    Round,
    Heard,
    Order(Order),
}

impl Rounds {
    /// Works until it is told to stop, and then returns what it can be finished with.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<()>) -> Self {
        let known = &self.follower.known;
        let mut ear = self.poll.map(|_| Ear::new(self.follower.remote.clone(), known.id.clone()));
        let (mut trouble, mut asked) = (Trouble::None, Heard::default());
        let mut poll_at = self.next_poll();
        self.follower.catch_up().await;
        if self.publishing.as_ref().is_some_and(|publishing| publishing.publisher.replica.has_pending()) {
            let _ = self.poll(&mut trouble).await;
        }
        loop {
            let woken = tokio::select! {
                _ = &mut stop => return self,
                woken = self.wait(ear.as_mut(), asked, poll_at) => woken,
            };
            let heard = ear.as_mut().map(Ear::heard).unwrap_or_default();
            match woken {
                Woken::Round => {
                    let now = Instant::now();
                    let scope = self.publishing.as_ref().map(|publishing| publishing.schedule.scope(now));
                    drop(self.round(&mut trouble, scope.unwrap_or(Scope::All), None).await);
                }
                Woken::Order(order) => self.obey(order, &mut trouble).await,
                // A stream that began or broke: the next wait knows.
                Woken::Heard if heard.news == asked.news => {}
                Woken::Poll if heard.listens && heard.news == asked.news && trouble == Trouble::None => {
                    poll_at = self.next_poll();
                }
                Woken::Heard | Woken::Poll => {
                    asked = heard;
                    let _ = self.poll(&mut trouble).await;
                    poll_at = self.next_poll();
                }
            }
            self.follower.catch_up().await;
            self.follower.vfs.sweep();
            self.dotdir.sweep();
        }
    }

    fn next_poll(&self) -> Option<Instant> {
        self.poll.map(|every| Instant::now() + every)
    }

    async fn wait(&mut self, mut ear: Option<&mut Ear>, asked: Heard, poll_at: Option<Instant>) -> Woken {
        if let Some(ear) = ear.as_deref_mut()
            && ear.heard().news != asked.news
        {
            return Woken::Heard;
        }
        let hears = async {
            match ear {
                Some(ear) => ear.hears().await,
                None => std::future::pending().await,
            }
        };
        let due = async {
            match &mut self.publishing {
                Some(publishing) => publishing.due(&self.told).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = until(poll_at) => Woken::Poll,
            () = hears => Woken::Heard,
            () = due => Woken::Round,
            Some(order) = self.orders.recv() => Woken::Order(order),
        }
    }

    /// Asks for news and shows them. What keeps them away is told, too.
    async fn poll(&mut self, trouble: &mut Trouble) -> Result<(), Failed> {
        if let Some(Publishing { publisher, .. }) = &mut self.publishing
            && publisher.replica.has_pending()
            && let Err(error) = publisher.resolve(&mut self.follower).await
            && error.remote().is_some_and(RemoteError::is_transient)
        {
            // Its own revision must not be shown as somebody else's.
            tracing::debug!(%error, "no news before it is known what became of a commit");
            *trouble = Trouble::Unreachable;
            self.told.asked(Some((error.to_string(), true)));
            return Err(failed(&error));
        }
        let was_away = *trouble == Trouble::Unreachable;
        self.follower.counters.polls.add(1);
        let polled = self.follower.poll().await;
        if polled.is_ok()
            && was_away
            && let Some(publishing) = &mut self.publishing
        {
            publishing.schedule.is_reachable();
        }
        let revision = self.follower.known.revision.map(|revision| revision.0);
        self.told.update(|standing| standing.revision = revision);
        *trouble = std::mem::replace(trouble, Trouble::None).say(&polled);
        let polled = polled.map_err(RoundError::from);
        self.told.asked(polled.as_ref().err().map(|error| (error.to_string(), error.is_in_passing())));
        polled.map_err(|error| failed(&error))
    }

    async fn obey(&mut self, Order { request, reply }: Order, trouble: &mut Trouble) {
        let done = self.carry_out(request, trouble).await;
        // Whoever asked may have gone.
        let _ = reply.send(done);
    }

    async fn carry_out(&mut self, request: Request, trouble: &mut Trouble) -> Result<Option<Counts>, Failed> {
        let Some(publishing) = &mut self.publishing else {
            let message =
                "this mount publishes nothing: it is read-only, or what is written to it is thrown away";
            return Err(Failed { message: message.into(), code: ExitCode::Usage.number() });
        };
        let waits = publishing.schedule.waits;
        let (mut decided, mut commits) = (None, false);
        let allow = match request {
            Request::Status | Request::Events => return Ok(None),
            Request::Pause => {
                publishing.wait_for(Waits { paused: true, ..waits }, &self.told)?;
                return Ok(None);
            }
            Request::Resume => {
                publishing.wait_for(Waits { paused: false, ..waits }, &self.told)?;
                publishing.schedule.goes_on();
                return Ok(None);
            }
            Request::Begin => {
                publishing.wait_for(Waits { gathering: true, ..waits }, &self.told)?;
                return Ok(None);
            }
            _ if waits.paused => {
                let message = "syncs are paused: 'parquedb ctl resume' lets them go on";
                return Err(Failed { message: message.into(), code: ExitCode::NeedsDecision.number() });
            }
            Request::Sync { .. } | Request::Resolve { .. } if waits.gathering => {
                let message = "changes are being gathered: 'parquedb ctl commit' publishes them";
                return Err(Failed { message: message.into(), code: ExitCode::NeedsDecision.number() });
            }
            Request::Resolve { path, local } => {
                decided = Some((path, if local { Side::Local } else { Side::Remote }));
                false
            }
            Request::Sync { allow_mass_delete } => allow_mass_delete,
            Request::Commit { allow_mass_delete } => {
                commits = true;
                allow_mass_delete
            }
        };
        let written = still_written(&self.follower.vfs, &publishing.publisher.options.filter).await;
        if let (true, Some(path)) = (commits, written.first()) {
            // Without it, what was begun would not be one revision (F39).
            let message = format!("'{path}' is open for writing: close it, then commit again");
            return Err(Failed { message, code: ExitCode::NeedsDecision.number() });
        }
        publishing.wait_for(Waits { gathering: false, ..waits }, &self.told)?;
        if allow {
            publishing.publisher.options.brake = Brake::Released;
        }
        let heard = self.poll(trouble).await;
        let done = self.round(trouble, Scope::All, decided.as_ref()).await;
        if let Some(publishing) = &mut self.publishing {
            publishing.publisher.options.brake = Brake::On;
        }
        let done = done?;
        if done.uploaded + done.deleted == 0 {
            // For all that is known, nothing is in sync.
            heard?;
        }
        Ok(Some(done))
    }

    /// Publishes what is local, and says how that went.
    async fn round(
        &mut self,
        trouble: &mut Trouble,
        scope: Scope,
        decided: Option<&(DbPath, Side)>,
    ) -> Result<Counts, Failed> {
        let Some(Publishing { publisher, schedule, stirs, seen }) = &mut self.publishing else {
            return Ok(Counts::default());
        };
        let began = Instant::now();
        let before = (schedule.clone(), *seen);
        // What is changed from now on is the next round's, or has its part in this one.
        *seen = *stirs.borrow_and_update();
        schedule.begins(scope, began);
        if self.follower.vfs.pending() == 0 && !publisher.replica.has_pending() && decided.is_none() {
            schedule.ended(Scope::All, began);
            schedule.is_done();
            return Ok(self.told.ended_quietly(self.follower.known.revision));
        }
        self.told.begins();
        let done = publisher.round(&mut self.follower, scope, decided).await;
        let pending = self.follower.vfs.pending();
        match done {
            Ok(round) => {
                schedule.ended(scope, began);
                if pending == 0 {
                    schedule.is_done();
                }
                let (uploaded, deleted) = (round.uploaded, round.deleted);
                if uploaded + deleted > 0 {
                    // It answers.
                    *trouble = std::mem::replace(trouble, Trouble::None).say(&Ok(()));
                    self.told.asked(None);
                }
                let (conflicts, held) = (round.undecided().count(), round.held.len());
                tracing::info!(uploaded, deleted, conflicts, held, pending, "local changes are published");
                let held = held_back(&self.follower.vfs, &round.held);
                Ok(self.told.ended(&round, scope, held, self.follower.known.revision, pending))
            }
            Err(error) => {
                let remote = error.remote();
                let in_passing = error.is_in_passing();
                let asked = remote.and_then(|error| error.retry_after());
                if decided.is_some() && error.is_refused_decision() {
                    // As if nobody had asked.
                    (*schedule, *seen) = before;
                    self.told.refused(&error);
                    return Err(failed(&error));
                }
                schedule.failed(Instant::now(), in_passing, asked, random_below_one());
                if self.told.failed(&error, in_passing, pending) {
                    tracing::warn!(%error, pending, "local changes are not published yet: they are kept");
                } else {
                    tracing::debug!(%error, pending, "local changes are still not published");
                }
                let failed = failed(&error);
                if matches!(error.remote(), Some(RemoteError::Unreachable { .. })) {
                    *trouble = Trouble::Unreachable;
                } else if let RoundError::NotOurs(error) = error {
                    *trouble = std::mem::replace(trouble, Trouble::None).say(&Err(error));
                }
                Err(failed)
            }
        }
    }

    /// One last round, when the mount is gone.
    pub(super) async fn finish(&mut self, patience: Duration) {
        let Some(publishing) = &mut self.publishing else { return };
        if !publishing.schedule.ends_with_a_round() || patience.is_zero() {
            return;
        }
        let (mut trouble, filter) = (Trouble::None, publishing.publisher.options.filter.clone());
        let last = async {
            // The kernel closes its own handles on staged files a moment after the mount is gone.
            still_written(&self.follower.vfs, &filter).await;
            drop(self.round(&mut trouble, Scope::All, None).await);
        };
        if tokio::time::timeout(patience, last).await.is_err() {
            tracing::warn!(
                ?patience,
                "the last sync did not come to its end in time: the next mount goes on with it"
            );
        }
    }
}

/// A failure as whoever has asked hears of it.
fn failed(error: &RoundError) -> Failed {
    Failed { message: error.told(), code: error.exit_code().number() }
}

impl Publishing {
    /// What rounds wait for from now on, in this life and later ones.
    fn wait_for(&mut self, waits: Waits, told: &Told) -> Result<(), Failed> {
        if waits != self.schedule.waits {
            let noted = self.publisher.replica.wait_for(waits);
            noted.map_err(|error| failed(&error.into()))?;
        }
        self.schedule.waits = waits;
        told.waits(waits);
        Ok(())
    }

    /// Waits until a round is due.
    async fn due(&mut self, told: &Told) {
        loop {
            let now = Instant::now();
            let stirs = *self.stirs.borrow_and_update();
            self.schedule.changed(stirs - std::mem::replace(&mut self.seen, stirs), now);
            let due = self.schedule.due(now);
            let shown = due.and_then(|due| Timestamp::try_from(SystemTime::now() + (due - now)).ok());
            // A moment that is the same one is told once.
            let shown = shown.and_then(|time| time.round(Unit::Second).ok()).map(|time| time.to_string());
            told.update(|standing| standing.next_sync = shown);
            if due.is_some_and(|due| due <= now) {
                return;
            }
            tokio::select! {
                () = until(due) => {}
                changed = self.stirs.changed() => if changed.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        }
    }
}

/// What somebody is writing to, of what is published. The kernel tells of a close a moment after it, and whoever has just closed a
/// file means it to be published.
async fn still_written(vfs: &Vfs, filter: &Filter) -> Vec<DbPath> {
    let patience = Instant::now() + CLOSES_WITHIN;
    // A database waits for what belongs with it.
    let travels = |path: &DbPath| {
        filter.takes(path) || DbPath::parse(family(path)).is_ok_and(|main| filter.takes(&main))
    };
    loop {
        // What cannot be looked at is told by the round.
        let mut written = vfs.being_written().unwrap_or_default();
        written.retain(travels);
        if written.is_empty() || Instant::now() > patience {
            return written;
        }
        tokio::time::sleep(CLOSES_WITHIN / 50).await;
    }
}

/// What is not ready, and who keeps it from being so.
fn held_back(vfs: &Vfs, held: &[(DbPath, Held)]) -> Vec<HeldBack> {
    let why = |n: usize, path: &DbPath, why: Held| match why {
        // To find somebody takes a look at all that is local.
        Held::Written if n < FOUND_OUT => match vfs.openers(path).as_slice() {
            [] => "somebody has it open for writing, or a mapping of it".to_owned(),
            all => {
                let named: Vec<String> = all.iter().map(|process| named(*process)).collect();
                format!("{} has it open: it is published when it is closed", named.join(", "))
            }
        },
        Held::Written => "somebody has it open for writing".to_owned(),
        Held::Lacking => "some of its bytes are still to be fetched".to_owned(),
        Held::Failing => "its bytes cannot be put on the disk: see the mount's log".to_owned(),
        Held::Beside => "what belongs with it is left out, or in conflict".to_owned(),
    };
    let mut held: Vec<_> = held.iter().collect();
    held.sort_by(|a, b| a.0.cmp(&b.0));
    let told = held.into_iter().enumerate();
    told.map(|(n, (path, held))| HeldBack { path: path.clone(), why: why(n, path, *held) }).collect()
}

/// A process as people know it.
fn named(process: u32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{process}/comm")).unwrap_or_default();
    format!("{} (process {process})", if name.trim().is_empty() { "a program" } else { name.trim() })
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}
