//! A content's directory: a sparse file with its bytes at their own offsets, and its slots. One of them lies in the
//! private area of a scope and holds what came from there; one may lie in the shared area and holds what was
//! verified.

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::fs::{FallocateFlags, fallocate};

use super::blocks::{BLOCK, BlockRange};
use super::layout::{BYTES, SLOTS, create_file};
use super::slots::{Slots, View, Word};

/// The two open files of a content.
#[derive(Debug)]
pub(super) struct Part {
    size: u64,
    pub(super) bytes: File,
    pub(super) slots: Slots,
}

/// What became of a block whose bytes were not what its slot says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suspect {
    /// It has rotted, and is forgotten.
    Rotten,
    /// Somebody was just changing it.
    Changing,
}

/// How long a block that does not look right may wait for the lock.
const SECOND_LOOK: Duration = Duration::from_millis(20);

impl Part {
    /// Makes the files in `dir`, which is new and has no name others look for yet.
    pub(super) fn create(dir: &Path, size: u64) -> io::Result<()> {
        create_file(&dir.join(BYTES))?.set_len(size)?;
        Slots::create(create_file(&dir.join(SLOTS))?, size).map(drop)
    }

    /// Opens the files in `dir`; nothing where there is no such directory. What is there and not whole is an
    /// error of the kind `InvalidData`.
    pub(super) fn open(dir: &Path, size: u64) -> io::Result<Option<Self>> {
        let damaged = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let slots = match open_file(&dir.join(SLOTS)) {
            Ok(slots) => slots,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return if dir.exists() { Err(damaged("no slots")) } else { Ok(None) };
            }
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => return Err(damaged("a directory")),
            Err(error) => return Err(error),
        };
        let bytes = open_file(&dir.join(BYTES)).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::IsADirectory => damaged("no bytes"),
            _ => error,
        })?;
        let slots = Slots::open(slots, size)?.ok_or_else(|| damaged("not the slots of this content"))?;
        if bytes.metadata()?.len() != size {
            return Err(damaged("not the content's size"));
        }
        Ok(Some(Self { size, bytes, slots }))
    }

    /// Appends the bytes of `blocks`, all of which `view` says are here, to `into`, and gives those that are not
    /// what `view` says.
    pub(super) fn read(&self, blocks: BlockRange, view: &View, into: &mut Vec<u8>) -> io::Result<Vec<u64>> {
        let range = blocks.bytes(self.size);
        let (start, length) = (into.len(), usize::try_from(range.len()).map_err(io::Error::other)?);
        into.reserve_exact(length);
        while into.len() < start + length {
            let have = into.len() - start;
            // The capacity may be more than was asked for, and what lies behind these blocks is not wanted.
            let read = if into.capacity() == start + length {
                rustix::io::pread(&self.bytes, spare_capacity(into), range.start + have as u64)?
            } else {
                into.resize(start + length, 0);
                let read = self.bytes.read_at(&mut into[start + have..], range.start + have as u64)?;
                into.truncate(start + have + read);
                read
            };
            if read == 0 {
                // Somebody cut the file short: what lay behind is as rotten as can be.
                into.resize(start + length, 0);
            }
        }
        let pieces = (blocks.start..blocks.end).zip(into[start..].chunks(BLOCK as usize));
        Ok(pieces
            .filter(|(block, piece)| view.slot(*block).checksum() != crc32c::crc32c(piece))
            .map(|(block, _)| block)
            .collect())
    }

    /// Looks again at a block that was not what `seen` says, while nobody can change it, and forgets it if it has
    /// rotted.
    pub(super) fn look_again(&self, block: u64, seen: &View) -> io::Result<Suspect> {
        let Some(_lock) = self.slots.lock(SECOND_LOOK)? else { return Ok(Suspect::Changing) };
        let one = BlockRange { start: block, end: block + 1 };
        let now = self.slots.view(one)?;
        if !now.has(block) || !now.slot(block).is_same(seen.slot(block)) {
            return Ok(Suspect::Changing);
        }
        if self.read(one, &now, &mut Vec::new())?.is_empty() {
            return Ok(Suspect::Changing);
        }
        self.slots.forget(one)?;
        Ok(Suspect::Rotten)
    }

    /// Stores blocks that are not here: their bytes, then their slots. Under the lock.
    pub(super) fn store(&self, first: u64, bytes: &[u8], checksums: &[u32], now: u64) -> io::Result<()> {
        let stored = self
            .bytes
            .write_all_at(bytes, first * BLOCK)
            .and_then(|()| self.slots.record(first, checksums, now));
        if stored.is_err() {
            // What a full disk took of it would be counted nowhere.
            let _ = self.punch(BlockRange { start: first, end: first + checksums.len() as u64 });
        }
        stored
    }

    /// Removes blocks and gives what that freed: first their slots, then their bytes. Under the lock.
    pub(super) fn remove(&self, blocks: BlockRange) -> io::Result<u64> {
        let before = self.taken();
        self.slots.forget(blocks)?;
        self.punch(blocks)?;
        Ok(before.saturating_sub(self.taken()))
    }

    fn punch(&self, blocks: BlockRange) -> io::Result<()> {
        // To the end of the last block: the last page of a content is freed, too.
        let (offset, length) = (blocks.start * BLOCK, blocks.len() * BLOCK);
        let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        Ok(fallocate(&self.bytes, how, offset, length)?)
    }

    /// Bytes on disk.
    pub(super) fn taken(&self) -> u64 {
        self.bytes.metadata().map_or(0, |metadata| metadata.blocks() * 512) + self.slots.taken()
    }

    /// Whether it has no name any more, or lies in the shared area now.
    pub(super) fn is_not_private(&self) -> io::Result<bool> {
        Ok(self.slots.is_removed()? || self.slots.header()?.is(Word::Shared))
    }
}

