//! What is asked and answered: how a mount's syncs stand, what happens to them, and what somebody wants of them.

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::model::DbPath;

/// What the syncs of a mount are doing (F35).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SyncPhase {
    /// Waiting for something to do.
    #[default]
    Idle,
    /// At work.
    Syncing,
    /// The last round came to its end, and nothing is left to do.
    Success,
    /// The last round failed, and not in passing.
    Error,
    /// The remote cannot be reached.
    Offline,
    /// Something is left for a person to decide.
    Conflict,
    /// Somebody wants no syncs for now.
    Paused,
}

impl SyncPhase {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Syncing => "syncing",
            Self::Success => "success",
            Self::Error => "error",
            Self::Offline => "offline",
            Self::Conflict => "conflict",
            Self::Paused => "paused",
        }
    }
}

/// Something that is not published yet, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldBack {
    /// The path.
    pub path: DbPath,
    /// Why.
    pub why: String,
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastError {
    /// What failed, and what to do about it.
    pub message: String,
    /// When.
    pub time: String,
}

/// How a mount's syncs stand.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Standing {
    /// The database.
    pub database: String,
    /// What makes the mount publish; none: it publishes nothing.
    #[serde(default)]
    pub trigger: Option<String>,
    /// What they are doing.
    pub state: SyncPhase,
    /// The revision shown.
    pub revision: Option<u64>,
    /// Local changes that are not published, when a round last looked.
    pub pending: usize,
    /// What of them is not ready.
    pub held: Vec<HeldBack>,
    /// Paths that a person has to decide about.
    pub conflicts: Vec<DbPath>,
    /// When a round last came to its end.
    pub last_sync: Option<String>,
    /// When the next one is due, if nothing else happens.
    pub next_sync: Option<String>,
    /// What is changed is gathered, until somebody says that it is complete.
    #[serde(default)]
    pub gathering: bool,
    /// How the last round failed, or what keeps the remote's news away, if anything does.
    pub last_error: Option<LastError>,
}

/// What a round has published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// Files.
    pub uploaded: usize,
    /// Deletions.
    pub deleted: usize,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Conflicts that nobody has decided.
    pub conflicts: usize,
    /// The revision shown now.
    pub revision: Option<u64>,
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event")]
pub enum SyncEvent {
    /// A round begins.
    #[serde(rename = "sync:start")]
    Start {
        /// When.
        time: String,
    },
    /// A round came to its end.
    #[serde(rename = "sync:end")]
    End {
        /// When.
        time: String,
        /// What it has published.
        #[serde(flatten)]
        counts: Counts,
    },
    /// A round failed; it will be tried again.
    #[serde(rename = "error")]
    Error {
        /// When.
        time: String,
        /// How.
        message: String,
    },
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case")]
pub enum Request {
    /// News and a round, now.
    #[serde(rename_all = "camelCase")]
    Sync {
        /// Mass deletions are meant.
        allow_mass_delete: bool,
    },
    /// No rounds until further notice.
    Pause,
    /// Rounds again.
    Resume,
    /// What is changed from now on belongs together.
    Begin,
    /// It is complete: one revision.
    #[serde(rename_all = "camelCase")]
    Commit {
        /// Mass deletions are meant.
        allow_mass_delete: bool,
    },
    /// A person has decided a conflict.
    Resolve {
        /// Which.
        path: DbPath,
        /// What was here stays; else what the remote has.
        local: bool,
    },
    /// How things stand.
    Status,
    /// What happens from now on, line after line.
    Events,
}

/// What was asked could not be done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failed {
    /// Why, and what to do.
    pub message: String,
    /// The exit status that says the same.
    pub code: u8,
}

/// An answer to anything but [`Request::Events`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    /// It was done.
    Done {
        /// What the round has published, if there was one.
        counts: Option<Counts>,
        /// How things stand now.
        standing: Box<Standing>,
    },
    /// It was not.
    Failed(Failed),
}

/// What somebody wants of the syncs, on its way to what does it.
#[derive(Debug)]
pub struct Order {
    /// What.
    pub request: Request,
    /// Hears when it is done.
    pub reply: oneshot::Sender<Result<Option<Counts>, Failed>>,
}
