//! Following the remote: asking for news, and moving the mount to the next revision when nobody is in the middle of
//! reading the one shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::publishing::RoundError;
use crate::fuse::Invalidator;
use crate::manifest::Manifest;
use crate::metrics::MountCounters;
use crate::model::Revision;
use crate::namespace::{Difference, FileEntry, Kept, Remembered};
use crate::remote::{Known, ManifestDocument, NewChanges, News, Remote, RemoteError};
use crate::sync::Landed;
use crate::vfs::{Next, Settled, Turn, Vfs, nanoseconds};
use crate::wire::{PublishedChange, PutEntry};

/// What follows the remote for one mount.
pub(super) struct Follower {
    pub(super) remote: Remote,
    pub(super) vfs: Arc<Vfs>,
    pub(super) invalidator: Invalidator,
    pub(super) counters: Arc<MountCounters>,
    pub(super) remembered: Remembered,
    pub(super) known: Known,
    /// How often to ask; and a flip waits no longer for its turn.
    pub(super) every: Duration,
}

/// What was last complained of, so that it is not said at every poll.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    Unreachable,
    Refused(String),
}

/// A manifest that the mount must not move to.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotOurs {
    #[error(
        "the remote has gone back to revision {0}: was it restored from a backup? The mount shows what it showed; ask its owner, or \
         mount it anew to see what the remote has now"
    )]
    RolledBack(String),
    #[error(
        "the remote has another database of this name now ({0}): the mount shows what it showed; mount it anew to see the other"
    )]
    Replaced(String),
    #[error("the daemon is stopping")]
    Stopping,
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl Follower {
    /// Asks for news, and shows them.
    pub(super) async fn poll(&mut self) -> Result<(), NotOurs> {
        match self.remote.news(&self.known).await? {
            News::Nothing => Ok(()),
            News::Changes(news) => {
                self.take_changes(news).await;
                Ok(())
            }
            News::Whole(document) => self.take_whole(document).await,
            News::RolledBack(to) => Err(NotOurs::RolledBack(to.to_string())),
        }
    }

    async fn take_changes(&mut self, news: NewChanges) {
        let NewChanges { changes, etag, revision, .. } = news;
        self.flip(next_of(&changes)).await;
        self.is_shown(changes, etag, revision).await;
    }

    /// What is known of the remote is what its news have said, which is shown by now.
    async fn is_shown(&mut self, changes: Vec<PublishedChange>, etag: String, revision: Revision) {
        let since = std::mem::replace(&mut self.known.etag, etag.clone());
        self.known.revision = Some(revision);
        if self.keep_beside(since, changes, etag).await == Some(Kept::TooMuch) {
            self.remember_anew().await;
        }
    }

    /// Keeps changes for the next start.
    async fn keep_beside(&self, since: String, changes: Vec<PublishedChange>, etag: String) -> Option<Kept> {
        let remembered = self.remembered.clone();
        let adding = move || remembered.add(&since, &changes, &etag);
        match tokio::task::spawn_blocking(adding).await {
            Ok(Ok(kept)) => Some(kept),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the manifest was not kept for the next start");
                None
            }
            Err(_) => None,
        }
    }

    async fn take_whole(&mut self, document: ManifestDocument) -> Result<(), NotOurs> {
        let (difference, published, document) = self.compare(document).await?;
        let ManifestDocument { body, etag, revision } = document;
        (self.known.etag, self.known.revision) = (etag.clone(), revision);
        self.flip(Next { difference, revision, published }).await;
        remember(self.remembered.clone(), ManifestDocument { body, etag, revision }).await;
        Ok(())
    }

    /// How a manifest differs from the revision shown, and when it was published; if it is one that follows.
    async fn compare(
        &self,
        document: ManifestDocument,
    ) -> Result<(Difference, i64, ManifestDocument), NotOurs> {
        // A large one takes a while.
        let vfs = self.vfs.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let manifest = Manifest::from_json(&document.body)?;
            let difference = vfs.difference(&manifest);
            let published = nanoseconds(&manifest.last_synced_at);
            Ok::<_, RemoteError>((manifest.database_id, difference, published, document))
        });
        let (id, difference, published, document) = reading.await.map_err(|_| NotOurs::Stopping)??;
        if id != self.known.id {
            return Err(NotOurs::Replaced(id));
        }
        // A revision never changes: the same number with other files is another history.
        if let (Some(now), Some(before)) = (document.revision, self.known.revision)
            && (now < before || (now == before && !difference.is_empty()))
        {
            return Err(NotOurs::RolledBack(now.to_string()));
        }
        Ok((difference, published, document))
    }

    /// Shows what this mount has published, in one step with what is settled by it. What others have published since comes with the
    /// next news.
    pub(super) async fn land(&mut self, landed: &Landed, mut settled: Settled) -> Result<(), RoundError> {
        if self.known.revision >= Some(landed.revision) {
            // In an earlier life: it is shown.
            settled.agreed.extend(landed.changes.clone());
            settled.agreed_in = Some(landed.revision);
            return self.settle(settled).await;
        }
        let Some(etag) = landed.etag.clone() else {
            let document = self.remote.manifest_document(&self.known.database).await;
            return self.land_in(document.map_err(NotOurs::from)?, landed, settled).await;
        };
        let is_it = |one: &PublishedChange| one.commit_id == landed.commit_id;
        let until = match self.remote.news(&self.known).await {
            // As the remote has it, with what blocks can be checked by.
            Ok(News::Changes(mut news)) if news.changes.iter().any(is_it) => {
                let ours = news.changes.iter().position(is_it).unwrap_or_default();
                news.changes.truncate(ours + 1);
                news.changes
            }
            // So much has happened that the remote tells of all there is.
            Ok(News::Whole(document)) => return self.land_in(document, landed, settled).await,
            // Nothing lies between what is known and that.
            _ if self.known.revision.map(Revision::next) == Some(landed.revision) => {
                vec![as_published(landed)]
            }
            news => return Err(news.err().map_or(RoundError::Stopping, |error| NotOurs::from(error).into())),
        };
        let Some((ours, before)) = until.split_last() else { return Ok(()) };
        if !before.is_empty() {
            self.flip(next_of(before)).await;
        }
        let put = ours.put.iter().map(|put| (put.path.clone(), Some(put.entry.clone())));
        settled.agreed.extend(put.chain(ours.delete.iter().map(|path| (path.clone(), None))));
        settled.published = Some((next_of(std::slice::from_ref(ours)).difference, ours.revision));
        // First of all: what is settled is hidden no more, and a daemon that starts without the remote would show what it hid.
        let kept = self.keep_beside(self.known.etag.clone(), until, etag.clone()).await;
        self.settle(settled).await?;
        (self.known.etag, self.known.revision) = (etag, Some(landed.revision));
        if kept == Some(Kept::TooMuch) {
            self.remember_anew().await;
        }
        Ok(())
    }

    /// The same, where the remote tells of all there is.
    async fn land_in(
        &mut self,
        document: ManifestDocument,
        landed: &Landed,
        mut settled: Settled,
    ) -> Result<(), RoundError> {
        if document.revision < Some(landed.revision) {
            let to = document.revision.map_or("none".to_owned(), |revision| revision.to_string());
            return Err(NotOurs::RolledBack(to).into());
        }
        settled.agreed_in = Some(landed.revision);
        let (put, gone): (Vec<_>, Vec<_>) =
            landed.changes.clone().into_iter().partition(|(_, entry)| entry.is_some());
        settled.agreed.extend(put);
        self.settle(settled).await?;
        self.take_whole(document).await?;
        // What hid the remote's files here did so until they were gone.
        let gone = Settled { agreed: gone, agreed_in: Some(landed.revision), ..Settled::default() };
        self.settle(gone).await
    }

    /// Settles what both sides agree on.
    pub(super) async fn settle(&self, settled: Settled) -> Result<(), RoundError> {
        if !settled.given_up.is_empty() {
            // The remote's versions take the place of local ones, as by a flip.
            self.turn().await;
        }
        let (vfs, invalidator) = (self.vfs.clone(), self.invalidator.clone());
        let settling = tokio::task::spawn_blocking(move || {
            let outdated = vfs.settle(&settled);
            outdated.iter().for_each(|outdated| invalidator.forget(outdated));
            vfs.settled();
            outdated.map(drop)
        });
        Ok(settling.await.map_err(|_| RoundError::Stopping)??)
    }

    /// What could not follow a flip does so now.
    pub(super) async fn catch_up(&self) {
        let (vfs, invalidator) = (self.vfs.clone(), self.invalidator.clone());
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(outdated) = vfs.catch_up() {
                invalidator.forget(&outdated);
                vfs.settled();
            }
        })
        .await;
    }

    /// Waits for a quiet moment, though not for ever.
    async fn turn(&self) {
        let wanted = Instant::now();
        while let Turn::Wait(wait) = self.vfs.turn(wanted, self.every) {
            tokio::time::sleep(wait).await;
        }
    }

    /// Waits for a quiet moment, and moves the mount.
    async fn flip(&self, next: Next) {
        if !next.difference.is_empty() {
            self.turn().await;
        }
        let (paths, revision) = (next.difference.len(), next.revision.map(|revision| revision.0));
        let (vfs, invalidator) = (self.vfs.clone(), self.invalidator.clone());
        let flipping = tokio::task::spawn_blocking(move || {
            let outdated = vfs.flip(&next);
            invalidator.forget(&outdated);
            vfs.settled();
        });
        let _ = flipping.await;
        if paths > 0 {
            self.counters.flips.add(1);
            tracing::info!(revision, paths, "the mount shows another revision");
        }
    }

    async fn remember_anew(&self) {
        if let Ok(document) = self.remote.manifest_document(&self.known.database).await
            && document.etag == self.known.etag
        {
            remember(self.remembered.clone(), document).await;
        }
    }
}

