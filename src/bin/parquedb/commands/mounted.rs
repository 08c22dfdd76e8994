//! Whether a path lies in a mount of ours: a mount syncs itself, and a directory's commands keep their hands off it.

use std::path::{Path, PathBuf};

use parquedb_mount::fuse::is_mountpoint_of_ours;
use rustix::io::Errno;

use crate::common::failure::Failure;

/// A place in a mount of ours.
pub struct InMount {
    /// Where that is mounted.
    pub mountpoint: PathBuf,
    /// The place, from there.
    pub inside: PathBuf,
}

impl InMount {
    /// Finds the mount that a path lies in, if it does. A name that is not there lies where its directory does.
    pub fn around(path: &Path) -> Option<Self> {
        let full = match path.canonicalize() {
            Ok(full) => full,
            Err(_) => {
                let above = path.parent().filter(|above| !above.as_os_str().is_empty());
                above.unwrap_or(Path::new(".")).canonicalize().ok()?.join(path.file_name()?)
            }
        };
        let mountpoint = full.ancestors().find(|above| is_mountpoint_of_ours(above))?;
        let inside = full.strip_prefix(mountpoint).ok()?.to_owned();
        Some(Self { mountpoint: mountpoint.to_owned(), inside })
    }
}

/// Refuses a directory in a mount for what keeps books of its own in it.
pub fn refuse_in_mount(directory: &Path) -> Result<(), Failure> {
    let Some(InMount { mountpoint, .. }) = InMount::around(directory) else { return Ok(()) };
    Err(Failure::usage(format!(
        "'{}' is in a mount, which syncs itself: 'parquedb ctl sync {}' publishes what was changed there",
        directory.display(),
        mountpoint.display()
    )))
}

/// Whether something was mounted there whose daemon is gone.
pub fn is_dead(path: &Path) -> bool {
    // Attributes may be remembered by the kernel; the file system's statistics never are.
    matches!(rustix::fs::statfs(path), Err(Errno::NOTCONN | Errno::CONNABORTED))
}
