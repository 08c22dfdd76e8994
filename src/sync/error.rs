//! Why a push or pull stopped.

use crate::manifest::ManifestError;
use crate::model::{DbPath, ExitCode, Revision};
use crate::remote::RemoteError;

use super::brake::MassDeletion;
use super::conflict::Side;

/// A push or pull that did not do its work. What it had already done is whole files; running it again goes on.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The remote failed or refused.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The directory could not be read or written.
    #[error("{path}: {source}")]
    Directory {
        /// Which file or directory.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The directory's own manifest cannot be used.
    #[error("{path}: {source}")]
    LocalManifest {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: ManifestError,
    },
    /// Another run works in this directory.
    #[error("another parquedb is at work in '{path}': wait for it, or stop it")]
    Busy {
        /// Which directory.
        path: String,
    },
    /// The directory belongs to another database (rule 14).
    #[error(
        "this directory was last synced with {here}, and the remote's database is {there}: \
         use another directory, or remove _meta/manifest.json to start from what is in both"
    )]
    OtherDatabase {
        /// The id the directory knows.
        here: String,
        /// The id of the remote's database.
        there: String,
    },
    /// The remote is older than what this directory has seen of it (rule 4).
    #[error(
        "the remote is at revision {there}, but this directory has already seen revision {here}: it was rolled back \
         or replaced; nothing was changed. Ask its owner; to accept it, remove _meta/manifest.json"
    )]
    RolledBack {
        /// The revision seen here.
        here: Revision,
        /// The remote's.
        there: Revision,
    },
    /// The remote has another history than this directory knows (rule 4).
    #[error(
        "revision {revision} of the remote is another one than this directory has seen: it was rolled back or replaced; \
         nothing was changed. Ask its owner; to accept it, remove _meta/manifest.json"
    )]
    OtherHistory {
        /// The revision that both have.
        revision: Revision,
    },
    /// The remote is not what a mount was synced with (rules 4 and 14).
    #[error(
        "{what}: it was rolled back or replaced. Nothing was published, and what was written here is kept. Ask its owner; to go on \
         with what the remote has now, mount it with '--replica NAME' as well, and copy there what 'parquedb status' lists here"
    )]
    NotAsSynced {
        /// How it differs.
        what: String,
    },
    /// A revision's content that the remote does not have any more.
    #[error(
        "the content of {path} is not in the remote's store any more: nothing was published. Ask its owner to run 'parquedb fsck'"
    )]
    Lost {
        /// The path.
        path: DbPath,
    },
    /// One of several files that go together or not at all (rule 21).
    #[error(
        "'{path}' goes together with other files that were changed here, its database or its logs: keep yours with --local, or \
         remove those first"
    )]
    Together {
        /// The path.
        path: DbPath,
    },
    /// The brake (rule 14).
    #[error(
        "{} of {} files would be deleted {}{}: nothing was changed. If that is meant, say --allow-mass-delete",
        .counts.deletions,
        .counts.files,
        if *side == Side::Local { "here" } else { "on the remote" },
        if .counts.before > 0 { format!(", after {} within a day", .counts.before) } else { String::new() },
    )]
    Halted {
        /// How many of how many.
        counts: MassDeletion,
        /// On which side.
        side: Side,
    },
    /// A content did not have the hash the manifest names.
    #[error("'{path}' arrived with other bytes than the manifest names: nothing of it was kept; try again")]
    WrongContent {
        /// Which.
        path: DbPath,
    },
    /// The directory has files of another database, which was never brought here as a whole (rule 14).
    #[error(
        "a pull of {database} into this directory did not come to its end: finish it with 'parquedb pull {database}'; \
         to make what is here a database of its own, remove .parquedb/arriving"
    )]
    HalfPulled {
        /// The database, as `owner/slug`.
        database: String,
    },
    /// A decision in a directory that nothing was ever synced with.
    #[error(
        "no sync of this directory has come to its end yet: run 'parquedb sync' first, and decide what is left then"
    )]
    NeverSynced,
    /// A decision about nothing.
    #[error("there is no conflict about '{path}': 'parquedb conflicts' lists those there are")]
    NoConflict {
        /// The path.
        path: DbPath,
    },
    /// A decision about two paths of which one must go.
    #[error("'{path}' cannot stand beside what the other side has there: rename or remove one of the two")]
    InTheWay {
        /// The path.
        path: DbPath,
    },
    /// The remote's version of a file in conflict was not kept here.
    #[error(
        "the remote's version of '{path}' was not kept here, because of --conflict-limit: sync with a higher one, \
         then decide"
    )]
    NotKept {
        /// The path.
        path: DbPath,
    },
    /// Somebody wrote to a file meanwhile.
    #[error("'{path}' was changed meanwhile: nothing of it was touched; try again")]
    Overtaken {
        /// The path.
        path: DbPath,
    },
    /// Somebody else published again and again.
    #[error("others kept publishing meanwhile: try again")]
    KeptChanging,
}

impl SyncError {
    /// The exit status this failure ends a program with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Remote(error) => error.exit_code(),
            Self::Directory { .. } | Self::Busy { .. } | Self::Overtaken { .. } => ExitCode::Failure,
            Self::NoConflict { .. } => ExitCode::NotFound,
            Self::NotKept { .. } | Self::InTheWay { .. } => ExitCode::NeedsDecision,
            Self::LocalManifest { source: ManifestError::Newer { .. }, .. } => ExitCode::Newer,
            Self::LocalManifest { .. } | Self::WrongContent { .. } | Self::Lost { .. } => ExitCode::Integrity,
            Self::OtherDatabase { .. }
            | Self::HalfPulled { .. }
            | Self::NeverSynced
            | Self::RolledBack { .. }
            | Self::OtherHistory { .. }
            | Self::NotAsSynced { .. }
            | Self::Together { .. }
            | Self::Halted { .. } => ExitCode::NeedsDecision,
            Self::KeptChanging => ExitCode::KeptChanging,
        }
    }

    pub(super) fn directory(path: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.to_string();
        move |source| Self::Directory { path, source }
    }
}
