//! The cached part of one content: what came from its scope and what is shared, looked at as one.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;

use super::Scope;
use super::blocks::{BLOCK, BlockRange};
use super::layout::{Key, Layout};
use super::part::{Part, Suspect};
use super::parts::{Parts, absent_runs};
use super::room::Room;
use super::slots::{View, Word};
use crate::model::ByteRange;

/// A piece that is read again and again is written down once in so many milliseconds.
const TOUCH_EVERY: u64 = 1000;
/// Who stores blocks waits so long for others who store or remove some of this content; then they are not kept.
const PATIENCE: Duration = Duration::from_millis(200);
/// Who has read blocks waits so long to say so: what seems unread is kept for its reader.
const MARK_PATIENCE: Duration = Duration::from_millis(1);
/// Who removes a content holds its bytes' lock for a moment.
const IN_USE_PATIENCE: Duration = Duration::from_millis(50);
/// Blocks looked at together when searching for a missing one.
const SEARCH: u64 = 16_384;

/// A content's blocks on disk. While a value of it lives, eviction spares what was just fetched or read.
#[derive(Debug)]
pub struct CachedContent {
    pub(super) key: Key,
    pub(super) scope: Scope,
    pub(super) layout: Arc<Layout>,
    pub(super) room: Arc<Room>,
    parts: RwLock<Arc<Parts>>,
    refreshing: Mutex<()>,
    pub(super) verifying: Mutex<()>,
    /// Blocks from here on are looked at first when one that is missing is searched.
    search_from: AtomicU64,
    name: Mutex<Option<String>>,
    kept_longest: Mutex<Option<ByteRange>>,
    kept_while_open: AtomicBool,
}

/// What a look into the cache brought.
#[derive(Debug)]
pub enum Look {
    /// All of it.
    Hit(Bytes),
    /// Not all of it is here.
    Miss,
    /// So many blocks were here and had rotted; they are forgotten now.
    Rotten(u64),
}

/// What became of blocks that were to be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Written {
    /// They are here.
    Kept,
    /// They are here, and so is every other block: time to [`verify`](CachedContent::verify).
    Complete,
    /// There was no room for them, or somebody else was busy with them: read on without the cache.
    NotKept,
}

/// How much of a content is here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContentState {
    /// Not all of it.
    Partial,
    /// All of it, and nobody has checked it against its hash.
    Complete,
    /// All of it, and it has its hash: every mount on this machine shares it.
    Verified,
}

/// Whether a look counts as reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Reading,
    Checking,
}

impl CachedContent {
    pub(super) fn open(key: Key, scope: Scope, layout: Arc<Layout>, room: Arc<Room>) -> Self {
        let content = Self {
            key,
            scope,
            layout,
            room,
            parts: RwLock::default(),
            refreshing: Mutex::new(()),
            verifying: Mutex::new(()),
            search_from: AtomicU64::new(0),
            name: Mutex::default(),
            kept_longest: Mutex::default(),
            kept_while_open: AtomicBool::new(false),
        };
        content.refresh();
        content
    }

    /// Reads `range`, which lies inside the content, if every block of it is here and sound.
    pub fn read(&self, range: ByteRange) -> io::Result<Look> {
        let look = self.look(range, Purpose::Reading)?;
        // Somebody may have brought it meanwhile, to where this has not looked.
        if matches!(look, Look::Miss) && self.refresh() {
            return self.look(range, Purpose::Reading);
        }
        Ok(look)
    }

    /// Whether the block is here, sound or not.
    pub fn has(&self, block: u64) -> bool {
        self.missing(BlockRange { start: block, end: block + 1 }).is_empty()
    }

    /// The runs of blocks that are not here.
    pub fn missing(&self, blocks: BlockRange) -> Vec<BlockRange> {
        let blocks = BlockRange { start: blocks.start, end: blocks.end.min(self.blocks().end) };
        let parts = self.parts();
        // What cannot be looked at is not here.
        let views = parts.views(blocks).unwrap_or_default();
        absent_runs(&views, blocks)
    }

