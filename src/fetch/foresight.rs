//! What one handle's reads so far say about the next: sequential readers by thread, and the scan of columns. The
//! predictions are made by [`Streams`] and [`ColumnScan`]; this feeds them and asks them.

use std::sync::Arc;

use super::OpenContent;
use super::scan::{ColumnScan, FULL_PIECE, Source};
use super::streams::{Begins, ReaderThread, Streams, Taken};
use crate::cache::BlockRange;
use crate::model::ByteRange;
use crate::rows::ChunkMap;

/// No more than this is fetched along with a read.
const REST: u64 = 4 << 20;
/// The least a window may grow to, whatever the link.
const LEAST_WINDOW: u64 = 16 << 20;

/// How many times what the link holds to be ahead of a sequential reader.
const SIDE_BY_SIDE: u64 = 3;

/// Requests under way at once when a scan is followed.
const SCAN_REQUESTS: usize = 24;

/// Early reads that are remembered: more than an engine sends at once.
const EARLY: usize = 32;

/// What is known of a handle's readers.
#[derive(Debug, Default)]
pub(super) struct Foresight {
    streams: Streams,
    scan: ColumnScan,
    /// Reads from before the footer was known: engines are as quick to take it in as we are.
    early: Vec<(ByteRange, Source)>,
}

impl OpenContent {
    /// Takes note of a read, and says what is to be fetched along with it: at least the read itself.
    pub(super) fn note_read(
        self: &Arc<Self>,
        thread: ReaderThread,
        read: ByteRange,
        source: Source,
    ) -> ByteRange {
        if self.cached.is_none() {
            return read;
        }
        let map = self.shared.chunk_map();
        let begins = |offset: u64| match map {
            // Where the magic is, no chunk begins.
            _ if offset == 0 => Begins::Anywhere,
            Some(map) if map.begins_at(offset) => Begins::AtChunk,
            None if self.is_parquet() && self.shared.chunks.get().is_none() => Begins::Unknown,
            _ => Begins::Anywhere,
        };
        let mut foresight = self.foresight.lock().unwrap_or_else(|e| e.into_inner());
        let Foresight { streams, scan, early } = &mut *foresight;
        let (taken, run) = streams.after(thread, read, begins);
        let along = match (taken, map) {
            // Who takes in the footer is not reading the last row group.
            _ if read.end == self.key.size => read,
            (Taken::Single, None) if self.shared.chunks.get().is_none() && early.len() < EARLY => {
                early.push((read, source));
                read
            }
            (Taken::Single, Some(map)) => {
                take_in(early, scan, map);
                scan.demanded(map, read, source);
                let scanned =
                    scan.is_scanning(map).then(|| scan.columns(map)).filter(|columns| !columns.is_empty());
                rest_of_read(map, read, run, scanned.as_deref())
            }
            _ => read,
        };
        let hungry = taken == Taken::Sequential || map.is_some_and(|map| scan.is_scanning(map));
        drop(foresight);
        if hungry {
            self.fetcher.get_ready(SCAN_REQUESTS);
            self.is_hungry();
            if source != Source::Cache {
                self.fetcher.send_ahead();
            }
        }
        along
    }

    /// Takes note that a read was answered, and sends for what may come next.
    pub(super) fn note_answer(self: &Arc<Self>, read: ByteRange) {
        if let Some(map) = self.shared.chunk_map() {
            let mut foresight = self.foresight.lock().unwrap_or_else(|e| e.into_inner());
            let Foresight { scan, early, .. } = &mut *foresight;
            take_in(early, scan, map);
            scan.answered(map, read);
            if scan.is_scanning(map) {
                drop(foresight);
                self.is_hungry();
            }
        }
        self.fetcher.send_ahead();
    }

