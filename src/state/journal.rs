//! Memory that survives the process. A record is written, not synced, before its change is acknowledged: it is with the
//! kernel then, whatever becomes of the daemon. It does not survive a power cut and need not: what was promised to is
//! in the [rows](super::Rows). So a journal counts in the boot that wrote it, and in no other.
//!
//! Two files of fixed size, allocated when they are made, so that writing to them does not fail for want of room. One is
//! written until it is full, then the other, which begins anew as soon as all it says is in the rows.
//!
//! A record: length of the text (32 bits), CRC-32C of the boot's id, number and text (32 bits), its number (64 bits), the text; all
//! little-endian. Numbers go up by one; where one does not, the record is of an earlier round.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::FallocateFlags;

use super::change::Change;
use super::place::Boot;
use crate::disk::point;

const MAGIC: &[u8; 8] = b"PQJOURN1";
/// Magic and boot.
const HEADER: u64 = 64;
const RECORD_HEADER: usize = 16;
const SEGMENT: u64 = 4 << 20;
/// No record is longer: what is goes into the rows at once.
pub const RECORD_LIMIT: usize = (SEGMENT / 4) as usize;

/// Why a record was not taken.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no room before what it says has been taken into the rows.
    #[error("the journal is full")]
    Full,
    /// It is longer than [`RECORD_LIMIT`].
    #[error("too much for a journal's record")]
    TooLong,
    /// The disk failed.
    #[error("the journal cannot be written: {0}")]
    Disk(#[from] io::Error),
}

/// The journal, open for appending.
#[derive(Debug)]
pub struct Journal {
    segments: [Segment; 2],
    current: usize,
    next: u64,
    committed: u64,
    buffer: Vec<u8>,
    /// Checksums begin with the boot, so that no record of another one counts.
    seed: u32,
}

#[derive(Debug)]
struct Segment {
    file: File,
    offset: u64,
    /// The number of its last record.
    last: u64,
}

fn names(dir: &Path) -> [std::path::PathBuf; 2] {
    [dir.join("journal-0"), dir.join("journal-1")]
}

impl Journal {
    /// Opens the journal in `dir`, made if it is not there. Whatever it says is given up: it has been [read](Self::read)
    /// and is in the rows, up to the record of number `committed`.
    pub fn begin(dir: &Path, boot: &Boot, committed: u64) -> io::Result<Self> {
        let [first, second] = names(dir);
        let segments = [Segment::begin(&first, boot)?, Segment::begin(&second, boot)?];
        Ok(Self {
            segments,
            current: 0,
            next: committed + 1,
            committed,
            buffer: Vec::new(),
            seed: crc32c::crc32c(boot.as_bytes()),
        })
    }

