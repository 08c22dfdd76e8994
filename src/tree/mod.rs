//! A plain directory as a database's working copy: scanned, hashed, and changed one file at a time, each whole or
//! not at all. No path leaves the directory and no symbolic link is followed, whatever a manifest says.

mod apply;
mod aside;
mod hashing;
mod index;
mod own;
mod root;
mod scan;
mod staged;

pub use apply::Applied;
pub use aside::{Aside, Believed};
pub use hashing::{Hasher, hash_file, hash_quiet_file};
pub use index::{HashIndex, KnownFile, Moment};
pub use own::Pieces;
pub use root::{Occupant, Root, Stamp};
pub use scan::{Scan, SkipReason, Skipped, scan};
pub use staged::{Durability, Staged};
