//! How an operation can fail, in words a file system has numbers for.

use crate::content::ContentError;
use crate::fetch::FetchError;
use crate::overlay::OverlayError;

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VfsError {
    /// No such file or directory. Only ever said of what neither the manifest names nor anything local.
    #[error("no such file or directory")]
    NotFound,
    /// The same, and it was there just now: somebody else may have to be told otherwise, so that the kernel must not
    /// remember the answer.
    #[error("no such file or directory any more")]
    Gone,
    /// No name is so long.
    #[error("the name is too long")]
    NameTooLong,
    /// A directory was needed.
    #[error("not a directory")]
    NotADirectory,
    /// A file was needed.
    #[error("is a directory")]
    IsADirectory,
    /// The handle is not open.
    #[error("bad handle")]
    BadHandle,
    /// The mount does not take writes.
    #[error("the mount is read-only")]
    ReadOnly,
    /// The name is taken.
    #[error("the file exists")]
    Exists,
    /// The directory is not empty.
    #[error("the directory is not empty")]
    NotEmpty,
    /// That cannot be asked for.
    #[error("an invalid argument")]
    Invalid,
    /// Nobody may do that.
    #[error("not permitted")]
    NotPermitted,
    /// There is no such thing here.
    #[error("not supported")]
    NotSupported,
    /// There is no such attribute.
    #[error("no such attribute")]
    NoAttribute,
    /// The caller's room is too small, or the value too large.
    #[error("out of range")]
    OutOfRange,
    /// The number stands for something else by now: looked up again, the name leads on.
    #[error("looked up again, it is another one")]
    LookAgain,
    /// The entry cannot be pinned to a version, having no SHA-256.
    #[error("the manifest names this file by MD5 only: it cannot be mounted; publish it again")]
    NotPinned,
    /// The bytes could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The disk that local changes lie on failed.
    #[error("{reason}")]
    Local {
        /// The disk's own number for it.
        errno: i32,
        /// What happened.
        reason: String,
    },
}

impl From<&OverlayError> for VfsError {
    fn from(error: &OverlayError) -> Self {
        Self::Local { errno: error.errno(), reason: error.to_string() }
    }
}

impl From<OverlayError> for VfsError {
    fn from(error: OverlayError) -> Self {
        Self::from(&error)
    }
}

impl From<ContentError> for VfsError {
    fn from(error: ContentError) -> Self {
        match error {
            ContentError::Local(error) => error.into(),
            ContentError::Remote(error) => error.into(),
        }
    }
}
