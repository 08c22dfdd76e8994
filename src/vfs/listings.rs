//! Listing directories. A listing goes on with what lay there when it began, whatever becomes of the directory
//! meanwhile; begun again, it shows what is there then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::attr::Attr;
use super::handles::HandleId;
use super::scans::{Pid, Use};
use super::{Vfs, VfsError};
use crate::namespace::{Children, Flip, Ino};

/// An open directory.
struct Listing {
    ino: Ino,
    flip: Flip,
    children: Children,
    used: Arc<Use>,
}

/// All open directories.
#[derive(Default)]
pub(super) struct Listings {
    next: AtomicU64,
    open: Mutex<HashMap<HandleId, Listing>>,
}

impl Listings {
    fn open(&self) -> std::sync::MutexGuard<'_, HashMap<HandleId, Listing>> {
        self.open.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// The flip of the oldest listing that is open.
    pub(super) fn oldest(&self) -> Option<Flip> {
        self.open().values().map(|listing| listing.flip).min()
    }
}

/// Whether the kernel's own memory of a listing may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelListing {
    /// It is true.
    Keep,
    /// It may be an old one.
    Forget,
}

/// What is told of one entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telling {
    /// Its name and kind.
    Name,
    /// Its attributes too, as if it had been looked up.
    LookedUp,
}

/// Whether the listener wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It took the entry.
    Yes,
    /// It had no room for it.
    Full,
}

/// One entry of a listing.
#[derive(Debug)]
pub struct Listed<'a> {
    /// Where the next one follows.
    pub next: u64,
    /// Its name.
    pub name: &'a str,
    /// Its attributes.
    pub attr: Attr,
    /// It is not there any more: nobody should remember it.
    pub gone: bool,
}

impl Vfs {
    /// Opens a directory.
    pub fn open_directory(&self, ino: Ino, opener: Pid) -> Result<(HandleId, KernelListing), VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        let node = tree.node(ino).ok_or(VfsError::NotFound)?;
        let children = tree.children(ino).ok_or(VfsError::NotADirectory)?.clone();
        let kernel = if node.take_listing_changed() { KernelListing::Forget } else { KernelListing::Keep };
        let used = self.scans.begin(tree.flip(), opener, Instant::now());
        node.opened();
        let id = HandleId(self.listings.next.fetch_add(1, Ordering::Relaxed) + 1);
        self.listings.open().insert(id, Listing { ino, flip: tree.flip(), children, used });
        Ok((id, kernel))
    }

    /// Closes a directory.
    pub fn close_directory(&self, id: HandleId) {
        let closed = self.listings.open().remove(&id);
        if let Some(listing) = closed {
            listing.used.close(Instant::now());
            if let Some(node) = self.read_shown().tree.node(listing.ino) {
                node.closed();
            }
        }
    }

    /// A directory's entries from position `from` on, as long as `take` wants more. Position 0 is `.`, 1 is `..`.
    pub fn list(
        &self,
        id: HandleId,
        from: u64,
        telling: Telling,
        mut take: impl FnMut(Listed<'_>) -> Taken,
    ) -> Result<(), VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        let (ino, children) = {
            let mut open = self.listings.open();
            let listing = open.get_mut(&id).ok_or(VfsError::BadHandle)?;
            listing.used.touch(Instant::now());
            if from == 0
                && listing.flip != tree.flip()
                && let Some(children) = tree.children(listing.ino)
            {
                (listing.children, listing.flip) = (children.clone(), tree.flip());
            }
            (listing.ino, listing.children.clone())
        };
        for at in from.. {
            let (name, ino) = match at {
                0 => (".", ino),
                1 => ("..", tree.parent(ino).unwrap_or(Ino::ROOT)),
                _ => {
                    let Some(child) = usize::try_from(at - 2).ok().and_then(|at| tree.child(&children, at))
                    else {
                        break;
                    };
                    (child.1.name(), child.0)
                }
            };
            let Some(node) = tree.node(ino) else { continue };
            let listed = Listed { next: at + 1, name, attr: Attr::of(ino, node), gone: !node.is_shown() };
            let counts = telling == Telling::LookedUp && at > 1;
            // Before the answer is sent: the kernel may forget it at once.
            if counts {
                node.told();
            }
            if take(listed) == Taken::Full {
                if counts {
                    node.forgotten(1);
                }
                break;
            }
        }
        Ok(())
    }
}