    /// What the journal in `dir` says beyond the record of number `committed`, if it was written in this boot.
    pub fn read(dir: &Path, boot: &Boot, committed: u64) -> io::Result<Vec<(u64, Vec<Change>)>> {
        let mut records = Vec::new();
        for name in names(dir) {
            match std::fs::read(name) {
                Ok(bytes) => read_segment(&bytes, boot, &mut records),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        records.sort_by_key(|(number, _)| *number);
        let beyond = records.into_iter().skip_while(|(number, _)| *number <= committed);
        Ok(beyond
            .zip(committed + 1..)
            .take_while(|((found, _), due)| found == due)
            .map(|(record, _)| record)
            .collect())
    }

    /// Appends a record; when this returns, its changes survive the process. Returns its number.
    pub fn append(&mut self, changes: &[Change]) -> Result<u64, JournalError> {
        self.buffer.clear();
        self.buffer.resize(RECORD_HEADER, 0);
        let buffer = std::mem::take(&mut self.buffer);
        self.buffer = postcard::to_extend(changes, buffer).map_err(io::Error::other)?;
        let length = self.buffer.len() - RECORD_HEADER;
        if self.buffer.len() > RECORD_LIMIT {
            self.buffer = Vec::new();
            return Err(JournalError::TooLong);
        }
        // Bounded by the limit.
        self.buffer[..4].copy_from_slice(&(length as u32).to_le_bytes());
        self.buffer[8..16].copy_from_slice(&self.next.to_le_bytes());
        let checksum = crc32c::crc32c_append(self.seed, &self.buffer[8..]);
        self.buffer[4..8].copy_from_slice(&checksum.to_le_bytes());
        let total = self.buffer.len() as u64;
        if self.segments[self.current].last <= self.committed {
            self.segments[self.current].offset = HEADER;
        }
        if self.segments[self.current].offset + total > SEGMENT {
            let other = 1 - self.current;
            if self.segments[other].last > self.committed {
                return Err(JournalError::Full);
            }
            self.segments[other].offset = HEADER;
            self.current = other;
        }
        let segment = &mut self.segments[self.current];
        point()?;
        segment.file.write_all_at(&self.buffer, segment.offset)?;
        segment.offset += total;
        segment.last = self.next;
        self.next += 1;
        Ok(segment.last)
    }

    /// The next record's number.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// The next number is used up by changes that are in the rows without having been here. Nothing may be waiting for the
    /// rows then.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// Everything up to that number is in the rows.
    pub fn committed(&mut self, number: u64) {
        self.committed = self.committed.max(number);
    }

    /// Whether half of it is waiting for the rows.
    pub fn is_filling(&self) -> bool {
        self.segments[1 - self.current].last > self.committed
            || (self.segments[self.current].last > self.committed
                && self.segments[self.current].offset > SEGMENT / 2)
    }
}

impl Segment {
    fn begin(path: &Path, boot: &Boot) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        // A file system without it may fail later, and says so then.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, SEGMENT) {
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        // The first record's place must not lead to one of before.
        let mut header = vec![0; HEADER as usize + RECORD_HEADER];
        header[..8].copy_from_slice(MAGIC);
        header[8..8 + boot.as_bytes().len()].copy_from_slice(boot.as_bytes());
        point()?;
        file.write_all_at(&header, 0)?;
        Ok(Self { file, offset: HEADER, last: 0 })
    }
}

fn read_segment(bytes: &[u8], boot: &Boot, records: &mut Vec<(u64, Vec<Change>)>) {
    let Some((header, mut rest)) = bytes.split_at_checked(HEADER as usize) else { return };
    let written_in = &header[8..8 + boot.as_bytes().len()];
    if &header[..8] != MAGIC || written_in != boot.as_bytes() {
        return;
    }
    let seed = crc32c::crc32c(boot.as_bytes());
    let mut due = None;
    while let Some((number, changes, after)) = read_record(rest, seed) {
        if due.is_some_and(|due| due != number) {
            return;
        }
        records.push((number, changes));
        due = Some(number + 1);
        rest = after;
    }
}

fn read_record(bytes: &[u8], seed: u32) -> Option<(u64, Vec<Change>, &[u8])> {
    let (header, rest) = bytes.split_first_chunk::<RECORD_HEADER>()?;
    let (length, checksum) = (u32_at(header, 0), u32_at(header, 4));
    let length = usize::try_from(length).ok().filter(|length| *length > 0)?;
    let (text, after) = rest.split_at_checked(length)?;
    if crc32c::crc32c_append(crc32c::crc32c_append(seed, &header[8..]), text) != checksum {
        return None;
    }
    let number = u64::from(u32_at(header, 8)) | u64::from(u32_at(header, 12)) << 32;
    Some((number, postcard::from_bytes(text).ok()?, after))
}

fn u32_at(bytes: &[u8; RECORD_HEADER], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::NodeId;

    fn change(n: u64) -> Vec<Change> {
        let name = vec![b'x'; usize::try_from(n % 700).unwrap()];
        vec![Change::NodeGone(NodeId(n)), Change::NameGone { parent: NodeId(n), name }]
    }

    fn numbers(dir: &Path, boot: &Boot, committed: u64) -> Vec<u64> {
        let records = Journal::read(dir, boot, committed).unwrap();
        for (number, changes) in &records {
            assert_eq!(*changes, change(*number));
        }
        records.into_iter().map(|(number, _)| number).collect()
    }

    #[test]
    fn what_is_not_committed_is_read_again_in_this_boot_and_in_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::current().unwrap();
        let mut journal = Journal::begin(dir.path(), &boot, 7).unwrap();
        for n in 8..20 {
            assert_eq!(journal.append(&change(n)).unwrap(), n);
        }
        assert_eq!(numbers(dir.path(), &boot, 7), (8..20).collect::<Vec<_>>());
        assert_eq!(numbers(dir.path(), &boot, 15), (16..20).collect::<Vec<_>>());
        assert!(numbers(dir.path(), &boot, 3).is_empty(), "there is a gap before it");
        assert!(numbers(dir.path(), &Boot::named("another"), 7).is_empty());
        drop(Journal::begin(dir.path(), &boot, 19).unwrap());
        assert!(numbers(dir.path(), &boot, 7).is_empty());
    }

