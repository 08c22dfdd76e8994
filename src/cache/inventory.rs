//! What lies in the cache, for who looks after it: listing, checking, clearing.

use std::io;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::blocks::{BLOCK, BlockRange};
use super::content::now;
use super::evict::{remove_unused, taken};
use super::handed::changed_at;
use super::layout::{Area, Found};
use super::part::{Part, Suspect};
use super::slots::Word;
use super::verify::{Checked, check_whole};
use super::{Cache, ContentState, Scope, pins};
use crate::model::ContentHash;

/// A content as it lies in the cache; one that lies there for several scopes is told once for each.
#[derive(Debug, Clone)]
pub struct StoredContent {
    /// Its hash.
    pub hash: ContentHash,
    /// Its size.
    pub size: u64,
    /// Bytes of it that are here.
    pub cached: u64,
    /// Bytes it takes on disk.
    pub on_disk: u64,
    /// Whose it is; `None` when it is shared by all. The scope is unknown where its name was lost.
    pub scope: Option<Option<Scope>>,
    /// How much of it is here.
    pub state: ContentState,
    /// Whether eviction leaves it alone.
    pub pinned: bool,
    /// When it was read last, in milliseconds since 1970.
    pub last_used: u64,
    /// What people call it.
    pub name: Option<String>,
}

/// What checking the cache found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CheckReport {
    /// Contents looked at.
    pub contents: u64,
    /// Blocks looked at.
    pub blocks: u64,
    /// Blocks that had rotted and were dropped.
    pub rotten_blocks: u64,
    /// Contents that were damaged or were not what their hash says, and were dropped.
    pub dropped_contents: u64,
}

/// What is to be removed.
#[derive(Debug, Clone)]
pub enum Which {
    /// Everything.
    All,
    /// What was not read for so long.
    OlderThan(Duration),
    /// These.
    Hashes(Vec<ContentHash>),
}

/// What was removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// So many contents.
    pub contents: u64,
    /// That freed so many bytes.
    pub bytes: u64,
    /// So many are open or pinned, and stay.
    pub left: u64,
}

/// What the oldest check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recheck {
    /// There is nothing that was verified.
    Nothing,
    /// A content of so many bytes is still right.
    Sound(u64),
    /// A content of so many bytes has rotted; it was removed and will be fetched again.
    Rotten(u64),
    /// It was stopped.
    Stopped,
}

impl Cache {
    /// Everything that is here.
    pub fn list(&self) -> io::Result<Vec<StoredContent>> {
        let pinned = pins::pinned(&self.layout)?;
        let contents = self.layout.contents();
        Ok(contents
            .filter_map(|found| {
                let part = Part::open(&found.dir, found.key.size).ok().flatten()?;
                let is_pinned = pinned.contains(&found.key);
                self.describe(&found, &part, is_pinned).ok()
            })
            .collect())
    }

    fn describe(&self, found: &Found, part: &Part, pinned: bool) -> io::Result<StoredContent> {
        let size = found.key.size;
        let all = BlockRange::all(size);
        let (header, view) = (part.slots.header()?, part.slots.view(all)?);
        let here = (all.start..all.end).filter(|block| view.has(*block));
        let cached: u64 =
            here.map(|block| BlockRange { start: block, end: block + 1 }.bytes(size).len()).sum();
        let state = match cached == size {
            false => ContentState::Partial,
            true if header.is(Word::Verified) && found.area == Area::Shared => ContentState::Verified,
            true => ContentState::Complete,
        };
        Ok(StoredContent {
            hash: found.key.hash,
            size,
            cached,
            on_disk: taken(&found.dir),
            scope: match &found.area {
                Area::Shared => None,
                Area::Private(digits) => Some(self.layout.scope(digits)),
            },
            state,
            pinned,
            last_used: all
                .pieces()
                .map(|piece| view.time(piece))
                .fold(header.number(Word::Opened), u64::max)
                .min(now()),
            name: part.slots.name(),
        })
    }

    /// Bytes the cache takes on disk, measured.
    pub fn measure(&self) -> u64 {
        let began = self.room.begin_measuring();
        let bytes = self.layout.contents().map(|found| taken(&found.dir)).sum();
        self.room.end_measuring(began, bytes);
        bytes
    }

