//! What lies over what in one file: its base, ranges over it, or a staged file that is all there is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use rangemap::RangeSet;
use rustix::fs::FallocateFlags;

use super::OverlayError;
use super::overlay::Overlay;
use crate::disk::point;
use crate::model::ByteRange;
use crate::state::{BaseEntry, Change, Content, NodeId, StagedId, Under};

#[derive(Debug)]
pub(super) struct Layers {
    pub(super) content: Layered,
    /// Open as long as anybody has the file open.
    pub(super) open: Option<Arc<File>>,
    pub(super) handles: u32,
    /// How many of them may write.
    pub(super) writers: u32,
    /// What the tables and the journal said when the state was opened: so many bytes were on the disk.
    pub(super) synced: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) enum Layered {
    Base(BaseEntry),
    Over(Box<Over>),
    Whole(StagedId),
}

/// Local bytes over a base.
#[derive(Debug, Clone)]
pub(super) struct Over {
    pub(super) file: StagedId,
    pub(super) under: Under,
    /// What was written.
    pub(super) local: RangeSet<u64>,
    /// What was copied from the base, so that the remote is not needed any more.
    pub(super) filled: RangeSet<u64>,
}

impl Over {
    /// What the staged file has of a range, piece after piece, and what it has not.
    pub(super) fn here(&self, range: std::ops::Range<u64>) -> Vec<(bool, ByteRange)> {
        let mut all = RangeSet::new();
        for set in [&self.local, &self.filled] {
            for found in set.overlapping(&range) {
                all.insert(found.start.max(range.start)..found.end.min(range.end));
            }
        }
        let here = all.iter().map(|found| (true, ByteRange::new(found.start, found.end)));
        let gaps = all.gaps(&range).map(|found| (false, ByteRange::new(found.start, found.end)));
        let mut pieces: Vec<_> = here.chain(gaps).collect();
        pieces.sort_unstable_by_key(|(_, piece)| piece.start);
        pieces
    }

    /// Whether nothing of the base that shows through is only with the remote.
    fn is_filled(&self) -> bool {
        self.here(0..self.under.visible).iter().all(|(here, _)| *here)
    }

    /// What was cut off is gone; so is the base behind it, for good.
    pub(super) fn cut(&mut self, size: u64) {
        if size < self.under.size {
            self.local.remove(size..u64::MAX);
            self.filled.remove(size..u64::MAX);
            self.under.visible = self.under.visible.min(size);
        }
        self.under.size = size;
    }
}

impl Layered {
    /// Whether it lies over a base of which all that shows through is here.
    pub(super) fn is_filled(&self) -> bool {
        matches!(self, Self::Over(over) if over.is_filled())
    }

    pub(super) fn staged(&self) -> Option<StagedId> {
        match self {
            Self::Base(_) => None,
            Self::Over(over) => Some(over.file),
            Self::Whole(file) => Some(*file),
        }
    }
}

impl Layers {
    /// The staged file, open for as long as anybody has the file open.
    pub(super) fn file(&mut self, overlay: &Overlay) -> Result<Option<Arc<File>>, OverlayError> {
        let Some(file) = self.content.staged() else { return Ok(None) };
        if self.open.is_none() {
            self.open = Some(Arc::new(overlay.staged.open(file)?));
        }
        Ok(self.open.clone())
    }

    /// The same where nobody may have it open: then it is opened for the moment.
    pub(super) fn opened_file(&self, overlay: &Overlay, file: StagedId) -> Result<Arc<File>, OverlayError> {
        match &self.open {
            Some(open) => Ok(open.clone()),
            None => Ok(Arc::new(overlay.staged.open(file)?)),
        }
    }

