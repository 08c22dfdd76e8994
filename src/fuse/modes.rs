//! How the kernel reads and writes each open file. While a content is incomplete it asks us for just what programs read
//! (*direct*): its own pages would ask in other portions, and for more. A complete and verified one it reads by itself:
//! from the cached file where we may hand that over (*passthrough*), else it keeps what it has read (*kept*).
//!
//! A file of which everything is local it reads and writes by itself, in the staged file; one of which something is, or may
//! be any moment, through us, directly.
//!
//! Passthrough does not mix with the other two on one inode: the kernel answers with EIO (rule 20). So an inode's first
//! open decides, until its last handle is closed. What is opened by passthrough again and again is kept in the end
//! ([`kept`](super::kept)).

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fuser::BackingId;

use crate::cache::HandedOut;
use crate::namespace::Ino;

/// Whether the kernel is given complete cached files to read by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passthrough {
    /// Where it is permitted: to root, or with CAP_SYS_ADMIN.
    Try,
    /// No: it reads through the daemon and keeps the pages.
    Never,
}

/// The inodes that are open.
#[derive(Debug)]
pub(super) struct Modes {
    open: Mutex<HashMap<Ino, OpenInode>>,
    refused: AtomicBool,
}

#[derive(Debug)]
struct OpenInode {
    handles: usize,
    through: Option<Arc<Through>>,
}

/// A file handed to the kernel.
#[derive(Debug)]
pub(super) struct Through {
    pub(super) backing: BackingId,
    file: Handed,
}

/// What the kernel may be handed.
#[derive(Debug)]
pub(super) enum Handed {
    /// A complete and verified content in the cache, to be read. As long as this lives, it is not evicted.
    Cached(HandedOut),
    /// A staged file, to be read and written.
    Staged(Arc<File>),
}

impl Handed {
    fn file(&self) -> &File {
        match self {
            Self::Cached(content) => content.file(),
            Self::Staged(file) => file,
        }
    }
}

/// What a handle is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Read,
    Write,
}

/// The kernel reads the file by itself in the cache, and would write there.
#[derive(Debug)]
pub(super) struct ReadsCached;

impl Modes {
    pub(super) fn new(passthrough: Passthrough) -> Self {
        Self { open: Mutex::default(), refused: AtomicBool::new(passthrough == Passthrough::Never) }
    }

    /// Whether the kernel reads an inode by itself in the cache.
    pub(super) fn reads_cached(&self, ino: Ino) -> bool {
        let open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        let through = open.get(&ino).and_then(|inode| inode.through.as_ref());
        through.is_some_and(|through| matches!(through.file, Handed::Cached(_)))
    }

    /// Counts one more handle of an inode, and says whether the kernel is to read it by itself: if it does already, or
    /// if nothing else is open and `file` gives it.
    pub(super) fn open(
        &self,
        ino: Ino,
        purpose: Purpose,
        open_backing: impl FnOnce(&File) -> io::Result<BackingId>,
        file: impl FnOnce() -> Option<Handed>,
    ) -> Result<Option<Arc<Through>>, ReadsCached> {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(inode) = open.get_mut(&ino) {
            let cached =
                inode.through.as_ref().is_some_and(|through| matches!(through.file, Handed::Cached(_)));
            if cached && purpose == Purpose::Write {
                return Err(ReadsCached);
            }
            inode.handles += 1;
            return Ok(inode.through.clone());
        }
        let through = self.hand_over(open_backing, file).map(Arc::new);
        open.insert(ino, OpenInode { handles: 1, through: through.clone() });
        Ok(through)
    }

    /// One handle of an inode was closed; whether it was the last.
    pub(super) fn close(&self, ino: Ino) -> bool {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        let Some(inode) = open.get_mut(&ino) else { return false };
        inode.handles -= 1;
        let last = inode.handles == 0;
        if last {
            open.remove(&ino);
        }
        last
    }

    fn hand_over(
        &self,
        open_backing: impl FnOnce(&File) -> io::Result<BackingId>,
        file: impl FnOnce() -> Option<Handed>,
    ) -> Option<Through> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let file = file()?;
        match open_backing(file.file()) {
            Ok(backing) => Some(Through { backing, file }),
            Err(error) => {
                // It takes CAP_SYS_ADMIN, a kernel of 6.9 or later, and a disk with a file system that is no stack
                // itself: none of this changes while we are mounted.
                tracing::info!(%error, "the kernel does not read complete files by itself: they go through the daemon");
                self.refused.store(true, Ordering::Relaxed);
                None
            }
        }
    }
}
