//! Attributes as the kernel has them.

use std::time::{Duration, SystemTime};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};

use crate::vfs::{Attr, AttrKind};

/// The kernel may remember names and attributes: it is told when they change.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// But a local file may be written through a mapping, of which nobody is told.
const REMEMBER_LOCAL: Duration = Duration::from_secs(1);

pub(super) const BLOCK_SIZE: u32 = 4096;

/// How long the kernel may remember.
pub(super) fn remember(attr: &Attr) -> Duration {
    if attr.is_local && attr.kind == AttrKind::File { REMEMBER_LOCAL } else { REMEMBER }
}

/// How long the kernel may remember that there is nothing of a name.
pub(super) fn remember_absent() -> Duration {
    REMEMBER
}

/// As the kernel has it.
pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    let modified = system_time(attr.modified);
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: system_time(attr.accessed),
        mtime: modified,
        ctime: system_time(attr.changed),
        crtime: modified,
        kind: kind(attr.kind),
        perm: attr.mode,
        nlink: attr.links,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.device,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

/// Inode 0 lets the kernel remember that there is nothing of that name.
pub(super) fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: SystemTime::UNIX_EPOCH,
        mtime: SystemTime::UNIX_EPOCH,
        ctime: SystemTime::UNIX_EPOCH,
        crtime: SystemTime::UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLOCK_SIZE,
        flags: 0,
    }
}

pub(super) fn kind(kind: AttrKind) -> FileType {
    match kind {
        AttrKind::Directory => FileType::Directory,
        AttrKind::File => FileType::RegularFile,
        AttrKind::Symlink => FileType::Symlink,
        AttrKind::Fifo => FileType::NamedPipe,
        AttrKind::Socket => FileType::Socket,
        AttrKind::CharDevice => FileType::CharDevice,
        AttrKind::BlockDevice => FileType::BlockDevice,
    }
}

fn system_time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let time = if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

/// A time in nanoseconds since 1970; `None` is now.
pub(super) fn nanoseconds(time: TimeOrNow) -> i64 {
    let time = match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    };
    match time.duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(i64::MAX),
        Err(before) => i64::try_from(before.duration().as_nanos()).map_or(i64::MIN, |before| -before),
    }
}
