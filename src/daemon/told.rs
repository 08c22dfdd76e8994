//! What a mount tells of its syncs: how they stand, and what happens, in order (F35).

use jiff::Timestamp;
use tokio::sync::{broadcast, watch};

use super::publishing::{Round, RoundError};
use super::schedule::Scope;
use crate::control::{Counts, HeldBack, LastError, Standing, SyncEvent, SyncPhase};
use crate::model::{DbPath, Revision};

/// Events that a slow listener may be behind.
const REMEMBERED: usize = 256;

/// Where it is told.
#[derive(Debug, Clone)]
pub(super) struct Told {
    standing: watch::Sender<Standing>,
    events: broadcast::Sender<SyncEvent>,
}

fn now() -> String {
    Timestamp::now().to_string()
}

impl Told {
    /// Nothing has happened yet.
    pub(super) fn new(database: String) -> Self {
        let standing = Standing { database, ..Standing::default() };
        Self { standing: watch::channel(standing).0, events: broadcast::channel(REMEMBERED).0 }
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

    fn happens(&self, event: SyncEvent) {
        // Nobody may be listening.
        let _ = self.events.send(event);
    }

    pub(super) fn begins(&self) {
        self.update(|standing| standing.state = SyncPhase::Syncing);
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
        self.update(|standing| {
            standing.state = match (counts.conflicts, pending) {
                (0, 0) => SyncPhase::Success,
                (0, _) => SyncPhase::Idle,
                _ => SyncPhase::Conflict,
            };
            standing.held = held;
            (standing.pending, standing.revision) = (pending, counts.revision);
            // Of the rest, a round about what is critical knows nothing.
            if scope == Scope::All {
                standing.conflicts = undecided;
                (standing.last_sync, standing.last_error) = (Some(now()), None);
            }
        });
        self.happens(SyncEvent::End { time: now(), counts });
        counts
    }

    /// There was nothing to publish: nobody need hear of it.
    pub(super) fn ended_quietly(&self, revision: Option<Revision>) -> Counts {
        let revision = revision.map(|revision| revision.0);
        self.update(|standing| {
            standing.state = SyncPhase::Success;
            (standing.pending, standing.revision) = (0, revision);
            standing.held.clear();
            standing.conflicts.clear();
            (standing.last_sync, standing.last_error) = (Some(now()), None);
        });
        Counts { revision, ..Counts::default() }
    }

    pub(super) fn failed(&self, error: &RoundError, in_passing: bool, pending: usize) {
        let message = error.to_string();
        self.update(|standing| {
            standing.state = if in_passing { SyncPhase::Offline } else { SyncPhase::Error };
            standing.pending = pending;
            standing.last_error = Some(LastError { message: message.clone(), time: now() });
        });
        self.happens(SyncEvent::Error { time: now(), message });
    }
}
