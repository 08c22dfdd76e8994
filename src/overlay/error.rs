//! How local state can fail: the disk it lies on does.

use std::io;

use crate::state::{JournalError, PlaceError, RowsError};

/// Why something local could not be done.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// The disk failed, or is full.
    #[error("local state: {0}")]
    Disk(#[from] io::Error),
    /// The tables could not be read or written.
    #[error("local state: {0}")]
    Rows(#[from] RowsError),
    /// The replica's directory could not be had.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

impl OverlayError {
    /// What a program that wrote is told: the disk's own number, where it has one.
    pub fn errno(&self) -> i32 {
        match self {
            Self::Disk(error) => error.raw_os_error().unwrap_or(libc::EIO),
            Self::Rows(error) => error.errno().unwrap_or(libc::EIO),
            Self::Place(_) => libc::EIO,
        }
    }

    pub(super) fn is_for_want_of_room(&self) -> bool {
        matches!(self.errno(), libc::ENOSPC | libc::EDQUOT)
    }
}

impl From<JournalError> for OverlayError {
    fn from(error: JournalError) -> Self {
        Self::Disk(match error {
            JournalError::Disk(error) => error,
            JournalError::Full | JournalError::TooLong => io::Error::from_raw_os_error(libc::ENOSPC),
        })
    }
}
