//! Which blocks of a content are here, and their checksums: one 64-bit slot a block, in memory and in a file.
//!
//! The file is a header of 32 bytes and then the slots, little-endian. A slot is written after its block's bytes,
//! in one write of eight aligned bytes: present, and the block's CRC-32C. Nothing is synced: if a power cut keeps
//! the slot and loses the bytes, the checksum says so.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};

use super::blocks::BLOCK;

const MAGIC: &[u8; 8] = b"PQBLOCK1";
const HEADER: usize = 32;
const PRESENT: u64 = 1 << 63;

/// The slots of one content.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    table: Box<[AtomicU64]>,
}

impl Slots {
    /// Takes over a slot file for a content of `size` bytes; one that is new, cut short or of another kind is
    /// begun anew, which loses only cached blocks.
    pub(super) fn open(file: File, size: u64) -> io::Result<Self> {
        let count = usize::try_from(size.div_ceil(BLOCK)).map_err(io::Error::other)?;
        let length = HEADER + count * 8;
        let mut header = [0; HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&BLOCK.to_le_bytes());
        header[16..24].copy_from_slice(&size.to_le_bytes());
        let mut bytes = vec![0; length];
        let intact = file.metadata()?.len() == length as u64
            && file.read_exact_at(&mut bytes, 0).is_ok()
            && bytes[..HEADER] == header;
        if !intact {
            file.set_len(0)?;
            file.set_len(length as u64)?;
            file.write_all_at(&header, 0)?;
            bytes = vec![0; length];
        }
        let slot = |bytes: &[u8]| AtomicU64::new(u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        let table = bytes[HEADER..].chunks_exact(8).map(slot).collect();
        Ok(Self { file, table })
    }

    /// The block's checksum, if it is here.
    pub(super) fn checksum(&self, block: u64) -> Option<u32> {
        let slot = self.slot(block)?.load(Ordering::Acquire);
        // The lower half is the checksum.
        (slot & PRESENT != 0).then_some((slot & u64::from(u32::MAX)) as u32)
    }

    /// Records blocks from `first` on, whose bytes have been written.
    pub(super) fn record(&self, first: u64, checksums: &[u32]) -> io::Result<()> {
        let slots: Vec<u64> = checksums.iter().map(|checksum| PRESENT | u64::from(*checksum)).collect();
        self.write(first, &slots)
    }

    /// Forgets a block.
    pub(super) fn forget(&self, block: u64) -> io::Result<()> {
        self.write(block, &[0])
    }

    fn write(&self, first: u64, slots: &[u64]) -> io::Result<()> {
        let bytes: Vec<u8> = slots.iter().flat_map(|slot| slot.to_le_bytes()).collect();
        self.file.write_all_at(&bytes, HEADER as u64 + first * 8)?;
        for (block, slot) in (first..).zip(slots) {
            if let Some(place) = self.slot(block) {
                place.store(*slot, Ordering::Release);
            }
        }
        Ok(())
    }

    fn slot(&self, block: u64) -> Option<&AtomicU64> {
        self.table.get(usize::try_from(block).ok()?)
    }
}
