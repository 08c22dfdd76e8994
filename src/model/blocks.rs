//! Bytes to blocks and back. Pure.

use super::ByteRange;

/// Bytes in a block, the unit that is cached, checked and proven; a content's last one may be shorter. A column chunk
/// of half a megabyte rounded outwards to such blocks costs a few per cent more, and the table of a terabyte stays
/// in memory.
pub const BLOCK: u64 = 32 << 10;

/// Blocks `start..end` of a content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRange {
    /// The first block.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

impl BlockRange {
    /// The blocks that hold `bytes`.
    pub fn covering(bytes: ByteRange) -> Self {
        Self { start: bytes.start / BLOCK, end: bytes.end.div_ceil(BLOCK) }
    }

    /// The bytes of these blocks in a content of `size` bytes.
    pub fn bytes(self, size: u64) -> ByteRange {
        ByteRange::new((self.start * BLOCK).min(size), (self.end * BLOCK).min(size))
    }

    /// All blocks of a content of `size` bytes.
    pub fn all(size: u64) -> Self {
        Self { start: 0, end: size.div_ceil(BLOCK) }
    }

    /// Whether the block is one of these.
    pub fn contains(self, block: u64) -> bool {
        (self.start..self.end).contains(&block)
    }

    /// Whether there is a block in both.
    pub fn overlaps(self, other: Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// How many.
    pub fn len(self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.end <= self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_and_end_with_the_content() {
        let range = BlockRange::covering(ByteRange::new(BLOCK - 1, BLOCK + 1));
        assert_eq!((range.start, range.end), (0, 2));
        assert_eq!(range.bytes(BLOCK + 7), ByteRange::new(0, BLOCK + 7));
        assert!(BlockRange::covering(ByteRange::new(5, 5)).len() <= 1);
        let run = |start, end| BlockRange { start, end };
        assert!(run(2, 4).contains(2) && run(2, 4).contains(3) && !run(2, 4).contains(4));
        assert!(run(2, 4).overlaps(run(3, 9)) && run(3, 9).overlaps(run(2, 4)));
        assert!(!run(2, 4).overlaps(run(4, 9)) && !run(4, 9).overlaps(run(2, 4)));
    }
}
