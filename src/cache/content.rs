//! The cached part of one content.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};

use super::blocks::{BLOCK, BlockRange};
use super::slots::Slots;
use crate::model::ByteRange;

/// A content's blocks on disk: a sparse file with the bytes at their own offsets, and the slots.
#[derive(Debug)]
pub struct CachedContent {
    size: u64,
    bytes: File,
    slots: Slots,
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

impl CachedContent {
    pub(super) fn open(bytes: File, slots: File, size: u64) -> io::Result<Self> {
        let slots = Slots::open(slots, size)?;
        if bytes.metadata()?.len() != size {
            bytes.set_len(size)?;
        }
        Ok(Self { size, bytes, slots })
    }

    /// Reads `range`, which lies inside the content, if every block of it is here and sound.
    pub fn read(&self, range: ByteRange) -> io::Result<Look> {
        let blocks = BlockRange::covering(range);
        if (blocks.start..blocks.end).any(|block| self.slots.checksum(block).is_none()) {
            return Ok(Look::Miss);
        }
        let covered = blocks.bytes(self.size);
        let mut bytes = BytesMut::zeroed(usize::try_from(covered.len()).map_err(io::Error::other)?);
        self.bytes.read_exact_at(&mut bytes, covered.start)?;
        let mut rotten = 0;
        for (block, piece) in (blocks.start..blocks.end).zip(bytes.chunks(BLOCK as usize)) {
            if self.slots.checksum(block) != Some(crc32c::crc32c(piece)) {
                self.slots.forget(block)?;
                rotten += 1;
            }
        }
        if rotten > 0 {
            return Ok(Look::Rotten(rotten));
        }
        let inside = |at: u64| usize::try_from(at - covered.start).map_err(io::Error::other);
        Ok(Look::Hit(bytes.freeze().slice(inside(range.start)?..inside(range.end)?)))
    }

    /// Whether every block is here.
    pub fn is_complete(&self) -> bool {
        let count = self.size.div_ceil(BLOCK);
        (0..count).all(|block| self.has(block))
    }

    /// Whether the block is here, sound or not.
    pub fn has(&self, block: u64) -> bool {
        self.slots.checksum(block).is_some()
    }

    /// Stores whole blocks from `first` on: their bytes, then their slots.
    pub fn write(&self, first: u64, bytes: &[u8]) -> io::Result<()> {
        self.bytes.write_all_at(bytes, first * BLOCK)?;
        let checksums: Vec<u32> = bytes.chunks(BLOCK as usize).map(crc32c::crc32c).collect();
        self.slots.record(first, &checksums)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn open(dir: &Path, size: u64) -> CachedContent {
        let file = |name: &str| {
            File::options().read(true).write(true).create(true).truncate(false).open(dir.join(name)).unwrap()
        };
        CachedContent::open(file("data"), file("slots"), size).unwrap()
    }

    fn sample(size: u64) -> Vec<u8> {
        (0..size).map(|n| (n * 31 % 251) as u8).collect()
    }

    #[test]
    fn blocks_survive_reopening_and_missing_ones_are_misses() {
        let dir = tempfile::tempdir().unwrap();
        let size = 3 * BLOCK + 100;
        let bytes = sample(size);
        let content = open(dir.path(), size);
        assert!(matches!(content.read(ByteRange::new(0, 1)).unwrap(), Look::Miss));
        content.write(2, &bytes[2 * BLOCK as usize..]).unwrap();
        drop(content);
        let content = open(dir.path(), size);
        let range = ByteRange::new(2 * BLOCK + 5, size);
        let Look::Hit(read) = content.read(range).unwrap() else { panic!("a hit") };
        assert_eq!(read, bytes[range.start as usize..]);
        assert!(matches!(content.read(ByteRange::new(2 * BLOCK - 1, size)).unwrap(), Look::Miss));
    }

    #[test]
    fn rot_and_lost_bytes_are_noticed_and_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let size = 2 * BLOCK;
        let content = open(dir.path(), size);
        content.write(0, &sample(size)).unwrap();
        // A power cut that kept the slots and lost the bytes, and one flipped bit.
        for damage in [vec![0; BLOCK as usize], {
            let mut b = sample(BLOCK);
            b[7] ^= 1;
            b
        }] {
            File::options()
                .write(true)
                .open(dir.path().join("data"))
                .unwrap()
                .write_all_at(&damage, 0)
                .unwrap();
            assert!(matches!(content.read(ByteRange::new(0, size)).unwrap(), Look::Rotten(1)));
            assert!(matches!(content.read(ByteRange::new(0, size)).unwrap(), Look::Miss), "forgotten");
            assert!(
                matches!(content.read(ByteRange::new(BLOCK, size)).unwrap(), Look::Hit(_)),
                "the other stays"
            );
            content.write(0, &sample(BLOCK)).unwrap();
        }
    }

    #[test]
    fn a_damaged_slot_file_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let size = 2 * BLOCK;
        open(dir.path(), size).write(0, &sample(size)).unwrap();
        for damage in [&b"garbage"[..], &[0; 48], &[255; 48]] {
            std::fs::write(dir.path().join("slots"), damage).unwrap();
            let content = open(dir.path(), size);
            assert!(matches!(content.read(ByteRange::new(0, size)).unwrap(), Look::Miss));
            content.write(0, &sample(size)).unwrap();
            assert!(matches!(content.read(ByteRange::new(0, size)).unwrap(), Look::Hit(_)));
        }
    }
}
