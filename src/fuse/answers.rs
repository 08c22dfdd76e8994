//! Answers that many requests have in common.

use fuser::{Errno, Generation, ReplyEmpty, ReplyEntry, ReplyXattr};

use super::attributes::{file_attr, remember};
use super::errno::errno;
use crate::vfs::{Attr, Taken, VfsError};

pub(super) fn taken(full: bool) -> Taken {
    if full { Taken::Full } else { Taken::Yes }
}

pub(super) fn entry(reply: ReplyEntry, made: Result<Attr, VfsError>) {
    match made {
        Ok(attr) => reply.entry(&remember(&attr), &file_attr(&attr), Generation(0)),
        Err(error) => reply.error(said(&error)),
    }
}

pub(super) fn empty(reply: ReplyEmpty, done: Result<(), VfsError>) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(said(&error)),
    }
}

/// The error's number; what the disk of local changes says is said in the log as well.
pub(super) fn said(error: &VfsError) -> Errno {
    if let VfsError::Local { reason, .. } = error {
        tracing::warn!(reason, "a local change failed");
    }
    errno(error)
}

/// Bytes as an attribute's value or list of names, or their number if there is no room asked for.
pub(super) fn sized(reply: ReplyXattr, value: &[u8], size: u32) {
    match (u32::try_from(value.len()), size) {
        (Ok(length), 0) => reply.size(length),
        (Ok(length), size) if length <= size => reply.data(value),
        _ => reply.error(Errno::ERANGE),
    }
}
