//! What a run tells whoever watches it.

use crate::model::Visibility;

/// A step of a push or pull, in order.
#[derive(Debug, Clone, Copy)]
pub enum Event<'a> {
    /// The remote says who we are.
    Authenticated {
        /// The account's name.
        username: &'a str,
    },
    /// What a push is going to.
    Target {
        /// The visibility the database will have.
        visibility: Visibility,
        /// `owner/slug`.
        reference: &'a str,
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
    /// What a pull has found.
    Found {
        /// The name for people.
        name: &'a str,
        /// Who may see it.
        visibility: Visibility,
        /// How many collections.
        collections: u64,
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
}

/// Someone who watches.
pub trait Reporter: Send + Sync {
    /// Called for every event, from any thread.
    fn report(&self, event: Event<'_>);
}

impl Reporter for () {
    fn report(&self, _event: Event<'_>) {}
}
