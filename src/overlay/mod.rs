//! The overlay: what was written to the mount and is not published. Names and attributes are the [`Upper`] layer; bytes lie in
//! staged files ([`LocalFile`]); the [`Overlay`] makes both last.

mod asked;
mod durable;
mod error;
mod layers;
mod local_file;
#[allow(clippy::module_inception)]
mod overlay;
mod pending;
mod recovery;
mod rest;
mod staged;
mod syncing;
mod upper;

#[cfg(test)]
mod crash_tests;

pub use asked::{Allocate, Extent, FileState, Piece, Seek};
pub use error::OverlayError;
pub use local_file::LocalFile;
pub use overlay::{Overlay, implied_directory};
pub use pending::{Changed, HereOnly, Pending, pending_at};
pub use recovery::Recovered;
pub use rest::{Access, AtRest, Digest, Rest};
pub use syncing::{Durably, Told};
pub use upper::{Upper, UpperNode};
