//! How far to read ahead of a sequential reader. Pure.

use crate::model::ByteRange;

const FIRST_WINDOW: u64 = 512 << 10;
const LARGEST_WINDOW: u64 = 8 << 20;
/// The kernel's own readahead asks for pieces a little out of order.
const SLACK: u64 = 512 << 10;

/// One reader's position in one content.
#[derive(Debug, Default)]
pub struct Readahead {
    /// Where a sequential reader would go on.
    next: u64,
    /// Up to where has been asked for.
    asked: u64,
    window: u64,
}

impl Readahead {
    /// Takes note of a read and says what to fetch beyond it, if anything. Nothing is read ahead until a second
    /// read has continued a first one.
    pub fn after(&mut self, read: ByteRange, size: u64) -> Option<ByteRange> {
        let continues = self.next > 0 && read.start <= self.next + SLACK && read.end + SLACK >= self.next;
        self.next = if continues { self.next.max(read.end) } else { read.end };
        if !continues {
            (self.window, self.asked) = (0, read.end);
            return None;
        }
        // Ask again only when half the window is used up, for whole windows: few, large requests.
        if self.window > 0 && self.asked >= self.next + self.window / 2 {
            return None;
        }
        self.window = (self.window * 2).clamp(FIRST_WINDOW, LARGEST_WINDOW);
        let start = self.asked.max(self.next);
        let range = ByteRange::new(start, (self.next + self.window).min(size));
        self.asked = self.asked.max(range.end);
        (!range.is_empty()).then_some(range)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sequential_reader_is_kept_ahead_of_with_growing_windows() {
        let (mut ahead, mut until, size) = (Readahead::default(), 0, 100 << 20);
        let mut requests = 0;
        for start in (0..size).step_by(128 << 10) {
            let read = ByteRange::new(start, start + (128 << 10));
            if let Some(range) = ahead.after(read, size) {
                assert!(range.start >= until && range.end <= size, "nothing is asked for twice");
                until = range.end;
                requests += 1;
            }
        }
        assert_eq!(until, size);
        assert!(requests < 40, "{requests} requests");
    }

    #[test]
    fn a_random_reader_gets_nothing_ahead() {
        let mut ahead = Readahead::default();
        for start in [50 << 20, 3 << 20, 90 << 20, 1 << 20, 70 << 20] {
            assert_eq!(ahead.after(ByteRange::new(start, start + 4096), 100 << 20), None);
        }
    }
}
