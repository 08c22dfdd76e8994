//! The bytes of one file of the mount, as far as they are local. A file begins as the remote has it, or empty. The first
//! write to a remote file copies nothing (rule 19): it makes a staged file, with what is written at its own offset, and
//! notes the range; the remote's content shows through elsewhere. Once nothing shows through any more, the staged file is
//! all of the content: its length is the size, and the kernel may write to it without us.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use rangemap::RangeSet;
use rustix::fs::{FallocateFlags, SeekFrom};

use super::OverlayError;
use super::overlay::Overlay;
use crate::disk::point;
use crate::model::ByteRange;
use crate::state::{BaseEntry, Change, Content, NodeId, StagedId, Under};

/// One file's bytes.
#[derive(Debug)]
pub struct LocalFile {
    node: NodeId,
    layers: RwLock<Layers>,
    /// The disk did not take what was written: every later `fsync` says so, too (rule 17).
    failed: AtomicBool,
}

#[derive(Debug)]
struct Layers {
    content: Layered,
    /// Open as long as anybody has the file open.
    open: Option<Arc<File>>,
    handles: u32,
    /// Bytes known to be on the disk and the staged file's time of change then.
    synced: Option<(u64, i64)>,
    /// The size that was noted last as being on the disk, of a file without a base.
    noted: Option<u64>,
    /// The staged file's name is known to be on the disk.
    named: bool,
}

#[derive(Debug, Clone)]
enum Layered {
    Base(BaseEntry),
    Over(Box<Over>),
    Whole(StagedId),
}

/// Local bytes over a base.
#[derive(Debug, Clone)]
struct Over {
    file: StagedId,
    under: Under,
    /// What was written.
    local: RangeSet<u64>,
    /// What was copied from the base, so that the remote is not needed any more.
    filled: RangeSet<u64>,
}

impl Over {
    /// What the staged file has of a range, piece after piece, and what it has not.
    fn here(&self, range: std::ops::Range<u64>) -> Vec<(bool, ByteRange)> {
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

    /// What was cut off is gone; so is the base behind it, for good.
    fn cut(&mut self, size: u64) {
        if size < self.under.size {
            self.local.remove(size..u64::MAX);
            self.filled.remove(size..u64::MAX);
            self.under.visible = self.under.visible.min(size);
        }
        self.under.size = size;
    }
}

/// What a part of a file is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Here.
    Local(Bytes),
    /// The base has it.
    Base(ByteRange),
}

/// What a file's attributes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// Its size in bytes.
    pub size: u64,
    /// What it takes on the disk here, in blocks of 512 bytes.
    pub blocks: u64,
    /// The staged file's times of modification and of change, in nanoseconds since 1970.
    pub times: Option<(i64, i64)>,
}

/// Which local bytes a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// None.
    None,
    /// These ranges.
    Ranges(Vec<ByteRange>),
    /// All of them.
    All,
}

/// How to allocate room in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Room for later writes.
    Room {
        /// The size stays.
        keep_size: bool,
    },
    /// A hole that reads as zeros.
    Hole,
    /// Zeros, with room for them.
    Zeros {
        /// The size stays.
        keep_size: bool,
    },
}

