//! Writing through handles. Nothing here waits for the network.

use std::sync::Arc;

use super::handles::{Handle, HandleId};
use super::{Vfs, VfsError};
use crate::model::ByteRange;
use crate::overlay::{Allocate, Durably, LocalFile, Overlay, Seek, Told};

/// Whether whoever writes may keep set-id bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SetIds {
    /// They stay.
    Keep,
    /// They are taken away.
    Drop,
}

impl Vfs {
    /// Runs `act` on an open file that may be written to.
    fn writing<T>(
        &self,
        handle: HandleId,
        act: impl FnOnce(&LocalFile, &Overlay) -> Result<T, VfsError>,
    ) -> Result<T, VfsError> {
        let handle = self.handles.get(handle).ok_or(VfsError::BadHandle)?;
        act(local(&handle)?, self.overlay()?)
    }

    /// Writes all the bytes; when this returns, they survive the daemon's death (rule 17).
    pub fn write(
        &self,
        handle: HandleId,
        offset: u64,
        bytes: &[u8],
        set_ids: SetIds,
    ) -> Result<(), VfsError> {
        self.writing(handle, |file, overlay| {
            file.write(overlay, offset, bytes)?;
            if set_ids == SetIds::Drop { self.drop_set_ids(file.node()) } else { Ok(()) }
        })
    }

    /// Makes a file durable, and says how it went. Waits for the disk, or leaves that to another thread that does.
    pub fn fsync(
        &self,
        handle: HandleId,
        what: Durably,
        told: impl FnOnce(Result<(), VfsError>) + Send + 'static,
    ) {
        let Some(handle) = self.handles.get(handle) else { return told(Err(VfsError::BadHandle)) };
        match (handle.local(), &self.overlay) {
            (Some(file), Some(overlay)) => overlay.fsync(file, what, telling(told)),
            // Of what is the remote's nothing can be lost here.
            _ => told(Ok(())),
        }
    }

    /// Makes names durable, in the same way.
    pub fn fsync_names(&self, told: impl FnOnce(Result<(), VfsError>) + Send + 'static) {
        match &self.overlay {
            Some(overlay) => overlay.commit_for(telling(told)),
            None => told(Ok(())),
        }
    }

    /// Allocates room, or makes a hole or zeros.
    pub fn allocate(&self, handle: HandleId, range: ByteRange, how: Allocate) -> Result<(), VfsError> {
        self.writing(handle, |file, overlay| Ok(file.allocate(overlay, range, how)?))
    }

    /// Finds data or a hole.
    pub fn seek(&self, handle: HandleId, from: Seek) -> Result<u64, VfsError> {
        let handle = self.handles.get(handle).ok_or(VfsError::BadHandle)?;
        if let (Some(file), Some(overlay)) = (handle.local(), &self.overlay) {
            return Ok(file.seek(overlay, from)?);
        }
        let size = handle.content.as_ref().ok_or(VfsError::BadHandle)?.size();
        match from {
            Seek::Data(offset) | Seek::Hole(offset) if offset >= size => {
                Err(VfsError::Local { errno: libc::ENXIO, reason: "beyond the end".into() })
            }
            Seek::Data(offset) => Ok(offset),
            Seek::Hole(_) => Ok(size),
        }
    }

    /// Copies bytes from one open file to another without reading them, where both are all local; how many.
    pub fn copy(&self, from: HandleId, range: ByteRange, to: HandleId, offset: u64) -> Result<u64, VfsError> {
        let source = self.handles.get(from).ok_or(VfsError::BadHandle)?;
        let Some(source) = source.local() else { return Err(VfsError::NotSupported) };
        self.writing(to, |file, overlay| Ok(file.copy_from(overlay, offset, source, range)?))
    }

    /// An open file's staged file, for the kernel to read and write by itself, if it is all of the content.
    pub fn staged(&self, handle: HandleId) -> Option<Arc<std::fs::File>> {
        let handle = self.handles.get(handle)?;
        let local = handle.local()?;
        // Who writes may have to lose set-id bits, and we must hear of it.
        let set_ids = libc::S_ISUID | libc::S_ISGID;
        let shown = self.read_shown();
        shown.tree.upper.node(local.node()).filter(|node| node.row.mode & set_ids == 0)?;
        local.backing()
    }
}

fn telling(told: impl FnOnce(Result<(), VfsError>) + Send + 'static) -> Told {
    Box::new(move |done| told(done.map_err(VfsError::from)))
}

fn local(handle: &Handle) -> Result<&Arc<LocalFile>, VfsError> {
    handle.local().ok_or(VfsError::BadHandle)
}
