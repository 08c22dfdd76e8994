//! `GET /api/sync/events/:id`: server-sent events, one for each revision that is published. `Last-Event-ID` is a revision: what
//! was published after it comes first. Ours; the original has no such route.

use serde::{Deserialize, Serialize};

use crate::model::{DbPath, Revision};

/// The names of events, and their type.
pub mod event {
    /// The type of the stream.
    pub const CONTENT_TYPE: &str = "text/event-stream";
    /// The first one: the stream has begun ([`RevisionEvent`](super::RevisionEvent)).
    pub const CONNECT: &str = "connect";
    /// A revision was published ([`ChangeEvent`](super::ChangeEvent)).
    pub const CHANGE: &str = "change";
    /// What was published before has been told ([`RevisionEvent`](super::RevisionEvent)).
    pub const CAUGHT_UP: &str = "caught-up";
    /// What was published since cannot be told ([`RevisionEvent`](super::RevisionEvent)).
    pub const OUTDATED: &str = "outdated";
    /// Nothing was published for 30 seconds ([`RevisionEvent`](super::RevisionEvent)).
    pub const PING: &str = "ping";
}

/// Paths told of one revision; of more, how many.
pub const MAX_EVENT_PATHS: usize = 1000;

/// The data of an event that says where the database is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RevisionEvent {
    /// The revision.
    pub revision: Revision,
}

/// The data of an event that tells of a revision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ChangeEvent {
    /// The revision.
    pub revision: Revision,
    /// Which collections it changed: names below `data/`.
    pub collections: Vec<String>,
    /// Which files it put or deleted, as far as they fit.
    pub paths: Vec<DbPath>,
    /// How many more.
    #[serde(default)]
    pub more: u64,
}
