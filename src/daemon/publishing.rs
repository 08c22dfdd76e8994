//! Publishing what is local: the remote's news first, then what is frozen is planned and published, then it is settled in one step
//! with the revision that has it. Whatever fails in between, the next round finds out from the remote what became of the commit.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;

use super::filling::fill_now;
use super::follow::{Follower, NotOurs};
use super::schedule::Scope;
use crate::manifest::Entry;
use crate::model::{DbPath, ExitCode};
use crate::overlay::{Overlay, OverlayError};
use crate::remote::RemoteError;
use crate::sync::{
    Conflict, Filter, Landed, LocalSide, PublishReport, Replica, ReplicaOptions, Side, SyncError,
};
use crate::vfs::{Frozen, GivenUp, Held, Settled, Vfs, VfsError};

/// How often a round plans again because others publish.
const MAX_PLANS: usize = 5;

/// What publishes for one mount.
pub(super) struct Publisher {
    pub(super) replica: Replica,
    pub(super) options: ReplicaOptions,
    /// The same about what is published before all else, if there is such.
    pub(super) critical: Option<Filter>,
    pub(super) overlay: Arc<Overlay>,
}

/// What a round came to.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Files published, deletions not counted.
    pub(super) uploaded: usize,
    /// Deletions published.
    pub(super) deleted: usize,
    /// Bytes sent.
    pub(super) bytes_sent: u64,
    /// Conflicts that were met.
    pub(super) conflicts: Vec<(DbPath, Conflict)>,
    /// What is not ready to be published.
    pub(super) held: Vec<(DbPath, Held)>,
}

/// Why a round did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoundError {
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    NotOurs(#[from] NotOurs),
    #[error(transparent)]
    Local(#[from] VfsError),
    #[error("'{0}' is open for writing, or not all here: nothing about it is decided before it is closed")]
    NotReady(DbPath),
    #[error("the daemon is stopping")]
    Stopping,
    #[error("the remote does not say")]
    Silent,
}

impl From<OverlayError> for RoundError {
    fn from(error: OverlayError) -> Self {
        Self::Local(error.into())
    }
}

impl RoundError {
    /// Whether it is worth trying again soon.
    pub(super) fn is_in_passing(&self) -> bool {
        self.remote().is_some_and(RemoteError::is_transient) || self.passes()
    }

    /// The same, where the remote did not fail.
    fn passes(&self) -> bool {
        matches!(
            self,
            Self::Sync(
                SyncError::KeptChanging
                    | SyncError::Directory { .. }
                    // Of a file that is gone by now.
                    | SyncError::Remote(RemoteError::LocalFile { .. })
            )
        )
    }

    /// Whether a decision was refused: nothing else is wrong.
    pub(super) fn is_refused_decision(&self) -> bool {
        matches!(
            self,
            Self::NotReady(_)
                | Self::Sync(
                    SyncError::NoConflict { .. } | SyncError::InTheWay { .. } | SyncError::Together { .. }
                )
        )
    }

    /// What happened, and what to do with a mount then.
    pub(super) fn told(&self) -> String {
        match self {
            Self::Sync(SyncError::Halted { .. }) => format!("{self} to 'parquedb ctl sync'"),
            _ => self.to_string(),
        }
    }

    /// The exit status that says the same.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Self::Sync(error) => error.exit_code(),
            Self::NotOurs(NotOurs::Remote(error)) => error.exit_code(),
            Self::NotOurs(_) | Self::NotReady(_) => ExitCode::NeedsDecision,
            Self::Local(_) | Self::Stopping | Self::Silent => ExitCode::Failure,
        }
    }

    /// The remote's part in it, if it had one.
    pub(super) fn remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Sync(SyncError::Remote(error)) | Self::NotOurs(NotOurs::Remote(error)) => Some(error),
            _ => None,
        }
    }
}

impl From<Frozen> for LocalSide {
    fn from(frozen: Frozen) -> Self {
        let Frozen { base, local, remote, revision, places, moved, files, held, .. } = frozen;
        let held = held.into_iter().map(|(path, _)| path).collect();
        Self { base, local, remote, revision, places, moved, files, held }
    }
}

impl Publisher {
    /// One round: everything that is local, ready and in its scope is published, unless it is in conflict.
    /// `decided` is what a person has decided about one of those.
    pub(super) async fn round(
        &mut self,
        follower: &mut Follower,
        scope: Scope,
        decided: Option<&(DbPath, Side)>,
    ) -> Result<Round, RoundError> {
        let done = self.plan_and_publish(follower, scope, decided).await;
        self.give_back_if_settled(follower);
        done
    }

