//! A small disk.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::text;

/// A file system in memory, mounted as long as this lives.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts one of so many megabytes on a directory that is there.
    pub fn mount(path: &Path, megabytes: u32) -> Self {
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs", text(path)]).status();
        assert!(mounted.unwrap().success());
        Self(path.to_owned())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    pub fn make_read_only(&self) {
        let remounted = Command::new("mount").args(["-o", "remount,ro", text(&self.0)]).status();
        assert!(remounted.unwrap().success());
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
