//! How a remote can fail, by what the caller can do about it.

use std::time::Duration;

use crate::manifest::ManifestError;
use crate::model::{ExitCode, Revision};

/// A request that did not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// No answer, or one cut short. Worth another try.
    #[error("{remote} cannot be reached: {reason}")]
    Unreachable {
        /// The remote's URL.
        remote: String,
        /// What happened, without the URL again.
        reason: String,
    },
    /// The remote answered that it is in trouble (5xx, 429). Worth another try.
    #[error("{remote} is in trouble (HTTP {status}): {text}")]
    Trouble {
        /// The remote's URL.
        remote: String,
        /// The status.
        status: u16,
        /// What it said.
        text: String,
        /// How long it asks to be left alone (`Retry-After`).
        retry_after: Option<Duration>,
    },
    /// 401.
    #[error("{text}")]
    NotAuthenticated {
        /// The remote's URL.
        remote: String,
        /// What the remote said.
        text: String,
    },
    /// 403.
    #[error("{text}")]
    NotAllowed {
        /// What the remote said.
        text: String,
    },
    /// 404, from a remote that knows who asks.
    #[error("{text}")]
    NotFound {
        /// What the remote said.
        text: String,
    },
    /// The content is not the current one any more (412), or the base of a commit is not.
    #[error("the remote has moved on")]
    Moved {
        /// Its current revision, where it said.
        revision: Option<Revision>,
    },
    /// The remote refused what was sent.
    #[error("{remote} refused: {text} (HTTP {status})")]
    Refused {
        /// The remote's URL.
        remote: String,
        /// The status.
        status: u16,
        /// What it said.
        text: String,
    },
    /// The answer is not what was asked for: nothing of it is used.
    #[error("{remote} answered wrongly: {reason}")]
    WrongAnswer {
        /// The remote's URL.
        remote: String,
        /// In what way.
        reason: String,
    },
    /// The manifest cannot be used.
    #[error("{reason}")]
    Manifest {
        /// What is wrong with it.
        reason: String,
        /// Whether it is of a newer format, rather than damaged.
        newer: bool,
    },
    /// A local file could not be read while it was being sent.
    #[error("{path}: {reason}")]
    LocalFile {
        /// Which.
        path: String,
        /// Why not.
        reason: String,
    },
}

impl RemoteError {
    /// Whether the same request may do better in a moment.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Trouble { .. })
    }

    /// How long the remote asks to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Trouble { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The exit status this failure ends a program with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Unreachable { .. } | Self::Trouble { .. } => ExitCode::Unreachable,
            Self::NotAuthenticated { .. } | Self::NotAllowed { .. } => ExitCode::NotAllowed,
            Self::NotFound { .. } => ExitCode::NotFound,
            Self::Moved { .. } => ExitCode::KeptChanging,
            Self::WrongAnswer { .. } | Self::Manifest { newer: false, .. } => ExitCode::Integrity,
            Self::Manifest { newer: true, .. } => ExitCode::Newer,
            Self::Refused { .. } | Self::LocalFile { .. } => ExitCode::Failure,
        }
    }
}

impl From<ManifestError> for RemoteError {
    fn from(error: ManifestError) -> Self {
        Self::Manifest { reason: error.to_string(), newer: matches!(error, ManifestError::Newer { .. }) }
    }
}
