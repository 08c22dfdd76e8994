//! Making room: pieces of contents go, the least recently read first; footers last; pinned ones never.
//!
//! Whoever evicts walks through the cache once, remembers the order, and takes from its front until the next walk is
//! due. What it meets there it looks at again under the content's lock: what was read or added to since is left.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::blocks::BlockRange;
use super::content::now;
use super::layout::{Found, Layout};
use super::part::Part;
use super::room::Room;
use super::slots::{Header, View, Word};
use crate::metrics::Counter;
use crate::model::ByteRange;

/// What somebody who has the content open read so many milliseconds ago is left to be read again, as long as there is
/// something else.
const JUST_READ: u64 = 2000;
/// What was fetched is left so long, in milliseconds, for whoever has the content open to read it, as long as there is
/// something else.
const AWAITED: u64 = 30_000;
/// What was fetched so many milliseconds ago and not read is left in any case: its reader is on the way. No longer, or
/// what was fetched in vain fills a small cache.
const JUST_FETCHED: u64 = 250;
/// Who evicts waits so long for others who store some of the content.
const PATIENCE: Duration = Duration::from_millis(10);
/// An order older than this is made anew.
const STALE: Duration = Duration::from_secs(60);
/// Walking takes at most one part in so many of the time.
const SELDOM: u32 = 20;

/// Nothing became of it.
const NOTHING: Met = Met::Freed(0);

/// What evicts, with the order it knows.
#[derive(Debug, Default)]
pub(super) struct Eviction {
    order: Mutex<Order>,
    pub(super) evicted: Arc<Counter>,
}

#[derive(Debug, Default)]
struct Order {
    /// The first to go stands last.
    candidates: Vec<Candidate>,
    /// What was met and left while there was something else.
    spared: Vec<Candidate>,
    walked: Option<Walked>,
}

#[derive(Debug, Clone, Copy)]
struct Walked {
    ended: Instant,
    took: Duration,
}

#[derive(Debug)]
struct Candidate {
    content: Found,
    what: What,
    /// When it was used last.
    time: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// All of a content: one that was handed to the kernel, or that has no blocks.
    Whole,
    /// A piece, but for what is kept longest.
    Piece(u64),
    /// What is kept longest of a piece.
    Kept(u64),
}

/// What becomes of what is likely to be wanted soon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sparing {
    /// It stays: something else may go.
    Usual,
    /// It goes: a cache that is smaller than what is read all the time would else keep nothing new.
    NothingElseIsLeft,
}

/// What became of a candidate.
enum Met {
    /// So many bytes are free now.
    Freed(u64),
    /// It is left for now, as used last at that time.
    Spared(u64),
}

impl What {
    /// Whether it goes only when nothing else is left to go.
    fn is_last(self) -> bool {
        matches!(self, Self::Kept(_))
    }
}

impl Eviction {
    /// Frees `bytes` on disk, or what can be freed; `true` if there is another chance now: something was freed, or
    /// what is taken was measured anew.
    pub(super) fn make_room(&self, layout: &Layout, room: &Room, bytes: u64) -> bool {
        let mut order = self.order.lock().unwrap_or_else(|e| e.into_inner());
        let due = |walked: &Walked| walked.ended.elapsed() > (walked.took * SELDOM);
        let stale = order.walked.is_none_or(|walked| walked.ended.elapsed() > STALE);
        if (order.candidates.is_empty() || stale) && order.walked.as_ref().is_none_or(due) {
            let began = Instant::now();
            order.candidates = measure(layout, room);
            order.spared.clear();
            order.walked = Some(Walked { ended: Instant::now(), took: began.elapsed() });
            return true;
        }
        let freeing = room.begin_freeing();
        let mut freed = 0;
        while freed < bytes
            && let Some(candidate) = order.candidates.pop()
        {
            match evict_or_say(layout, &candidate, Sparing::Usual) {
                Met::Freed(bytes) => freed += bytes,
                Met::Spared(time) => order.spared.push(Candidate { time, ..candidate }),
            }
        }
        if freed == 0 {
            sort(&mut order.spared);
            while freed < bytes
                && let Some(candidate) = order.spared.pop()
            {
                if let Met::Freed(bytes) = evict_or_say(layout, &candidate, Sparing::NothingElseIsLeft) {
                    freed += bytes;
                }
            }
        }
        room.end_freeing(freeing, freed);
        self.evicted.add(freed);
        freed > 0
    }