    /// Stores whole blocks from `first` on: their bytes, then their slots. Those that are here already stay as they
    /// are. Room for them was [reserved](super::Cache::reserve); unless they are here now, it stays to be
    /// [released](super::Cache::release).
    pub fn write(&self, first: u64, bytes: &[u8]) -> io::Result<Written> {
        let checksums: Vec<u32> = bytes.chunks(BLOCK as usize).map(crc32c::crc32c).collect();
        match self.store(first, bytes, &checksums) {
            Ok(Some(added)) => {
                self.room.settle(bytes.len() as u64, added);
                Ok(if self.first_missing().is_none() { Written::Complete } else { Written::Kept })
            }
            Ok(None) => Ok(Written::NotKept),
            Err(error) if is_no_room(&error) => Ok(Written::NotKept),
            Err(error) => Err(error),
        }
    }

    /// How much of it is here. Cheap unless the answer is news.
    pub fn state(&self) -> ContentState {
        let parts = self.parts();
        let verified = |part: &Arc<Part>| part.slots.header().is_ok_and(|header| header.is(Word::Verified));
        if parts.shared.as_ref().is_some_and(verified) {
            ContentState::Verified
        } else if self.first_missing().is_none() {
            ContentState::Complete
        } else {
            ContentState::Partial
        }
    }

    /// What people call it: shown by `parquedb cache ls`.
    pub fn called(&self, name: &str) {
        *self.name.lock().unwrap_or_else(|e| e.into_inner()) = Some(name.to_owned());
        let parts = self.parts();
        for part in parts.shared.iter().chain(&parts.private) {
            if part.slots.name().is_none() {
                let _ = part.slots.set_name(name);
            }
        }
    }

    /// Eviction takes these bytes last: a Parquet file's footer, without which nothing else is found. One range a
    /// content; it may be told before anything of it is here.
    pub fn keep_longest(&self, range: ByteRange) -> io::Result<()> {
        *self.kept_longest.lock().unwrap_or_else(|e| e.into_inner()) = Some(range);
        let parts = self.parts();
        parts.shared.iter().chain(&parts.private).try_for_each(|part| part.slots.keep_longest(range))
    }

    /// Eviction leaves what is here of it, and what is still added, for as long as anybody has the content open, in
    /// whatever process: it may not be had again.
    pub fn keep_while_open(&self) {
        // Directories that are just being opened are marked by one of the two.
        let _one = self.refreshing.lock().unwrap_or_else(|e| e.into_inner());
        if !self.kept_while_open.swap(true, Ordering::Relaxed) {
            let parts = self.parts();
            parts.shared.iter().chain(&parts.private).for_each(|part| mark_kept(part));
        }
    }

    pub(super) fn blocks(&self) -> BlockRange {
        BlockRange::all(self.key.size)
    }

    pub(super) fn parts(&self) -> Arc<Parts> {
        self.parts.read().unwrap_or_else(|e| e.into_inner()).clone()
    }

    /// Reads as [`Self::read`] does, from the parts as they are known.
    pub(super) fn look(&self, range: ByteRange, purpose: Purpose) -> io::Result<Look> {
        let blocks = BlockRange::covering(range);
        let parts = self.parts();
        for _ in 0..2 {
            let views = parts.views(blocks)?;
            if !(blocks.start..blocks.end).all(|block| views.has(block)) {
                return Ok(Look::Miss);
            }
            let covered = blocks.bytes(self.key.size);
            let mut bytes = Vec::with_capacity(usize::try_from(covered.len()).map_err(io::Error::other)?);
            let (mut rotten, mut changing) = (0, false);
            for (part, view, run) in views.runs(&parts, blocks) {
                for block in part.read(run, view, &mut bytes)? {
                    match part.look_again(block, view)? {
                        Suspect::Rotten => rotten += 1,
                        Suspect::Changing => changing = true,
                    }
                }
                if purpose == Purpose::Reading {
                    note_reading(part, view, run);
                }
            }
            if rotten > 0 {
                self.drop_what_rotted_in_the_kernels_hands(&parts)?;
                return Ok(Look::Rotten(rotten));
            }
            if !changing {
                let inside = |at: u64| usize::try_from(at - covered.start).map_err(io::Error::other);
                return Ok(Look::Hit(Bytes::from(bytes).slice(inside(range.start)?..inside(range.end)?)));
            }
        }
        Ok(Look::Miss)
    }

