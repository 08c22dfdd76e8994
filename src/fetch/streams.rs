//! Sequential readers of one open file, told apart by thread, and how far ahead of each to fetch. Pure.

use std::collections::VecDeque;

use super::link::ONE_REQUEST;
use crate::model::ByteRange;

/// Readers told apart; beyond that the one that has been silent longest is forgotten.
const STREAMS: usize = 32;
/// How many times what a reader has read on end to be ahead of it: who stops after two reads has cost little.
const TRUST: u64 = 8;
/// The least to be ahead of a reader.
const LEAST_WINDOW: u64 = 256 << 10;
/// A read this large at a file's start is the first of many; a smaller one is somebody looking at the magic.
const LARGE_READ: u64 = 64 << 10;
/// The kernel's own readahead asks for whole pages, and for pieces a little out of order.
const SLACK: u64 = 512 << 10;
/// Programs that read on end may leave out or repeat so much.
const NEAR: u64 = 32 << 10;
const PAGE: u64 = 4096;

/// Who reads: the thread, as the kernel numbers it. One handle is often shared by threads that each read on their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReaderThread(pub u32);

/// Where a read begins: engines ask for exactly a chunk or several, and stop where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begins {
    AtChunk,
    Anywhere,
    /// The file's footer has not been read yet.
    Unknown,
}

/// What a read was taken for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// Part of a sequential pass, which is being fetched ahead of.
    Sequential,
    /// Something else.
    Single,
}

/// The sequential readers of one handle, the latest last.
#[derive(Debug, Default)]
pub(super) struct Streams(VecDeque<Stream>);

#[derive(Debug)]
struct Stream {
    thread: ReaderThread,
    /// Where the reader began.
    first: u64,
    /// Where the reader goes on.
    next: u64,
    /// Up to where has been asked for.
    asked: u64,
    /// Bytes read.
    read: u64,
    /// Whether to be ahead of it.
    is_followed: bool,
}

impl Streams {
    /// Takes note of a read, and says how many bytes just before it the same reader has read on end.
    /// `begins` tells where a reader that began at an offset began; what is not known yet may be known later.
    pub(super) fn after(
        &mut self,
        thread: ReaderThread,
        read: ByteRange,
        begins: impl Fn(u64) -> Begins,
    ) -> (Taken, u64) {
        let is_pages = read.start.is_multiple_of(PAGE) && read.len().is_multiple_of(PAGE);
        let slack = if is_pages { SLACK } else { NEAR };
        let continues = |stream: &Stream| {
            stream.thread == thread
                && read.start <= stream.next.saturating_add(slack)
                && read.end.saturating_add(slack) >= stream.next
        };
        let at = self.0.iter().rposition(continues);
        let Some(mut stream) = at.and_then(|at| self.0.remove(at)) else {
            let from_the_start = read.start == 0 && read.len() >= LARGE_READ;
            // A thread that jumps has left where it was.
            self.0.retain(|stream| stream.thread != thread);
            self.0.push_back(Stream {
                thread,
                first: read.start,
                next: read.end,
                asked: read.end,
                read: read.len(),
                is_followed: from_the_start,
            });
            if self.0.len() > STREAMS {
                self.0.pop_front();
            }
            return (if from_the_start { Taken::Sequential } else { Taken::Single }, 0);
        };
        let run = stream.next.saturating_sub(stream.first);
        stream.read += read.len();
        if read.end > stream.next {
            stream.next = read.end;
            stream.asked = stream.asked.max(read.end);
            if stream.is_sparse() {
                stream.is_followed = false;
            // A run of chunks read in pieces ends where the engine wants it to end.
            } else if begins(stream.first) == Begins::Anywhere {
                stream.is_followed = true;
            }
        }
        let taken = if stream.is_followed { Taken::Sequential } else { Taken::Single };
        self.0.push_back(stream);
        (taken, run)
    }

    /// The next bytes to fetch ahead of the reader that read last, if any, and takes note that they are; no more than
    /// `most` bytes ahead.
    pub(super) fn next(&mut self, size: u64, most: u64) -> Option<ByteRange> {
        self.0.iter_mut().rev().find_map(|stream| stream.ahead(size, most))
    }
}

impl Stream {
    /// Whether the reader leaves out more than a quarter: what is fetched ahead of it would be in vain.
    fn is_sparse(&self) -> bool {
        self.read.saturating_mul(4) < (self.next - self.first).saturating_mul(3)
    }

