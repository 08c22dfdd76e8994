//! What is known of a node without reading it.

use crate::namespace::{Ino, Node, NodeKind};

/// A node's attributes, from the manifest alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attr {
    /// Its number.
    pub ino: Ino,
    /// What it is.
    pub kind: AttrKind,
    /// Size in bytes.
    pub size: u64,
    /// When it last changed, in nanoseconds since 1970.
    pub modified: i64,
    /// Links to it: for a directory two and one for each directory in it.
    pub links: u32,
}

/// File or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttrKind {
    /// A directory.
    Directory,
    /// A regular file.
    File,
}

impl Attr {
    pub(super) fn of(ino: Ino, node: &Node) -> Self {
        let modified = node.modified;
        match &node.kind {
            NodeKind::Directory { subdirectories, .. } => {
                let links = subdirectories.saturating_add(2);
                Self { ino, kind: AttrKind::Directory, size: 4096, modified, links }
            }
            NodeKind::File { size, .. } => {
                // A file that is gone from the tree has no name left.
                let links = u32::from(node.is_shown());
                Self { ino, kind: AttrKind::File, size: *size, modified, links }
            }
        }
    }
}
