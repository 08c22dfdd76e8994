//! Why bytes could not be had.

use crate::remote::RemoteError;

/// A read that failed; never short or zero bytes instead.
#[derive(Debug, Clone, thiserror::Error)]
pub enum FetchError {
    /// The remote could not be reached, or was in trouble, until the deadline.
    #[error("not reachable within the deadline: {0}")]
    Unreachable(String),
    /// This version's bytes are not to be had any more.
    #[error("this version is gone from the remote")]
    Stale,
    /// The remote does not let us any more.
    #[error("the remote refuses: {0}")]
    Denied(String),
    /// The remote's answers are not what was asked for.
    #[error("refused a wrong answer: {0}")]
    Wrong(String),
    /// The cache's disk failed.
    #[error("the cache failed: {0}")]
    Cache(String),
}

impl From<RemoteError> for FetchError {
    fn from(error: RemoteError) -> Self {
        match error {
            RemoteError::Unreachable { .. } | RemoteError::Trouble { .. } => {
                Self::Unreachable(error.to_string())
            }
            // The path is pinned to a content: gone or replaced, it is the version that is missing.
            RemoteError::Moved { .. } | RemoteError::NotFound { .. } => Self::Stale,
            RemoteError::NotAuthenticated { .. } | RemoteError::NotAllowed { .. } => {
                Self::Denied(error.to_string())
            }
            RemoteError::WrongAnswer { .. }
            | RemoteError::Manifest { .. }
            | RemoteError::Refused { .. }
            | RemoteError::LocalFile { .. } => Self::Wrong(error.to_string()),
        }
    }
}
