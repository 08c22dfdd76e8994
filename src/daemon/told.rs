//! What a mount tells of its syncs: how they stand, and what happens, in order (F35).

use std::sync::{Arc, Mutex};

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use super::publishing::{Round, RoundError};
use super::schedule::Scope;
use crate::control::{Counts, HeldBack, LastError, Standing, SyncEvent, SyncPhase};
use crate::model::{DbPath, Revision};
use crate::remote::RemoteError;
use crate::sync::Waits;

/// Events that a slow listener may be behind.
const REMEMBERED: usize = 256;

/// Where it is told.
#[derive(Debug, Clone)]
pub(super) struct Told {
    standing: watch::Sender<Standing>,
    events: broadcast::Sender<SyncEvent>,
    parts: Arc<Mutex<Parts>>,
}

/// What the state that is told is made of.
#[derive(Debug, Default)]
struct Parts {
    /// What a round is doing, or how the last one ended.
    round: SyncPhase,
    /// How the one before it ended.
    before: SyncPhase,
    failure: Option<LastError>,
    /// What keeps the remote's news away, and whether that passes.
    no_news: Option<(LastError, bool)>,
    waits: Waits,
}

impl Parts {
    fn show(&self, standing: &mut Standing) {
        standing.state = match &self.no_news {
            _ if self.round == SyncPhase::Syncing => self.round,
            _ if self.waits.paused => SyncPhase::Paused,
            Some((_, true)) => SyncPhase::Offline,
            Some((_, false)) => SyncPhase::Error,
            None => self.round,
        };
        standing.gathering = self.waits.gathering;
        let no_news = self.no_news.as_ref().map(|(error, _)| error);
        standing.last_error = self.failure.as_ref().or(no_news).cloned();
    }
}

/// A failure as people are told of it.
fn told_of(message: String, passes: bool) -> LastError {
    let message = if passes { format!("{message}; it is tried again by itself") } else { message };
    LastError { message, time: now() }
}

fn now() -> String {
    Timestamp::now().to_string()
}

impl Told {
    /// Nothing has happened yet.
    pub(super) fn new(database: String) -> Self {
        let standing = Standing { database, ..Standing::default() };
        Self {
            standing: watch::channel(standing).0,
            events: broadcast::channel(REMEMBERED).0,
            parts: Arc::default(),
        }
    }

    /// How things stand, now and later.
    pub(super) fn standing(&self) -> watch::Receiver<Standing> {
        self.standing.subscribe()
    }

    /// Where events are sent.
    pub(super) fn events(&self) -> broadcast::Sender<SyncEvent> {
        self.events.clone()
    }

    /// Changes what is told, if that changes it.
    pub(super) fn update(&self, change: impl FnOnce(&mut Standing)) {
        self.standing.send_if_modified(|standing| {
            let before = standing.clone();
            change(standing);
            *standing != before
        });
    }

    fn change(&self, change: impl FnOnce(&mut Parts, &mut Standing)) {
        let mut parts = self.parts.lock().unwrap_or_else(|e| e.into_inner());
        self.update(|standing| {
            change(&mut parts, standing);
            parts.show(standing);
        });
    }

    /// What the syncs wait for.
    pub(super) fn waits(&self, waits: Waits) {
        self.change(|parts, _| parts.waits = waits);
    }

    /// The remote was asked for news: what kept it from answering, and whether that passes.
    pub(super) fn asked(&self, trouble: Option<(String, bool)>) {
        self.change(|parts, _| {
            let before = parts.no_news.take();
            parts.no_news = trouble.map(|(message, passes)| {
                let error = told_of(message, passes);
                match before {
                    // Since when is more than when it was last so.
                    Some((before, _)) if before.message == error.message => (before, passes),
                    _ => (error, passes),
                }
            });
        });
    }

    fn happens(&self, event: SyncEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    pub(super) fn begins(&self) {
        self.change(|parts, _| parts.before = std::mem::replace(&mut parts.round, SyncPhase::Syncing));
        self.happens(SyncEvent::Start { time: now() });
    }

    pub(super) fn ended(
        &self,
        round: &Round,
        scope: Scope,
        held: Vec<HeldBack>,
        revision: Option<Revision>,
        pending: usize,
    ) -> Counts {
        let undecided: Vec<DbPath> = round.undecided().cloned().collect();
        let counts = Counts {
            uploaded: round.uploaded,
            deleted: round.deleted,
            bytes_sent: round.bytes_sent,
            conflicts: undecided.len(),
            revision: revision.map(|revision| revision.0),
        };
        self.change(|parts, standing| {
            parts.round = match (counts.conflicts, pending) {
                (0, 0) => SyncPhase::Success,
                (0, _) => SyncPhase::Idle,
                _ => SyncPhase::Conflict,
            };
            standing.held = held;
            (standing.pending, standing.revision) = (pending, counts.revision);
            // Of the rest, a round about what is critical knows nothing.
            if scope == Scope::All {
                standing.conflicts = undecided;
                (standing.last_sync, parts.failure) = (Some(now()), None);
            }
        });
        self.happens(SyncEvent::End { time: now(), counts });
        counts
    }

    /// There was nothing to publish: nobody need hear of it.
    pub(super) fn ended_quietly(&self, revision: Option<Revision>) -> Counts {
        let revision = revision.map(|revision| revision.0);
        self.change(|parts, standing| {
            (parts.round, parts.failure) = (SyncPhase::Success, None);
            (standing.pending, standing.revision) = (0, revision);
            standing.held.clear();
            standing.conflicts.clear();
            if parts.no_news.is_none() {
                standing.last_sync = Some(now());
            }
        });
        Counts { revision, ..Counts::default() }
    }

    /// A decision was refused: a round that has done nothing, after which all stands as before.
    pub(super) fn refused(&self, error: &RoundError) {
        self.change(|parts, _| parts.round = parts.before);
        self.happens(SyncEvent::Error { time: now(), message: error.told() });
    }

    /// A round has failed. Whether the one before it did not, or otherwise.
    pub(super) fn failed(&self, error: &RoundError, passes: bool, pending: usize) -> bool {
        let message = error.told();
        let mut is_new = false;
        self.change(|parts, standing| {
            let is_away = error.remote().is_some_and(RemoteError::is_transient);
            parts.round = if is_away { SyncPhase::Offline } else { SyncPhase::Error };
            let failure = told_of(message.clone(), passes);
            is_new = parts.failure.as_ref().is_none_or(|before| before.message != failure.message);
            parts.failure = Some(failure);
            standing.pending = pending;
        });
        self.happens(SyncEvent::Error { time: now(), message });
        is_new
    }
}
