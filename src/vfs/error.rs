//! How an operation can fail, in words a file system has numbers for.

use crate::fetch::FetchError;

/// Why an operation failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum VfsError {
    /// No such file or directory. Only ever said of what the manifest does not name.
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
    /// The entry cannot be pinned to a version, having no SHA-256.
    #[error("the manifest names this file by MD5 only: it cannot be mounted; publish it again")]
    NotPinned,
    /// The bytes could not be had.
    #[error(transparent)]
    Fetch(#[from] FetchError),
}
