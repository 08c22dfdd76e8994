//! The bytes of one file of the mount, as far as they are local. A file begins as the remote has it, or empty. The first
//! write to a remote file copies nothing (rule 19): it makes a staged file, with what is written at its own offset, and
//! notes the range; the remote's content shows through elsewhere. Once nothing shows through any more, the staged file is
//! all of the content: its length is the size, and the kernel may write to it without us.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use rustix::fs::{FallocateFlags, SeekFrom};

use super::OverlayError;
use super::asked::{Allocate, Extent, FileState, Piece, Seek};
use super::durable::Durable;
use super::layers::{Layered, Layers, Over};
use super::overlay::Overlay;
use super::rest::{Access, Edits};
use crate::disk::point;
use crate::model::ByteRange;
use crate::state::{BaseEntry, Change, Content, NodeId, StagedId};

/// One file's bytes.
#[derive(Debug)]
pub struct LocalFile {
    pub(super) node: NodeId,
    layers: RwLock<Layers>,
    /// Held while the bytes are synced and that is noted, so that what is noted is never older than what was noted before.
    pub(super) durable: Mutex<Durable>,
    /// The disk did not take what was written: every later `fsync` says so, too (rule 17).
    pub(super) failed: AtomicBool,
    /// An `fsync` has said so.
    pub(super) told: AtomicBool,
    pub(super) edits: Edits,
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

pub(super) fn changed(metadata: &std::fs::Metadata) -> i64 {
    nanoseconds(metadata.ctime(), metadata.ctime_nsec())
}

impl LocalFile {
    pub(super) fn new(
        node: NodeId,
        content: Content,
        local: Vec<(u64, u64)>,
        filled: Vec<(u64, u64)>,
        synced: Option<u64>,
    ) -> Self {
        let ranges = |found: Vec<(u64, u64)>| {
            found.into_iter().filter(|(start, end)| start < end).map(|(start, end)| start..end).collect()
        };
        let content = match content {
            Content::Base(base) => Layered::Base(base),
            Content::Staged { file, under: None } => Layered::Whole(file),
            Content::Staged { file, under: Some(mut under) } => {
                under.size = local.iter().fold(under.size, |size, (_, end)| size.max(*end));
                let (local, filled) = (ranges(local), ranges(filled));
                Layered::Over(Box::new(Over { file, under: *under, local, filled }))
            }
        };
        let layers = Layers { content, open: None, handles: 0, writers: 0, synced };
        Self {
            node,
            layers: RwLock::new(layers),
            durable: Mutex::default(),
            failed: AtomicBool::new(false),
            told: AtomicBool::new(false),
            edits: Edits::default(),
        }
    }

    /// The node whose bytes they are.
    pub fn node(&self) -> NodeId {
        self.node
    }

    pub(super) fn read_layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn write_layers(&self) -> RwLockWriteGuard<'_, Layers> {
        self.layers.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Takes in a change that was recorded in an earlier life.
    pub(super) fn replay(&self, change: &Change) {
        let mut layers = self.write_layers();
        match (change, &mut layers.content) {
            (Change::Local { start, end, .. }, Layered::Over(over)) => {
                over.under.size = over.under.size.max(*end);
                if start < end {
                    over.local.insert(*start..*end);
                }
            }
            (Change::Filled { start, end, .. }, Layered::Over(over)) if start < end => {
                over.filled.insert(*start..*end);
            }
            (Change::Size { size, .. }, Layered::Over(over)) => over.cut(*size),
            (Change::Synced { size, .. }, _) => layers.synced = Some(*size),
            _ => {}
        }
    }

    /// Takes over what replaces the content in an earlier life.
    pub(super) fn replay_content(&self, content: &Content) {
        let mut layers = self.write_layers();
        let replaced = Self::new(self.node, content.clone(), Vec::new(), Vec::new(), None).layers;
        let replaced = replaced.into_inner().unwrap_or_else(|e| e.into_inner()).content;
        layers.content = match (replaced, std::mem::replace(&mut layers.content, Layered::Whole(StagedId(0))))
        {
            (Layered::Over(new), Layered::Over(old)) if new.file == old.file => {
                Layered::Over(Box::new(Over { under: new.under, ..*old }))
            }
            (replaced, _) => replaced,
        };
    }

