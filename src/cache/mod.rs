//! The block cache: bytes of contents, on disk, by the content's hash. It survives restarts, and a power cut
//! costs it blocks but never makes it lie: a block counts only if its checksum holds.
//!
//! Blocks belong to one origin and database (a *scope*): a range proves its length, not its content, so bytes
//! from one server are not shown as another's (rule 26).

mod blocks;
mod content;
mod contents;
mod slots;

pub use blocks::{BLOCK, BlockRange};
pub use content::{CachedContent, Look};
pub use contents::{Cache, CacheError, CacheOptions, Scope};
