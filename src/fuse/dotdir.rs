//! Answers about what lies in `.parquedb`. Any of it may wait for the remote, and none of it is read in a hurry: all is answered
//! from the runtime.

use std::ffi::OsStr;
use std::sync::Arc;

use fuser::{Errno, FileHandle, FopenFlags, ReplyAttr, ReplyData, ReplyEntry, ReplyOpen, ReplyXattr};

use super::answers::{entry, sized};
use super::attributes::{file_attr, remember};
use super::errno::errno;
use super::filesystem::MountedFs;
use super::gone::gone;
use super::modes::Purpose;
use super::opening::Asked;
use crate::dotdir::{DotDir, DotNode};
use crate::fetch::ReaderThread;
use crate::namespace::Ino;
use crate::vfs::{HandleId, Listed, Pid, Taken, Telling, VfsError};

impl MountedFs {
    /// Asks `.parquedb` something, and tells the kernel; or nobody, if he who wants to know is killed.
    fn ask<F>(&self, asker: u32, asking: impl FnOnce(Arc<DotDir>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let asked = asking(self.dotdir.clone());
        self.runtime.spawn(async move {
            tokio::select! {
                () = asked => {}
                // An answer that is dropped is an error to the kernel.
                () = gone(asker) => {}
            }
        });
    }

    pub(super) fn dot_lookup(&self, parent: DotNode, name: &OsStr, asker: Pid, reply: ReplyEntry) {
        let name = name.to_owned();
        self.ask(
            asker.0,
            |dotdir| async move { entry(reply, said(dotdir.lookup(parent, &name, asker).await)) },
        );
    }

    pub(super) fn dot_attr(&self, node: DotNode, asker: u32, reply: ReplyAttr) {
        self.ask(asker, |dotdir| async move {
            match said(dotdir.attr(node).await) {
                Ok(attr) => reply.attr(&remember(&attr), &file_attr(&attr)),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    pub(super) fn dot_open(&self, node: DotNode, asked: Asked, opener: Pid, reply: ReplyOpen) {
        if asked.purpose == Purpose::Write {
            return reply.error(Errno::EROFS);
        }
        self.ask(opener.0, |dotdir| async move {
            match said(dotdir.open(node, opener).await) {
                Ok((handle, keep)) => {
                    let flags = if keep { FopenFlags::FOPEN_KEEP_CACHE } else { FopenFlags::FOPEN_DIRECT_IO };
                    reply.opened(FileHandle(handle), flags | FopenFlags::FOPEN_NOFLUSH);
                }
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    pub(super) fn dot_read(
        &self,
        handle: u64,
        thread: ReaderThread,
        offset: u64,
        size: u32,
        reply: ReplyData,
    ) {
        self.ask(thread.0, |dotdir| async move {
            match said(dotdir.read(handle, thread, offset, u64::from(size)).await) {
                Ok(bytes) => reply.data(&bytes),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    pub(super) fn dot_open_directory(&self, node: DotNode, opener: Pid, reply: ReplyOpen) {
        self.ask(opener.0, |dotdir| async move {
            match said(dotdir.open_directory(node, opener).await) {
                Ok(handle) => reply.opened(FileHandle(handle), FopenFlags::empty()),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    pub(super) fn dot_xattr(&self, node: DotNode, asker: u32, name: &OsStr, size: u32, reply: ReplyXattr) {
        let name = name.to_owned();
        self.ask(asker, |dotdir| async move {
            match said(dotdir.xattr(node, &name).await) {
                Ok(Some(value)) => sized(reply, &value, size),
                Ok(None) => reply.error(Errno::NO_XATTR),
                Err(error) => reply.error(errno(&error)),
            }
        });
    }

    /// Lists a directory of the mount's, or one in `.parquedb`.
    pub(super) fn list(
        &self,
        ino: Ino,
        handle: u64,
        from: u64,
        telling: Telling,
        take: impl FnMut(Listed<'_>) -> Taken,
    ) -> Result<(), VfsError> {
        if ino.is_beside() {
            self.dotdir.list(handle, from, telling, take)
        } else {
            self.vfs.list(HandleId(handle), from, telling, take)
        }
    }
}

/// What fails for want of the remote is said in the log as well.
fn said<T>(asked: Result<T, VfsError>) -> Result<T, VfsError> {
    if let Err(error @ VfsError::Fetch(_)) = &asked {
        tracing::warn!(%error, "an earlier revision cannot be looked into");
    }
    asked
}
