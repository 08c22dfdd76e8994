//! What can go wrong with a store.

use crate::model::{ExitCode, Revision};

/// A failure of the store itself, as opposed to a refusal of what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store could not be read or written.
    #[error("the store cannot {action}")]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// An object is not what its name says.
    #[error("the store is damaged: {key}: {reason}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A later layout than this program knows.
    #[error("the store has format {format}, and this program knows format 1: a newer parquedb is needed")]
    Newer {
        /// The format it says it has.
        format: u64,
    },
    /// The directory cannot be used.
    #[error("cannot use '{path}' as a store")]
    Directory {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The place holds something else.
    #[error("'{place}' is not empty and is not a store: name an empty or new directory")]
    NotAStore {
        /// Which.
        place: String,
    },
    /// There is no store at that place.
    #[error("there is no store at '{place}': 'parquedb serve --store' makes one")]
    NoStore {
        /// Which.
        place: String,
    },
    /// The store lets objects be created twice, so that of two servers' revisions one would be lost.
    #[error(
        "the store at '{place}' overwrites objects that should only be created where there is none: two servers could \
        lose each other's revisions. Use another store; or, where one process alone ever writes to it, --single-writer"
    )]
    Overwrites {
        /// Which.
        place: String,
    },
    /// A copy that went its own way.
    #[error(
        "{database} has another revision {revision} there: it is no copy of this one. Nothing was changed; name another \
        place"
    )]
    OtherHistory {
        /// The database's name.
        database: String,
        /// The last revision that both have.
        revision: Revision,
    },
    /// A name that another database has.
    #[error("{database} is another database there. Nothing was changed in it; name another place")]
    NameTaken {
        /// The name.
        database: String,
    },
    /// A revision that is not kept any more.
    #[error("revision {revision} is not kept any more: the oldest one that is, is {kept_from}")]
    Expired {
        /// The revision asked for.
        revision: Revision,
        /// The oldest one kept.
        kept_from: Revision,
    },
}

impl StoreError {
    /// The exit status this failure ends a program with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unavailable { source: object_store::Error::Unauthenticated { .. }, .. }
            | Self::Unavailable { source: object_store::Error::PermissionDenied { .. }, .. } => {
                ExitCode::NotAllowed
            }
            Self::Unavailable { .. } => ExitCode::Failure,
            Self::Damaged { .. } => ExitCode::Integrity,
            Self::Newer { .. } => ExitCode::Newer,
            Self::Directory { .. } | Self::NotAStore { .. } | Self::Overwrites { .. } => ExitCode::Usage,
            Self::NoStore { .. } | Self::Expired { .. } => ExitCode::NotFound,
            Self::OtherHistory { .. } | Self::NameTaken { .. } => ExitCode::NeedsDecision,
        }
    }

    pub(super) fn unavailable(action: &'static str) -> impl Fn(object_store::Error) -> Self {
        move |source| Self::Unavailable { action, source }
    }
}