    /// While a commit is not settled, all that it may have published is kept: in later lives too.
    fn give_back_if_settled(&self, follower: &Follower) {
        if !self.replica.has_pending() {
            follower.vfs.give_all_back();
        }
    }

    async fn plan_and_publish(
        &mut self,
        follower: &mut Follower,
        scope: Scope,
        decided: Option<&(DbPath, Side)>,
    ) -> Result<Round, RoundError> {
        let mut options = self.options.clone();
        if let (Scope::Critical, Some(critical)) = (scope, &self.critical) {
            options.filter.clone_from(critical);
        }
        let (mut round, mut asked_for) = (Round::default(), BTreeSet::new());
        if let Some(landed) = self.resolve(follower).await? {
            round.count(&landed);
        }
        follower.vfs.keep_all();
        let mut plans = 0;
        while plans < MAX_PLANS + asked_for.len() {
            plans += 1;
            let mut frozen = freeze(&follower.vfs).await?;
            if frozen.lacks() {
                fill_now(&follower.vfs, &self.overlay).await;
                frozen = freeze(&follower.vfs).await?;
            }
            round.held = self.held(&frozen);
            let same = std::mem::take(&mut frozen.same);
            if !same.is_empty() {
                let agreed: Vec<_> = same.into_iter().map(|(path, entry)| (path, Some(entry))).collect();
                let _ = keep_in_cache(&follower.vfs, agreed.clone()).await;
                self.settle(follower, None, Settled { agreed, ..Settled::default() }).await?;
            }
            let is_held = |path: &DbPath| frozen.held.iter().any(|(held, _)| held == path);
            if let Some((path, _)) = decided.filter(|(path, _)| is_held(path)) {
                return Err(RoundError::NotReady(path.clone()));
            }
            if frozen.is_empty() {
                let none = |(path, _): &(DbPath, Side)| SyncError::NoConflict { path: path.clone() };
                return decided.map_or(Ok(round), |decided| Err(none(decided).into()));
            }
            let failing = self.make_durable().await?;
            if !failing.is_empty() {
                frozen.hold_failing(&failing);
                round.held = self.held(&frozen);
            }
            let side = LocalSide::from(frozen);
            let keeping = keep_in_cache(&follower.vfs, published_here(&side, &options.filter));
            let published = self.replica.publish(&follower.remote, &side, &options, decided, &()).await;
            let _ = keeping.await;
            match published {
                // Others have published meanwhile: what they did is taken into account.
                Err(SyncError::Remote(RemoteError::Moved { .. })) => follower.poll().await?,
                // It was moved here, and is nowhere else any more: as long as not all of it is here, it waits.
                Err(SyncError::Lost { path }) if !asked_for.contains(&path) => {
                    follower.vfs.make_own(&BTreeSet::from([path.clone()]))?;
                    asked_for.insert(path);
                }
                Err(error) => return Err(error.into()),
                Ok(report) => {
                    round.bytes_sent += report.bytes_sent;
                    let PublishReport { plan, landed, mut stranded, torn, .. } = report;
                    round.held.extend(torn.into_iter().map(|path| (path, Held::Beside)));
                    // What loses goes, and needs no bytes.
                    stranded.retain(|path| {
                        plan.conflicts.get(path).is_none_or(|one| one.keeps != Some(Side::Remote))
                    });
                    follower.vfs.make_own(&stranded)?;
                    let settled = Settled {
                        agreed: plan.agreed.clone().into_iter().collect(),
                        given_up: given_up(&plan.conflicts),
                        ..Settled::default()
                    };
                    round.conflicts = plan.conflicts.into_iter().collect();
                    if let Some(landed) = &landed {
                        round.count(landed);
                    }
                    self.settle(follower, landed, settled).await?;
                    return Ok(round);
                }
            }
        }
        Err(SyncError::KeptChanging.into())
    }

    /// What is not ready of what this mount publishes.
    fn held(&self, frozen: &Frozen) -> Vec<(DbPath, Held)> {
        let filter = &self.options.filter;
        frozen.held.iter().filter(|(path, _)| filter.takes(path)).cloned().collect()
    }

    /// Finds out what became of a commit whose answer was lost, before anything else is shown or planned.
    pub(super) async fn resolve(&mut self, follower: &mut Follower) -> Result<Option<Landed>, RoundError> {
        follower.vfs.keep_all();
        let landed = self.replica.resolve_pending(&follower.remote).await?;
        self.settle_landed(follower, landed).await
    }

