//! One file or directory of the mount, and its number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use crate::manifest::Entry;
use crate::model::{BlockRoot, ContentHash};
use crate::state::BaseEntry;

/// An inode's number: the place of its node, and above it how often that place was used before. So a number is never
/// given twice, and long-lived mounts do not grow with what has come and gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The mount's own directory.
    pub const ROOT: Self = Self(1);
    /// No number of a file or directory of the mount has this bit; what is shown beside them has.
    pub const BESIDE: u64 = 1 << 62;

    /// Whether it is the number of something beside the mount's files.
    pub fn is_beside(self) -> bool {
        self.0 >> 62 == 1
    }

    /// The generation that follows, if there is one: its numbers would not have [`BESIDE`](Self::BESIDE) clear.
    pub(super) fn next_generation(generation: u32) -> Option<u32> {
        (generation < (1 << 30) - 1).then_some(generation + 1)
    }

    pub(super) fn new(slot: u32, generation: u32) -> Self {
        Self((u64::from(generation) << 32) | (u64::from(slot) + 1))
    }

    /// The slot and the generation.
    pub(super) fn parts(self) -> Option<(u32, u32)> {
        let slot = u32::try_from(self.0 & u64::from(u32::MAX)).ok()?.checked_sub(1)?;
        Some((slot, u32::try_from(self.0 >> 32).ok()?))
    }
}

/// How often the mount had changed its revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Flip(pub u32);

/// What a manifest says of a file, as far as a mount shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileEntry {
    /// Size in bytes.
    pub size: u64,
    /// The content's hash.
    pub hash: ContentHash,
    /// What its blocks can be checked by.
    pub blocks: Option<BlockRoot>,
    /// When it last changed, in nanoseconds since 1970; the manifest's date, if it is one.
    pub modified: i64,
}

impl From<&Entry> for FileEntry {
    fn from(entry: &Entry) -> Self {
        let modified = entry.modified().and_then(|time| i64::try_from(time.as_nanosecond()).ok());
        Self { size: entry.size, hash: entry.hash, blocks: entry.blocks, modified: modified.unwrap_or(0) }
    }
}

impl From<&BaseEntry> for FileEntry {
    fn from(entry: &BaseEntry) -> Self {
        let BaseEntry { size, hash, blocks, modified, .. } = *entry;
        Self { size, hash, blocks, modified }
    }
}

/// A file or directory.
#[derive(Debug)]
pub struct Node {
    pub(super) name: Box<str>,
    pub(super) parent: u32,
    pub(super) generation: u32,
    /// The flip that brought it.
    pub since: Flip,
    /// Of a directory, the flip that last changed what lies in it.
    pub changed: Flip,
    pub(super) state: State,
    /// What it is.
    pub kind: NodeKind,
    /// When it last changed, in nanoseconds since 1970; of a directory, when what lies in it last changed.
    pub modified: i64,
    /// How often the kernel was told of it and has not forgotten it.
    known: AtomicU64,
    /// Handles that are open on it.
    open: AtomicU32,
    marks: AtomicU8,
}

/// Whether a node is in the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Shown,
    /// In the tree, and not shown: it was changed, moved or removed here.
    Covered,
    /// Removed, and perhaps still known or open.
    Removed,
    /// The slot is free.
    Free,
}

/// What a node is.
#[derive(Debug)]
pub enum NodeKind {
    /// A directory.
    Directory {
        /// Slots, sorted by name. Replaced and never changed, so that a listing may go on with the old ones.
        children: Children,
        /// How many of those that are shown are directories.
        subdirectories: u32,
        /// How many of them are shown. A directory is shown because something in it is.
        visible: u32,
    },
    /// A file, by the content it has.
    File {
        /// Size in bytes.
        size: u64,
        /// The content's hash.
        hash: ContentHash,
        /// What its blocks can be checked by.
        blocks: Option<BlockRoot>,
    },
}

/// What lies in a directory, as it was when asked.
#[derive(Debug, Clone, Default)]
pub struct Children(pub(super) Arc<[u32]>);

impl Children {
    /// How many, shown or not.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The kernel was told that a name is absent here.
const SAID_ABSENT: u8 = 1;
/// The kernel may remember a listing that is not true any more.
const LISTING_CHANGED: u8 = 2;

impl Node {
    pub(super) fn new(
        name: &str,
        parent: u32,
        generation: u32,
        since: Flip,
        kind: NodeKind,
        modified: i64,
    ) -> Self {
        Self {
            name: name.into(),
            parent,
            generation,
            since,
            changed: since,
            state: State::Shown,
            kind,
            modified,
            known: AtomicU64::new(0),
            open: AtomicU32::new(0),
            marks: AtomicU8::new(0),
        }
    }

    /// The name in its directory; empty for the root.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is in the tree, and no local change covers it. For a directory see [`Tree::is_visible`](super::Tree::is_visible).
    pub fn is_shown(&self) -> bool {
        self.state == State::Shown
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, NodeKind::Directory { .. })
    }

    /// Notes that the kernel is being told of it. Said before the answer is sent.
    pub fn told(&self) {
        self.known.fetch_add(1, Ordering::Relaxed);
    }

    /// How often the kernel was told of it and has not forgotten it.
    pub fn known_times(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Whether it is of the revision that the tree shows, covered or not.
    pub fn is_in_tree(&self) -> bool {
        matches!(self.state, State::Shown | State::Covered)
    }

    /// What the kernel was told of it, as somebody else counted.
    pub fn set_known(&self, times: u64) {
        self.known.store(times, Ordering::Relaxed);
    }

    /// Notes that the kernel has forgotten it so many times.
    pub fn forgotten(&self, times: u64) {
        let _ = self
            .known
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |known| Some(known.saturating_sub(times)));
    }

    /// Whether the kernel knows it.
    pub fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed) > 0
    }

    /// Notes a handle that is opened.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a handle that is closed.
    pub fn closed(&self) {
        let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |open| open.checked_sub(1));
    }

    /// Whether a handle is open on it.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    pub(super) fn is_needed(&self) -> bool {
        self.is_known() || self.is_open()
    }

    /// Notes that the kernel is being told that a name is absent in this directory.
    pub fn said_absent(&self) {
        self.marks.fetch_or(SAID_ABSENT, Ordering::Relaxed);
    }

    /// Whether it was; asked once after each change.
    pub(super) fn take_said_absent(&self) -> bool {
        self.marks.fetch_and(!SAID_ABSENT, Ordering::Relaxed) & SAID_ABSENT != 0
    }

    pub(super) fn listing_changed(&self) {
        self.marks.fetch_or(LISTING_CHANGED, Ordering::Relaxed);
    }

    /// Whether the kernel may remember an old listing of this directory; asked by the one who makes it forget it.
    pub fn take_listing_changed(&self) -> bool {
        self.marks.fetch_and(!LISTING_CHANGED, Ordering::Relaxed) & LISTING_CHANGED != 0
    }
}

impl NodeKind {
    pub(super) fn empty_directory() -> Self {
        Self::Directory { children: Children::default(), subdirectories: 0, visible: 0 }
    }
}
