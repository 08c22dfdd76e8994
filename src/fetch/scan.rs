//! Column-scan prediction: a query engine that reads some columns of one row group after the other will go on to read
//! the same columns of the next. Pure: no clock, no I/O.
//!
//! Little is predicted from the reads an engine sends at once when it starts (`LIMIT 10` reads as many row groups as
//! it has threads, and no more): nothing if it wants most of their columns, as much again if it wants a few. More only
//! from those it sends after it was answered. What is fetched ahead stays in proportion to what was asked for, so that
//! a scan that stops early has cost little.

use std::collections::{BTreeMap, VecDeque};

use super::link::ONE_REQUEST;
use crate::model::ByteRange;
use crate::rows::{ChunkId, ChunkMap};

/// Row groups asked for after an answer before anything is predicted.
const EVIDENCE: usize = 2;
/// Row groups asked for at once, a few columns of each, that are taken for a scan's beginning.
const BURST: usize = 4;
/// Engines ask for no more row groups at once.
const MOST_AT_ONCE: usize = 8;
/// The row groups whose columns are taken for the scan's.
const RECENT: usize = 8;
/// How far engines ask out of order: a chunk so many row groups behind will not be asked for any more.
const DISORDER: usize = 8;
/// Row groups looked at beyond the furthest one asked for.
const HORIZON: usize = 256;

/// Large reads reach us in pieces of a megabyte, one after the other; less by up to a page, depending on where the
/// reader's memory begins. A piece as large as this is mostly not the last one.
pub(super) const FULL_PIECE: u64 = (1 << 20) - 4096;

/// What one reader's scan has asked for, and what was fetched ahead of it.
#[derive(Debug, Default)]
pub(super) struct ColumnScan {
    groups: BTreeMap<usize, Group>,
    /// Row groups in the order of the first read in each, the latest last.
    recent: VecDeque<usize>,
    /// Rising minus falling steps among them.
    trend: i32,
    demanded: u64,
    /// Row groups asked for before and after the first answer.
    at_once: usize,
    evidence: usize,
    was_answered: bool,
    /// Fetched ahead and not asked for yet.
    ahead: BTreeMap<ChunkId, u64>,
    ahead_bytes: u64,
    wrong: u64,
}

/// Where the bytes of a read come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// They were read before: a scan of such bytes needs nobody ahead of it.
    Cache,
    /// They are fetched for this read, or were fetched ahead of it; from a remote so close that answers come between
    /// the reads a busy engine sends at once.
    Nearby,
    /// The same, from farther away.
    Remote,
}

#[derive(Debug, Default)]
struct Group {
    /// Column and bytes asked for of its chunk.
    columns: Vec<(usize, u64)>,
    answered: bool,
    /// Its last read was a full piece: the reader is probably in the middle of it.
    goes_on: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Up,
    Down,
}

impl ColumnScan {
    /// A reader asks for `read`.
    pub(super) fn demanded(&mut self, map: &ChunkMap, read: ByteRange, source: Source) {
        for (id, chunk) in map.overlapping(read) {
            let bytes = chunk.end.min(read.end) - chunk.start.max(read.start);
            self.demanded += bytes;
            if let Some(fetched) = self.ahead.remove(&id) {
                self.ahead_bytes -= fetched;
            }
            if !self.groups.contains_key(&id.row_group) {
                self.enter(id.row_group, source);
            }
            let group = self.groups.entry(id.row_group).or_default();
            group.goes_on = read.len() >= FULL_PIECE;
            match group.columns.iter_mut().find(|(column, _)| *column == id.column) {
                Some((_, so_far)) => *so_far += bytes,
                None => group.columns.push((id.column, bytes)),
            }
        }
    }