    /// The same, if the remote says so soon. What is settled then is settled to its end.
    pub(super) async fn resolve_within(
        &mut self,
        patience: Duration,
        follower: &mut Follower,
    ) -> Result<Option<Landed>, RoundError> {
        follower.vfs.keep_all();
        let asked = tokio::time::timeout(patience, self.replica.resolve_pending(&follower.remote)).await;
        let landed = asked.map_err(|_| RoundError::Silent)??;
        self.settle_landed(follower, landed).await
    }

    async fn settle_landed(
        &mut self,
        follower: &mut Follower,
        landed: Option<Landed>,
    ) -> Result<Option<Landed>, RoundError> {
        if let Some(landed) = &landed {
            let published = landed.changes.clone().into_iter().collect();
            let _ = keep_in_cache(&follower.vfs, published).await;
            self.settle(follower, Some(landed.clone()), Settled::default()).await?;
        }
        self.give_back_if_settled(follower);
        Ok(landed)
    }

    /// What is about to be published lasts: a machine that stops after that must not come back with less, and take it for an edit.
    /// Returns what cannot be made so.
    async fn make_durable(&self) -> Result<Vec<String>, RoundError> {
        let overlay = self.overlay.clone();
        let synced = tokio::task::spawn_blocking(move || overlay.sync_everything()).await;
        Ok(synced.map_err(|_| RoundError::Stopping)??)
    }

    /// What was published is shown as the remote's, and what both agree on is not local any more.
    async fn settle(
        &mut self,
        follower: &mut Follower,
        landed: Option<Landed>,
        settled: Settled,
    ) -> Result<(), RoundError> {
        match landed {
            Some(landed) => {
                let gone = landed.changes.iter().filter(|(_, entry)| entry.is_none());
                let gone: BTreeSet<DbPath> = gone.map(|(path, _)| path.clone()).collect();
                follower.land(&landed, settled).await?;
                follower.vfs.make_left_own(&gone)?;
                // What was settled is known for good before the commit is forgotten.
                let overlay = self.overlay.clone();
                tokio::task::spawn_blocking(move || overlay.commit())
                    .await
                    .map_err(|_| RoundError::Stopping)??;
                self.replica.settled(&landed)?;
            }
            None => follower.settle(settled).await?,
        }
        Ok(())
    }
}

impl Round {
    /// What nobody has decided.
    pub(super) fn undecided(&self) -> impl Iterator<Item = &DbPath> {
        self.conflicts.iter().filter(|(_, conflict)| conflict.keeps.is_none()).map(|(path, _)| path)
    }

    fn count(&mut self, landed: &Landed) {
        let put = landed.changes.values().filter(|entry| entry.is_some()).count();
        self.uploaded += put;
        self.deleted += landed.changes.len() - put;
    }
}

/// Of conflicts that are decided for the remote, what is here goes.
fn given_up<'a>(conflicts: impl IntoIterator<Item = (&'a DbPath, &'a Conflict)>) -> Vec<GivenUp> {
    let lost = conflicts.into_iter().filter(|(_, conflict)| conflict.keeps == Some(Side::Remote));
    let given_up = |(path, conflict): (&DbPath, &Conflict)| GivenUp {
        path: path.clone(),
        local: conflict.local.clone(),
        base: conflict.base.clone(),
    };
    lost.map(given_up).collect()
}

/// What is here of what is being published.
fn published_here(side: &LocalSide, filter: &Filter) -> Vec<(DbPath, Option<Entry>)> {
    let is_here = |path: &DbPath| side.places.contains_key(path) && filter.takes(path);
    let here = side.local.iter().filter(|(path, _)| is_here(path));
    here.map(|(path, entry)| (path.clone(), entry.clone())).collect()
}

/// Puts what is local into the cache: once it is settled, that is where it is read.
fn keep_in_cache(vfs: &Arc<Vfs>, published: Vec<(DbPath, Option<Entry>)>) -> JoinHandle<()> {
    let vfs = vfs.clone();
    tokio::task::spawn_blocking(move || vfs.keep_in_cache(&published))
}

async fn freeze(vfs: &Arc<Vfs>) -> Result<Frozen, RoundError> {
    let vfs = vfs.clone();
    let freezing = tokio::task::spawn_blocking(move || vfs.freeze());
    Ok(freezing.await.map_err(|_| RoundError::Stopping)??)
}
