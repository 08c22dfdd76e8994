//! How the kernel reads each open file. While a content is incomplete it asks us for just what programs read
//! (*direct*): its own pages would ask in other portions, and for more. A complete and verified one it reads by itself:
//! from the cached file where we may hand that over (*passthrough*), else it keeps what it has read (*kept*).
//!
//! Passthrough does not mix with the other two on one inode: the kernel answers with EIO (rule 20). So an inode's first
//! open decides, until its last handle is closed. What is opened by passthrough again and again is kept in the end
//! ([`kept`](super::kept)).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fuser::{BackingId, ReplyOpen};

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

/// A content handed to the kernel.
#[derive(Debug)]
pub(super) struct Through {
    pub(super) backing: BackingId,
    /// As long as this lives, the content is not evicted.
    _content: HandedOut,
}

impl Modes {
    pub(super) fn new(passthrough: Passthrough) -> Self {
        Self { open: Mutex::default(), refused: AtomicBool::new(passthrough == Passthrough::Never) }
    }

    /// Counts one more handle of an inode, and says whether the kernel is to read it by itself: if it does already, or
    /// if nothing else is open and `content` gives its file.
    pub(super) fn open(
        &self,
        ino: Ino,
        reply: &ReplyOpen,
        content: impl FnOnce() -> Option<HandedOut>,
    ) -> Option<Arc<Through>> {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(inode) = open.get_mut(&ino) {
            inode.handles += 1;
            return inode.through.clone();
        }
        let through = self.hand_over(reply, content).map(Arc::new);
        open.insert(ino, OpenInode { handles: 1, through: through.clone() });
        through
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

    fn hand_over(&self, reply: &ReplyOpen, content: impl FnOnce() -> Option<HandedOut>) -> Option<Through> {
        if self.refused.load(Ordering::Relaxed) {
            return None;
        }
        let content = content()?;
        match reply.open_backing(content.file()) {
            Ok(backing) => Some(Through { backing, _content: content }),
            Err(error) => {
                // It takes CAP_SYS_ADMIN, a kernel of 6.9 or later, and a cache on a file system that is no stack
                // itself: none of this changes while we are mounted.
                tracing::info!(%error, "the kernel does not read complete files by itself: they go through the daemon");
                self.refused.store(true, Ordering::Relaxed);
                None
            }
        }
    }
}
