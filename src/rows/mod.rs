//! Rows inside data files. So far: how many a Parquet file has, and where its column chunks lie.

mod chunks;
mod footer;

pub use chunks::{ChunkId, ChunkMap};
pub use footer::{FOOTER_LIMIT, FooterError, metadata_length, row_count};