    /// Forgets the order: the next that needs room walks again.
    pub(super) fn forget_order(&self) {
        *self.order.lock().unwrap_or_else(|e| e.into_inner()) = Order::default();
    }
}

/// Walks through the cache, so that the room is known, and gives what may go, the first last.
fn measure(layout: &Layout, room: &Room) -> Vec<Candidate> {
    let began = room.begin_measuring();
    let pinned: HashSet<String> = fs::read_dir(layout.pins())
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    let (mut found, mut candidates) = (0, Vec::new());
    for content in layout.contents() {
        found += taken(&content.dir);
        if !pinned.contains(&content.key.name())
            && let Ok(Some(part)) = Part::open(&content.dir, content.key.size)
        {
            let _ = add_candidates(&content, &part, &mut candidates);
        }
    }
    room.end_measuring(began, found);
    sort(&mut candidates);
    candidates
}

/// The first to go comes last.
fn sort(candidates: &mut [Candidate]) {
    candidates.sort_by_key(|candidate| std::cmp::Reverse((candidate.what.is_last(), candidate.time)));
}

/// What a content's directory takes on disk.
pub(super) fn taken(dir: &Path) -> u64 {
    let blocks = |metadata: io::Result<fs::Metadata>| metadata.map_or(0, |metadata| metadata.blocks() * 512);
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    blocks(fs::metadata(dir)) + entries.map(|entry| blocks(entry.metadata())).sum::<u64>()
}

fn add_candidates(content: &Found, part: &Part, candidates: &mut Vec<Candidate>) -> io::Result<()> {
    let all = BlockRange::all(content.key.size);
    let (header, view) = (part.slots.header()?, part.slots.view(all)?);
    let mut add = |what, time| candidates.push(Candidate { content: content.clone(), what, time });
    let last = all.pieces().map(|piece| view.time(piece)).max().unwrap_or(0);
    if header.is(Word::HandedOut) || !(all.start..all.end).any(|block| view.has(block)) {
        add(What::Whole, last.max(header.number(Word::Opened)));
        return Ok(());
    }
    for piece in all.pieces() {
        for what in [What::Piece(piece), What::Kept(piece)] {
            if !blocks_of(what, &header, &view, content.key.size, |_| true).is_empty() {
                add(what, view.time(piece));
            }
        }
    }
    Ok(())
}

/// The runs of blocks that are here and would go, those that `may`.
fn blocks_of(
    what: What,
    header: &Header,
    view: &View,
    size: u64,
    may: impl Fn(u64) -> bool,
) -> Vec<BlockRange> {
    let (piece, of_kept) = match what {
        What::Piece(piece) => (piece, false),
        What::Kept(piece) => (piece, true),
        What::Whole => return Vec::new(),
    };
    let (start, end) = (header.number(Word::KeepStart), header.number(Word::KeepEnd));
    let kept = BlockRange::covering(ByteRange::new(start.min(end), end.min(size)));
    let blocks = BlockRange::of_piece(piece, size);
    let goes = |block: &u64| {
        view.has(*block) && (kept.start <= *block && *block < kept.end) == of_kept && may(*block)
    };
    let mut runs: Vec<BlockRange> = Vec::new();
    for block in (blocks.start..blocks.end).filter(goes) {
        match runs.last_mut() {
            Some(run) if run.end == block => run.end += 1,
            _ => runs.push(BlockRange { start: block, end: block + 1 }),
        }
    }
    runs
}

