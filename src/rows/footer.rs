//! A Parquet file's footer, read from bytes that someone else wrote.

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaDataReader;

/// A footer longer than this is not read: counting rows must not cost a server its memory.
pub const FOOTER_LIMIT: u64 = 32 << 20;
/// The end of every Parquet file: the metadata's length and the magic.
const TAIL: usize = 8;

/// The bytes are not the end of a Parquet file.
#[derive(Debug, thiserror::Error)]
#[error("not a Parquet footer: {0}")]
pub struct FooterError(pub(super) String);

/// The length of the metadata in front of the last eight bytes, from those eight bytes.
pub fn metadata_length(tail: [u8; TAIL]) -> Result<u64, FooterError> {
    let [a, b, c, d, magic @ ..] = tail;
    if &magic != b"PAR1" {
        return Err(FooterError("the magic is missing".into()));
    }
    let length = u64::from(u32::from_le_bytes([a, b, c, d]));
    if length > FOOTER_LIMIT { Err(FooterError(format!("{length} bytes long"))) } else { Ok(length) }
}

/// How many rows the file has, from its metadata (without the last eight bytes).
pub fn row_count(metadata: &Bytes) -> Result<u64, FooterError> {
    let metadata =
        ParquetMetaDataReader::decode_metadata(metadata).map_err(|e| FooterError(e.to_string()))?;
    u64::try_from(metadata.file_metadata().num_rows()).map_err(|_| FooterError("a negative row count".into()))
}