fn nanoseconds(seconds: i64, nanoseconds: i64) -> i64 {
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

fn changed(metadata: &std::fs::Metadata) -> i64 {
    nanoseconds(metadata.ctime(), metadata.ctime_nsec())
}

impl Layered {
    fn staged(&self) -> Option<StagedId> {
        match self {
            Self::Base(_) => None,
            Self::Over(over) => Some(over.file),
            Self::Whole(file) => Some(*file),
        }
    }
}

impl LocalFile {
    pub(super) fn new(
        node: NodeId,
        content: Content,
        local: Vec<(u64, u64)>,
        filled: Vec<(u64, u64)>,
        synced: Option<(u64, i64)>,
    ) -> Self {
        let ranges = |found: Vec<(u64, u64)>| {
            found.into_iter().filter(|(start, end)| start < end).map(|(start, end)| start..end).collect()
        };
        let content = match content {
            Content::Base(base) => Layered::Base(base),
            Content::Staged { file, under: None } => Layered::Whole(file),
            Content::Staged { file, under: Some(under) } => {
                let (local, filled) = (ranges(local), ranges(filled));
                Layered::Over(Box::new(Over { file, under: *under, local, filled }))
            }
        };
        let named = synced.is_some();
        let noted = synced.map(|(size, _)| size);
        let layers = Layers { content, open: None, handles: 0, synced, noted, named };
        Self { node, layers: RwLock::new(layers), failed: AtomicBool::new(false) }
    }

    /// The node whose bytes they are.
    pub fn node(&self) -> NodeId {
        self.node
    }

    fn read_layers(&self) -> RwLockReadGuard<'_, Layers> {
        self.layers.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write_layers(&self) -> RwLockWriteGuard<'_, Layers> {
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
            (Change::Synced { size, changed, .. }, _) => {
                layers.synced = Some((*size, *changed));
                layers.noted = Some(*size);
                layers.named = true;
            }
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
    pub fn opened(&self, overlay: &Overlay) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        layers.file(overlay)?;
        layers.handles += 1;
        Ok(())
    }

    /// Somebody closes it; whether nobody has it open any more.
    pub fn closed(&self) -> bool {
        let mut layers = self.write_layers();
        layers.handles = layers.handles.saturating_sub(1);
        if layers.handles == 0 {
            layers.open = None;
            // Whoever opens it now has not heard of the failure, and cannot be told what was lost.
            self.failed.store(false, Ordering::Relaxed);
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

    /// Takes in bytes of the base, where they show through still.
    pub fn fill(&self, overlay: &Overlay, offset: u64, bytes: &[u8]) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        let Layered::Over(over) = &layers.content else { return Ok(()) };
        let end = offset.saturating_add(bytes.len() as u64).min(over.under.visible);
        let (file, pieces) = (over.file, if offset < end { over.here(offset..end) } else { Vec::new() });
        let open = layers.opened_file(overlay, file)?;
        let Layered::Over(over) = &mut layers.content else { return Ok(()) };
        for (_, piece) in pieces.into_iter().filter(|(here, _)| !here) {
            let part = in_memory(piece.start - offset)..in_memory(piece.end - offset);
            point()?;
            open.write_all_at(&bytes[part], piece.start)?;
            let filled = Change::Filled { node: self.node, start: piece.start, end: piece.end };
            overlay.record_after_sync(vec![filled], (self.node, file))?;
            over.filled.insert(piece.start..piece.end);
        }
        Ok(())
    }

    /// Gives it another size.
    pub fn set_size(&self, overlay: &Overlay, size: u64) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        let open = layers.file_over(self.node, overlay)?;
        if let Layered::Over(over) = &mut layers.content {
            overlay.record(vec![Change::Size { node: self.node, size }])?;
            over.cut(size);
            // Cut off, never made longer: where nothing is local the staged file has nothing.
            if open.metadata()?.len() > size {
                point()?;
                open.set_len(size)?;
            }
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
        let time = |nanoseconds: i64| rustix::fs::Timespec {
            tv_sec: nanoseconds.div_euclid(1_000_000_000),
            tv_nsec: nanoseconds.rem_euclid(1_000_000_000),
        };
        let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let times = rustix::fs::Timestamps { last_access: omit, last_modification: time(modified) };
        rustix::fs::futimens(&*open, &times).map_err(io::Error::from)?;
        Ok(true)
    }

    /// Whether anybody has it open.
    pub(super) fn is_open(&self) -> bool {
        self.read_layers().handles > 0
    }

    /// Makes its bytes durable, if they may not be, and gives what there is to be noted of it.
    pub(super) fn sync_bytes(&self, overlay: &Overlay) -> Result<Option<Change>, OverlayError> {
        let (open, file, named) = {
            let layers = self.read_layers();
            let Some(file) = layers.content.staged() else { return Ok(None) };
            (layers.opened_file(overlay, file)?, file, layers.named)
        };
        if self.failed.load(Ordering::Relaxed) || overlay.has_failed(self.node) {
            return Err(io::Error::from_raw_os_error(libc::EIO).into());
        }
        // Looked at before: what is written while it is synced may not be on the disk.
        let before = open.metadata()?;
        let mark = Mark::of(file, &before);
        if self.is_known_synced(mark) {
            return Ok(None);
        }
        let done =
            open.sync_data().and_then(|()| if named { Ok(()) } else { overlay.staged.sync_name(file) });
        if let Err(error) = done {
            self.failed.store(true, Ordering::Relaxed);
            return Err(error.into());
        }
        Ok(self.was_synced(mark))
    }

    fn is_known_synced(&self, mark: Mark) -> bool {
        let layers = self.read_layers();
        layers.named && layers.synced == Some((mark.size, mark.changed))
    }

    /// How its staged file is now, if it has one and that may not be on the disk.
    pub(super) fn unsynced(&self, overlay: &Overlay) -> Result<Option<Mark>, OverlayError> {
        let Some(file) = self.staged() else { return Ok(None) };
        let metadata = std::fs::metadata(overlay.staged.path(file))?;
        let mark = Mark::of(file, &metadata);
        Ok((!self.is_known_synced(mark)).then_some(mark))
    }

    /// Everything up to a mark is on the disk, and what is to be noted of it.
    pub(super) fn was_synced(&self, mark: Mark) -> Option<Change> {
        let mut layers = self.write_layers();
        let whole = match &layers.content {
            Layered::Over(over) if over.file == mark.file => false,
            Layered::Whole(file) if *file == mark.file => true,
            _ => return None,
        };
        // Where the size was noted before, nothing is to be noted: a data base's file is synced many times and stays as long.
        let noted = layers.named && layers.noted == Some(mark.size);
        layers.named = true;
        layers.synced = mark.tells.then_some((mark.size, mark.changed));
        if whole {
            layers.noted = Some(mark.size);
        }
        (whole && !noted).then_some(Change::Synced {
            node: self.node,
            size: mark.size,
            changed: mark.changed,
        })
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
                let known = layers.synced.map_or(0, |(size, _)| size);
                let more = length > known;
                if more {
                    point()?;
                    open.set_len(known)?;
                }
                Ok(more || layers.synced.is_none())
            }
            Layered::Over(over) => {
                if length > over.under.size {
                    point()?;
                    open.set_len(over.under.size)?;
                }
                Ok(false)
            }
            Layered::Base(_) => Ok(false),
        }
    }

    /// After a death of the daemon in the middle of something: what it had begun to do to the staged file is done.
    pub(super) fn finish(&self, overlay: &Overlay) -> Result<(), OverlayError> {
        let mut layers = self.write_layers();
        if let Layered::Over(over) = &layers.content {
            let open = overlay.staged.open(over.file)?;
            if open.metadata()?.len() > over.under.size {
                point()?;
                open.set_len(over.under.size)?;
            }
        }
        layers.settle(self.node, overlay)
    }
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

