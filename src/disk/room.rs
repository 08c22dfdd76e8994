//! How much room a disk has, for those who must leave some of it free.

use std::io;
use std::path::Path;

/// Bytes that the disk of `dir` still has, and its size.
pub(crate) fn room(dir: &Path) -> io::Result<(u64, u64)> {
    let disk = rustix::fs::statvfs(dir)?;
    Ok((disk.f_bavail.saturating_mul(disk.f_frsize), disk.f_blocks.saturating_mul(disk.f_frsize)))
}