    fn enter(&mut self, row_group: usize, source: Source) {
        match source {
            Source::Cache => {}
            Source::Nearby if self.groups.len() < MOST_AT_ONCE => self.at_once += 1,
            Source::Nearby | Source::Remote if self.was_answered => self.evidence += 1,
            Source::Nearby | Source::Remote => self.at_once += 1,
        }
        if let Some(last) = self.recent.back() {
            self.trend = (self.trend + if row_group > *last { 1 } else { -1 }).clamp(-8, 8);
        }
        self.recent.push_back(row_group);
        if self.recent.len() > RECENT {
            self.recent.pop_front();
        }
    }

    /// A reader has got `read`.
    pub(super) fn answered(&mut self, map: &ChunkMap, read: ByteRange) {
        for (id, _) in map.overlapping(read) {
            if let Some(group) = self.groups.get_mut(&id.row_group) {
                group.answered = true;
                self.was_answered = true;
            }
        }
    }

    /// Whether there may be something to fetch ahead.
    pub(super) fn is_scanning(&self, map: &ChunkMap) -> bool {
        self.evidence >= EVIDENCE || self.is_narrow_burst(map)
    }

    fn is_narrow_burst(&self, map: &ChunkMap) -> bool {
        let is_narrow = |(row_group, group): (&usize, &Group)| {
            let asked: u64 = group.columns.iter().map(|(_, bytes)| bytes).sum();
            let all: u64 = map.row_group(*row_group).iter().map(|chunk| chunk.len()).sum();
            !group.goes_on && asked.saturating_mul(2) <= all
        };
        self.at_once >= BURST
            && self.groups.len() == self.at_once + self.evidence
            && self.groups.iter().all(is_narrow)
    }

    /// The next bytes to fetch ahead, if any, and takes note that they are. No more than about `most` bytes are kept
    /// ahead of the readers; chunks `gap` bytes or less apart come together; what `is_here` already is passed over.
    pub(super) fn next(
        &mut self,
        map: &ChunkMap,
        most: u64,
        gap: u64,
        is_here: impl Fn(ByteRange) -> bool,
    ) -> Option<ByteRange> {
        if !self.is_scanning(map) || self.is_jumping() {
            return None;
        }
        let direction = if self.trend >= 0 { Direction::Up } else { Direction::Down };
        let frontier = match direction {
            Direction::Up => *self.recent.iter().max()?,
            Direction::Down => *self.recent.iter().min()?,
        };
        self.give_up_behind(frontier, direction);
        let columns = self.columns(map);
        let one_group: u64 = columns
            .iter()
            .filter_map(|column| map.chunk(ChunkId { row_group: frontier, column: *column }))
            .map(|c| c.len())
            .sum();
        let window = self.window(frontier, one_group, most);
        for row_group in groups_from(frontier, direction, map.row_groups()) {
            if self.ahead_bytes >= window {
                return None;
            }
            let asked = self.groups.get(&row_group);
            let wanted = columns.iter().copied().filter(|column| {
                let demanded = asked.is_some_and(|group| group.columns.iter().any(|(c, _)| c == column));
                !demanded && !self.ahead.contains_key(&ChunkId { row_group, column: *column })
            });
            let mut chunks: Vec<(ChunkId, ByteRange)> = wanted
                .filter_map(|column| {
                    let id = ChunkId { row_group, column };
                    Some((id, map.chunk(id)?))
                })
                .collect();
            chunks.sort_by_key(|(_, chunk)| chunk.start);
            if let Some(range) = self.take(&chunks, gap, &is_here) {
                return Some(range);
            }
        }
        None
    }

