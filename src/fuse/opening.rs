//! Opening a file: how the kernel is to read and write it is decided here, and kept until its last handle is closed.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::sync::Arc;

use fuser::{BackingId, Errno, FileHandle, FopenFlags, Generation, ReplyCreate};

use super::answers::said;
use super::attributes::{file_attr, remember};
use super::filesystem::MountedFs;
use super::kept::By;
use super::modes::{Handed, Purpose, ReadsCached, Through};
use crate::namespace::Ino;
use crate::vfs::{Create, HandleId, Locality, Maker, Opened, Pid, VfsError};

/// What the kernel is told about a handle.
pub(super) struct Answer {
    pub(super) handle: HandleId,
    pub(super) flags: FopenFlags,
    pub(super) through: Option<Arc<Through>>,
}

/// A handle as a program asked for it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked {
    pub(super) purpose: Purpose,
    /// Past the kernel's pages: it would meet the disk's alignment in a file handed over.
    pub(super) unbuffered: bool,
    /// Each write is to be durable, and we must hear of it: its name is to be as well.
    pub(super) synced: bool,
}

impl Asked {
    pub(super) fn of(flags: i32) -> Self {
        let purpose = if flags & libc::O_ACCMODE == libc::O_RDONLY { Purpose::Read } else { Purpose::Write };
        let synced = flags & (libc::O_SYNC | libc::O_DSYNC) != 0 && purpose == Purpose::Write;
        Self { purpose, unbuffered: flags & libc::O_DIRECT != 0, synced }
    }
}

impl MountedFs {
    /// Opens a file that is there.
    pub(super) fn open_file(
        &self,
        ino: Ino,
        asked: Asked,
        opener: Pid,
        open_backing: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Result<Answer, VfsError> {
        let opened = match asked.purpose {
            Purpose::Read => self.vfs.open(ino, opener)?,
            Purpose::Write => {
                if self.modes.reads_cached(ino) || self.kept.is_being_stored(ino) {
                    return self.look_again(ino);
                }
                self.vfs.open_to_write(ino, opener)?
            }
        };
        // Since it was asked a moment ago, somebody may have begun to read what the file was.
        let is_being_stored = asked.purpose == Purpose::Write && self.kept.is_being_stored(ino);
        let decided =
            if is_being_stored { Err(ReadsCached) } else { self.decide(ino, opened, asked, open_backing) };
        decided.or_else(|ReadsCached| {
            self.vfs.release(opened.handle);
            self.look_again(ino)
        })
    }

    /// Whoever reads the file by itself keeps what it was; who writes finds another number by its name.
    pub(super) fn look_again<T>(&self, ino: Ino) -> Result<T, VfsError> {
        self.vfs.part_from_readers(ino).and(Err(VfsError::LookAgain))
    }

    /// Decides how the kernel reads and writes through a new handle.
    pub(super) fn decide(
        &self,
        ino: Ino,
        opened: Opened,
        asked: Asked,
        open_backing: impl FnOnce(&File) -> io::Result<BackingId>,
    ) -> Result<Answer, ReadsCached> {
        let Opened { handle, locality } = opened;
        let writes = asked.purpose == Purpose::Write;
        let file = || match locality {
            _ if asked.unbuffered || asked.synced => None,
            Locality::Local => self.vfs.staged(handle).map(Handed::Staged),
            Locality::Partly if writes => None,
            Locality::Partly | Locality::Remote if self.kept.is_stored(ino) => None,
            Locality::Partly | Locality::Remote => self.vfs.hand_out(handle).map(Handed::Cached),
        };
        let through = self.modes.open(ino, asked.purpose, open_backing, file)?;
        if through.is_some() {
            if locality != Locality::Local {
                self.kept.opened(ino, By::Passthrough);
            }
            // What was written is with the disk's own file: there is nothing to be flushed to us.
            return Ok(Answer { handle, flags: FopenFlags::FOPEN_NOFLUSH, through });
        }
        let flags = match locality {
            // The kernel's pages are right: all that is written passes through them.
            Locality::Local => FopenFlags::FOPEN_KEEP_CACHE,
            // An inode has one content until somebody here writes to it.
            Locality::Partly | Locality::Remote if !writes && self.vfs.is_verified(handle) => {
                if !asked.unbuffered && locality == Locality::Remote {
                    self.kept.opened(ino, By::Kept);
                }
                FopenFlags::FOPEN_KEEP_CACHE
            }
            Locality::Partly | Locality::Remote => FopenFlags::FOPEN_DIRECT_IO,
        };
        // A mapping's pages come to us when it is closed.
        let flushes = if writes { FopenFlags::empty() } else { FopenFlags::FOPEN_NOFLUSH };
        Ok(Answer { handle, flags: flags | flushes, through: None })
    }

    /// Makes a file and opens it.
    pub(super) fn create_file(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        flags: i32,
        maker: Maker,
        reply: ReplyCreate,
    ) {
        let how = match (flags & libc::O_EXCL, flags & libc::O_TRUNC) {
            (0, 0) => Create::Open,
            (0, _) => Create::Empty,
            _ => Create::New,
        };
        let (attr, opened) = match self.vfs.create(parent, name, mode, how, maker) {
            Ok(created) => created,
            Err(error) => return reply.error(said(&error)),
        };
        let (remember, file) = (remember(&attr), file_attr(&attr));
        let asked = Asked::of(flags);
        match self.decide(attr.ino, opened, asked, |file| reply.open_backing(file)) {
            Ok(Answer { handle, flags, through: Some(through) }) => {
                let handle = FileHandle(handle.0);
                reply.created_passthrough(&remember, &file, Generation(0), handle, flags, &through.backing);
            }
            Ok(Answer { handle, flags, through: None }) => {
                reply.created(&remember, &file, Generation(0), FileHandle(handle.0), flags);
            }
            Err(_) => {
                self.vfs.release(opened.handle);
                self.vfs.forget(attr.ino, 1);
                reply.error(Errno::ESTALE);
            }
        }
    }
}
