//! The `Content-Range` header, read strictly: what it says is checked against what was asked.

use crate::model::ByteRange;

/// `bytes start-end/total` of a 206 response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// The bytes sent.
    pub range: ByteRange,
    /// The size of the whole content.
    pub total: u64,
}

impl ContentRange {
    /// Reads a header's value; anything unusual (an unknown total, spaces, a reversed range) is `None`.
    pub fn parse(value: &str) -> Option<Self> {
        let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last, total) = (digits(first)?, digits(last)?, digits(total)?);
        (first <= last && last < total).then(|| Self { range: ByteRange::new(first, last + 1), total })
    }

    /// The header's value.
    pub fn to_header(self) -> String {
        format!("bytes {}-{}/{}", self.range.start, self.range.end - 1, self.total)
    }
}

/// A number in plain digits; `+1` and the like are not numbers here.
pub(super) fn digits(text: &str) -> Option<u64> {
    (!text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_exact_headers_are_read() {
        let good = ContentRange { range: ByteRange::new(1000, 1008), total: 1008 };
        assert_eq!(ContentRange::parse("bytes 1000-1007/1008"), Some(good));
        assert_eq!(good.to_header(), "bytes 1000-1007/1008");
        for bad in [
            "bytes 0-8/8",
            "bytes 5-4/8",
            "bytes 0-1/*",
            "bytes */8",
            "bytes 0-/8",
            "bytes +0-1/8",
            "0-1/8",
            "bytes 0-1/99999999999999999999",
        ] {
            assert_eq!(ContentRange::parse(bad), None, "{bad}");
        }
    }
}
