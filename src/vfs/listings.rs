//! Listing directories. A listing goes on with what lay there when it began, whatever becomes of the directory
//! meanwhile; begun again, it shows what is there then.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use super::attr::Attr;
use super::handles::HandleId;
use super::read::{forget_once, told_of};
use super::revisions::Shown;
use super::scans::{Pid, Use, process_of};
use super::{Vfs, VfsError};
use crate::namespace::{Children, Flip, Ino, Merged, Place};

/// An open directory.
struct Listing {
    ino: Ino,
    flip: Flip,
    /// What the remote has in it, and what was local in it, as it was then.
    children: Children,
    local: Arc<[OsString]>,
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
    pub name: &'a OsStr,
    /// Its attributes.
    pub attr: Attr,
    /// It is not there any more: nobody should remember it.
    pub gone: bool,
}

/// What lies in a directory now.
fn contents(tree: &Merged, ino: Ino) -> (Children, Arc<[OsString]>) {
    let base = tree.base_directory(ino).and_then(|base| tree.base.children(base));
    let local = tree.local(ino).map(|(_, node)| node.children.keys().cloned().collect());
    (base.cloned().unwrap_or_default(), local.unwrap_or_else(|| Arc::from([])))
}

impl Vfs {
    /// Opens a directory.
    pub fn open_directory(&self, ino: Ino, opener: Pid) -> Result<(HandleId, KernelListing), VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        let place = tree.resolve(ino).ok_or(VfsError::NotFound)?;
        if !tree.is_directory(ino) {
            return Err(VfsError::NotADirectory);
        }
        let (children, local) = contents(tree, ino);
        let base = tree.base_directory(ino).and_then(|base| tree.base.node(base));
        let kernel = match base {
            Some(node) if node.take_listing_changed() => KernelListing::Forget,
            _ => KernelListing::Keep,
        };
        let flip = tree.base.flip();
        let used = self.scans.begin(flip, opener, process_of(opener), Instant::now());
        match place {
            Place::Base(_) => base.iter().for_each(|node| node.opened()),
            Place::Local(id) => tree.upper.node(id).iter().for_each(|node| node.opened()),
        }
        let id = HandleId(self.listings.next.fetch_add(1, Ordering::Relaxed) + 1);
        self.listings.open().insert(id, Listing { ino, flip, children, local, used });
        Ok((id, kernel))
    }

    /// Closes a directory.
    pub fn close_directory(&self, id: HandleId) {
        let closed = self.listings.open().remove(&id);
        let Some(listing) = closed else { return };
        listing.used.close(Instant::now());
        let shown = self.read_shown();
        match shown.tree.resolve(listing.ino) {
            Some(Place::Base(ino)) => shown.tree.base.node(ino).iter().for_each(|node| node.closed()),
            Some(Place::Local(id)) => {
                let last = shown.tree.upper.node(id).is_some_and(|node| node.closed() && node.is_lost());
                drop(shown);
                if last {
                    self.reap(id);
                }
            }
            None => {}
        }
    }

    /// A directory's entries from position `from` on, as long as `take` wants more. Position 0 is `.`, 1 is `..`; then come
    /// those of the remote, then those that were only local when the listing began.
    pub fn list(
        &self,
        id: HandleId,
        from: u64,
        telling: Telling,
        mut take: impl FnMut(Listed<'_>) -> Taken,
    ) -> Result<(), VfsError> {
        let shown = self.read_shown();
        let tree = &shown.tree;
        let (ino, children, local) = {
            let mut open = self.listings.open();
            let listing = open.get_mut(&id).ok_or(VfsError::BadHandle)?;
            listing.used.touch(Instant::now());
            if from == 0 && tree.resolve(listing.ino).is_some() {
                (listing.children, listing.local) = contents(tree, listing.ino);
                listing.flip = tree.base.flip();
            }
            (listing.ino, listing.children.clone(), listing.local.clone())
        };
        let dot = OsStr::new(".");
        for at in from.. {
            let listed = match at {
                0 => self.listed(&shown, at, dot, Place::Base(ino)),
                1 => {
                    let parent = tree.parent(ino).unwrap_or(Ino::ROOT);
                    self.listed(&shown, at, OsStr::new(".."), Place::Base(parent))
                }
                _ => match self.entry_at(&shown, ino, &children, &local, at - 2) {
                    Entry::Listed(name, place) => self.listed(&shown, at, name, place),
                    Entry::Passed => None,
                    Entry::End => break,
                },
            };
            let Some(listed) = listed else { continue };
            let counts = telling == Telling::LookedUp && at > 1;
            let told = listed.attr.ino;
            // Before the answer is sent: the kernel may forget it at once.
            if counts {
                told_of(tree, told);
            }
            if take(listed) == Taken::Full {
                if counts {
                    forget_once(tree, told);
                }
                break;
            }
        }
        Ok(())
    }

    fn listed<'a>(&self, shown: &Shown, at: u64, name: &'a OsStr, place: Place) -> Option<Listed<'a>> {
        let tree = &shown.tree;
        let (attr, gone) = match place {
            Place::Base(ino) if tree.resolve(ino) == Some(place) => {
                let attr = self.attr_in(shown, ino).ok()?;
                (attr, !tree.base.is_visible(ino))
            }
            place => (self.attr_in(shown, tree.ino_of(place)).ok()?, false),
        };
        Some(Listed { next: at + 1, name, attr, gone })
    }

    fn entry_at<'a>(
        &self,
        shown: &'a Shown,
        directory: Ino,
        children: &Children,
        local: &'a [OsString],
        at: u64,
    ) -> Entry<'a> {
        let tree = &shown.tree;
        let Ok(at) = usize::try_from(at) else { return Entry::End };
        if at < children.len() {
            let Some((ino, node)) = tree.base.child(children, at) else { return Entry::Passed };
            let name = OsStr::new(node.name());
            // What is local by that name now stands in its place, so that nothing is missed that was there all along.
            let here = tree.local(directory).and_then(|(id, _)| tree.upper.child(id, name));
            return match here.filter(|id| tree.is_shown(*id)) {
                Some(_) if local.binary_search_by(|known| known.as_os_str().cmp(name)).is_ok() => {
                    Entry::Passed
                }
                Some(id) => Entry::Listed(name, Place::Local(id)),
                // Covered, it is gone; of an earlier revision, a listing that began then goes on with it.
                None if node.is_in_tree() && !tree.base.is_visible(ino) => Entry::Passed,
                None => Entry::Listed(name, Place::Base(ino)),
            };
        }
        let Some(name) = local.get(at - children.len()) else { return Entry::End };
        let here = tree.local(directory).and_then(|(id, _)| tree.upper.child(id, name));
        match here.filter(|id| tree.is_shown(*id)) {
            Some(id) => Entry::Listed(name, Place::Local(id)),
            None => Entry::Passed,
        }
    }
}

enum Entry<'a> {
    Listed(&'a OsStr, Place),
    Passed,
    End,
}
