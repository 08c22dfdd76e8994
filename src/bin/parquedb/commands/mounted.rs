//! Whether a path lies in a mount of ours: a mount syncs itself, and a directory's commands keep their hands off it.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use parquedb_mount::fuse::{is_dead, mountpoints_of_ours};

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
        Self::of(&without_links(path)?, &mountpoints_of_ours().ok()?)
    }

    /// The same of a path without links, among these mounts.
    fn of(full: &Path, mounts: &[PathBuf]) -> Option<Self> {
        let mountpoint = full.ancestors().find(|above| mounts.iter().any(|mount| mount == above))?;
        let inside = full.strip_prefix(mountpoint).ok()?.to_owned();
        Some(Self { mountpoint: mountpoint.to_owned(), inside })
    }

    /// The same, if the path is where that is mounted.
    pub fn at(path: &Path) -> Option<Self> {
        Self::around(path).filter(|mount| mount.inside.as_os_str().is_empty())
    }

    /// Whether its daemon is gone.
    pub fn is_dead(&self) -> bool {
        is_dead(&self.mountpoint)
    }
}

/// A path as the kernel goes it, as far as there is something.
fn without_links(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    let mut rest: Vec<&OsStr> = Vec::new();
    let mut above = path.as_path();
    loop {
        if let Ok(mut full) = above.canonicalize() {
            full.extend(rest.iter().rev());
            return Some(full);
        }
        rest.push(above.components().next_back()?.as_os_str());
        above = above.parent()?;
    }
}

/// Refuses a directory in a mount, or with one in it, for what keeps books of its own in it.
pub fn refuse_in_mount(directory: &Path) -> Result<(), Failure> {
    let shown = directory.display();
    let (Some(full), Ok(mounts)) = (without_links(directory), mountpoints_of_ours()) else { return Ok(()) };
    if let Some(InMount { mountpoint, .. }) = InMount::of(&full, &mounts) {
        return Err(Failure::usage(format!(
            "'{shown}' is in a mount, which syncs itself: 'parquedb ctl sync {}' publishes what was changed there",
            mountpoint.display()
        )));
    }
    match mounts.iter().find(|mount| mount.starts_with(&full)) {
        Some(below) => Err(Failure::usage(format!(
            "'{shown}' has a mount in it, {}, which syncs itself: unmount it, or name another directory",
            below.display()
        ))),
        None => Ok(()),
    }
}
