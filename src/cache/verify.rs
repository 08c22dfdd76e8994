//! From private to shared (rule 26): a content that is all here is checked against its hash, off any request's path.
//! What is right moves to the shared area under its hash; what is wrong is dropped.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ring::digest::{Context, SHA256};

use super::blocks::{BLOCK, BlockRange};
use super::content::{CachedContent, Look, Purpose, is_no_room, now};
use super::handed::changed_at;
use super::part::Part;
use super::parts::{Parts, absent_runs};
use super::slots::Word;
use crate::model::{ContentHash, Sha256};

/// Blocks read at a time.
const STEP: u64 = 128;
/// How long it waits for others who store or remove blocks of this content.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of checking a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verification {
    /// It has its hash, is on the disk, and is shared from now on.
    Verified,
    /// Some of it is not here, or was found rotten and is forgotten.
    Incomplete,
    /// It is not what its hash says. All of it is dropped.
    Wrong,
    /// It was stopped, or others were busy with it, or there was no room: it may be tried again.
    Later,
    /// Its hash is too weak to share it by (MD5, rule 5).
    Weak,
}

/// What a look for rot has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Soundness {
    /// All of it is here, and as it was stored.
    Sound,
    /// So many blocks had rotted; they are forgotten.
    Rotten(u64),
    /// It was stopped, or not all of it is here.
    Unknown,
}

impl CachedContent {
    /// Checks the whole content against its hash, and shares it if it is right. Reads all of it: not for a thread
    /// that answers requests. Ends early when `stop` is set; nothing is lost by that.
    pub fn verify(&self, stop: &AtomicBool) -> io::Result<Verification> {
        let ContentHash::Sha256(expected) = self.key.hash else { return Ok(Verification::Weak) };
        // Once at a time: each reads all of it.
        let Ok(_one) = self.verifying.try_lock() else { return Ok(Verification::Later) };
        self.refresh();
        let parts = self.parts();
        if let Some(shared) = &parts.shared
            && shared.slots.header()?.is(Word::Verified)
        {
            return Ok(Verification::Verified);
        }
        let before = Before { removals: removals(&parts)?, changed: changes(&parts)? };
        let mut hash = Context::new(&SHA256);
        let all = self.blocks();
        for start in (all.start..all.end).step_by(STEP as usize) {
            if stop.load(Ordering::Relaxed) {
                return Ok(Verification::Later);
            }
            let step = BlockRange { start, end: (start + STEP).min(all.end) };
            match self.look(step.bytes(self.key.size), Purpose::Checking)? {
                Look::Hit(bytes) => hash.update(&bytes),
                Look::Miss | Look::Rotten(_) => return Ok(Verification::Incomplete),
            }
        }
        if Sha256::from_digest(&hash.finish()) != expected {
            self.drop_all()?;
            return Ok(Verification::Wrong);
        }
        // Long, so before the lock; under it, little is left to do.
        for part in parts.shared.iter().chain(&parts.private) {
            part.bytes.sync_data()?;
        }
        let shared = match (&parts.shared, &parts.private) {
            (None, Some(private)) => self.share(&parts, private, before),
            (Some(shared), _) => self.fill(&parts, shared, before),
            (None, None) => return Ok(Verification::Incomplete),
        };
        match shared {
            Ok(true) => Ok(Verification::Verified),
            Ok(false) => Ok(Verification::Later),
            Err(error) if is_no_room(&error) => Ok(Verification::Later),
            Err(error) => Err(error),
        }
    }

    /// Reads all of it and compares every block with its checksum; what has rotted is forgotten. Not for a thread that
    /// answers requests. Ends early when `stop` is set.
    pub fn look_for_rot(&self, stop: &AtomicBool) -> io::Result<Soundness> {
        let parts = self.parts();
        let changed = changes(&parts)?;
        let (mut rotten, mut missing) = (0, false);
        for step in steps(self.blocks()) {
            if stop.load(Ordering::Relaxed) {
                return Ok(Soundness::Unknown);
            }
            match self.look(step.bytes(self.key.size), Purpose::Checking)? {
                Look::Hit(_) => {}
                Look::Miss => missing = true,
                Look::Rotten(blocks) => rotten += blocks,
            }
        }
        Ok(match rotten {
            0 if missing => Soundness::Unknown,
            0 => {
                if let (Some(shared), None) = (&parts.shared, &parts.private) {
                    // So the next start need not do it again. What was written to meanwhile is found by its later time.
                    shared.was_found_right(changed[0])?;
                }
                Soundness::Sound
            }
            blocks => Soundness::Rotten(blocks),
        })
    }

    /// Moves the private part to the shared area. `false`: it has changed since it was read, or others are busy.
    fn share(&self, parts: &Parts, private: &Arc<Part>, before: Before) -> io::Result<bool> {
        {
            let Some(_lock) = private.slots.lock(PATIENCE)? else { return Ok(false) };
            if private.is_not_private()? || before.has_changed(parts)? {
                return Ok(false);
            }
            seal(private)?;
            // From here on nobody adds to it; whoever opens it under its old name finishes the move.
            private.slots.set_yes(Word::Shared)?;
            let moved = self.layout.share(self.scope.digits(), &self.key);
            let moved = match moved {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                moved => moved,
            };
            if !moved? {
                // Another scope or process was faster, and has the same.
                let freeing = self.room.begin_freeing();
                self.layout.remove(&self.layout.private(self.scope.digits(), &self.key))?;
                self.room.end_freeing(freeing, private.taken());
            }
        }
        self.set_parts(Parts { shared: Some(private.clone()), private: None });
        self.refresh();
        Ok(true)
    }