/// For reading and writing; for reading where the disk allows no more.
fn open_file(path: &Path) -> io::Result<File> {
    match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::ReadOnlyFilesystem => File::open(path),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(dir: &Path, size: u64) -> Part {
        Part::create(dir, size).unwrap();
        Part::open(dir, size).unwrap().unwrap()
    }

    fn store(part: &Part, first: u64, bytes: &[u8]) {
        let checksums: Vec<u32> = bytes.chunks(BLOCK as usize).map(crc32c::crc32c).collect();
        part.store(first, bytes, &checksums, 1).unwrap();
    }

    #[test]
    fn removed_blocks_are_gone_from_the_disk_and_never_shown_as_zeros() {
        let dir = tempfile::tempdir().unwrap();
        let size = 4 * BLOCK;
        let part = part(dir.path(), size);
        store(&part, 0, &vec![7; size as usize]);
        let all = BlockRange::all(size);
        let before = part.slots.view(all).unwrap();
        let removed = BlockRange { start: 1, end: 3 };
        assert_eq!(part.remove(removed).unwrap(), 2 * BLOCK);
        // A reader that had looked at the slots before.
        let mut bytes = Vec::new();
        assert_eq!(part.read(all, &before, &mut bytes).unwrap(), [1, 2]);
        assert_eq!(part.look_again(1, &before).unwrap(), Suspect::Changing, "it did not rot");
        assert!(!part.slots.view(all).unwrap().has(2) && part.slots.view(all).unwrap().has(3));
    }

    #[test]
    fn rot_is_told_from_change_and_a_file_cut_short_is_rot() {
        let dir = tempfile::tempdir().unwrap();
        let part = part(dir.path(), 2 * BLOCK + 5);
        store(&part, 0, &vec![7; 2 * BLOCK as usize + 5]);
        let all = BlockRange { start: 0, end: 3 };
        let view = part.slots.view(all).unwrap();
        part.bytes.write_all_at(b"x", 3).unwrap();
        part.bytes.set_len(2 * BLOCK).unwrap();
        assert_eq!(part.read(all, &view, &mut Vec::new()).unwrap(), [0, 2]);
        assert_eq!(part.look_again(0, &view).unwrap(), Suspect::Rotten);
        assert_eq!(part.look_again(0, &view).unwrap(), Suspect::Changing, "told once");
        assert_eq!(part.look_again(2, &view).unwrap(), Suspect::Rotten);
    }

    #[test]
    fn what_is_not_whole_is_invalid() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Part::open(&dir.path().join("none"), 5).unwrap().is_none());
        let invalid = |dir: &Path| Part::open(dir, 5).unwrap_err().kind() == io::ErrorKind::InvalidData;
        assert!(invalid(dir.path()));
        Part::create(dir.path(), 6).unwrap();
        assert!(invalid(dir.path()), "of another size");
        for file in [BYTES, SLOTS] {
            std::fs::remove_file(dir.path().join(file)).unwrap();
        }
        Part::create(dir.path(), 5).unwrap();
        std::fs::remove_file(dir.path().join(BYTES)).unwrap();
        assert!(invalid(dir.path()));
    }
}