    /// The kernel would go on showing what has rotted to whoever opens the file.
    fn drop_what_rotted_in_the_kernels_hands(&self, parts: &Parts) -> io::Result<()> {
        let Some(shared) = &parts.shared else { return Ok(()) };
        if shared.slots.header()?.is(Word::HandedOut) && !shared.slots.is_removed()? {
            let freeing = self.room.begin_freeing();
            self.layout.remove(&self.layout.shared(&self.key))?;
            self.room.end_freeing(freeing, shared.taken());
            self.refresh();
        }
        Ok(())
    }

    /// `None`: somebody else is busy with this content. Otherwise the bytes that were added.
    fn store(&self, first: u64, bytes: &[u8], checksums: &[u32]) -> io::Result<Option<u64>> {
        let blocks = BlockRange { start: first, end: first + checksums.len() as u64 };
        // A directory may be removed or shared each time it is looked at, but hardly so often.
        for _ in 0..4 {
            let parts = self.parts();
            let views = parts.views(blocks)?;
            if (blocks.start..blocks.end).all(|block| views.has(block)) {
                return Ok(Some(0));
            }
            let Some(private) = &parts.private else {
                self.layout.create_private(&self.scope, &self.key, |dir| Part::create(dir, self.key.size))?;
                self.refresh();
                continue;
            };
            let Some(lock) = private.slots.lock(PATIENCE)? else { return Ok(None) };
            if private.is_not_private()? {
                drop(lock);
                self.refresh();
                continue;
            }
            let mut added = 0;
            // Looked at again: now it does not change.
            let views = parts.views(blocks)?;
            for run in absent_runs(&views, blocks) {
                let inside = (run.start - first) as usize..(run.end - first) as usize;
                let from = inside.start * BLOCK as usize;
                let to = (inside.end * BLOCK as usize).min(bytes.len());
                private.store(run.start, &bytes[from..to], &checksums[inside], now())?;
                added += (to - from) as u64;
            }
            return Ok(Some(added));
        }
        Ok(None)
    }

    /// Looks for the directories again where they are not known, or no longer what they were; whether that changed
    /// anything.
    pub(super) fn refresh(&self) -> bool {
        let _one = self.refreshing.lock().unwrap_or_else(|e| e.into_inner());
        let old = self.parts();
        let mut private = old.private.clone().filter(|part| !part.is_not_private().unwrap_or(true));
        let mut shared = old.shared.clone().filter(|part| !part.slots.is_removed().unwrap_or(true));
        // First the private one: opening it may bring what was about to be shared to its place.
        if private.is_none() {
            private = self.open_private();
        }
        if shared.is_none() {
            shared = self.open_part(&self.layout.shared(&self.key));
        }
        let same = |one: &Option<Arc<Part>>, two: &Option<Arc<Part>>| match (one, two) {
            (None, None) => true,
            (Some(one), Some(two)) => Arc::ptr_eq(one, two),
            _ => false,
        };
        let changed = !same(&old.private, &private) || !same(&old.shared, &shared);
        if changed {
            self.set_parts(Parts { shared, private });
        }
        changed
    }

    pub(super) fn set_parts(&self, parts: Parts) {
        *self.parts.write().unwrap_or_else(|e| e.into_inner()) = Arc::new(parts);
    }