    /// What it is made of.
    pub fn content(&self) -> Content {
        match &self.read_layers().content {
            Layered::Base(base) => Content::Base(base.clone()),
            Layered::Over(over) => {
                Content::Staged { file: over.file, under: Some(Box::new(over.under.clone())) }
            }
            Layered::Whole(file) => Content::Staged { file: *file, under: None },
        }
    }

    /// Its staged file, if it has one.
    pub fn staged(&self) -> Option<StagedId> {
        self.read_layers().content.staged()
    }

    /// The remote's content that shows through, if any does.
    pub fn base(&self) -> Option<BaseEntry> {
        match &self.read_layers().content {
            Layered::Base(base) => Some(base.clone()),
            Layered::Over(over) => Some(over.under.base.clone()),
            Layered::Whole(_) => None,
        }
    }

    /// Which bytes are local.
    pub fn extent(&self) -> Extent {
        match &self.read_layers().content {
            Layered::Base(_) => Extent::None,
            Layered::Over(over) => Extent::Ranges(
                over.local.iter().map(|range| ByteRange::new(range.start, range.end)).collect(),
            ),
            Layered::Whole(_) => Extent::All,
        }
    }

    /// Somebody opens it.
    pub fn opened(&self, overlay: &Overlay, access: Access) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        layers.file(overlay)?;
        layers.handles += 1;
        if access == Access::Write {
            layers.writers += 1;
            self.edits.one_more();
        }
        Ok(())
    }

    /// Somebody closes it; whether nobody has it open any more.
    pub fn closed(&self, access: Access) -> bool {
        let mut layers = self.write_layers();
        layers.handles = layers.handles.saturating_sub(1);
        if access == Access::Write {
            layers.writers = layers.writers.saturating_sub(1);
        }
        if layers.handles == 0 {
            layers.open = None;
            // Whoever opens it now is told once, if nobody was.
            if self.told.swap(false, Ordering::Relaxed) {
                self.failed.store(false, Ordering::Relaxed);
            }
        }
        layers.handles == 0
    }

    /// The staged file for the kernel to read and write by itself, if it is all of the content and open.
    pub fn backing(&self) -> Option<Arc<File>> {
        let layers = self.read_layers();
        matches!(layers.content, Layered::Whole(_)).then(|| layers.open.clone()).flatten()
    }

    /// What its attributes come from.
    pub fn state(&self, overlay: &Overlay) -> Result<FileState, OverlayError> {
        let layers = self.read_layers();
        let (file, size) = match &layers.content {
            Layered::Base(base) => {
                return Ok(FileState { size: base.size, blocks: base.size.div_ceil(512), times: None });
            }
            Layered::Over(over) => (over.file, Some(over.under.size)),
            Layered::Whole(file) => (*file, None),
        };
        let metadata = match &layers.open {
            Some(open) => open.metadata()?,
            None => std::fs::metadata(overlay.staged.path(file))?,
        };
        let modified = nanoseconds(metadata.mtime(), metadata.mtime_nsec());
        // A file that shows its base takes room where the base is kept; programs that look for holes would see none.
        let blocks = size.map_or(metadata.blocks(), |size| size.div_ceil(512));
        Ok(FileState {
            size: size.unwrap_or(metadata.len()),
            blocks,
            times: Some((modified, changed(&metadata))),
        })
    }

    /// Reads what is local of a range, and says what the base has; past the end there is nothing.
    pub fn read(&self, overlay: &Overlay, range: ByteRange) -> Result<Vec<Piece>, OverlayError> {
        let layers = self.read_layers();
        match &layers.content {
            Layered::Base(base) => Ok(piece_of_base(range, base.size)),
            Layered::Whole(file) => {
                let bytes = read_up_to(&*layers.opened_file(overlay, *file)?, range)?;
                Ok(if bytes.is_empty() { Vec::new() } else { vec![Piece::Local(bytes)] })
            }
            Layered::Over(over) => {
                let end = range.end.min(over.under.size);
                if range.start >= end {
                    return Ok(Vec::new());
                }
                let open = layers.opened_file(overlay, over.file)?;
                let mut pieces = Vec::new();
                for (here, piece) in over.here(range.start..end) {
                    if here {
                        let bytes = read_up_to(&open, piece)?;
                        if bytes.len() as u64 != piece.len() {
                            // It was written and is not there: the disk's fault, and no zeros.
                            return Err(io::Error::from_raw_os_error(libc::EIO).into());
                        }
                        pieces.push(Piece::Local(bytes));
                        continue;
                    }
                    let visible = piece.end.min(over.under.visible).max(piece.start);
                    pieces.extend(piece_of_base(ByteRange::new(piece.start, visible), over.under.base.size));
                    if piece.end > visible {
                        // Where the file was made longer.
                        pieces.push(Piece::Local(vec![0; in_memory(piece.end - visible)].into()));
                    }
                }
                Ok(pieces)
            }
        }
    }

