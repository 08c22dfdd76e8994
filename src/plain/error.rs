//! What can go wrong with a plain tree.

use crate::manifest::ManifestError;
use crate::model::{DbPath, ExitCode};
use crate::store::{PublishError, StoreError, UploadError};

/// Why a tree was not written or read.
#[derive(Debug, thiserror::Error)]
pub enum PlainError {
    /// A file or directory cannot be used.
    #[error("{path}")]
    Directory {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The directory is somebody else's.
    #[error("{path} {why}: it was left alone")]
    NotOurs {
        /// Which.
        path: String,
        /// In what way.
        why: &'static str,
    },
    /// There is no manifest to read.
    #[error("{path} has no _meta/manifest.json: publish such a directory with 'parquedb push'")]
    NoManifest {
        /// Which directory.
        path: String,
    },
    /// The manifest cannot be used.
    #[error("{path}")]
    Manifest {
        /// Which file.
        path: String,
        /// Why not.
        #[source]
        source: ManifestError,
    },
    /// A file is not what the manifest says.
    #[error("{path} is not what the manifest says it is ({what}): nothing was imported")]
    WrongFile {
        /// Which.
        path: DbPath,
        /// Size or hash.
        what: &'static str,
    },
    /// A content in the store is not what its name says.
    #[error("the content of {path} in the store is damaged: 'parquedb fsck --deep' tells more")]
    WrongContent {
        /// Where it belongs.
        path: DbPath,
    },
    /// No such revision.
    #[error("there is no revision {0}")]
    NoRevision(crate::model::Revision),
    /// The database is not new.
    #[error("{0} has revisions already: publish to it with 'parquedb push', or choose another name")]
    NotNew(String),
    /// Publishing failed.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// An upload failed.
    #[error(transparent)]
    Upload(#[from] UploadError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PlainError {
    pub(super) fn directory(path: impl std::fmt::Display) -> impl Fn(std::io::Error) -> Self {
        let path = path.to_string();
        move |source| Self::Directory { path: path.clone(), source }
    }

    /// The exit status this failure ends a program with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Directory { .. } | Self::Publish(_) | Self::Upload(_) => ExitCode::Failure,
            Self::NotOurs { .. } | Self::NotNew(_) => ExitCode::NeedsDecision,
            Self::NoManifest { .. } => ExitCode::Usage,
            Self::NoRevision(_) => ExitCode::NotFound,
            Self::Manifest { source: ManifestError::Newer { .. }, .. } => ExitCode::Newer,
            Self::Manifest { .. } | Self::WrongFile { .. } | Self::WrongContent { .. } => ExitCode::Integrity,
            Self::Store(error) => error.exit_code(),
        }
    }
}