    /// The staged file, made if there is none: then all of the base shows through.
    pub(super) fn file_over(&mut self, node: NodeId, overlay: &Overlay) -> Result<Arc<File>, OverlayError> {
        if let Layered::Base(base) = &self.content {
            let file = StagedId(overlay.next_id());
            let open = Arc::new(overlay.staged.create(file)?);
            let under = Under { base: base.clone(), visible: base.size, size: base.size };
            let content = Content::Staged { file, under: Some(Box::new(under.clone())) };
            if let Err(error) = overlay.record(vec![Change::Content(node, content)]) {
                let _ = overlay.staged.remove(file);
                return Err(error);
            }
            let (local, filled) = (RangeSet::new(), RangeSet::new());
            self.content = Layered::Over(Box::new(Over { file, under, local, filled }));
            self.synced = None;
            self.open = (self.handles > 0).then(|| open.clone());
            overlay.depends_on_remote(node);
            return Ok(open);
        }
        match self.content.staged() {
            Some(file) => self.opened_file(overlay, file),
            None => Err(io::Error::from_raw_os_error(libc::EIO).into()),
        }
    }

    /// Bytes that have been written are noted.
    pub(super) fn is_local(
        &mut self,
        node: NodeId,
        overlay: &Overlay,
        range: ByteRange,
    ) -> Result<(), OverlayError> {
        let Layered::Over(over) = &mut self.content else { return Ok(()) };
        let bytes = range.start..range.end;
        if over.local.gaps(&bytes).next().is_none() {
            return Ok(());
        }
        overlay.record_after_sync(
            vec![Change::Local { node, start: range.start, end: range.end }],
            (node, over.file),
        )?;
        over.local.insert(bytes);
        over.under.size = over.under.size.max(range.end);
        Ok(())
    }

    /// Takes what was copied from the base for what was written, and lets the base go.
    pub(super) fn absorb(&mut self, node: NodeId, overlay: &Overlay) -> Result<(), OverlayError> {
        let Layered::Over(over) = &self.content else { return Ok(()) };
        let visible = over.under.visible;
        if visible > 0 {
            self.is_local(node, overlay, ByteRange::new(0, visible))?;
        }
        self.settle(node, overlay)
    }

    /// Lets the base go once nothing of it shows through.
    pub(super) fn settle(&mut self, node: NodeId, overlay: &Overlay) -> Result<(), OverlayError> {
        let Layered::Over(over) = &self.content else { return Ok(()) };
        let visible = over.under.visible;
        let covered = visible == 0 || over.local.get(&0).is_some_and(|first| first.end >= visible);
        if !covered {
            return Ok(());
        }
        let file = over.file;
        let size = over.under.size;
        let open = self.opened_file(overlay, file)?;
        // What lies between local ranges reads as zeros: bytes that were never acknowledged may lie there.
        let gaps: Vec<_> = over.local.gaps(&(0..size)).collect();
        let length = open.metadata()?.len();
        if length > size || gaps.iter().any(|gap| gap.start < length) {
            // The tables may still speak of what goes.
            overlay.commit()?;
        }
        for gap in gaps {
            make_hole(&open, ByteRange::new(gap.start, gap.end))?;
        }
        if length != size {
            point()?;
            open.set_len(size)?;
        }
        overlay.record_after_sync(
            vec![Change::Content(node, Content::Staged { file, under: None })],
            (node, file),
        )?;
        self.content = Layered::Whole(file);
        self.synced = None;
        Ok(())
    }
}

/// Zeros where a file has bytes.
fn make_hole(file: &File, range: ByteRange) -> io::Result<()> {
    const ZEROS: [u8; 4096] = [0; 4096];
    let end = range.end.min(file.metadata()?.len());
    if range.start >= end {
        return Ok(());
    }
    point()?;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, range.start, end - range.start) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
        done => return Ok(done?),
    }
    for at in (range.start..end).step_by(ZEROS.len()) {
        file.write_all_at(&ZEROS[..usize::try_from((end - at).min(ZEROS.len() as u64)).unwrap_or(0)], at)?;
    }
    Ok(())
}
