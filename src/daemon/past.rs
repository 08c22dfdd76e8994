//! What a mount shows as `.parquedb`. Earlier revisions are each a mount of its own without a kernel, and share the cache.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use tokio::sync::watch;

use super::start::{Started, start_at};
use crate::control::Standing;
use crate::dotdir::{DotDir, DotDirOptions, History, PastRevision};
use crate::fetch::Fetcher;
use crate::metrics::MountCounters;
use crate::model::{DbRef, Revision};
use crate::remote::{Remote, RemoteError};
use crate::state::now;
use crate::vfs::{Vfs, nanoseconds};

/// So many are listed: the remote tells of no more at once.
const LISTED: u64 = 1000;

/// What a mount shows as `.parquedb`: `conflicts` is where its versions that have lost lie, if it is one that publishes.
pub(super) fn dotdir(
    vfs: Arc<Vfs>,
    standing: watch::Receiver<Standing>,
    conflicts: Option<PathBuf>,
    past: Option<Past>,
) -> DotDir {
    let status = move || {
        let revision = vfs.revision().map(|revision| revision.0);
        let standing = Standing { pending: vfs.pending(), revision, ..standing.borrow().clone() };
        let mut text = serde_json::to_vec_pretty(&standing).unwrap_or_default();
        text.push(b'\n');
        text
    };
    let history = past.map(|past| Box::new(past) as Box<dyn History>);
    let options = DotDirOptions { status: Box::new(status), conflicts, history };
    DotDir::new(options, now())
}

/// The revisions of one database.
pub(super) struct Past {
    pub(super) remote: Remote,
    pub(super) database: DbRef,
    /// The database's id: another one of its name has another past.
    pub(super) id: String,
    pub(super) cache_dir: PathBuf,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) counters: Arc<MountCounters>,
}

#[async_trait]
impl History for Past {
    async fn list(&self) -> Result<Vec<PastRevision>, RemoteError> {
        let told = self.remote.log(&self.id, None, LISTED).await?;
        let kept = told.log.into_iter().filter(|entry| !entry.expired);
        Ok(kept
            .map(|entry| PastRevision { revision: entry.revision, published: nanoseconds(&entry.time) })
            .collect())
    }

    async fn open(&self, revision: Revision) -> Result<Arc<Vfs>, RemoteError> {
        let started = start_at(&self.remote, &self.database, revision, &self.cache_dir).await?;
        // Manifests of many revisions would fill the disk: those that were looked into last are in memory.
        let Started { shown, known, .. } = started;
        if known.id != self.id {
            let text = format!("revision {revision} of {} is another database's now", self.database);
            return Err(RemoteError::NotFound { text });
        }
        let (fetcher, counters) = (self.fetcher.clone(), self.counters.clone());
        Ok(Arc::new(Vfs::new(self.database.clone(), shown, None, fetcher, counters)))
    }
}
