//! Looking and reading.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Instant;

use bytes::Bytes;

use super::VfsError;
use super::attr::{Attr, Owner};
use super::foreseeing::Foreseeing;
use super::handles::{Handle, HandleId, Handles};
use super::listings::Listings;
use super::revisions::Shown;
use super::scans::{Pid, Scans, process_of};
use crate::cache::HandedOut;
use crate::content::Composed;
use crate::fetch::{FetchError, Fetcher, OpenContent, ReaderThread};
use crate::metrics::MountCounters;
use crate::model::{ByteRange, ContentHash, DbRef, MAX_COMPONENT_BYTES, Revision};
use crate::namespace::{Ino, Merged, NodeKind, Place};
use crate::overlay::{Access, LocalFile, Overlay};
use crate::state::{Content, NodeId};

/// A mounted database: one revision at a time, and over it what is local.
pub struct Vfs {
    pub(super) database: DbRef,
    pub(super) shown: RwLock<Shown>,
    /// Where what is local lasts; a read-only mount has nothing local.
    pub(super) overlay: Option<Arc<Overlay>>,
    pub(super) owner: Owner,
    /// The kernel is being told what a flip changed.
    pub(super) settling: AtomicBool,
    /// Nothing is given back: of what is being published it must be known that it was here.
    pub(super) keeps_all: AtomicBool,
    /// What it has taken a name from.
    pub(super) left: Mutex<HashSet<NodeId>>,
    /// Something local is of an earlier revision than the one shown, because somebody had it open for writing.
    pub(super) behind: AtomicBool,
    pub(super) scans: Scans,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) handles: Handles,
    foreseeing: Foreseeing,
    pub(super) listings: Listings,
    counters: Arc<MountCounters>,
}

/// A handle on a file, and how the kernel may be let read it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The handle.
    pub handle: HandleId,
    /// Whether the file is all the remote's, or how local it is.
    pub locality: Locality,
}

/// How much of a file is local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Locality {
    /// Nothing, and nobody writes to it.
    Remote,
    /// Something, or nothing yet.
    Partly,
    /// Everything.
    Local,
}

impl Vfs {
    /// Shows a revision of `database`, and what is local over it; without an overlay it is read-only.
    pub fn new(
        database: DbRef,
        shown: Shown,
        overlay: Option<Arc<Overlay>>,
        fetcher: Arc<Fetcher>,
        counters: Arc<MountCounters>,
    ) -> Self {
        let owner = Owner {
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            writable: overlay.is_some(),
        };
        Self {
            database,
            shown: RwLock::new(shown),
            overlay,
            owner,
            settling: AtomicBool::new(false),
            keeps_all: AtomicBool::new(false),
            left: Mutex::default(),
            // Something may have been left behind in an earlier life.
            behind: AtomicBool::new(true),
            scans: Scans::default(),
            fetcher,
            handles: Handles::default(),
            foreseeing: Foreseeing::default(),
            listings: Listings::default(),
            counters,
        }
    }

    pub(super) fn attr_in(&self, shown: &Shown, ino: Ino) -> Result<Attr, VfsError> {
        self.owner.attr(&shown.tree, ino, self.overlay.as_deref())
    }

    /// A node's attributes.
    pub fn attr(&self, ino: Ino) -> Result<Attr, VfsError> {
        self.attr_in(&self.read_shown(), ino)
    }

    /// The bytes of a local file.
    pub fn local_file(&self, id: NodeId) -> Option<Arc<LocalFile>> {
        self.read_shown().tree.upper.node(id)?.file.clone()
    }

    /// Opens what shows through of a local file, for the file's own sake.
    pub fn open_base(&self, file: &LocalFile) -> Option<Arc<OpenContent>> {
        let base = file.base()?;
        let key = self.read_shown().key(&self.database, &base);
        Some(self.fetcher.open(&key))
    }

