//! Following the remote: asking for news, and moving the mount to the next revision when nobody is in the middle of
//! reading the one shown.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::hearing::{Ear, Heard};
use crate::fuse::Invalidator;
use crate::manifest::Manifest;
use crate::metrics::MountCounters;
use crate::namespace::{Difference, FileEntry, Kept, Remembered};
use crate::remote::{Known, ManifestDocument, NewChanges, News, Remote, RemoteError};
use crate::vfs::{Next, Turn, Vfs, nanoseconds};

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
enum Trouble {
    None,
    Unreachable,
    Refused(String),
}

/// A manifest that the mount must not move to.
#[derive(Debug, thiserror::Error)]
enum NotOurs {
    #[error("the remote has gone back to revision {0}: was it restored from a backup?")]
    RolledBack(String),
    #[error("the remote has another database of this name now ({0})")]
    Replaced(String),
    #[error(transparent)]
    Remote(#[from] RemoteError),
}

impl Follower {
    /// Asks when there are news, for ever: as soon as the remote tells of some; where it does not, every so often.
    pub(super) async fn run(mut self) {
        let mut ear = Ear::new(self.remote.clone(), self.known.id.clone());
        let (mut trouble, mut asked) = (Trouble::None, Heard::default());
        loop {
            let heard = ear.heard();
            let is_told = heard.listens && heard.news == asked.news && trouble == Trouble::None;
            if heard.news == asked.news {
                tokio::select! {
                    () = tokio::time::sleep(self.every) => if is_told {
                        self.vfs.sweep();
                        continue;
                    },
                    () = ear.hears() => continue,
                }
            }
            asked = heard;
            self.counters.polls.add(1);
            trouble = trouble.say(self.poll().await);
            self.vfs.sweep();
        }
    }

    async fn poll(&mut self) -> Result<(), NotOurs> {
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
        let mut difference = Difference::default();
        for change in &news.changes {
            let put = change.put.iter().map(|put| (put.path.clone(), FileEntry::from(&put.entry)));
            difference.then(put, change.delete.iter().cloned());
        }
        let published = news.changes.last().map_or(0, |newest| nanoseconds(&newest.time));
        let since = std::mem::replace(&mut self.known.etag, news.etag.clone());
        self.known.revision = Some(news.revision);
        self.flip(Next { difference, revision: Some(news.revision), published }).await;
        let remembered = self.remembered.clone();
        let adding = move || remembered.add(&since, &news.changes, &news.etag);
        match tokio::task::spawn_blocking(adding).await {
            Ok(Ok(Kept::Beside)) => {}
            Ok(Ok(Kept::TooMuch)) => self.remember_anew().await,
            Ok(Err(error)) => tracing::warn!(%error, "the manifest was not kept for the next start"),
            Err(_) => {}
        }
    }

    async fn take_whole(&mut self, document: ManifestDocument) -> Result<(), NotOurs> {
        let ManifestDocument { body, etag, revision } = document;
        // A large one takes a while.
        let vfs = self.vfs.clone();
        let reading = tokio::task::spawn_blocking(move || {
            let manifest = Manifest::from_json(&body)?;
            let difference = vfs.difference(&manifest);
            let published = nanoseconds(&manifest.last_synced_at);
            Ok::<_, RemoteError>((manifest.database_id, difference, published, body))
        });
        let Ok(read) = reading.await else { return Ok(()) };
        let (id, difference, published, body) = read?;
        if id != self.known.id {
            return Err(NotOurs::Replaced(id));
        }
        // A revision never changes: the same number with other files is another history.
        if let (Some(now), Some(before)) = (revision, self.known.revision)
            && (now < before || (now == before && !difference.is_empty()))
        {
            return Err(NotOurs::RolledBack(now.to_string()));
        }
        (self.known.etag, self.known.revision) = (etag.clone(), revision);
        self.flip(Next { difference, revision, published }).await;
        remember(self.remembered.clone(), ManifestDocument { body, etag, revision }).await;
        Ok(())
    }

    /// Waits for a quiet moment, and moves the mount.
    async fn flip(&self, next: Next) {
        if !next.difference.is_empty() {
            let wanted = Instant::now();
            while let Turn::Wait(wait) = self.vfs.turn(wanted, self.every) {
                tokio::time::sleep(wait).await;
            }
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
    fn say(self, asked: Result<(), NotOurs>) -> Self {
        let now = match &asked {
            Ok(()) => Self::None,
            Err(NotOurs::Remote(error)) if error.is_transient() => Self::Unreachable,
            Err(error) => Self::Refused(error.to_string()),
        };
        match (&now, &asked) {
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