/// The revision that changes lead to; there is at least one.
fn next_of(changes: &[PublishedChange]) -> Next {
    let mut difference = Difference::default();
    for change in changes {
        let put = change.put.iter().map(|put| (put.path.clone(), FileEntry::from(&put.entry)));
        difference.then(put, change.delete.iter().cloned());
    }
    let newest = changes.last();
    Next {
        difference,
        revision: newest.map(|newest| newest.revision),
        published: newest.map_or(0, |newest| nanoseconds(&newest.time)),
    }
}

/// What this mount has published, as the remote tells of it.
fn as_published(landed: &Landed) -> PublishedChange {
    let (put, delete): (Vec<_>, Vec<_>) =
        landed.changes.clone().into_iter().partition(|(_, entry)| entry.is_some());
    PublishedChange {
        commit_id: landed.commit_id.clone(),
        revision: landed.revision,
        time: jiff::Timestamp::now().to_string(),
        put: put.into_iter().filter_map(|(path, entry)| Some(PutEntry { path, entry: entry? })).collect(),
        delete: delete.into_iter().map(|(path, _)| path).collect(),
    }
}

/// Keeps a manifest for the next start.
pub(super) async fn remember(remembered: Remembered, document: ManifestDocument) {
    let ManifestDocument { body, etag, revision } = document;
    let saving = tokio::task::spawn_blocking(move || remembered.save(body, &etag, revision));
    if let Ok(Err(error)) = saving.await {
        tracing::warn!(%error, "the manifest was not kept for the next start");
    }
}

impl Trouble {
    /// Says what is new about the remote, and gives what there is to complain of now.
    pub(super) fn say(self, asked: &Result<(), NotOurs>) -> Self {
        let now = match asked {
            Ok(()) => Self::None,
            Err(NotOurs::Remote(error)) if error.is_transient() => Self::Unreachable,
            Err(error) => Self::Refused(error.to_string()),
        };
        match (&now, asked) {
            _ if now == self => {}
            (Self::Unreachable, Err(error)) => {
                tracing::warn!(%error, "no news of the remote: the mount shows what it showed");
            }
            (Self::Refused(_), Err(error)) => {
                tracing::error!(%error, "the mount does not follow the remote: it shows what it showed");
            }
            _ => tracing::info!("the remote answers again"),
        }
        now
    }
}
