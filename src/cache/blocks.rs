//! Blocks in pieces, the unit of recency and of eviction. Pure.

pub use crate::model::{BLOCK, BlockRange};

/// Blocks in a piece: four mebibytes.
pub(super) const PIECE: u64 = 512;

impl BlockRange {
    /// The blocks of one piece of a content of `size` bytes.
    pub(super) fn of_piece(piece: u64, size: u64) -> Self {
        Self { start: piece * PIECE, end: ((piece + 1) * PIECE).min(size.div_ceil(BLOCK)) }
    }

    /// The pieces these blocks lie in.
    pub(super) fn pieces(self) -> std::ops::Range<u64> {
        if self.is_empty() { 0..0 } else { self.start / PIECE..self.end.div_ceil(PIECE) }
    }
}
