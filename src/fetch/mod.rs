//! Bytes coming down: reading a content through the cache. A block is asked for once however many want it, what
//! comes is stored as it comes, and passing faults are ridden out until the reader's deadline.

mod error;
mod fetcher;
mod flight;
mod fly;
mod open_content;
mod readahead;

pub use error::FetchError;
pub use fetcher::{FetchOptions, Fetcher};
pub use open_content::OpenContent;
pub use readahead::Readahead;