    /// Adds to the shared part, of which pieces were evicted, what this scope fetched again.
    fn fill(&self, parts: &Parts, shared: &Arc<Part>, before: Before) -> io::Result<bool> {
        let Some(_lock) = shared.slots.lock(PATIENCE)? else { return Ok(false) };
        // Always in this order: the shared one first.
        let private_lock = match &parts.private {
            Some(private) => private.slots.lock(PATIENCE)?,
            None => None,
        };
        if private_lock.is_none() && parts.private.is_some() {
            return Ok(false);
        }
        // Blocks are removed under the locks only: from here on, what is here is what was hashed.
        if shared.slots.is_removed()? || before.has_changed(parts)? {
            return Ok(false);
        }
        if let Some(private) = &parts.private {
            if private.is_not_private()? {
                return Ok(false);
            }
            let only_shared = Parts { shared: Some(shared.clone()), private: None };
            let absent = absent_runs(&only_shared.views(self.blocks())?, self.blocks());
            for step in absent.into_iter().flat_map(steps) {
                let view = private.slots.view(step)?;
                let mut bytes = Vec::new();
                if (step.start..step.end).any(|block| !view.has(block))
                    || !private.read(step, &view, &mut bytes)?.is_empty()
                {
                    return Ok(false);
                }
                let checksums: Vec<u32> =
                    (step.start..step.end).map(|block| view.slot(block).checksum()).collect();
                shared.store(step.start, &bytes, &checksums, now())?;
                self.room.added(bytes.len() as u64);
            }
        }
        seal(shared)?;
        if let Some(private) = &parts.private {
            let freeing = self.room.begin_freeing();
            self.layout.remove(&self.layout.private(self.scope.digits(), &self.key))?;
            self.room.end_freeing(freeing, private.taken());
        }
        self.refresh();
        Ok(true)
    }

    /// Drops every block of it, and the kernel's claim on none: an unverified content was never handed out.
    fn drop_all(&self) -> io::Result<()> {
        let parts = self.parts();
        let places = [
            (&parts.shared, self.layout.shared(&self.key)),
            (&parts.private, self.layout.private(self.scope.digits(), &self.key)),
        ];
        for (part, dir) in places {
            let Some(part) = part else { continue };
            let _lock = part.slots.lock(PATIENCE)?;
            if !part.slots.is_removed()? {
                let freeing = self.room.begin_freeing();
                self.layout.remove(&dir)?;
                self.room.end_freeing(freeing, part.taken());
            }
        }
        self.refresh();
        Ok(())
    }
}

/// What was true before a content was read to be hashed.
#[derive(Debug, Clone, Copy)]
struct Before {
    removals: OfBoth,
    changed: OfBoth,
}

impl Before {
    /// Whether what is here may not be what was hashed: blocks were removed, or somebody has written to the files.
    fn has_changed(self, parts: &Parts) -> io::Result<bool> {
        Ok(changes(parts)? != self.changed || removals(parts)? != self.removals)
    }
}

/// A number of the shared part and one of the private part; 0 where there is none.
type OfBoth = [u64; 2];

fn of_both(parts: &Parts, number: impl Fn(&Part) -> io::Result<u64>) -> io::Result<OfBoth> {
    let of = |part: &Option<Arc<Part>>| part.as_deref().map_or(Ok(0), &number);
    Ok([of(&parts.shared)?, of(&parts.private)?])
}

/// When their bytes were written to last.
fn changes(parts: &Parts) -> io::Result<OfBoth> {
    of_both(parts, |part| Ok(changed_at(&part.bytes.metadata()?)))
}

/// How often blocks were removed from them.
fn removals(parts: &Parts) -> io::Result<OfBoth> {
    of_both(parts, |part| Ok(part.slots.header()?.number(Word::Removals)))
}

/// Says that a part was verified, once it is on the disk: the kernel reads it without checksums, also after a power
/// cut.
fn seal(part: &Part) -> io::Result<()> {
    let changed = changed_at(&part.bytes.metadata()?);
    part.bytes.sync_data()?;
    part.was_found_right(changed)?;
    part.slots.sync()?;
    part.slots.set_yes(Word::Verified)?;
    part.slots.sync()
}

fn steps(run: BlockRange) -> impl Iterator<Item = BlockRange> {
    (run.start..run.end)
        .step_by(STEP as usize)
        .map(move |start| BlockRange { start, end: (start + STEP).min(run.end) })
}

/// What checking one verified content found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checked {
    Sound,
    Rotten,
    Stopped,
}

/// Reads all of a part that is whole, and compares blocks with their checksums and the whole with its hash.
pub(super) fn check_whole(
    part: &Part,
    size: u64,
    hash: Option<Sha256>,
    stop: &AtomicBool,
) -> io::Result<Checked> {
    let mut digest = Context::new(&SHA256);
    let mut bytes = Vec::with_capacity((STEP * BLOCK) as usize);
    for step in steps(BlockRange::all(size)) {
        if stop.load(Ordering::Relaxed) {
            return Ok(Checked::Stopped);
        }
        bytes.clear();
        let view = part.slots.view(step)?;
        if !part.read(step, &view, &mut bytes)?.is_empty() {
            return Ok(Checked::Rotten);
        }
        digest.update(&bytes);
    }
    let right = hash.is_none_or(|hash| Sha256::from_digest(&digest.finish()) == hash);
    Ok(if right { Checked::Sound } else { Checked::Rotten })
}
