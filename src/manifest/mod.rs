//! The sync manifest (`_meta/manifest.json`, format 1): what files a database has, and their hashes.
//!
//! Owns reading, checking and writing the document. A [`Manifest`] in hand has been checked: every path is inside
//! the root, none is reserved, none is both a file and a directory. Fields this program does not know are kept.

mod block_hashes;
mod document;
mod entry;
mod families;
mod names;
mod parse;

pub use document::Manifest;
pub(crate) use document::ManifestView;
pub(crate) use entry::SharedTypes;
pub use entry::{Entry, same};
pub use families::family;
pub use names::{MANIFEST_PATH, PRIVATE_DIR, is_protected, is_reserved, stays_put};
pub use parse::ManifestError;
