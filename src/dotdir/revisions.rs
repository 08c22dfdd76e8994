//! Earlier revisions, each opened when somebody looks into it. Those that were looked at last are kept; another look finds the
//! others again under the same numbers.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use lru::LruCache;
use tokio::sync::OnceCell;

use crate::fetch::FetchError;
use crate::model::Revision;
use crate::remote::RemoteError;
use crate::vfs::{Vfs, VfsError};

/// So many revisions are kept that somebody has looked into...
const KEPT: NonZeroUsize = NonZeroUsize::new(4).expect("not zero");
/// ...and so long after the last look.
const KEPT_FOR: Duration = Duration::from_secs(300);
/// A listing is not asked for again so soon.
const LISTED_FOR: Duration = Duration::from_secs(1);

/// Where earlier revisions are to be had.
#[async_trait]
pub trait History: Send + Sync {
    /// Those that are kept, the latest first; a limited number of them.
    async fn list(&self) -> Result<Vec<PastRevision>, RemoteError>;

    /// The files of one.
    async fn open(&self, revision: Revision) -> Result<Arc<Vfs>, RemoteError>;
}

/// A revision that can be looked into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PastRevision {
    /// Its number.
    pub revision: Revision,
    /// When it was published, in nanoseconds since 1970.
    pub published: i64,
}

type Cell = Arc<OnceCell<Arc<Vfs>>>;
type Listed = (Instant, Arc<[PastRevision]>);

/// Those that are open.
pub(super) struct Revisions {
    history: Box<dyn History>,
    open: Mutex<LruCache<Revision, (Cell, Instant)>>,
    listed: tokio::sync::Mutex<Option<Listed>>,
    /// Of all that were listed, what was told of them.
    known: Mutex<Arc<[PastRevision]>>,
}

impl Revisions {
    pub(super) fn new(history: Box<dyn History>) -> Self {
        Self {
            history,
            open: Mutex::new(LruCache::new(KEPT)),
            listed: tokio::sync::Mutex::default(),
            known: Mutex::new(Arc::from([])),
        }
    }

    fn open(&self) -> std::sync::MutexGuard<'_, LruCache<Revision, (Cell, Instant)>> {
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// What a listing has told of a revision.
    pub(super) fn known(&self, revision: Revision) -> Option<PastRevision> {
        let known = self.known.lock().unwrap_or_else(|e| e.into_inner()).clone();
        known.iter().find(|known| known.revision == revision).copied()
    }

    /// Opens a revision, if it is not.
    pub(super) async fn look_into(&self, revision: Revision) -> Result<Arc<Vfs>, VfsError> {
        let cell = {
            let mut open = self.open();
            let (cell, used) = open.get_or_insert_mut(revision, || (Cell::default(), Instant::now()));
            *used = Instant::now();
            cell.clone()
        };
        cell.get_or_try_init(|| self.history.open(revision)).await.cloned().map_err(failed)
    }

    /// Those that can be looked into.
    pub(super) async fn list(&self) -> Result<Arc<[PastRevision]>, VfsError> {
        let mut listed = self.listed.lock().await;
        if let Some((asked, found)) = &*listed
            && asked.elapsed() < LISTED_FOR
        {
            return Ok(found.clone());
        }
        let found: Arc<[PastRevision]> = self.history.list().await.map_err(failed)?.into();
        self.known.lock().unwrap_or_else(|e| e.into_inner()).clone_from(&found);
        *listed = Some((Instant::now(), found.clone()));
        Ok(found)
    }

    /// Lets go of what nobody has looked into for a while. Files that are open are read on.
    pub(super) fn sweep(&self) {
        let mut open = self.open();
        while open.peek_lru().is_some_and(|(_, (_, used))| used.elapsed() >= KEPT_FOR) {
            open.pop_lru();
        }
    }
}

/// Only what the remote says is not there is not there.
fn failed(error: RemoteError) -> VfsError {
    match error {
        RemoteError::NotFound { .. } => VfsError::NotFound,
        error => VfsError::Fetch(FetchError::from(error)),
    }
}