    fn ahead(&mut self, size: u64, most: u64) -> Option<ByteRange> {
        if !self.is_followed || self.asked >= size {
            return None;
        }
        let window = self.read.saturating_mul(TRUST).clamp(LEAST_WINDOW, most.max(LEAST_WINDOW));
        let until = self.next.saturating_add(window).min(size);
        // Whole requests, but for the last: many small ones are dearer.
        let least = ONE_REQUEST.min(window / 4).min(size - self.asked);
        if until.saturating_sub(self.asked) < least.max(1) {
            return None;
        }
        let range = ByteRange::new(self.asked, until.min(self.asked + ONE_REQUEST));
        self.asked = range.end;
        Some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: u64 = 100 << 20;
    const MOST: u64 = 16 << 20;
    const MIB: u64 = 1 << 20;

    fn read(start: u64, length: u64) -> ByteRange {
        ByteRange::new(start, start + length)
    }

    #[test]
    fn a_sequential_reader_is_kept_ahead_of_with_growing_windows() {
        let mut streams = Streams::default();
        let (mut until, mut requests, mut farthest) = (128 << 10, 0, 0);
        for start in (0..SIZE).step_by(128 << 10) {
            let (taken, run) = streams.after(ReaderThread(1), read(start, 128 << 10), |_| Begins::Anywhere);
            assert_eq!(run, start);
            assert_eq!(taken, Taken::Sequential);
            while let Some(range) = streams.next(SIZE, MOST) {
                assert!(range.start >= until && range.end <= SIZE, "nothing is asked for twice");
                until = range.end;
                requests += 1;
                farthest = farthest.max(until - start);
            }
        }
        assert_eq!(until, SIZE);
        assert!(requests < 40, "{requests} requests");
        assert!((MOST - (1 << 20)..=MOST + (1 << 20)).contains(&farthest), "{farthest}");
    }

    #[test]
    fn a_random_reader_gets_nothing_ahead() {
        let mut streams = Streams::default();
        for start in [50 << 20, 3 << 20, 90 << 20, 1 << 20, 70 << 20] {
            streams.after(ReaderThread(1), read(start, 4096), |_| Begins::Anywhere);
            assert_eq!(streams.next(SIZE, MOST), None);
        }
    }

    #[test]
    fn threads_that_share_a_handle_do_not_disturb_each_other() {
        let mut streams = Streams::default();
        for step in 0..8 {
            for thread in 0..16 {
                let start = u64::from(thread) * (6 << 20) + step * (128 << 10);
                streams.after(ReaderThread(thread), read(start, 128 << 10), |_| Begins::Anywhere);
            }
        }
        assert_eq!(streams.0.iter().filter(|stream| stream.is_followed).count(), 16);
    }

    #[test]
    fn a_run_of_chunks_read_in_pieces_is_no_stream() {
        let mut streams = Streams::default();
        for piece in 0..3 {
            streams
                .after(ReaderThread(1), read((10 << 20) + piece * (1 << 20), 1 << 20), |_| Begins::AtChunk);
            assert_eq!(streams.next(SIZE, MOST), None);
        }
    }

    #[test]
    fn a_stream_is_told_when_the_footer_is_known() {
        let mut streams = Streams::default();
        streams.after(ReaderThread(1), read(MIB, MIB), |_| Begins::Unknown);
        assert_eq!(streams.next(SIZE, MOST), None);
        streams.after(ReaderThread(1), read(2 * MIB, MIB), |_| Begins::Anywhere);
        assert!(streams.next(SIZE, MOST).is_some());
    }

    #[test]
    fn a_reader_that_leaves_much_out_is_not_sequential() {
        let mut streams = Streams::default();
        for n in 0..50 {
            streams.after(ReaderThread(1), read(n * 200_000, 30_000), |_| Begins::Anywhere);
            assert_eq!(streams.next(SIZE, MOST), None, "read {n}");
        }
        let mut streams = Streams::default();
        for n in 0..5 {
            streams.after(ReaderThread(1), read(n * 200_000, 180_000), |_| Begins::Anywhere);
        }
        assert!(streams.next(SIZE, MOST).is_some(), "a little is fetched along");
    }

    #[test]
    fn looking_at_the_magic_starts_nothing() {
        let mut streams = Streams::default();
        assert_eq!(streams.after(ReaderThread(1), read(0, 4096), |_| Begins::Anywhere).0, Taken::Single);
        assert_eq!(streams.next(SIZE, MOST), None);
    }
}
