//! Errors as numbers: the one place where it is decided.

use fuser::Errno;

use crate::fetch::FetchError;
use crate::vfs::VfsError;

/// What a program sees. What is merely unreachable is EIO, never ENOENT; what the disk of local changes says is said
/// as it says it.
pub(super) fn errno(error: &VfsError) -> Errno {
    match error {
        VfsError::NotFound | VfsError::Gone => Errno::ENOENT,
        VfsError::NameTooLong => Errno::ENAMETOOLONG,
        VfsError::NotADirectory => Errno::ENOTDIR,
        VfsError::IsADirectory => Errno::EISDIR,
        VfsError::BadHandle => Errno::EBADF,
        VfsError::ReadOnly => Errno::EROFS,
        VfsError::Exists => Errno::EEXIST,
        VfsError::NotEmpty => Errno::ENOTEMPTY,
        VfsError::Invalid => Errno::EINVAL,
        VfsError::NotPermitted => Errno::EPERM,
        VfsError::NotSupported | VfsError::NotPinned => Errno::EOPNOTSUPP,
        VfsError::NoAttribute => Errno::NO_XATTR,
        VfsError::OutOfRange => Errno::ERANGE,
        VfsError::LookAgain | VfsError::Fetch(FetchError::Stale) => Errno::ESTALE,
        VfsError::Fetch(FetchError::Denied(_)) => Errno::EACCES,
        VfsError::Fetch(FetchError::Unreachable(_) | FetchError::Wrong(_) | FetchError::Cache(_)) => {
            Errno::EIO
        }
        VfsError::Local { errno, .. } => Errno::from_i32(*errno),
    }
}
