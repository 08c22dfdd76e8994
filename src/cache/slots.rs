//! Which blocks of a content are here, and their checksums: one 64-bit slot a block, in memory and in a file.
//!
//! The file is a header of 32 bytes and then the slots, little-endian. A slot is written after its block's bytes,
//! in one write of eight aligned bytes: present, and the block's CRC-32C. Nothing is synced: if a power cut keeps
//! the slot and loses the bytes, the checksum says so.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::blocks::BLOCK;

const MAGIC: &[u8; 8] = b"PQBLOCK1";
const HEADER: u64 = 32;
const PRESENT: u64 = 1 << 63;
/// Slots read into memory together: 32 KiB of them, for 128 MiB of content.
const PAGE: usize = 4096;

/// The slots of one content. In memory they are read a page at a time, so that opening a huge file costs little.
#[derive(Debug)]
pub(super) struct Slots {
    file: File,
    count: u64,
    pages: Box<[OnceLock<Page>]>,
}

type Page = Box<[AtomicU64]>;

impl Slots {
    /// Takes over a slot file for a content of `size` bytes; one that is new, cut short or of another kind is
    /// begun anew, which loses only cached blocks.
    pub(super) fn open(file: File, size: u64) -> io::Result<Self> {
        let count = size.div_ceil(BLOCK);
        let length = HEADER + count * 8;
        let mut header = [0; HEADER as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..16].copy_from_slice(&BLOCK.to_le_bytes());
        header[16..24].copy_from_slice(&size.to_le_bytes());
        let mut found = [0; HEADER as usize];
        let intact =
            file.metadata()?.len() == length && file.read_exact_at(&mut found, 0).is_ok() && found == header;
        if !intact {
            file.set_len(0)?;
            file.set_len(length)?;
            file.write_all_at(&header, 0)?;
        }
        let pages = usize::try_from(count).map_err(io::Error::other)?.div_ceil(PAGE);
        Ok(Self { file, count, pages: (0..pages).map(|_| OnceLock::new()).collect() })
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
        self.file.write_all_at(&bytes, HEADER + first * 8)?;
        for (block, slot) in (first..).zip(slots) {
            if let Some(place) = self.slot(block) {
                place.store(*slot, Ordering::Release);
            }
        }
        Ok(())
    }

    fn slot(&self, block: u64) -> Option<&AtomicU64> {
        let block = usize::try_from(block).ok()?;
        let page = self.pages.get(block / PAGE)?.get_or_init(|| self.read_page(block / PAGE));
        page.get(block % PAGE)
    }

    /// A page as the file has it; one that cannot be read has no blocks.
    fn read_page(&self, page: usize) -> Page {
        let first = (page * PAGE) as u64;
        let slots = usize::try_from(self.count - first).unwrap_or(PAGE).min(PAGE);
        let mut bytes = vec![0; slots * 8];
        if self.file.read_exact_at(&mut bytes, HEADER + first * 8).is_err() {
            bytes.fill(0);
        }
        let slot = |bytes: &[u8]| AtomicU64::new(u64::from_le_bytes(bytes.try_into().unwrap_or_default()));
        bytes.chunks_exact(8).map(slot).collect()
    }
}
