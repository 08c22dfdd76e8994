//! The slot file of a content: which blocks are here, their checksums, when each piece was read last, and what is
//! known of the whole. `src/ARCHITECTURE.md` specifies its layout.
//!
//! Nothing of it is kept in memory: several processes share it, and a look of a few hundred bytes in the kernel's
//! pages costs less than a microsecond. Slots and times are single aligned words. Who adds, removes or shares blocks
//! holds the lock; readers hold nothing, for a block counts only if its checksum holds.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::{Mutex, MutexGuard, TryLockError as Poisonable};
use std::time::{Duration, Instant};

use super::blocks::{BLOCK, BlockRange, PIECE};
use crate::model::ByteRange;

const MAGIC: &[u8; 8] = b"PQBLOCK3";
const HEADER: u64 = 1024;
/// A piece's time and its slots.
const RECORD: u64 = 8 + PIECE * 8;
const PRESENT: u64 = 1 << 63;
const UNREAD: u64 = 1 << 62;
/// Where the header's name begins, behind its length in two bytes.
const NAME: u64 = 128;
const NAME_MOST: usize = 800;
/// Words that noise does not hit upon.
const YES: u64 = u64::from_le_bytes(*b"yes yes ");

/// A word of the header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    /// [`YES`]: lies in the shared area, so nothing is added to it that was not verified.
    Shared = 24,
    /// [`YES`]: all of it is here and has the hash.
    Verified = 32,
    /// [`YES`]: the kernel has been given the file, whose blocks may be mapped for as long as it exists.
    HandedOut = 40,
    /// When it was verified last, in milliseconds since 1970.
    Checked = 48,
    /// How often blocks were removed.
    Removals = 56,
    /// The bytes that are kept longest.
    KeepStart = 64,
    KeepEnd = 72,
    /// When it was opened last.
    Opened = 80,
    /// [`YES`]: not evicted while anybody has it open, for it may not be had again.
    KeptWhileOpen = 88,
    /// When its bytes had been written to last as they were verified, in nanoseconds since 1970.
    CheckedAsOf = 96,
}

/// What the header says.
#[derive(Debug, Clone, Default)]
pub(super) struct Header {
    words: Vec<u8>,
}

impl Header {
    pub(super) fn number(&self, word: Word) -> u64 {
        word_at(&self.words, word as usize)
    }

    pub(super) fn is(&self, word: Word) -> bool {
        self.number(word) == YES
    }
}

/// A block's slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Slot(u64);

impl Slot {
    pub(super) fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Whether nobody has read the block since it was stored.
    pub(super) fn is_unread(self) -> bool {
        self.is_present() && self.0 & UNREAD != 0
    }

    /// The CRC-32C, the lower half.
    pub(super) fn checksum(self) -> u32 {
        (self.0 & u64::from(u32::MAX)) as u32
    }

    /// The same block, whether it was read or not.
    pub(super) fn is_same(self, other: Self) -> bool {
        self.0 | UNREAD == other.0 | UNREAD
    }
}

/// The slots of some blocks and the times of their pieces, as the file had them.
#[derive(Debug)]
pub(super) struct View {
    first_piece: u64,
    records: Vec<u8>,
}

impl View {
    /// The slot of a block of the range that was asked for.
    pub(super) fn slot(&self, block: u64) -> Slot {
        Slot(word_at(&self.records, self.place(block / PIECE) + 8 + (block % PIECE) as usize * 8))
    }

    /// When the piece was last read or added to, in milliseconds since 1970.
    pub(super) fn time(&self, piece: u64) -> u64 {
        word_at(&self.records, self.place(piece))
    }

    pub(super) fn has(&self, block: u64) -> bool {
        self.slot(block).is_present()
    }

    fn place(&self, piece: u64) -> usize {
        ((piece - self.first_piece) * RECORD) as usize
    }
}

fn word_at(bytes: &[u8], at: usize) -> u64 {
    let word = bytes.get(at..at + 8).and_then(|word| word.try_into().ok());
    word.map_or(0, u64::from_le_bytes)
}

/// An open slot file.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    size: u64,
    /// The file's lock keeps processes and other openings apart; this, the threads that share this opening.
    threads: Mutex<()>,
}

/// The right to add and remove blocks, until it is dropped.
pub(super) struct Lock<'a> {
    file: &'a File,
    _threads: MutexGuard<'a, ()>,
}

impl Drop for Lock<'_> {
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

impl Slots {
    fn length(size: u64) -> u64 {
        HEADER + BlockRange::all(size).pieces().end * RECORD
    }

