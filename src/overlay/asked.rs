//! What is asked of a file with local bytes, and answered.

use bytes::Bytes;

use crate::model::ByteRange;

/// What a part of a file is read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    /// Here.
    Local(Bytes),
    /// The base has it.
    Base(ByteRange),
}

/// What a file's attributes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileState {
    /// Its size in bytes.
    pub size: u64,
    /// What it takes on the disk here, in blocks of 512 bytes.
    pub blocks: u64,
    /// The staged file's times of modification and of change, in nanoseconds since 1970.
    pub times: Option<(i64, i64)>,
}

/// Which local bytes a file has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Extent {
    /// None.
    None,
    /// These ranges.
    Ranges(Vec<ByteRange>),
    /// All of them.
    All,
}

/// How to allocate room in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    /// Room for later writes.
    Room {
        /// The size stays.
        keep_size: bool,
    },
    /// A hole that reads as zeros.
    Hole,
    /// Zeros, with room for them.
    Zeros {
        /// The size stays.
        keep_size: bool,
    },
}

/// Where to find data or a hole from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seek {
    /// The next byte that is no hole.
    Data(u64),
    /// The next byte of a hole, the end being one.
    Hole(u64),
}
