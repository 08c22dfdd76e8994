//! Making one file's bytes durable, and what becomes of them after a death.
//!
//! What is known to be on the disk is only believed where nobody has the file open: a write shows in a file's time before it
//! shows in the file.

use std::io;
use std::sync::atomic::Ordering;

use super::OverlayError;
use super::layers::Layered;
use super::local_file::{LocalFile, changed};
use super::overlay::Overlay;
use super::syncing::{Durably, Noted};
use crate::disk::point;
use crate::state::{StagedId, now};

/// What is known to be on the disk.
#[derive(Debug, Default)]
pub(super) struct Durable {
    /// The staged file's name.
    named: Option<StagedId>,
    /// Its bytes, as they were at a moment when nobody had the file open.
    mark: Option<Mark>,
}

/// A staged file at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mark {
    file: StagedId,
    size: u64,
    changed: i64,
    /// What is written to it later shows in its time: some file systems tell times apart only after a tick of the clock.
    tells: bool,
}

/// Longer than any kernel's tick.
const TICK: i64 = 20_000_000;

impl PartialEq for Mark {
    fn eq(&self, other: &Self) -> bool {
        (self.file, self.size, self.changed) == (other.file, other.size, other.changed)
    }
}

impl Mark {
    fn of(file: StagedId, metadata: &std::fs::Metadata) -> Self {
        let changed = changed(metadata);
        Self { file, size: metadata.len(), changed, tells: now().saturating_sub(changed) > TICK }
    }
}

impl LocalFile {
    /// Makes its bytes durable and notes that. Unless somebody asks for it, not where they are known to be.
    pub(super) fn make_durable(&self, overlay: &Overlay, asked: Option<Durably>) -> Result<(), OverlayError> {
        let done = self.sync(overlay, asked);
        if done.is_err() && asked.is_some() {
            self.told.store(true, Ordering::Relaxed);
        }
        done
    }

    fn sync(&self, overlay: &Overlay, asked: Option<Durably>) -> Result<(), OverlayError> {
        let mut durable = self.durable.lock().unwrap_or_else(|e| e.into_inner());
        let (open, file, is_open) = {
            let layers = self.read_layers();
            let Some(file) = layers.content.staged() else { return Ok(()) };
            match layers.opened_file(overlay, file) {
                // It is gone by now, as nobody needs it.
                Err(error) if layers.handles == 0 && error.errno() == libc::ENOENT => return Ok(()),
                opened => (opened?, file, layers.handles > 0),
            }
        };
        if self.failed.load(Ordering::Relaxed) || overlay.has_failed(self.node) {
            return Err(io::Error::from_raw_os_error(libc::EIO).into());
        }
        // Looked at before: what is written while it is synced may not be on the disk.
        let measured = overlay.measure();
        let before = Mark::of(file, &open.metadata()?);
        // Who has it open may be in the middle of a write, which shows in the file's time before it shows in the file.
        if asked.is_none() && !is_open && durable.named == Some(file) && durable.mark == Some(before) {
            return Ok(());
        }
        let named = durable.named == Some(file);
        let synced = if asked == Some(Durably::All) { open.sync_all() } else { open.sync_data() };
        let done = synced.and_then(|()| if named { Ok(()) } else { overlay.staged.sync_name(file) });
        if let Err(error) = done {
            self.failed.store(true, Ordering::Relaxed);
            return Err(error.into());
        }
        self.note(overlay, &mut durable, before, measured, is_open);
        Ok(())
    }

    fn note(&self, overlay: &Overlay, durable: &mut Durable, mark: Mark, measured: u64, is_open: bool) {
        if matches!(self.read_layers().content, Layered::Whole(file) if file == mark.file) {
            overlay.note_synced(self.node, Noted { size: mark.size, measured }, mark.changed);
        }
        durable.named = Some(mark.file);
        durable.mark = (!is_open && mark.tells).then_some(mark);
    }

    /// How its staged file is now, if nobody has it open and it may not be on the disk.
    pub(super) fn unsynced(&self, overlay: &Overlay) -> Result<Option<Mark>, OverlayError> {
        let Some(file) = self.staged() else { return Ok(None) };
        let metadata = match std::fs::metadata(overlay.staged.path(file)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            metadata => metadata?,
        };
        let mark = Mark::of(file, &metadata);
        let durable = self.durable.lock().unwrap_or_else(|e| e.into_inner());
        Ok((durable.named != Some(file) || durable.mark != Some(mark)).then_some(mark))
    }

    /// Everything on the disk was synced since it was so, if it is so still and nobody has opened it. `false`: it is not.
    pub(super) fn was_synced(&self, overlay: &Overlay, mark: Mark) -> Result<bool, OverlayError> {
        let mut durable = self.durable.lock().unwrap_or_else(|e| e.into_inner());
        if self.is_open() || overlay.has_failed(self.node) || self.failed.load(Ordering::Relaxed) {
            return Ok(false);
        }
        let now = std::fs::metadata(overlay.staged.path(mark.file)).map(|now| Mark::of(mark.file, &now));
        if !now.is_ok_and(|now| now == mark) {
            return Ok(false);
        }
        // Measured anew, and as it was before the sync.
        let measured = overlay.measure();
        self.note(overlay, &mut durable, mark, measured, false);
        Ok(true)
    }

    /// After another boot: what was not synced is given up (rule 18), and said. `true`: something was.
    pub(super) fn give_up_what_was_not_synced(&self, overlay: &Overlay) -> Result<bool, OverlayError> {
        let layers = self.read_layers();
        let Some(file) = layers.content.staged() else { return Ok(false) };
        let open = match overlay.staged.open(file) {
            // It was named only after its directory had been synced, unless nothing was.
            Err(error) if error.kind() == io::ErrorKind::NotFound => overlay.staged.create(file)?,
            opened => opened?,
        };
        let length = open.metadata()?.len();
        match &layers.content {
            Layered::Whole(_) => {
                let known = layers.synced.unwrap_or(0);
                let more = length > known;
                if more {
                    point()?;
                    open.set_len(known)?;
                }
                Ok(more || layers.synced.is_none())
            }
            // What was written and not synced is in no range.
            Layered::Over(_) | Layered::Base(_) => Ok(false),
        }
    }

    /// After a death of the daemon in the middle of something: what it had begun to do to the staged file is done.
    pub(super) fn finish(&self, overlay: &Overlay) -> Result<(), OverlayError> {
        self.write_layers().settle(self.node, overlay)
    }
}
