//! Flags that the kernel passes on, in the mount's words; none for those that nobody here knows.

use fuser::RenameFlags;

use crate::overlay::Allocate;
use crate::vfs::Rename;

/// What a rename does about a name that is taken.
pub(super) fn rename_of(flags: RenameFlags) -> Option<Rename> {
    match flags {
        _ if flags.is_empty() => Some(Rename::Replace),
        RenameFlags::RENAME_NOREPLACE => Some(Rename::NoReplace),
        RenameFlags::RENAME_EXCHANGE => Some(Rename::Exchange),
        _ => None,
    }
}

/// What `fallocate` is to do.
pub(super) fn allocation(mode: i32) -> Option<Allocate> {
    let keep_size = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
    match mode & !libc::FALLOC_FL_KEEP_SIZE {
        0 => Some(Allocate::Room { keep_size }),
        libc::FALLOC_FL_PUNCH_HOLE => Some(Allocate::Hole),
        libc::FALLOC_FL_ZERO_RANGE => Some(Allocate::Zeros { keep_size }),
        _ => None,
    }
}