    #[test]
    fn it_goes_round_and_is_full_only_when_nothing_is_committed() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::current().unwrap();
        let mut journal = Journal::begin(dir.path(), &boot, 0).unwrap();
        let (mut committed, mut last) = (0, 0);
        for n in 1..100_000 {
            match journal.append(&change(n)) {
                Ok(number) => {
                    assert_eq!(number, n);
                    last = n;
                }
                Err(_) => panic!("full, though committed {committed}"),
            }
            if n % 3001 == 0 {
                assert_eq!(numbers(dir.path(), &boot, committed), (committed + 1..=last).collect::<Vec<_>>());
                committed = n - 500;
                journal.committed(committed);
            }
        }
        journal.committed(last);
        let full = (last + 1..).find(|n| journal.append(&change(*n)).is_err()).unwrap();
        assert!(journal.is_filling() && full - last > 15_000, "{}", full - last);
        assert_eq!(numbers(dir.path(), &boot, last), (last + 1..full).collect::<Vec<_>>());
        journal.committed(full - 1);
        assert_eq!(journal.append(&change(full)).unwrap(), full, "and goes on");
        assert_eq!(numbers(dir.path(), &boot, full - 1), [full]);
    }

    #[test]
    fn a_record_cut_off_anywhere_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::current().unwrap();
        let mut journal = Journal::begin(dir.path(), &boot, 0).unwrap();
        for n in 1..4 {
            journal.append(&change(n)).unwrap();
        }
        let end = usize::try_from(journal.segments[0].offset).unwrap();
        let path = dir.path().join("journal-0");
        let whole = std::fs::read(&path).unwrap();
        for cut in HEADER as usize..end {
            let mut torn = whole.clone();
            torn[cut..].fill(0);
            std::fs::write(&path, &torn).unwrap();
            let found = numbers(dir.path(), &boot, 0);
            assert!(found.len() < 3 || torn == whole, "{cut}");
            assert!(found.iter().copied().eq(1..=found.len() as u64));
        }
    }

    #[test]
    fn a_long_record_is_refused_and_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let boot = Boot::current().unwrap();
        let mut journal = Journal::begin(dir.path(), &boot, 0).unwrap();
        let long = [Change::Xattr { node: NodeId(1), name: vec![], value: vec![0; RECORD_LIMIT] }];
        assert!(matches!(journal.append(&long), Err(JournalError::TooLong)));
        assert_eq!(journal.append(&change(1)).unwrap(), 1);
        assert_eq!(journal.next_number(), 2);
        journal.skip();
        journal.committed(2);
        assert_eq!(journal.append(&change(3)).unwrap(), 3);
        assert_eq!(numbers(dir.path(), &boot, 2), [3]);
    }
}
