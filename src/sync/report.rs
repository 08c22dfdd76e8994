//! What a run tells whoever watches it.

use std::time::Duration;

use crate::model::Visibility;
use crate::remote::RemoteError;

/// A step of a push or pull, in order.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The remote was asked, and has this, or will have it.
    Found {
        /// `owner/slug`.
        reference: &'a str,
        /// The name for people.
        name: &'a str,
        /// Who may see it.
        visibility: Visibility,
        /// How many collections: names with a file below `data/`.
        collections: usize,
    },
    /// Local files are being hashed.
    Hashing {
        /// How many bytes there are.
        bytes: u64,
    },
    /// The database exists on the remote.
    Registered {
        /// Its id.
        id: &'a str,
    },
    /// Contents begin to move.
    Transferring {
        /// How many files.
        files: u64,
        /// How many bytes.
        bytes: u64,
    },
    /// Bytes hashed or moved since the last such event.
    Progress {
        /// How many.
        bytes: u64,
    },
    /// The hashing or moving is over.
    Finished,
    /// The remote failed in passing: the run begins again after a while.
    Waiting {
        /// How the remote failed.
        error: &'a RemoteError,
        /// After how long.
        wait: Duration,
    },
}

/// Someone who watches.
pub trait Reporter: Send + Sync {
    /// Called for every event, from any thread.
    fn report(&self, event: Event<'_>);
}

impl Reporter for () {
    fn report(&self, _event: Event<'_>) {}
}
