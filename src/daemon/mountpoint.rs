//! Looking at the mountpoint before anything else is done.

use std::io;
use std::path::{Path, PathBuf};

use crate::fuse::{UnmountError, clear_dead_mount, mounted_type};

/// Why a directory cannot be mounted on. All are wrong usage (exit 2).
#[derive(Debug, thiserror::Error)]
pub enum MountpointError {
    /// It is not there.
    #[error("the mountpoint '{0}' does not exist: make it with mkdir -p")]
    Missing(String),
    /// It is something else.
    #[error("the mountpoint '{0}' is not a directory")]
    NotADirectory(String),
    /// Its files would be hidden.
    #[error("the mountpoint '{0}' is not empty: name an empty directory")]
    NotEmpty(String),
    /// Something is mounted there.
    #[error(
        "something is mounted on '{path}' already ({kind}): unmount it with fusermount3 -u, or name another"
    )]
    Mounted {
        /// Where.
        path: String,
        /// The type of what is there.
        kind: String,
    },
    /// A dead daemon's mount could not be cleared.
    #[error(transparent)]
    Stuck(#[from] UnmountError),
    /// It cannot be looked at.
    #[error("the mountpoint '{path}': {source}")]
    Unreadable {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// Makes sure `path` is an empty directory nothing is mounted on, clearing away what a dead daemon of ours left,
/// and gives its absolute path without links.
pub fn prepare_mountpoint(path: &Path) -> Result<PathBuf, MountpointError> {
    let shown = path.display().to_string();
    let unreadable = |source| MountpointError::Unreadable { path: shown.clone(), source };
    // The last component may be a dead mount, which cannot be looked at: only its parent is resolved.
    let absolute = std::path::absolute(path).map_err(unreadable)?;
    let absolute = match (absolute.parent(), absolute.file_name()) {
        (Some(parent), Some(name)) => match parent.canonicalize() {
            Ok(parent) => parent.join(name),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(MountpointError::Missing(shown));
            }
            Err(error) => return Err(unreadable(error)),
        },
        _ => absolute,
    };
    if clear_dead_mount(&absolute)? {
        tracing::info!(mountpoint = %absolute.display(), "cleared the mount of a daemon that died");
    }
    // Asked before anything else: what hangs there would hang whoever looks into it.
    if let Some(kind) = mounted_type(&absolute).map_err(unreadable)?.filter(|kind| kind.starts_with("fuse")) {
        return Err(MountpointError::Mounted { path: shown, kind });
    }
    let metadata = match std::fs::metadata(&absolute) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(MountpointError::Missing(shown)),
        Err(error) => return Err(unreadable(error)),
    };
    if !metadata.is_dir() {
        return Err(MountpointError::NotADirectory(shown));
    }
    let resolved = absolute.canonicalize().map_err(unreadable)?;
    if let Some(kind) = mounted_type(&resolved).map_err(unreadable)?.filter(|kind| kind.starts_with("fuse")) {
        return Err(MountpointError::Mounted { path: shown, kind });
    }
    let mut entries = std::fs::read_dir(&resolved).map_err(unreadable)?;
    match entries.next() {
        None => Ok(resolved),
        Some(_) => Err(MountpointError::NotEmpty(shown)),
    }
}
