//! Moving the mount from one revision to the next, whole: whoever looks sees all of the one or all of the other.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::Vfs;
use super::scans::{Turn, has_ended};
use super::settling::Above;
use crate::manifest::Manifest;
use crate::model::{DbRef, Revision};
use crate::namespace::{Difference, FlipStep, Ino, Merged, Outdated, Tree, Whose};
use crate::overlay::Upper;
use crate::remote::ContentKey;
use crate::state::{BaseEntry, NodeId};

/// The revision a mount shows.
#[derive(Debug)]
pub struct Shown {
    /// Its files, and what is local over them.
    pub tree: Merged,
    /// Its number; a static host has none.
    pub revision: Option<Revision>,
    /// It will be shown as long as the mount is there, whatever is published.
    pub stays: bool,
}

/// The next revision, not shown yet.
#[derive(Debug)]
pub struct Next {
    /// What differs from the one shown.
    pub difference: Difference,
    /// Its number.
    pub revision: Option<Revision>,
    /// When it was published, in nanoseconds since 1970.
    pub published: i64,
}

/// A manifest's time, or an entry's, in nanoseconds since 1970; 0 where it is no date.
pub fn nanoseconds(time: &str) -> i64 {
    let time = time.parse::<jiff::Timestamp>().ok();
    time.and_then(|time| i64::try_from(time.as_nanosecond()).ok()).unwrap_or(0)
}

impl Shown {
    /// The revision of a manifest.
    pub fn new(manifest: &Manifest, revision: Option<Revision>) -> Self {
        let tree = Tree::build(&manifest.files, nanoseconds(&manifest.last_synced_at));
        Self { tree: Merged::new(tree, Upper::empty()), revision, stays: false }
    }

    /// The same with what is local over it.
    pub fn under(self, upper: Upper) -> Self {
        Self { tree: Merged::new(self.tree.base, upper), ..self }
    }

    /// What a node's content is asked for by, as `revision` has it.
    pub(super) fn content_key(
        &self,
        database: &DbRef,
        ino: Ino,
        revision: Option<Revision>,
    ) -> Option<ContentKey> {
        Some(self.key(database, &self.tree.entry(ino, revision)?))
    }

    /// Whether the revision shown is not older than what the remote once had. Where that is not known, it has to be just that.
    pub(super) fn has_by_now(&self, entry: &BaseEntry) -> bool {
        self.revision >= entry.revision
            || self
                .remote_entry(&entry.path)
                .is_some_and(|there| (there.size, there.hash) == (entry.size, entry.hash))
    }

    /// What an entry's content is asked for by.
    pub(super) fn key(&self, database: &DbRef, entry: &BaseEntry) -> ContentKey {
        let key =
            ContentKey::new(database.clone(), entry.path.clone(), entry.size, entry.hash, entry.revision);
        let key = key.with_blocks(entry.blocks);
        match self.revision {
            None => key.on_static_host(),
            Some(_) if self.stays => key.of_the_past(),
            Some(_) => key,
        }
    }
}

impl Vfs {
    /// What differs between the revision shown and a manifest.
    pub fn difference(&self, manifest: &Manifest) -> Difference {
        self.read_shown().tree.base.difference(&manifest.files)
    }

    /// Whether a flip that has been wanted since then, and may wait so long, may happen now.
    pub fn turn(&self, wanted: Instant, patience: Duration) -> Turn {
        self.scans.turn(wanted, patience, Instant::now(), has_ended)
    }

    /// Shows the next revision. The kernel still remembers parts of the old one; until [`Vfs::settled`] is called,
    /// opening what is not there any more makes it look again.
    pub fn flip(&self, next: &Next) -> Outdated {
        self.settling.store(true, Ordering::SeqCst);
        let mut shown = self.shown.write().unwrap_or_else(|e| e.into_inner());
        let (last, difference) = (shown.revision, &next.difference);
        let Above { mut changes, mut left, fresh } = self.follow_above(&shown, difference, next.revision);
        if let (Some(overlay), false) = (&self.overlay, changes.is_empty())
            && let Err(error) = overlay.record(changes.clone())
        {
            tracing::error!(%error, "files that are unchanged here stay as they were");
            self.behind.store(true, Ordering::Relaxed);
            changes.clear();
            left.clear();
        }
        let step = FlipStep { difference, published: next.published, last, whose: Whose::Others };
        let outdated = shown.tree.flip(&step, &[], &changes);
        shown.were_brought(&fresh);
        shown.revision = next.revision;
        self.were_left(&left);
        drop(shown);
        left.into_iter().for_each(|id| self.reap(id));
        self.keep_what_is_not_shown();
        outdated
    }

    /// What was fetched for open handles of what is not shown any more stays until they are closed: a static host has
    /// nothing else of it, and others may throw old revisions away.
    fn keep_what_is_not_shown(&self) {
        let shown = self.read_shown();
        for handle in self.handles.all() {
            if shown.tree.base.node(handle.ino).is_none_or(|node| !node.is_in_tree())
                && let Some(content) = &handle.content
            {
                content.keep_while_open();
            }
        }
    }

    /// The kernel has been told what changed.
    pub fn settled(&self) {
        self.settling.store(false, Ordering::SeqCst);
        self.left.lock().unwrap_or_else(|e| e.into_inner()).clear();
    }

    /// What a flip has taken a name from: the kernel may still lead there by it, until it has been told.
    pub(super) fn were_left(&self, nodes: &[NodeId]) {
        self.left.lock().unwrap_or_else(|e| e.into_inner()).extend(nodes);
    }

    /// Gives back what was kept of earlier revisions and is not used any more.
    pub fn sweep(&self) {
        if self.read_shown().tree.base.kept() > 0 {
            // Listings begin and are begun again under the other side of this lock.
            let mut shown = self.shown.write().unwrap_or_else(|e| e.into_inner());
            // A scan that began before must hear that what it looks for is gone, and not that it never was.
            let used = [
                self.listings.oldest(),
                self.scans.oldest(Instant::now(), has_ended),
                Some(shown.tree.base.flip()),
            ];
            if let Some(oldest) = used.into_iter().flatten().min() {
                shown.tree.base.sweep(oldest);
            }
        }
    }

    pub(super) fn read_shown(&self) -> std::sync::RwLockReadGuard<'_, Shown> {
        self.shown.read().unwrap_or_else(|e| e.into_inner())
    }
}
