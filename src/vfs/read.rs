//! Looking and reading.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Instant;

use bytes::Bytes;

use super::VfsError;
use super::attr::Attr;
use super::foreseeing::Foreseeing;
use super::handles::{HandleId, Handles};
use super::listings::Listings;
use super::revisions::Shown;
use super::scans::{Pid, Scans, process_of};
use crate::cache::HandedOut;
use crate::fetch::{FetchError, Fetcher, OpenContent, ReaderThread};
use crate::metrics::MountCounters;
use crate::model::{ContentHash, DbRef, MAX_COMPONENT_BYTES};
use crate::namespace::{Ino, NodeKind};

/// A mounted database, read-only: one revision at a time.
pub struct Vfs {
    database: DbRef,
    pub(super) shown: RwLock<Shown>,
    /// The kernel is being told what a flip changed.
    pub(super) settling: AtomicBool,
    pub(super) scans: Scans,
    fetcher: Arc<Fetcher>,
    pub(super) handles: Handles,
    foreseeing: Foreseeing,
    pub(super) listings: Listings,
    counters: Arc<MountCounters>,
}

impl Vfs {
    /// Shows a revision of `database`.
    pub fn new(database: DbRef, shown: Shown, fetcher: Arc<Fetcher>, counters: Arc<MountCounters>) -> Self {
        Self {
            database,
            shown: RwLock::new(shown),
            settling: AtomicBool::new(false),
            scans: Scans::default(),
            fetcher,
            handles: Handles::default(),
            foreseeing: Foreseeing::default(),
            listings: Listings::default(),
            counters,
        }
    }

    /// A node's attributes.
    pub fn attr(&self, ino: Ino) -> Result<Attr, VfsError> {
        let shown = self.read_shown();
        let node = shown.tree.node(ino).ok_or(VfsError::NotFound)?;
        Ok(Attr::of(ino, node))
    }

    /// The attributes of `name` in `parent`, which the kernel will remember until it [forgets](Vfs::forget) it. A
    /// name that is not UTF-8 is in no manifest.
    pub fn lookup(&self, parent: Ino, name: &std::ffi::OsStr, asker: Pid) -> Result<Attr, VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        let directory = tree.node(parent).ok_or(VfsError::NotFound)?;
        if !directory.is_directory() {
            return Err(VfsError::NotADirectory);
        }
        if name.len() > MAX_COMPONENT_BYTES {
            return Err(VfsError::NameTooLong);
        }
        let found = name.to_str().and_then(|name| tree.lookup(parent, name));
        let Some((ino, node)) = found.and_then(|ino| Some((ino, tree.node(ino)?))) else {
            // Whoever lists an older revision may miss what that one had.
            let was_there = name.to_str().is_some_and(|name| tree.had(parent, name));
            if was_there {
                let mixes = self.scans.would_mix(asker, directory.changed, Instant::now(), process_of);
                return Err(if mixes { FetchError::Stale.into() } else { VfsError::Gone });
            }
            directory.said_absent();
            return Err(VfsError::NotFound);
        };
        node.told();
        Ok(Attr::of(ino, node))
    }

    /// The kernel has forgotten a node so many times.
    pub fn forget(&self, ino: Ino, times: u64) {
        if let Some(node) = self.read_shown().tree.node(ino) {
            node.forgotten(times);
        }
    }

    /// Opens a file: from now on the handle reads this content and no other.
    pub fn open(&self, ino: Ino, opener: Pid) -> Result<HandleId, VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        let node = tree.node(ino).ok_or(VfsError::NotFound)?;
        let NodeKind::File { hash, .. } = &node.kind else { return Err(VfsError::IsADirectory) };
        if matches!(hash, ContentHash::Md5(_)) {
            return Err(VfsError::NotPinned);
        }
        let now = Instant::now();
        let revision = if node.is_shown() {
            if self.scans.would_mix(opener, node.since, now, process_of) {
                return Err(FetchError::Stale.into());
            }
            shown.revision
        } else {
            // The kernel may still lead there by name, until it has been told: ESTALE makes it look again.
            if self.settling.load(Ordering::SeqCst) {
                return Err(FetchError::Stale.into());
            }
            tree.last_revision(ino)
        };
        let key = shown.content_key(&self.database, ino, revision).ok_or(VfsError::NotFound)?;
        let used = self.scans.begin(tree.flip(), opener, now);
        node.opened();
        let content = self.fetcher.open(&key);
        if node.is_shown() {
            self.foreseeing.opened(&self.database, &shown, ino, &content, &self.fetcher);
        } else {
            content.keep_while_open();
        }
        Ok(self.handles.insert(ino, used, content))
    }

    /// Whether all of an open file is cached and checked.
    pub fn is_verified(&self, handle: HandleId) -> bool {
        self.handles.get(handle).is_some_and(|handle| handle.content.is_verified())
    }

    /// An open file's content for the kernel to read by itself, if all of it is cached and checked.
    pub fn hand_out(&self, handle: HandleId) -> Option<HandedOut> {
        self.handles.get(handle)?.content.hand_out()
    }

    /// What an open file is pinned to.
    pub fn content(&self, handle: HandleId) -> Option<Arc<OpenContent>> {
        Some(self.handles.get(handle)?.content.clone())
    }

    /// Reads what the cache has at once; `None` where something has to be fetched first.
    pub fn read_cached(
        &self,
        handle: HandleId,
        thread: ReaderThread,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>, VfsError> {
        let handle = self.handles.get(handle).ok_or(VfsError::BadHandle)?;
        handle.used.touch(Instant::now());
        Ok(handle.content.read_cached(thread, offset, length))
    }

    /// Reads, fetching what is missing: all bytes of the range inside the file, or an error.
    pub async fn read(
        &self,
        handle: HandleId,
        thread: ReaderThread,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, VfsError> {
        let handle = self.handles.get(handle).ok_or(VfsError::BadHandle)?;
        let read = handle.content.read(thread, offset, length).await;
        handle.used.touch(Instant::now());
        Ok(read?)
    }

    /// Closes a handle.
    pub fn release(&self, handle: HandleId) {
        let Some(handle) = self.handles.remove(handle) else { return };
        handle.used.close(Instant::now());
        if let Some(node) = self.read_shown().tree.node(handle.ino) {
            node.closed();
        }
    }

    /// Files and directories, and bytes, in all.
    pub fn totals(&self) -> (u64, u64) {
        let shown = self.read_shown();
        (shown.tree.len(), shown.tree.total_bytes())
    }

    /// An extended attribute, which only the mount itself gives: `user.parquedb.stats` (counters, JSON),
    /// `user.parquedb.revision`, and of files `user.parquedb.sha256` and `user.parquedb.reads` (what reading one has
    /// cost, JSON).
    pub fn xattr(&self, ino: Ino, name: &str) -> Result<Option<String>, VfsError> {
        let shown = self.read_shown();
        let node = shown.tree.node(ino).ok_or(VfsError::NotFound)?;
        Ok(match (name, &node.kind) {
            ("user.parquedb.stats", _) => Some(self.counters.to_json()),
            ("user.parquedb.revision", _) => shown.revision.map(|revision| revision.to_string()),
            ("user.parquedb.sha256", NodeKind::File { hash, .. }) => {
                hash.sha256().map(|hash| hash.to_string())
            }
            ("user.parquedb.reads", NodeKind::File { size, hash, .. }) => self.fetcher.cost(hash, *size),
            _ => None,
        })
    }
}