    /// Writes; when this returns, the bytes survive the daemon (rule 17). All of them, or an error.
    pub fn write(&self, overlay: &Overlay, offset: u64, bytes: &[u8]) -> Result<(), OverlayError> {
        if bytes.is_empty() {
            return Ok(());
        }
        {
            let layers = self.read_layers();
            if let Layered::Whole(file) = &layers.content {
                point()?;
                layers.opened_file(overlay, *file)?.write_all_at(bytes, offset)?;
                return Ok(());
            }
        }
        let end = offset.checked_add(bytes.len() as u64).ok_or(io::Error::from_raw_os_error(libc::EFBIG))?;
        let mut layers = self.write_layers();
        let open = layers.file_over(self.node, overlay)?;
        point()?;
        open.write_all_at(bytes, offset)?;
        layers.is_local(self.node, overlay, ByteRange::new(offset, end))?;
        layers.settle(self.node, overlay)
    }

    /// The next bytes of the base that show through and are not here, from an offset on: of a file that something was written
    /// to. Until there are none it depends on the remote (rule 19).
    pub fn missing(&self, from: u64) -> Option<ByteRange> {
        match &self.read_layers().content {
            Layered::Over(over) if from < over.under.visible => {
                let pieces = over.here(from..over.under.visible);
                pieces.into_iter().find(|(here, _)| !here).map(|(_, piece)| piece)
            }
            _ => None,
        }
    }

    /// Takes in bytes of the base, where they show through still. They are of the base that it had when its staged file was `into`:
    /// another one has another.
    pub fn fill(
        &self,
        overlay: &Overlay,
        into: StagedId,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        let Layered::Over(over) = &layers.content else { return Ok(()) };
        if over.file != into {
            return Ok(());
        }
        let end = offset.saturating_add(bytes.len() as u64).min(over.under.visible);
        let (file, pieces) = (over.file, if offset < end { over.here(offset..end) } else { Vec::new() });
        let open = layers.opened_file(overlay, file)?;
        let Layered::Over(over) = &mut layers.content else { return Ok(()) };
        for (_, piece) in pieces.into_iter().filter(|(here, _)| !here) {
            let part = in_memory(piece.start - offset)..in_memory(piece.end - offset);
            point()?;
            let times = open.metadata()?;
            open.write_all_at(&bytes[part], piece.start)?;
            set_modified(&open, nanoseconds(times.mtime(), times.mtime_nsec()))?;
            let filled = Change::Filled { node: self.node, start: piece.start, end: piece.end };
            overlay.record_after_sync(vec![filled], (self.node, file))?;
            over.filled.insert(piece.start..piece.end);
        }
        Ok(())
    }

