//! The directory `.parquedb` of a mount: how its syncs stand, what conflicts have left behind, and earlier revisions of the
//! database. It can be entered by its name and is in no listing, so that no glob meets it (X2, X6). Nothing in it can be changed.

mod directory;
mod numbers;
mod revisions;

pub use directory::{DotDir, DotDirOptions};
pub use numbers::DotNode;
pub use revisions::{History, PastRevision};