    fn open_private(&self) -> Option<Arc<Part>> {
        let dir = self.layout.private(self.scope.digits(), &self.key);
        let part = self.open_part(&dir)?;
        if !part.slots.header().is_ok_and(|header| header.is(Word::Shared)) {
            return Some(part);
        }
        // Whoever verified it was stopped before the name was changed, or is about to.
        if matches!(self.layout.share(self.scope.digits(), &self.key), Ok(false)) {
            let _ = self.layout.remove(&dir);
        }
        None
    }

    fn open_part(&self, dir: &std::path::Path) -> Option<Arc<Part>> {
        match Part::open(dir, self.key.size) {
            Ok(part) => {
                let part = part?;
                let is_kept = part.slots.header().is_ok_and(|header| header.is(Word::KeptWhileOpen));
                // Those for whom it was kept have closed it.
                if is_kept && part.bytes.try_lock().is_ok() {
                    let _ = part.slots.set(Word::KeptWhileOpen, 0);
                }
                let until = Instant::now() + IN_USE_PATIENCE;
                while part.bytes.try_lock_shared().is_err() && Instant::now() < until {
                    std::thread::sleep(Duration::from_micros(200));
                }
                let _ = part.slots.set(Word::Opened, now());
                if let Some(name) = &*self.name.lock().unwrap_or_else(|e| e.into_inner()) {
                    let _ = part.slots.name().is_none().then(|| part.slots.set_name(name));
                }
                if let Some(range) = *self.kept_longest.lock().unwrap_or_else(|e| e.into_inner()) {
                    let _ = part.slots.keep_longest(range);
                }
                if self.kept_while_open.load(Ordering::Relaxed) {
                    mark_kept(&part);
                }
                Some(Arc::new(part))
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                tracing::warn!(dir = %dir.display(), %error, "cached files are damaged: they are dropped");
                let _ = self.layout.remove(dir);
                None
            }
            Err(error) => {
                tracing::warn!(dir = %dir.display(), %error, "cached files cannot be opened");
                None
            }
        }
    }

    /// A block that is not here, if there is one.
    pub(super) fn first_missing(&self) -> Option<u64> {
        let all = self.blocks();
        let from = self.search_from.load(Ordering::Relaxed).min(all.end);
        let parts = self.parts();
        let search = |from: u64, to: u64| {
            // The one found last is most often still missing: it is looked at alone.
            let mut chunk = BlockRange { start: from, end: (from + 1).min(to) };
            while !chunk.is_empty() {
                let views = parts.views(chunk).unwrap_or_default();
                if let Some(block) = (chunk.start..chunk.end).find(|block| !views.has(*block)) {
                    return Some(block);
                }
                chunk = BlockRange { start: chunk.end, end: (chunk.end + SEARCH).min(to) };
            }
            None
        };
        let found = search(from, all.end).or_else(|| search(0, from));
        if let Some(block) = found {
            self.search_from.store(block, Ordering::Relaxed);
        }
        found
    }
}

fn mark_kept(part: &Part) {
    if let Err(error) = part.slots.set_yes(Word::KeptWhileOpen) {
        tracing::debug!(%error, "evicted like anything else, though it may not be had again");
    }
}

/// Takes note that blocks were read; a failure costs nothing but order.
fn note_reading(part: &Part, view: &View, blocks: BlockRange) {
    let now = now();
    for piece in blocks.pieces() {
        if now.abs_diff(view.time(piece)) > TOUCH_EVERY {
            let _ = part.slots.touch(piece, now);
        }
    }
    if (blocks.start..blocks.end).any(|block| view.slot(block).is_unread())
        && let Ok(Some(_lock)) = part.slots.lock(MARK_PATIENCE)
    {
        let _ = part.slots.mark_read(blocks, view);
    }
}

/// Milliseconds since 1970.
pub(super) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Whether the disk, or what this user may use of it, is full.
pub(super) fn is_no_room(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
