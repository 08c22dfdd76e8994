//! What is known of a node without reading it.

use crate::namespace::{Ino, Merged, NodeKind, Place};
use crate::overlay::Overlay;
use crate::state::{Kind, NodeId};

use super::VfsError;

/// A node's attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: AttrKind,
    /// Size in bytes.
    pub size: u64,
    /// What it takes, in blocks of 512 bytes.
    pub blocks: u64,
    /// When it was read last, as far as anybody said, in nanoseconds since 1970.
    pub accessed: i64,
    /// When its content last changed.
    pub modified: i64,
    /// When anything of it last changed.
    pub changed: i64,
    /// Links to it: for a directory two and one for each directory in it.
    pub links: u32,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// A device's number.
    pub device: u32,
    /// It may change by writes that nobody tells us of.
    pub is_local: bool,
}

/// What a node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttrKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A symbolic link.
    Symlink,
    /// A fifo.
    Fifo,
    /// A socket.
    Socket,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
}

/// Whose the remote's files are here, and whether they may be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) writable: bool,
}

impl Owner {
    pub(super) fn file_mode(self) -> u16 {
        if self.writable { 0o644 } else { 0o444 }
    }

    pub(super) fn directory_mode(self) -> u16 {
        if self.writable { 0o755 } else { 0o555 }
    }

    /// The attributes of what a number stands for.
    pub(super) fn attr(self, merged: &Merged, ino: Ino, overlay: Option<&Overlay>) -> Result<Attr, VfsError> {
        match merged.resolve(ino).ok_or(VfsError::NotFound)? {
            Place::Base(_) => self.base_attr(merged, ino),
            Place::Local(id) => self.local_attr(merged, id, overlay),
        }
    }

    fn base_attr(self, merged: &Merged, ino: Ino) -> Result<Attr, VfsError> {
        let node = merged.base.node(ino).ok_or(VfsError::NotFound)?;
        let (kind, size, links, mode) = match &node.kind {
            NodeKind::Directory { .. } => {
                let links = merged.subdirectories(ino).saturating_add(2);
                (AttrKind::Directory, 4096, links, self.directory_mode())
            }
            // A file that is gone from the tree has no name left.
            NodeKind::File { size, .. } => {
                (AttrKind::File, *size, u32::from(node.is_shown()), self.file_mode())
            }
        };
        let (uid, gid, modified) = (self.uid, self.gid, node.modified);
        let blocks = size.div_ceil(512);
        let (accessed, changed) = (modified, modified);
        Ok(Attr {
            ino,
            kind,
            size,
            blocks,
            accessed,
            modified,
            changed,
            links,
            mode,
            uid,
            gid,
            device: 0,
            is_local: false,
        })
    }

    pub(super) fn local_attr(
        self,
        merged: &Merged,
        id: NodeId,
        overlay: Option<&Overlay>,
    ) -> Result<Attr, VfsError> {
        let node = merged.upper.node(id).ok_or(VfsError::NotFound)?;
        let row = &node.row;
        let ino = merged.ino(id);
        let names = u32::try_from(node.names.len()).unwrap_or(u32::MAX);
        let (kind, links, device) = match &row.kind {
            Kind::Directory if names == 0 && id != NodeId::ROOT => (AttrKind::Directory, 0, 0),
            Kind::Directory => (AttrKind::Directory, merged.subdirectories(ino).saturating_add(2), 0),
            Kind::File => (AttrKind::File, names, 0),
            Kind::Symlink(_) => (AttrKind::Symlink, names, 0),
            Kind::Special { kind, device } => {
                let kind = match *kind & libc::S_IFMT {
                    libc::S_IFIFO => AttrKind::Fifo,
                    libc::S_IFCHR => AttrKind::CharDevice,
                    libc::S_IFBLK => AttrKind::BlockDevice,
                    _ => AttrKind::Socket,
                };
                (kind, names, *device)
            }
        };
        let (mut size, mut blocks) = match &row.kind {
            Kind::Directory => (4096, 8),
            Kind::Symlink(target) => (target.len() as u64, 0),
            _ => (0, 0),
        };
        let (mut modified, mut changed) = (row.modified, row.changed);
        if let (Some(file), Some(overlay)) = (&node.file, overlay) {
            let state = file.state(overlay)?;
            (size, blocks) = (state.size, state.blocks);
            if let Some((file_modified, file_changed)) = state.times {
                modified = file_modified;
                changed = changed.max(file_changed);
            }
        }
        // A directory that nobody made shows when the remote last changed it, unless it changed here later.
        if !row.touched
            && let Some(base) = merged.base_directory(ino).and_then(|base| merged.base.node(base))
        {
            modified = modified.max(base.modified);
            changed = changed.max(base.modified);
        }
        // Twelve bits.
        let mode = (row.mode & 0o7777) as u16;
        let (uid, gid, accessed) = (row.uid, row.gid, row.accessed);
        Ok(Attr {
            ino,
            kind,
            size,
            blocks,
            accessed,
            modified,
            changed,
            links,
            mode,
            uid,
            gid,
            device,
            is_local: true,
        })
    }
}
