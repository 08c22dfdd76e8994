//! A run of bytes inside a content.

/// Bytes `start..end` of a content; never empty where the house makes one for a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct ByteRange {
    /// The first byte.
    pub start: u64,
    /// One past the last byte.
    pub end: u64,
}

impl ByteRange {
    /// `start..end`. `end` is never below `start`.
    pub fn new(start: u64, end: u64) -> Self {
        Self { start, end: end.max(start) }
    }

    /// How many bytes.
    pub fn len(&self) -> u64 {
        self.end - self.start
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.end == self.start
    }

    /// The value of a `Range` request header. The range must not be empty.
    pub fn to_header(self) -> String {
        format!("bytes={}-{}", self.start, self.end - 1)
    }
}