fn evict_or_say(layout: &Layout, candidate: &Candidate, sparing: Sparing) -> Met {
    evict(layout, candidate, sparing).unwrap_or_else(|error| {
        tracing::debug!(dir = %candidate.content.dir.display(), %error, "not evicted");
        NOTHING
    })
}

/// Evicts a candidate, if it is still one.
fn evict(layout: &Layout, candidate: &Candidate, sparing: Sparing) -> io::Result<Met> {
    let Found { key, dir, .. } = &candidate.content;
    if layout.pin(key).exists() {
        return Ok(NOTHING);
    }
    let Some(part) = Part::open(dir, key.size)? else { return Ok(NOTHING) };
    let Some(_lock) = part.slots.lock(PATIENCE)? else { return Ok(NOTHING) };
    if part.slots.is_removed()? {
        return Ok(NOTHING);
    }
    // Whoever reads the content, in whatever process, holds this one shared.
    let in_use = part.bytes.try_lock().is_err();
    let (header, now) = (part.slots.header()?, now());
    if in_use && header.is(Word::KeptWhileOpen) {
        return Ok(NOTHING);
    }
    let all = BlockRange::all(key.size);
    let view = part.slots.view(all)?;
    let used = match candidate.what {
        What::Whole => all.pieces().map(|p| view.time(p)).fold(header.number(Word::Opened), u64::max),
        What::Piece(piece) | What::Kept(piece) => view.time(piece),
    };
    // A time that has not come yet was not written by us.
    let used_since = used > candidate.time && used <= now;
    let age = now.abs_diff(used);
    let is_read = |block| !view.slot(block).is_unread();
    let runs = blocks_of(candidate.what, &header, &view, key.size, |block| {
        sparing == Sparing::Usual || !in_use || age >= JUST_FETCHED || is_read(block)
    });
    let awaited = || runs.iter().any(|run| !(run.start..run.end).all(is_read));
    let wanted = age < JUST_READ || (age < AWAITED && awaited());
    if used_since || (in_use && wanted && sparing == Sparing::Usual) {
        return Ok(Met::Spared(used));
    }
    let whole = || -> io::Result<Met> {
        let bytes = taken(dir);
        layout.remove(dir).map(|()| Met::Freed(bytes))
    };
    if header.is(Word::HandedOut) {
        // The kernel may have it mapped: only its name goes, and only when nobody has it open.
        return if candidate.what == What::Whole && !in_use { whole() } else { Ok(NOTHING) };
    }
    let going: u64 = runs.iter().map(|run| run.len()).sum();
    let here = (all.start..all.end).filter(|block| view.has(*block)).count() as u64;
    if going == here && !in_use {
        return whole();
    }
    let mut freed = 0;
    for run in runs {
        match part.remove(run) {
            Ok(bytes) => freed += bytes,
            // A file system that cannot punch holes.
            Err(error) if error.kind() == io::ErrorKind::Unsupported && !in_use => return whole(),
            Err(error) => return Err(error),
        }
    }
    Ok(Met::Freed(freed))
}

/// Removes a content that nobody has open, whatever its age, unless it is pinned; what that freed.
pub(super) fn remove_unused(layout: &Layout, content: &Found) -> io::Result<Option<u64>> {
    if layout.pin(&content.key).exists() {
        return Ok(None);
    }
    let bytes = taken(&content.dir);
    let part = match Part::open(&content.dir, content.key.size) {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        part => part?,
    };
    let lock = part.as_ref().map(|part| part.slots.lock(Duration::from_millis(50))).transpose()?;
    let busy = |bytes: &File| bytes.try_lock().is_err();
    if matches!(lock, Some(None)) || part.as_ref().is_some_and(|part| busy(&part.bytes)) {
        return Ok(None);
    }
    match layout.remove(&content.dir) {
        // It was evicted meanwhile, or verified, which gave it another name.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let dir = layout.shared(&content.key);
            if dir == content.dir || !dir.exists() {
                return Ok(Some(0));
            }
            remove_unused(layout, &Found { dir, ..content.clone() })
        }
        removed => removed.map(|()| Some(bytes)),
    }
}