    fn head(size: u64) -> [u8; 24] {
        let mut head = [0; 24];
        head[..8].copy_from_slice(MAGIC);
        head[8..16].copy_from_slice(&BLOCK.to_le_bytes());
        head[16..].copy_from_slice(&size.to_le_bytes());
        head
    }

    /// Makes an empty file into the slots of a content of `size` bytes.
    pub(super) fn create(file: File, size: u64) -> io::Result<Self> {
        file.set_len(Self::length(size))?;
        file.write_all_at(&Self::head(size), 0)?;
        Ok(Self { file, size, threads: Mutex::new(()) })
    }

    /// Takes over a slot file, if it is one for a content of `size` bytes.
    pub(super) fn open(file: File, size: u64) -> io::Result<Option<Self>> {
        let mut head = [0; 24];
        let meant = file.metadata()?.len() == Self::length(size)
            && file.read_exact_at(&mut head, 0).is_ok()
            && head == Self::head(size);
        Ok(meant.then_some(Self { file, size, threads: Mutex::new(()) }))
    }

    /// The right to add and remove blocks, if it can be had within `patience`.
    pub(super) fn lock(&self, patience: Duration) -> io::Result<Option<Lock<'_>>> {
        let until = Instant::now() + patience;
        loop {
            let threads = match self.threads.try_lock() {
                Ok(threads) => Some(threads),
                Err(Poisonable::Poisoned(poisoned)) => Some(poisoned.into_inner()),
                Err(Poisonable::WouldBlock) => None,
            };
            if let Some(threads) = threads {
                match self.file.try_lock() {
                    Ok(()) => return Ok(Some(Lock { file: &self.file, _threads: threads })),
                    Err(TryLockError::WouldBlock) => {}
                    Err(TryLockError::Error(error)) => return Err(error),
                }
            }
            if Instant::now() >= until {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_micros(200));
        }
    }

    /// What the header says now.
    pub(super) fn header(&self) -> io::Result<Header> {
        let mut words = vec![0; NAME as usize];
        self.file.read_exact_at(&mut words, 0)?;
        Ok(Header { words })
    }

    pub(super) fn set(&self, word: Word, value: u64) -> io::Result<()> {
        self.file.write_all_at(&value.to_le_bytes(), word as u64)
    }

    pub(super) fn set_yes(&self, word: Word) -> io::Result<()> {
        self.set(word, YES)
    }

    /// Says which bytes go last.
    pub(super) fn keep_longest(&self, range: ByteRange) -> io::Result<()> {
        self.set(Word::KeepStart, range.start)?;
        self.set(Word::KeepEnd, range.end)
    }

    /// What people call the content.
    pub(super) fn name(&self) -> Option<String> {
        let mut bytes = vec![0; 2 + NAME_MOST];
        self.file.read_exact_at(&mut bytes, NAME).ok()?;
        let length = usize::from(u16::from_le_bytes([bytes[0], bytes[1]]));
        let name = std::str::from_utf8(bytes.get(2..2 + length)?).ok()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    pub(super) fn set_name(&self, name: &str) -> io::Result<()> {
        let end = (0..=NAME_MOST.min(name.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        let mut bytes = u16::try_from(end).unwrap_or(0).to_le_bytes().to_vec();
        bytes.extend_from_slice(&name.as_bytes()[..end]);
        self.file.write_all_at(&bytes, NAME)
    }

    /// The slots of `blocks` now. Where the file has been cut short there are none.
    pub(super) fn view(&self, blocks: BlockRange) -> io::Result<View> {
        let pieces = blocks.pieces();
        let from = HEADER + pieces.start * RECORD;
        let to = if blocks.is_empty() { from } else { place(blocks.end - 1) + 8 };
        let mut records = vec![0; usize::try_from(to - from).map_err(io::Error::other)?];
        match self.file.read_exact_at(&mut records, from) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => records.fill(0),
            read => read?,
        }
        Ok(View { first_piece: pieces.start, records })
    }

    /// Records blocks from `first` on, whose bytes have been written. Under the lock.
    pub(super) fn record(&self, first: u64, checksums: &[u32], now: u64) -> io::Result<()> {
        self.put(first, checksums.iter().map(|checksum| PRESENT | UNREAD | u64::from(*checksum)).collect())?;
        let blocks = BlockRange { start: first, end: first + checksums.len() as u64 };
        blocks.pieces().try_for_each(|piece| self.touch(piece, now))
    }

    /// Forgets blocks. Under the lock.
    pub(super) fn forget(&self, blocks: BlockRange) -> io::Result<()> {
        let header = self.header()?;
        if header.is(Word::Verified) {
            // What is removed next may be gone for good after a power cut: then this must be, too.
            self.set(Word::Verified, 0)?;
            self.file.sync_data()?;
        }
        self.put(blocks.start, vec![0; usize::try_from(blocks.len()).map_err(io::Error::other)?])?;
        self.set(Word::Removals, header.number(Word::Removals).wrapping_add(1))
    }

    /// Marks blocks as read, those that are still as `seen`. Under the lock.
    pub(super) fn mark_read(&self, blocks: BlockRange, seen: &View) -> io::Result<()> {
        let now = self.view(blocks)?;
        let read = |block| {
            let slot = now.slot(block);
            if slot.is_same(seen.slot(block)) { slot.0 & !UNREAD } else { slot.0 }
        };
        self.put(blocks.start, (blocks.start..blocks.end).map(read).collect())
    }

    /// Says that a piece was read.
    pub(super) fn touch(&self, piece: u64, now: u64) -> io::Result<()> {
        self.file.write_all_at(&now.to_le_bytes(), HEADER + piece * RECORD)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    /// Whether its name has been removed.
    pub(super) fn is_removed(&self) -> io::Result<bool> {
        Ok(self.file.metadata()?.nlink() == 0)
    }

    /// Bytes on disk.
    pub(super) fn taken(&self) -> u64 {
        self.file.metadata().map_or(0, |metadata| metadata.blocks() * 512)
    }

    /// Writes slots of neighbouring blocks, piece by piece.
    fn put(&self, first: u64, slots: Vec<u64>) -> io::Result<()> {
        let blocks = BlockRange { start: first, end: first + slots.len() as u64 };
        let mut slots = slots.into_iter();
        for piece in blocks.pieces() {
            let of_piece = BlockRange::of_piece(piece, self.size);
            let run = blocks.start.max(of_piece.start)..blocks.end.min(of_piece.end);
            let count = run.end.saturating_sub(run.start) as usize;
            let bytes: Vec<u8> = slots.by_ref().take(count).flat_map(u64::to_le_bytes).collect();
            self.file.write_all_at(&bytes, place(run.start))?;
        }
        Ok(())
    }
}

/// Where a block's slot lies in the file.
fn place(block: u64) -> u64 {
    HEADER + (block / PIECE) * RECORD + 8 + (block % PIECE) * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(size: u64) -> Slots {
        Slots::create(tempfile::tempfile().unwrap(), size).unwrap()
    }

    #[test]
    fn slots_are_written_across_pieces_and_forgotten_one_by_one() {
        let slots = slots(3 * PIECE * BLOCK + 1);
        let checksums: Vec<u32> = (0..2 * PIECE as u32).collect();
        slots.record(PIECE / 2, &checksums, 7).unwrap();
        slots.forget(BlockRange { start: PIECE, end: PIECE + 2 }).unwrap();
        let view = slots.view(BlockRange { start: 3, end: 3 * PIECE + 1 }).unwrap();
        for block in 3..3 * PIECE + 1 {
            let inside = (PIECE / 2..PIECE / 2 + 2 * PIECE).contains(&block);
            let expected = (inside && block != PIECE && block != PIECE + 1).then(|| block - PIECE / 2);
            let slot = view.slot(block);
            assert_eq!(slot.is_present().then(|| u64::from(slot.checksum())), expected, "{block}");
        }
        assert_eq!([view.time(0), view.time(2), view.time(3)], [7, 7, 0]);
        assert_eq!(slots.header().unwrap().number(Word::Removals), 1);
    }

    #[test]
    fn a_file_for_another_size_is_not_taken_over() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        Slots::create(open(), BLOCK).unwrap().set_name("größe").unwrap();
        assert!(Slots::open(open(), BLOCK + 1).unwrap().is_none());
        assert_eq!(Slots::open(open(), BLOCK).unwrap().unwrap().name().unwrap(), "größe");
        file.as_file().write_all_at(b"x", 3).unwrap();
        assert!(Slots::open(open(), BLOCK).unwrap().is_none());
    }

    #[test]
    fn one_at_a_time_holds_the_lock_whoever_opened_the_file() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let open = || File::options().read(true).write(true).open(file.path()).unwrap();
        let (one, two) =
            (Slots::create(open(), BLOCK).unwrap(), Slots::open(open(), BLOCK).unwrap().unwrap());
        let held = one.lock(Duration::ZERO).unwrap().unwrap();
        assert!(one.lock(Duration::ZERO).unwrap().is_none());
        assert!(two.lock(Duration::from_millis(5)).unwrap().is_none());
        drop(held);
        assert!(two.lock(Duration::ZERO).unwrap().is_some());
    }
}