    /// The first of `chunks` that are not here, and those close behind it.
    fn take(
        &mut self,
        chunks: &[(ChunkId, ByteRange)],
        gap: u64,
        is_here: impl Fn(ByteRange) -> bool,
    ) -> Option<ByteRange> {
        let mut taken: Option<ByteRange> = None;
        for (id, chunk) in chunks {
            if is_here(*chunk) {
                self.ahead.insert(*id, 0);
                continue;
            }
            let joined = match taken {
                None => *chunk,
                Some(range)
                    if chunk.start.saturating_sub(range.end) <= gap
                        && chunk.end.saturating_sub(range.start) <= ONE_REQUEST =>
                {
                    ByteRange::new(range.start, range.end.max(chunk.end))
                }
                Some(_) => break,
            };
            taken = Some(joined);
            self.ahead.insert(*id, chunk.len());
            self.ahead_bytes += chunk.len();
        }
        taken
    }

    /// The columns asked for, most of each chunk, in most of the recent row groups that were answered, or of all at first.
    /// Empty where none of these has been read to its end yet.
    pub(super) fn columns(&self, map: &ChunkMap) -> Vec<usize> {
        let mut seen: BTreeMap<usize, usize> = BTreeMap::new();
        let mut groups = 0;
        let is_telling = |group: &&Group| !group.goes_on && group.answered == self.was_answered;
        for row_group in &self.recent {
            let Some(group) = self.groups.get(row_group).filter(is_telling) else { continue };
            groups += 1;
            for (column, bytes) in &group.columns {
                let id = ChunkId { row_group: *row_group, column: *column };
                let whole = map.chunk(id).map_or(0, |chunk| chunk.len());
                if bytes.saturating_mul(2) >= whole {
                    *seen.entry(*column).or_default() += 1;
                }
            }
        }
        seen.into_iter().filter(|(_, times)| times * 2 >= groups).map(|(column, _)| column).collect()
    }

    /// How far to be ahead. A scan from the file's first row group on will most likely see its last; one that began
    /// in the middle, or leaves row groups out, may end any time.
    fn window(&self, frontier: usize, one_group: u64, most: u64) -> u64 {
        let whole_file = self.groups.keys().next() == Some(&0) && self.groups.len() * 5 >= (frontier + 1) * 4;
        let earned = match whole_file {
            true if self.evidence >= EVIDENCE => 2 * self.demanded,
            true => self.demanded,
            false => self.demanded / 8,
        };
        earned.saturating_sub(2 * self.wrong).max(if self.wrong == 0 { one_group } else { 0 }).min(most)
    }

    /// Reads all over the file are no scan.
    fn is_jumping(&self) -> bool {
        match (self.recent.iter().min(), self.recent.iter().max()) {
            (Some(low), Some(high)) => high - low + 1 > 3 * self.recent.len(),
            _ => true,
        }
    }

    fn give_up_behind(&mut self, frontier: usize, direction: Direction) {
        let passed = |id: &ChunkId| match direction {
            Direction::Up => id.row_group + DISORDER < frontier,
            Direction::Down => id.row_group > frontier + DISORDER,
        };
        let (mut bytes, mut used) = (0, 0);
        self.ahead.retain(|id, fetched| {
            if passed(id) {
                bytes += *fetched;
                used += 1;
                false
            } else {
                true
            }
        });
        if used > 0 {
            self.ahead_bytes -= bytes;
            self.wrong += bytes;
        }
    }
}