    /// The next bytes this handle's readers will come for, if that can be foreseen.
    pub(super) fn foresee(&self) -> Option<ByteRange> {
        // A small content comes whole, and is checked before anything of it is kept: a part of it would not be.
        let cached = self.cached.as_ref().filter(|_| !self.is_small())?;
        let traffic = &self.fetcher.traffic;
        let kept = self.fetcher.most_ahead();
        let most = traffic.room().max(LEAST_WINDOW).min(kept);
        let is_here = |range: ByteRange| {
            self.shared.flights.are_coming(BlockRange::covering(range), |blocks| cached.missing(blocks))
        };
        let mut foresight = self.foresight.lock().unwrap_or_else(|e| e.into_inner());
        // Requests bring their bytes side by side, and the reader gets no further than in the first of them.
        while let Some(range) = foresight.streams.next(self.key.size, (SIDE_BY_SIDE * most).min(kept)) {
            if !is_here(range) {
                return Some(range);
            }
        }
        let map = self.shared.chunk_map()?;
        foresight.scan.next(map, most, traffic.worth_joining(), is_here)
    }
}

/// The footer is known: early reads are reads of chunks.
fn take_in(early: &mut Vec<(ByteRange, Source)>, scan: &mut ColumnScan, map: &ChunkMap) {
    for (read, source) in early.drain(..) {
        scan.demanded(map, read, source);
    }
}

/// A read that comes in pieces, and the rest that has not been asked for yet. A piece of one or two chunks is taken for
/// part of what the last of them holds; one of more chunks, or one that goes on from another, for part of a run up to
/// the row group's end, as far as its columns are among those `scanned`.
fn rest_of_read(map: &ChunkMap, read: ByteRange, run: u64, scanned: Option<&[usize]>) -> ByteRange {
    if read.len() < FULL_PIECE {
        return read;
    }
    let most = read.end.saturating_add(REST);
    let is_run = run > 0 || map.overlapping(read).count() > 2;
    let beyond = if is_run { most } else { read.end };
    let mut end = read.end;
    let mut row_group = None;
    for (id, chunk) in map.overlapping(ByteRange::new(read.end.saturating_sub(1), beyond)) {
        let is_other_group = row_group.is_some_and(|group| group != id.row_group);
        let is_scanned = scanned.is_none_or(|columns| columns.contains(&id.column));
        if is_other_group || (chunk.start >= read.end && !is_scanned) {
            break;
        }
        row_group = Some(id.row_group);
        end = end.max(chunk.end.min(most));
    }
    ByteRange::new(read.start, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_read_that_comes_in_pieces_is_completed() {
        let map = ChunkMap::regular(10, 4, 1_500_000);
        let chunk = |row_group, column| map.chunk(crate::rows::ChunkId { row_group, column }).unwrap();
        let first = chunk(2, 1);
        let piece = ByteRange::new(first.start, first.start + FULL_PIECE);
        assert_eq!(rest_of_read(&map, piece, 0, None), first, "the rest of the chunk");
        let second = ByteRange::new(piece.end, piece.end + FULL_PIECE);
        assert_eq!(rest_of_read(&map, second, FULL_PIECE, None).end, chunk(2, 3).end, "a run goes on");
        assert_eq!(rest_of_read(&map, second, FULL_PIECE, Some(&[1, 2])).end, chunk(2, 2).end);
        let last = ByteRange::new(chunk(2, 3).end - FULL_PIECE, chunk(2, 3).end);
        assert_eq!(
            rest_of_read(&map, last, FULL_PIECE, None).end,
            chunk(2, 3).end,
            "not into the next row group"
        );
        let small = ByteRange::new(first.start, first.start + 4096);
        assert_eq!(rest_of_read(&map, small, 0, None), small);
        let narrow = ChunkMap::regular(10, 8, 400_000);
        let piece = ByteRange::new(4, 4 + FULL_PIECE);
        assert_eq!(rest_of_read(&narrow, piece, 0, None).end, 4 + 8 * 400_000, "several columns at once");
    }
}
