//! Bytes to blocks and back, and blocks to the leaves of a block tree. Pure.

use super::ByteRange;

/// Bytes in a block, the unit that is fetched, cached and checked for rot; a content's last one may be shorter. Column
/// chunks of half a megabyte rounded outwards to such blocks cost one or two per cent more, and the table of all blocks
/// takes a thousandth of the bytes.
pub const BLOCK: u64 = 8 << 10;

/// Bytes under one leaf of a block tree, the unit that is proven. Larger than a block, for the leaves' hashes travel in
/// a header.
pub const LEAF: u64 = 32 << 10;

/// Units `start..end` of a content, each of so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run<const UNIT: u64> {
    /// The first one.
    pub start: u64,
    /// One past the last.
    pub end: u64,
}

/// Blocks of a content.
pub type BlockRange = Run<BLOCK>;

/// Leaves of a content.
pub type LeafRange = Run<LEAF>;

impl<const UNIT: u64> Run<UNIT> {
    /// The units that hold `bytes`.
    pub fn covering(bytes: ByteRange) -> Self {
        Self { start: bytes.start / UNIT, end: bytes.end.div_ceil(UNIT) }
    }

    /// The bytes of these units in a content of `size` bytes.
    pub fn bytes(self, size: u64) -> ByteRange {
        ByteRange::new((self.start * UNIT).min(size), (self.end * UNIT).min(size))
    }

    /// All units of a content of `size` bytes.
    pub fn all(size: u64) -> Self {
        Self { start: 0, end: size.div_ceil(UNIT) }
    }

    /// Whether the unit is one of these.
    pub fn contains(self, unit: u64) -> bool {
        (self.start..self.end).contains(&unit)
    }

    /// Whether there is a unit in both.
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

impl LeafRange {
    /// Blocks in a leaf.
    pub const BLOCKS: u64 = LEAF / BLOCK;
}

impl BlockRange {
    /// These and those around them that are proven together with them, in a content of `size` bytes.
    pub fn in_whole_leaves(self, size: u64) -> Self {
        if self.is_empty() {
            return self;
        }
        let start = self.start - self.start % LeafRange::BLOCKS;
        Self { start, end: self.end.next_multiple_of(LeafRange::BLOCKS).min(size.div_ceil(BLOCK)) }
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

    #[test]
    fn whole_leaves_hold_the_blocks_and_end_with_the_content() {
        let size = 10 * BLOCK + 7;
        let run = |start, end| BlockRange { start, end };
        assert_eq!(LeafRange::BLOCKS * BLOCK, LEAF);
        for (blocks, leaves) in [
            (run(0, 1), run(0, 4)),
            (run(3, 5), run(0, 8)),
            (run(4, 8), run(4, 8)),
            (run(9, 10), run(8, 11)),
            (run(8, 11), run(8, 11)),
            (run(5, 5), run(5, 5)),
        ] {
            assert_eq!(blocks.in_whole_leaves(size), leaves);
        }
    }
}