impl Mark {
    fn of(file: StagedId, metadata: &std::fs::Metadata) -> Self {
        let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        let changed = changed(metadata);
        Self { file, size: metadata.len(), changed, tells: now.saturating_sub(changed) > TICK }
    }
}

/// Where to find data or a hole from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is no hole.
    Data(u64),
    /// The next byte of a hole, the end being one.
    Hole(u64),
}

impl Layers {
    /// The staged file, open for as long as anybody has the file open.
    fn file(&mut self, overlay: &Overlay) -> Result<Option<Arc<File>>, OverlayError> {
        let Some(file) = self.content.staged() else { return Ok(None) };
        if self.open.is_none() {
            self.open = Some(Arc::new(overlay.staged.open(file)?));
        }
        Ok(self.open.clone())
    }

    /// The same where nobody may have it open: then it is opened for the moment.
    fn opened_file(&self, overlay: &Overlay, file: StagedId) -> Result<Arc<File>, OverlayError> {
        match &self.open {
            Some(open) => Ok(open.clone()),
            None => Ok(Arc::new(overlay.staged.open(file)?)),
        }
    }

    /// The staged file, made if there is none: then all of the base shows through.
    fn file_over(&mut self, node: NodeId, overlay: &Overlay) -> Result<Arc<File>, OverlayError> {
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
            self.named = false;
            (self.synced, self.noted) = (None, None);
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
    fn is_local(&mut self, node: NodeId, overlay: &Overlay, range: ByteRange) -> Result<(), OverlayError> {
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

    /// Lets the base go once nothing of it shows through.
    fn settle(&mut self, node: NodeId, overlay: &Overlay) -> Result<(), OverlayError> {
        let Layered::Over(over) = &self.content else { return Ok(()) };
        let visible = over.under.visible;
        let covered = visible == 0 || over.local.get(&0).is_some_and(|first| first.end >= visible);
        if !covered {
            return Ok(());
        }
        let file = over.file;
        // What lies between local ranges beyond the base reads as zeros, which the staged file has there as holes.
        point()?;
        self.opened_file(overlay, file)?.set_len(over.under.size)?;
        overlay.record_after_sync(
            vec![Change::Content(node, Content::Staged { file, under: None })],
            (node, file),
        )?;
        self.content = Layered::Whole(file);
        (self.synced, self.noted) = (None, None);
        Ok(())
    }
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