    /// Reads everything, and drops what has rotted or is not what its hash says. Mounts go on meanwhile.
    pub fn check(&self, stop: &AtomicBool) -> io::Result<CheckReport> {
        let mut report = CheckReport::default();
        for found in self.layout.contents() {
            report.contents += 1;
            let part = match Part::open(&found.dir, found.key.size) {
                Ok(Some(part)) => part,
                // It was removed just now.
                Ok(None) => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    self.drop_content(&found, None)?;
                    report.dropped_contents += 1;
                    continue;
                }
                Err(error) => return Err(error),
            };
            let here = self.check_blocks(&found, &part, &mut report)?;
            if here < BlockRange::all(found.key.size).len() {
                continue;
            }
            let hash = found.key.hash.sha256();
            if check_whole(&part, found.key.size, hash, stop)? == Checked::Rotten
                && self.still_whole(&found, &part)?
            {
                self.drop_content(&found, Some(&part))?;
                report.dropped_contents += 1;
            }
        }
        Ok(report)
    }

    /// Whether it is all here: what was evicted while it was read is no rot.
    fn still_whole(&self, found: &Found, part: &Part) -> io::Result<bool> {
        let all = BlockRange::all(found.key.size);
        let view = part.slots.view(all)?;
        Ok(!part.slots.is_removed()? && (all.start..all.end).all(|block| view.has(block)))
    }

    /// Checks blocks one by one, and gives how many are here.
    fn check_blocks(&self, found: &Found, part: &Part, report: &mut CheckReport) -> io::Result<u64> {
        let all = BlockRange::all(found.key.size);
        let view = part.slots.view(all)?;
        let mut bytes = Vec::with_capacity(BLOCK as usize);
        let (mut sound, mut rotten) = (0, 0);
        for block in (all.start..all.end).filter(|block| view.has(*block)) {
            bytes.clear();
            report.blocks += 1;
            let one = BlockRange { start: block, end: block + 1 };
            if part.read(one, &view, &mut bytes)?.is_empty() {
                sound += 1;
            } else if part.look_again(block, &view)? == Suspect::Rotten {
                rotten += 1;
            }
        }
        report.rotten_blocks += rotten;
        if rotten > 0 && part.slots.header()?.is(Word::HandedOut) {
            // The kernel would go on showing it.
            self.drop_content(found, Some(part))?;
            report.dropped_contents += 1;
        }
        Ok(sound)
    }

    fn drop_content(&self, found: &Found, part: Option<&Part>) -> io::Result<()> {
        if part.is_some_and(|part| part.slots.is_removed().unwrap_or(true)) {
            return Ok(());
        }
        let (freeing, bytes) = (self.room.begin_freeing(), taken(&found.dir));
        self.layout.remove(&found.dir)?;
        self.room.end_freeing(freeing, bytes);
        Ok(())
    }

    /// Removes contents that nobody has open and nobody has pinned.
    pub fn remove(&self, which: &Which) -> io::Result<Removed> {
        let mut removed = Removed::default();
        for found in self.layout.contents() {
            let chosen = match which {
                Which::All => true,
                Which::Hashes(hashes) => hashes.contains(&found.key.hash),
                Which::OlderThan(age) => {
                    let part = Part::open(&found.dir, found.key.size).ok().flatten();
                    let known = part.and_then(|part| self.describe(&found, &part, false).ok());
                    let limit = now().saturating_sub(u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
                    known.is_none_or(|content| content.last_used < limit)
                }
            };
            if !chosen {
                continue;
            }
            let freeing = self.room.begin_freeing();
            match remove_unused(&self.layout, &found)? {
                Some(bytes) => {
                    removed.contents += 1;
                    removed.bytes += bytes;
                    self.room.end_freeing(freeing, bytes);
                }
                None => removed.left += 1,
            }
        }
        self.eviction.forget_order();
        Ok(removed)
    }

    /// Evicts until no more is taken than the limit allows, as far as that is possible; what is taken then.
    pub fn shrink_to_limit(&self) -> u64 {
        self.eviction.forget_order();
        // Measured first, then evicted; once more for what was used in between.
        for _ in 0..4 {
            let taken = self.room.taken().unwrap_or(u64::MAX);
            let excess = taken.saturating_sub(self.limits.bytes());
            if excess == 0 || !self.eviction.make_room(&self.layout, &self.room, excess) {
                break;
            }
        }
        self.measure()
    }

    /// Reads the verified content whose last check is the oldest and `older` than that ago, and removes it if it has
    /// rotted: the kernel reads what is handed to it without checksums. To be called now and then, off any request's path.
    pub fn recheck(&self, older: Duration, stop: &AtomicBool) -> io::Result<Recheck> {
        let old = now().saturating_sub(u64::try_from(older.as_millis()).unwrap_or(u64::MAX));
        let shared = self.layout.contents().filter(|found| found.area == Area::Shared);
        let verified = shared.filter_map(|found| {
            let part = Part::open(&found.dir, found.key.size).ok().flatten()?;
            let header = part.slots.header().ok().filter(|header| header.is(Word::Verified))?;
            Some((header.number(Word::Checked), found))
        });
        let Some((_, found)) =
            verified.filter(|(checked, _)| *checked <= old).min_by_key(|(checked, _)| *checked)
        else {
            return Ok(Recheck::Nothing);
        };
        let Some(part) = Part::open(&found.dir, found.key.size)? else { return Ok(Recheck::Nothing) };
        let size = found.key.size;
        let changed = changed_at(&part.bytes.metadata()?);
        match check_whole(&part, size, found.key.hash.sha256(), stop)? {
            Checked::Stopped => Ok(Recheck::Stopped),
            Checked::Sound => {
                part.was_found_right(changed)?;
                Ok(Recheck::Sound(size))
            }
            Checked::Rotten if self.still_whole(&found, &part)? => {
                self.drop_content(&found, Some(&part))?;
                Ok(Recheck::Rotten(size))
            }
            // Evicted meanwhile.
            Checked::Rotten => Ok(Recheck::Sound(0)),
        }
    }
}
