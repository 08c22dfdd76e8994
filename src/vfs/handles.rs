//! Open files.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, RwLock};

use super::scans::Use;
use crate::fetch::OpenContent;
use crate::namespace::Ino;
use crate::overlay::{Access, LocalFile};

/// The number of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct HandleId(pub u64);

/// An open file.
pub(super) struct Handle {
    pub(super) ino: Ino,
    pub(super) used: Arc<Use>,
    /// The remote's content it was opened with, whatever the path names later.
    pub(super) content: Option<Arc<OpenContent>>,
    /// What is local, and what for it was opened: from the open on, or since somebody wrote to the file (rule 16).
    pub(super) local: OnceLock<(Arc<LocalFile>, Access)>,
}

impl Handle {
    /// What is local of it.
    pub(super) fn local(&self) -> Option<&Arc<LocalFile>> {
        self.local.get().map(|(file, _)| file)
    }
}

/// All open files.
#[derive(Default)]
pub(super) struct Handles {
    next: AtomicU64,
    open: RwLock<HashMap<HandleId, Arc<Handle>>>,
}

impl Handles {
    pub(super) fn insert(
        &self,
        ino: Ino,
        used: Arc<Use>,
        content: Option<Arc<OpenContent>>,
        local: Option<(Arc<LocalFile>, Access)>,
    ) -> HandleId {
        let id = HandleId(self.next.fetch_add(1, Ordering::Relaxed) + 1);
        let local = local.map_or_else(OnceLock::new, OnceLock::from);
        let handle = Arc::new(Handle { ino, used, content, local });
        self.open.write().unwrap_or_else(|e| e.into_inner()).insert(id, handle);
        id
    }

    pub(super) fn get(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.open.read().unwrap_or_else(|e| e.into_inner()).get(&id).cloned()
    }

    pub(super) fn all(&self) -> Vec<Arc<Handle>> {
        self.open.read().unwrap_or_else(|e| e.into_inner()).values().cloned().collect()
    }

    pub(super) fn ids(&self) -> Vec<HandleId> {
        self.open.read().unwrap_or_else(|e| e.into_inner()).keys().copied().collect()
    }

    pub(super) fn remove(&self, id: HandleId) -> Option<Arc<Handle>> {
        self.open.write().unwrap_or_else(|e| e.into_inner()).remove(&id)
    }
}
