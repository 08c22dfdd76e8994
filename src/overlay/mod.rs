//! The overlay: what was written to the mount and is not published. Names and attributes are the [`Upper`] layer; bytes lie in
//! staged files ([`LocalFile`]); the [`Overlay`] makes both last.

#[cfg(test)]
mod crash_tests;
mod error;
mod local_file;
#[allow(clippy::module_inception)]
mod overlay;
mod pending;
mod staged;
mod upper;

pub use error::OverlayError;
pub use local_file::{Allocate, Extent, FileState, LocalFile, Piece, Seek};
pub use overlay::{Overlay, Recovered, implied_directory};
pub use pending::{Changed, HereOnly, Pending, pending_at};
pub use upper::{Upper, UpperNode};
