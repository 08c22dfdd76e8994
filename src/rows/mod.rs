//! Rows inside data files. So far: how many a Parquet file has.

mod footer;

pub use footer::{FOOTER_LIMIT, FooterError, metadata_length, row_count};