    /// The attributes of `name` in `parent`, which the kernel will remember until it [forgets](Vfs::forget) it. A
    /// name that is not UTF-8 is in no manifest.
    pub fn lookup(&self, parent: Ino, name: &OsStr, asker: Pid) -> Result<Attr, VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        tree.resolve(parent).ok_or(VfsError::NotFound)?;
        if !tree.is_directory(parent) {
            return Err(VfsError::NotADirectory);
        }
        if name.len() > MAX_COMPONENT_BYTES {
            return Err(VfsError::NameTooLong);
        }
        let Some(place) = tree.child(parent, name) else {
            // Whoever lists an older revision may miss what that one had.
            let base = tree.base_directory(parent).and_then(|base| Some((base, tree.base.node(base)?)));
            if let Some((base, directory)) = base {
                if name.to_str().is_some_and(|name| tree.base.had(base, name)) {
                    let mixes = self.scans.would_mix(asker, directory.changed, Instant::now(), process_of);
                    return Err(if mixes { FetchError::Stale.into() } else { VfsError::Gone });
                }
                directory.said_absent();
            }
            return Err(VfsError::NotFound);
        };
        let attr = self.attr_in(&shown, tree.ino_of(place))?;
        told_of(tree, attr.ino);
        Ok(attr)
    }

    /// The kernel has forgotten a node so many times.
    pub fn forget(&self, ino: Ino, times: u64) {
        let shown = self.read_shown();
        if let Some(node) = shown.tree.base.node(ino) {
            node.forgotten(times);
        }
        let Some(Place::Local(id)) = shown.tree.resolve(ino) else { return };
        let Some(node) = shown.tree.upper.node(id) else { return };
        node.forgotten(times);
        let unchanged = !node.row.touched && node.known_times() == 0 && node.file.is_some();
        if node.is_lost() && id != NodeId::ROOT {
            drop(shown);
            self.reap(id);
        } else if unchanged {
            drop(shown);
            self.give_back(id);
        }
    }

    /// Opens a file for reading: from now on the handle reads this content and no other, but for what is written here.
    pub fn open(&self, ino: Ino, opener: Pid) -> Result<Opened, VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        if let Some((_, node)) = tree.local(ino) {
            return self.open_local(&shown, ino, node, opener, Access::Read);
        }
        let tree = &tree.base;
        let node = tree.node(ino).ok_or(VfsError::NotFound)?;
        let NodeKind::File { hash, .. } = &node.kind else { return Err(VfsError::IsADirectory) };
        if matches!(hash, ContentHash::Md5(_)) {
            return Err(VfsError::NotPinned);
        }
        let now = Instant::now();
        let revision = if node.is_in_tree() {
            // What is covered is read by those who have it open only: by this name something local is meant, or nothing.
            if !node.is_shown() {
                return Err(VfsError::LookAgain);
            }
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
        let used = self.scans.begin(tree.flip(), opener, process_of(opener), now);
        node.opened();
        let content = self.fetcher.open(&key);
        if node.is_in_tree() {
            self.foreseeing.opened(&self.database, &shown, ino, &content, &self.fetcher);
        } else {
            content.keep_while_open();
        }
        let handle = self.handles.insert(ino, used, Some(content), None);
        Ok(Opened { handle, locality: Locality::Remote })
    }

    /// Whether all of an open file is cached and checked, and nothing of it is local.
    pub fn is_verified(&self, handle: HandleId) -> bool {
        let Some(handle) = self.handles.get(handle) else { return false };
        let untouched = handle.local().is_none_or(|local| local.staged().is_none());
        untouched && handle.content.as_ref().is_some_and(|content| content.is_verified())
    }

    /// An open file's content for the kernel to read by itself, if all of it is cached and checked.
    pub fn hand_out(&self, handle: HandleId) -> Option<HandedOut> {
        let handle = self.handles.get(handle)?;
        let untouched = handle.local().is_none_or(|local| local.staged().is_none());
        handle.content.as_ref().filter(|_| untouched)?.hand_out()
    }

    /// The remote's content that an open file is pinned to, if nothing of it is local.
    pub fn content(&self, handle: HandleId) -> Option<Arc<OpenContent>> {
        let handle = self.handles.get(handle)?;
        handle.content.clone().filter(|_| handle.local().is_none())
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
        match (self.composed(&handle), &handle.content) {
            (Some(composed), _) => {
                Ok(composed.read_cached(thread, ByteRange::new(offset, offset.saturating_add(length)))?)
            }
            (None, Some(content)) => Ok(content.read_cached(thread, offset, length)),
            (None, None) => Err(VfsError::BadHandle),
        }
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
        let read = match (self.composed(&handle), &handle.content) {
            (Some(composed), _) => {
                let range = ByteRange::new(offset, offset.saturating_add(length));
                composed.read(thread, range).await.map_err(VfsError::from)
            }
            (None, Some(content)) => content.read(thread, offset, length).await.map_err(VfsError::from),
            (None, None) => Err(VfsError::BadHandle),
        };
        handle.used.touch(Instant::now());
        read
    }

    fn composed<'a>(&'a self, handle: &'a Handle) -> Option<Composed<'a>> {
        let (local, overlay) = (handle.local()?, self.overlay.as_deref()?);
        Some(Composed { local, overlay, base: handle.content.as_ref() })
    }

    /// Closes a handle.
    pub fn release(&self, handle: HandleId) {
        let Some(handle) = self.handles.remove(handle) else { return };
        handle.used.close(Instant::now());
        // It becomes local, if it does, under the other side of this lock.
        let shown = self.read_shown();
        let last = handle.local.get().is_some_and(|(local, access)| local.closed(*access));
        // It was the remote's when it was opened, perhaps.
        if handle.local().is_none()
            && let Some(node) = shown.tree.base.node(handle.ino)
        {
            node.closed();
        }
        let (Some((local, access)), Some(overlay)) = (handle.local.get(), &self.overlay) else { return };
        // A reader may have been all that a file waited for.
        let is_news = last && local.look_when_closed(overlay);
        if is_news || *access == Access::Write {
            overlay.stirred();
        }
        let id = local.node();
        let Some(node) = shown.tree.upper.node(id) else { return };
        node.closed();
        let (lost, unchanged) = (node.is_lost(), !node.row.touched && local.staged().is_none());
        drop(shown);
        if lost {
            self.reap(id);
        } else if last && unchanged {
            self.give_back(id);
        } else if last {
            self.give_bytes_up_late(local);
        }
    }

    /// Closes all that is open: the kernel is gone, and tells of no more closes.
    pub fn release_all(&self) {
        for handle in self.handles.ids() {
            self.release(handle);
        }
    }

    /// The revision shown, where the remote has numbers.
    pub fn revision(&self) -> Option<Revision> {
        self.read_shown().revision
    }

    /// How many local changes there are that are not published.
    pub fn pending(&self) -> usize {
        let pending = self.read_shown().tree.upper.pending(|_| 0);
        pending.iter().filter(|pending| pending.what.travels()).count()
    }

    /// Bytes and files on the disk that local changes lie on: in all, free, and free for everybody; of a read-only mount,
    /// what the revision has.
    pub fn totals(&self) -> Totals {
        if let Some(overlay) = &self.overlay
            && let Ok(disk) = overlay.disk()
        {
            return Totals {
                bytes: disk.f_blocks.saturating_mul(disk.f_frsize),
                free: disk.f_bfree.saturating_mul(disk.f_frsize),
                available: disk.f_bavail.saturating_mul(disk.f_frsize),
                files: disk.f_files,
                free_files: disk.f_ffree,
            };
        }
        let tree = &self.read_shown().tree.base;
        Totals { bytes: tree.total_bytes(), free: 0, available: 0, files: tree.len(), free_files: 0 }
    }

    /// An extended attribute that only the mount itself gives: `user.parquedb.stats` (counters, JSON),
    /// `user.parquedb.revision`, of the mount `user.parquedb.state` (where local changes lie), and of files
    /// `user.parquedb.sha256` and `user.parquedb.reads` (what reading one has cost, JSON); these two of nothing local.
    pub(super) fn own_xattr(&self, shown: &Shown, ino: Ino, name: &str) -> Option<String> {
        match name {
            "user.parquedb.stats" => return Some(self.counters.to_json()),
            "user.parquedb.state" if ino == Ino::ROOT => {
                return self.overlay.as_ref().map(|overlay| overlay.path().display().to_string());
            }
            "user.parquedb.revision" => return shown.revision.map(|revision| revision.to_string()),
            _ => {}
        }
        let entry = match shown.tree.local(ino) {
            Some((_, node)) => match node.file.as_ref()?.content() {
                Content::Base(entry) => entry,
                Content::Staged { .. } => return None,
            },
            None => shown.tree.entry(ino, None)?,
        };
        match name {
            "user.parquedb.sha256" => entry.hash.sha256().map(|hash| hash.to_string()),
            "user.parquedb.reads" => self.fetcher.cost(&entry.hash, entry.size),
            _ => None,
        }
    }
}

/// What there is room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Bytes in all.
    pub bytes: u64,
    /// Free bytes.
    pub free: u64,
    /// Free bytes, for everybody.
    pub available: u64,
    /// Files in all.
    pub files: u64,
    /// Files that could be made.
    pub free_files: u64,
}

/// Notes that the kernel is being told of a number. Said before the answer is sent.
pub(super) fn told_of(tree: &Merged, ino: Ino) {
    match tree.resolve(ino) {
        Some(Place::Local(id)) => tree.upper.node(id).iter().for_each(|node| node.told(1)),
        Some(Place::Base(ino)) => tree.base.node(ino).iter().for_each(|node| node.told()),
        None => {}
    }
}

/// It was not told after all.
pub(super) fn forget_once(tree: &Merged, ino: Ino) {
    match tree.resolve(ino) {
        Some(Place::Local(id)) => tree.upper.node(id).iter().for_each(|node| node.forgotten(1)),
        Some(Place::Base(ino)) => tree.base.node(ino).iter().for_each(|node| node.forgotten(1)),
        None => {}
    }
}
