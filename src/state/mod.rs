//! What a writable mount keeps on disk beside the bytes of files: names, attributes, which ranges are local. Everything is
//! a [`Change`]; a change is first in the [`Journal`], which survives the daemon's death, and some time later, at an
//! `fsync` at the latest, in the [`Rows`], which survive a power cut. What the changes mean is for others to know.

mod change;
mod clock;
mod journal;
mod place;
mod rows;

pub use change::{BaseEntry, Change, Content, Kind, NodeId, NodeRow, StagedId, Under};
pub use clock::now;
pub use journal::{Journal, JournalError, RECORD_LIMIT};
pub use place::{Boot, Place, PlaceError, StateDir};
pub use rows::{Rows, RowsError, Stored, StoredNode};
