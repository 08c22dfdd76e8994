//! The block cache: bytes of contents, on disk, by the content's hash. It survives restarts, and a power cut
//! costs it blocks but never makes it lie: a block counts only if its checksum holds.
//!
//! Blocks belong to one origin and database (a *scope*) until their content is all here and has its hash: a range
//! proves its length, not its content, so bytes from one server are not shown as another's (rule 26). Then every
//! database, origin and mount on the machine shares them, and the kernel may be given the file.
//!
//! Any number of processes use one cache at once. Nothing is kept in memory that another could make untrue: what is
//! here is in the slot files, what is taken in one number under a lock.

mod blocks;
mod content;
mod contents;
mod evict;
mod handed;
mod inventory;
mod layout;
mod limits;
#[cfg(test)]
mod model_tests;
mod part;
mod parts;
mod pins;
mod room;
mod scope;
mod slots;
#[cfg(test)]
mod tests;
mod verify;

pub use blocks::{BLOCK, BlockRange};
pub use content::{CachedContent, ContentState, Look, Written};
pub use contents::{Cache, CacheError};
pub use handed::{CHECKED_FOR, HandedOut};
pub use inventory::{CheckReport, Recheck, Removed, StoredContent, Which};
pub use limits::{CacheOptions, DEFAULT_LIMIT};
pub use pins::PinError;
pub use scope::Scope;
pub use verify::{Soundness, Verification};
