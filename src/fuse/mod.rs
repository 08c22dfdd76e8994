//! The kernel's door: FUSE requests into [`Vfs`](crate::vfs::Vfs) calls and back. Only translation lives here,
//! and `fuser`'s types do not leave it.

mod agreed;
mod answers;
mod attributes;
mod dotdir;
mod errno;
mod filesystem;
mod flags;
mod gone;
mod invalidate;
mod kept;
mod modes;
mod opening;
mod options;
mod reading;
mod session;

pub use invalidate::Invalidator;
pub use modes::Passthrough;
pub use options::{MountFlag, UnknownMountFlag};
pub use session::{
    MountedSession, SessionOptions, UnmountError, clear_dead_mount, is_dead, mounted_type,
    mountpoints_of_ours, unmount,
};