    /// Gives it another size.
    pub fn set_size(&self, overlay: &Overlay, size: u64) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        self.edits.one_more();
        let open = layers.file_over(self.node, overlay)?;
        if let Layered::Over(over) = &mut layers.content {
            // Longer than the disk has files is said here, and not when it is too late. What is cut off stays in the staged file
            // for as long as the tables may speak of it.
            if size > open.metadata()?.len() {
                point()?;
                open.set_len(size)?;
            }
            overlay.record(vec![Change::Size { node: self.node, size }])?;
            over.cut(size);
            return layers.settle(self.node, overlay);
        }
        point()?;
        open.set_len(size)?;
        Ok(())
    }

    /// Allocates room, or makes a hole or zeros.
    pub fn allocate(&self, overlay: &Overlay, range: ByteRange, how: Allocate) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        let open = layers.file_over(self.node, overlay)?;
        let flags = match how {
            Allocate::Room { keep_size: false } => FallocateFlags::empty(),
            Allocate::Room { keep_size: true } => FallocateFlags::KEEP_SIZE,
            Allocate::Hole => FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            Allocate::Zeros { keep_size: false } => FallocateFlags::ZERO_RANGE,
            Allocate::Zeros { keep_size: true } => FallocateFlags::ZERO_RANGE | FallocateFlags::KEEP_SIZE,
        };
        let fallocate = |flags| {
            point()?;
            rustix::fs::fallocate(&open, flags, range.start, range.len()).map_err(io::Error::from)
        };
        let Layered::Over(over) = &layers.content else { return Ok(fallocate(flags)?) };
        let size = over.under.size;
        let longer = match how {
            Allocate::Room { keep_size: false } | Allocate::Zeros { keep_size: false } => size.max(range.end),
            _ => size,
        };
        match how {
            Allocate::Room { .. } => fallocate(FallocateFlags::KEEP_SIZE)?,
            Allocate::Hole | Allocate::Zeros { .. } => {
                let zeros = ByteRange::new(range.start, range.end.min(longer));
                if !zeros.is_empty() {
                    fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE)?;
                    if open.metadata()?.len() < zeros.end {
                        point()?;
                        open.set_len(zeros.end)?;
                    }
                    layers.is_local(self.node, overlay, zeros)?;
                }
            }
        }
        if longer > size
            && let Layered::Over(over) = &mut layers.content
        {
            overlay.record(vec![Change::Size { node: self.node, size: longer }])?;
            over.cut(longer);
        }
        layers.settle(self.node, overlay)
    }

    /// Finds data or a hole. What shows its base is all data.
    pub fn seek(&self, overlay: &Overlay, from: Seek) -> Result<u64, OverlayError> {
        let layers = self.read_layers();
        if let Layered::Whole(file) = &layers.content {
            let open = layers.opened_file(overlay, *file)?;
            let from = match from {
                Seek::Data(offset) => SeekFrom::Data(offset),
                Seek::Hole(offset) => SeekFrom::Hole(offset),
            };
            return Ok(rustix::fs::seek(&*open, from).map_err(io::Error::from)?);
        }
        let size = match &layers.content {
            Layered::Base(base) => base.size,
            Layered::Over(over) => over.under.size,
            Layered::Whole(_) => 0,
        };
        match from {
            Seek::Data(offset) | Seek::Hole(offset) if offset >= size => {
                Err(io::Error::from_raw_os_error(libc::ENXIO).into())
            }
            Seek::Data(offset) => Ok(offset),
            Seek::Hole(_) => Ok(size),
        }
    }

    /// Copies bytes from another file without reading them, where both are all local.
    pub fn copy_from(
        &self,
        overlay: &Overlay,
        offset: u64,
        other: &Self,
        from: ByteRange,
    ) -> Result<u64, OverlayError> {
        let whole = |file: &Self| {
            let layers = file.read_layers();
            match &layers.content {
                Layered::Whole(id) => layers.opened_file(overlay, *id).map(Some),
                _ => Ok(None),
            }
        };
        let (Some(to), Some(source)) = (whole(self)?, whole(other)?) else {
            return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP).into());
        };
        let (mut from_at, mut to_at) = (from.start, offset);
        let length = in_memory(from.len());
        let copied =
            rustix::fs::copy_file_range(&*source, Some(&mut from_at), &*to, Some(&mut to_at), length);
        Ok(copied.map_err(io::Error::from)? as u64)
    }

    /// Sets its time of modification, in nanoseconds since 1970; `false` where the attributes have it, for nothing is staged.
    pub fn set_modified(&self, overlay: &Overlay, modified: i64) -> Result<bool, OverlayError> {
        let layers = self.read_layers();
        let Some(file) = layers.content.staged() else { return Ok(false) };
        let open = layers.opened_file(overlay, file)?;
        set_modified(&open, modified)?;
        Ok(true)
    }

    /// Whether anybody has it open.
    pub(super) fn is_open(&self) -> bool {
        self.read_layers().handles > 0
    }
}

fn set_modified(file: &File, modified: i64) -> io::Result<()> {
    let last_modification = rustix::fs::Timespec {
        tv_sec: modified.div_euclid(1_000_000_000),
        tv_nsec: modified.rem_euclid(1_000_000_000),
    };
    let last_access = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    Ok(rustix::fs::futimens(file, &rustix::fs::Timestamps { last_access, last_modification })?)
}

fn piece_of_base(range: ByteRange, size: u64) -> Vec<Piece> {
    let range = ByteRange::new(range.start, range.end.min(size));
    if range.is_empty() { Vec::new() } else { vec![Piece::Base(range)] }
}

/// A length that was asked for by a program, and is in memory.
fn in_memory(length: u64) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}

fn read_up_to(file: &File, range: ByteRange) -> io::Result<Bytes> {
    let mut bytes = vec![0; in_memory(range.len())];
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], range.start + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(filled);
    Ok(bytes.into())
}