fn groups_from(frontier: usize, direction: Direction, count: usize) -> Box<dyn Iterator<Item = usize>> {
    // Engines with several threads leave gaps just behind the furthest one.
    match direction {
        Direction::Up => Box::new(frontier.saturating_sub(2)..count.min(frontier.saturating_add(HORIZON))),
        Direction::Down => {
            let first = frontier.saturating_sub(HORIZON);
            Box::new((first..frontier.saturating_add(3).min(count)).rev())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 500 << 10;

    fn map(row_groups: usize, columns: usize) -> ChunkMap {
        ChunkMap::regular(row_groups, columns, CHUNK)
    }

    /// Reads whole chunks one after the other, each answered before the next; fetched ahead in between.
    /// Returns (bytes read that were fetched ahead, bytes fetched ahead, bytes read).
    fn run(map: &ChunkMap, reads: &[(usize, usize)]) -> (u64, u64, u64) {
        let mut scan = ColumnScan::default();
        let mut fetched: Vec<ByteRange> = Vec::new();
        let (mut hit, mut all, mut read) = (0, 0, 0);
        for (row_group, column) in reads {
            let chunk = map.chunk(ChunkId { row_group: *row_group, column: *column }).unwrap();
            if fetched.iter().any(|f| f.start <= chunk.start && chunk.end <= f.end) {
                hit += chunk.len();
            }
            read += chunk.len();
            scan.demanded(map, chunk, Source::Remote);
            scan.answered(map, chunk);
            while let Some(range) = scan.next(map, 16 << 20, 32 << 10, |_| false) {
                assert!(!fetched.contains(&range), "twice");
                all += range.len();
                fetched.push(range);
            }
        }
        (hit, all, read)
    }

    fn scan(row_groups: impl Iterator<Item = usize>, columns: &[usize]) -> Vec<(usize, usize)> {
        row_groups.flat_map(|group| columns.iter().map(move |column| (group, *column))).collect()
    }

    #[test]
    fn a_scan_of_some_columns_is_seen_and_only_those_are_fetched() {
        let map = map(100, 20);
        for columns in [&[3][..], &[3, 7], &[0, 1, 2, 19]] {
            let (hit, ahead, read) = run(&map, &scan(0..100, columns));
            assert!(hit * 100 >= read * 95, "{hit} of {read}");
            assert_eq!(ahead, hit, "not a byte too many");
            let (hit, ahead, read) = run(&map, &scan((0..100).rev(), columns));
            assert!(hit * 100 >= read * 90, "backward {hit} of {read}");
            assert!(ahead <= read);
        }
    }

    #[test]
    fn all_columns_come_in_few_requests() {
        let map = map(50, 10);
        let mut scan_state = ColumnScan::default();
        for group in 0..4 {
            for column in 0..10 {
                let chunk = map.chunk(ChunkId { row_group: group, column }).unwrap();
                scan_state.demanded(&map, chunk, Source::Remote);
                scan_state.answered(&map, chunk);
            }
        }
        let first = scan_state.next(&map, 16 << 20, 0, |_| false).unwrap();
        assert_eq!(first.len(), 8 * CHUNK, "as many chunks as fit into one request");
    }

    #[test]
    fn a_burst_of_reads_of_few_columns_is_taken_for_a_beginning() {
        let map = map(100, 7);
        let mut scan = ColumnScan::default();
        for group in 0..8 {
            let chunk = map.chunk(ChunkId { row_group: group, column: 3 }).unwrap();
            scan.demanded(&map, chunk, Source::Remote);
        }
        let mut ahead = Vec::new();
        while let Some(range) = scan.next(&map, 16 << 20, 0, |_| false) {
            ahead.push(range);
        }
        let expected: Vec<_> =
            (8..16).map(|row_group| map.chunk(ChunkId { row_group, column: 3 }).unwrap()).collect();
        assert_eq!(ahead, expected, "as much again");
    }

    #[test]
    fn columns_of_row_groups_read_in_pieces_are_known_when_one_was_read_to_its_end() {
        let map = map(100, 7);
        let mut scan = ColumnScan::default();
        let whole = |group| ByteRange::new(map.row_group(group)[0].start, map.row_group(group)[6].end);
        let piece = |group, number: u64| {
            let start = whole(group).start + number * (1 << 20);
            ByteRange::new(start, whole(group).end.min(start + (1 << 20)))
        };
        for number in 0..4 {
            for group in 0..8 {
                scan.demanded(&map, piece(group, number), Source::Remote);
                scan.answered(&map, piece(group, number));
                let known = scan.columns(&map).len();
                assert_eq!(known, if number == 3 { 7 } else { 0 }, "piece {number} of {group}");
            }
        }
    }

    #[test]
    fn a_burst_of_first_reads_predicts_nothing() {
        let map = map(100, 5);
        let mut scan = ColumnScan::default();
        let whole = |group| {
            let at = |column| map.chunk(ChunkId { row_group: group, column }).unwrap();
            ByteRange::new(at(0).start, at(4).end)
        };
        for group in 0..8 {
            scan.demanded(&map, whole(group), Source::Remote);
        }
        for group in 0..8 {
            scan.answered(&map, whole(group));
            assert_eq!(scan.next(&map, 16 << 20, 0, |_| false), None);
        }
    }

    #[test]
    fn nearby_answers_between_the_first_reads_predict_nothing() {
        let map = ChunkMap::regular(100, 5, 100_000);
        let mut scan = ColumnScan::default();
        let whole = |group| ByteRange::new(map.row_group(group)[0].start, map.row_group(group)[4].end);
        for group in 0..20 {
            scan.demanded(&map, whole(group), Source::Nearby);
            scan.answered(&map, whole(group));
            let ahead = scan.next(&map, 16 << 20, 0, |_| false);
            assert_eq!(ahead.is_some(), group >= MOST_AT_ONCE + EVIDENCE - 1, "row group {group}");
        }
    }

    #[test]
    fn a_scan_that_began_in_the_middle_is_followed_with_care() {
        let map = map(155, 7);
        let (_, ahead, read) = run(&map, &scan(60..75, &[1, 2]));
        assert!(ahead <= read * 5 / 4, "{ahead} for {read}");
    }

    #[test]
    fn random_and_strided_reads_and_parts_of_chunks_predict_little() {
        let map = map(400, 7);
        let random: Vec<_> = (0..60).map(|n| ((n * 7919) % 400, n % 7)).collect();
        let (_, ahead, read) = run(&map, &random);
        assert!(ahead * 10 <= read, "{ahead} for {read}");
        let (_, ahead, read) = run(&map, &scan((0..400).step_by(10), &[2]));
        assert!(ahead * 10 <= read, "strided {ahead} for {read}");
        let mut scan = ColumnScan::default();
        for row_group in 0..50 {
            let chunk = map.chunk(ChunkId { row_group, column: 2 }).unwrap();
            let page = ByteRange::new(chunk.start + 8192, chunk.start + 16384);
            scan.demanded(&map, page, Source::Remote);
            scan.answered(&map, page);
            assert_eq!(scan.next(&map, 16 << 20, 0, |_| false), None, "pages are no chunks");
        }
    }

    #[test]
    fn columns_that_are_not_read_any_more_are_dropped() {
        let map = map(200, 7);
        let mut reads = scan(0..50, &[1, 2]);
        reads.extend(scan(50..200, &[1]));
        let (_, ahead, read) = run(&map, &reads);
        assert!(ahead <= read + (17 << 20), "{ahead} for {read}");
    }

    #[test]
    fn a_scan_of_what_was_read_before_needs_nobody_ahead() {
        let map = map(100, 3);
        let mut scan = ColumnScan::default();
        for row_group in 0..50 {
            let chunk = map.chunk(ChunkId { row_group, column: 1 }).unwrap();
            scan.demanded(&map, chunk, Source::Cache);
            scan.answered(&map, chunk);
            assert_eq!(scan.next(&map, 16 << 20, 0, |_| false), None);
        }
    }

    #[test]
    fn what_is_here_is_not_fetched() {
        let map = map(20, 3);
        let mut scan = ColumnScan::default();
        for row_group in 0..4 {
            let chunk = map.chunk(ChunkId { row_group, column: 1 }).unwrap();
            scan.demanded(&map, chunk, Source::Remote);
            scan.answered(&map, chunk);
        }
        assert_eq!(scan.next(&map, 16 << 20, 0, |_| true), None);
        assert_eq!(scan.next(&map, 16 << 20, 0, |_| false), None, "and not considered again");
    }
}
