//! Whether a file is at rest: nobody has it open for writing, and nobody has changed it since it was looked at. Only then is it
//! read to be published, and only as long as it stays so is what was published the same as what is here (rules 20 and 21).
//!
//! Edits are counted, for times do not tell two apart that follow each other closely: whoever may write from now on counts as
//! one, through us or through the kernel.

use std::fs::File;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::OverlayError;
use super::layers::Layered;
use super::local_file::LocalFile;
use super::overlay::Overlay;
use super::staged::StagedFiles;
use crate::disk::is_being_written;
use crate::model::Sha256;
use crate::state::{BaseEntry, Change, Content, StagedId};

/// What a handle is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Reading only.
    Read,
    /// Writing, and perhaps reading.
    Write,
}

/// How a file's bytes stand.
#[derive(Debug, Clone, PartialEq)]
pub enum Rest {
    /// All of them are the remote's, and nobody may write.
    Remote(BaseEntry),
    /// All of them are here, and nobody may write.
    Local(AtRest),
    /// Nobody may write, and some of them are only with the remote.
    Lacking,
    /// Somebody has it open for writing.
    Written,
}

/// A file whose bytes are all local, at a moment when nobody could change them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AtRest {
    /// Where they lie.
    pub file: StagedId,
    /// How often it had been changed.
    edits: u64,
}

impl AtRest {
    /// Where its bytes lie, below the replica's directory.
    pub fn place(&self) -> String {
        StagedFiles::place(self.file)
    }
}

/// What the bytes of a file at rest are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Digest {
    /// Their hash.
    pub hash: Sha256,
    /// How many.
    pub size: u64,
    /// When they last changed, in nanoseconds since 1970.
    pub modified: i64,
}

/// What is known of a file's edits.
#[derive(Debug, Default)]
pub(super) struct Edits {
    count: AtomicU64,
    /// After so many of them it was found that no mapping is left by which somebody goes on writing, and one more.
    unmapped: AtomicU64,
    digest: Mutex<Option<(AtRest, Digest)>>,
}

impl Edits {
    /// Somebody may change it from now on.
    pub(super) fn one_more(&self) {
        self.count.fetch_add(1, Ordering::SeqCst);
    }
}

impl LocalFile {
    /// How it stands. One over a base that is all here becomes one that is all local.
    pub fn rest(&self, overlay: &Overlay) -> Result<Rest, OverlayError> {
        let mut layers = self.write_layers();
        if layers.writers > 0 {
            return Ok(Rest::Written);
        }
        if layers.content.is_filled() {
            layers.absorb(self.node, overlay)?;
        }
        Ok(match &layers.content {
            Layered::Base(base) => Rest::Remote(base.clone()),
            Layered::Over(_) => Rest::Lacking,
            Layered::Whole(file) if self.is_unmapped(overlay, *file, layers.handles) => {
                Rest::Local(AtRest { file: *file, edits: self.edits() })
            }
            Layered::Whole(_) => Rest::Written,
        })
    }

    /// Whether nobody goes on writing by a mapping that is left: where the kernel writes to the staged file by itself, it outlives
    /// the handle it was made with. Found out when nobody has the file open, for then we have not either.
    fn is_unmapped(&self, overlay: &Overlay, file: StagedId, handles: u32) -> bool {
        let now = self.edits() + 1;
        if self.edits.unmapped.load(Ordering::SeqCst) == now {
            return true;
        }
        let unmapped =
            handles == 0 && File::open(overlay.staged.path(file)).is_ok_and(|open| !is_being_written(&open));
        if unmapped {
            self.edits.unmapped.store(now, Ordering::SeqCst);
        }
        unmapped
    }

    /// The last handle was closed: looks whether anybody goes on writing, before the next reader opens it. `true`: it is at rest,
    /// which could not be known before.
    pub fn look_when_closed(&self, overlay: &Overlay) -> bool {
        let layers = self.read_layers();
        let Layered::Whole(file) = &layers.content else { return false };
        let was_known = self.edits.unmapped.load(Ordering::SeqCst) == self.edits() + 1;
        !was_known && self.is_unmapped(overlay, *file, layers.handles)
    }

    /// Makes it independent of the remote: what it has of it is fetched and kept here.
    pub fn make_own(&self, overlay: &Overlay) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        layers.file_over(self.node, overlay)?;
        layers.settle(self.node, overlay)
    }

    fn edits(&self) -> u64 {
        self.edits.count.load(Ordering::SeqCst)
    }

    /// Whether it has been left alone since it was so.
    pub fn rests_as(&self, before: &AtRest) -> bool {
        let layers = self.read_layers();
        let staged = matches!(layers.content, Layered::Whole(file) if file == before.file);
        staged && layers.writers == 0 && self.edits() == before.edits
    }

    /// Its bytes, to be read.
    pub fn open_at_rest(&self, overlay: &Overlay, rest: &AtRest) -> Result<File, OverlayError> {
        Ok(File::open(overlay.staged.path(rest.file))?)
    }

    /// Remembers what its bytes were found to be, if it was left alone while they were read. `false`: it was not.
    pub fn was_read(&self, rest: AtRest, digest: Digest) -> bool {
        let stays = self.rests_as(&rest);
        if stays {
            *self.digest_lock() = Some((rest, digest));
        }
        stays
    }

    /// What its bytes are, if they were read since they last changed.
    pub fn digest(&self) -> Option<Digest> {
        let (rest, digest) = (*self.digest_lock())?;
        self.rests_as(&rest).then_some(digest)
    }

    fn digest_lock(&self) -> std::sync::MutexGuard<'_, Option<(AtRest, Digest)>> {
        self.edits.digest.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// Its bytes are the remote's by now, as `entry` says: they need not be here any more. Records that, with `changes`, and gives
    /// the staged file up; unless somebody has it open, or has changed it: `false`.
    pub fn give_up(
        &self,
        overlay: &Overlay,
        rest: &AtRest,
        entry: BaseEntry,
        mut changes: Vec<Change>,
    ) -> Result<Option<Vec<Change>>, OverlayError> {
        let mut layers = self.write_layers();
        let staged = matches!(layers.content, Layered::Whole(file) if file == rest.file);
        if !staged || layers.handles > 0 || self.edits() != rest.edits {
            return Ok(None);
        }
        changes.push(Change::Content(self.node, Content::Base(entry.clone())));
        overlay.record_removing(changes.clone(), Some(rest.file))?;
        layers.content = Layered::Base(entry);
        layers.synced = None;
        // Whoever syncs all looks at files while he holds what this takes.
        drop(layers);
        overlay.forget(self.node);
        Ok(Some(changes))
    }
}
