//! Looking and reading.

use std::sync::Arc;

use bytes::Bytes;

use super::attr::Attr;
use super::handles::{HandleId, Handles};
use super::{AttrKind, VfsError};
use crate::fetch::{Fetcher, ReaderThread};
use crate::metrics::MountCounters;
use crate::model::{ContentHash, DbRef, MAX_COMPONENT_BYTES, Revision};
use crate::namespace::{Ino, NodeKind, Tree};
use crate::remote::ContentKey;

/// A mounted revision of a database, read-only.
pub struct Vfs {
    database: DbRef,
    revision: Option<Revision>,
    published: i64,
    tree: Tree,
    fetcher: Arc<Fetcher>,
    handles: Handles,
    counters: Arc<MountCounters>,
}

impl Vfs {
    /// Shows `tree`, which is `revision` of `database`, published at `published` (nanoseconds since 1970).
    pub fn new(
        database: DbRef,
        revision: Option<Revision>,
        published: i64,
        tree: Tree,
        fetcher: Arc<Fetcher>,
        counters: Arc<MountCounters>,
    ) -> Self {
        Self { database, revision, published, tree, fetcher, handles: Handles::default(), counters }
    }

    /// A node's attributes.
    pub fn attr(&self, ino: Ino) -> Result<Attr, VfsError> {
        let node = self.tree.node(ino).ok_or(VfsError::NotFound)?;
        Ok(Attr::of(ino, node, self.published))
    }

    /// The attributes of `name` in `parent`. A name that is not UTF-8 is in no manifest.
    pub fn lookup(&self, parent: Ino, name: &std::ffi::OsStr) -> Result<Attr, VfsError> {
        let directory = self.tree.children(parent);
        directory.ok_or(if self.tree.node(parent).is_some() {
            VfsError::NotADirectory
        } else {
            VfsError::NotFound
        })?;
        if name.len() > MAX_COMPONENT_BYTES {
            return Err(VfsError::NameTooLong);
        }
        let ino = name.to_str().and_then(|name| self.tree.lookup(parent, name)).ok_or(VfsError::NotFound)?;
        self.attr(ino)
    }

    /// A directory's entries from position `from` on: position, name, attributes. Position 0 is `.`, 1 is `..`.
    pub fn list(&self, ino: Ino, from: u64) -> Result<impl Iterator<Item = (u64, &str, Attr)>, VfsError> {
        let node = self.tree.node(ino).ok_or(VfsError::NotFound)?;
        let children = self.tree.children(ino).ok_or(VfsError::NotADirectory)?;
        let entry = move |at: u64| -> Option<(u64, &str, Attr)> {
            let (name, ino) = match at {
                0 => (".", ino),
                1 => ("..", node.parent),
                _ => {
                    let ino = *children.get(usize::try_from(at - 2).ok()?)?;
                    (&*self.tree.node(ino)?.name, ino)
                }
            };
            Some((at, name, self.attr(ino).ok()?))
        };
        Ok((from..).map_while(entry))
    }

    /// Opens a file: from now on the handle reads this content and no other.
    pub fn open(&self, ino: Ino) -> Result<HandleId, VfsError> {
        let node = self.tree.node(ino).ok_or(VfsError::NotFound)?;
        let NodeKind::File { size, hash, .. } = &node.kind else { return Err(VfsError::IsADirectory) };
        let path = self.tree.path(ino).ok_or(VfsError::NotFound)?;
        if matches!(hash, ContentHash::Md5(_)) {
            return Err(VfsError::NotPinned);
        }
        let key = ContentKey { database: self.database.clone(), path, size: *size, hash: *hash };
        Ok(self.handles.insert(self.fetcher.open(&key)))
    }

    /// Reads what the cache has at once; `None` where something has to be fetched first.
    pub fn read_cached(
        &self,
        handle: HandleId,
        thread: ReaderThread,
        offset: u64,
        length: u64,
    ) -> Result<Option<Bytes>, VfsError> {
        let handle = self.handles.get(handle).ok_or(VfsError::BadHandle)?;
        Ok(handle.content.read_cached(thread, offset, length))
    }

    /// Reads, fetching what is missing: all bytes of the range inside the file, or an error.
    pub async fn read(
        &self,
        handle: HandleId,
        thread: ReaderThread,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, VfsError> {
        let handle = self.handles.get(handle).ok_or(VfsError::BadHandle)?;
        Ok(handle.content.read(thread, offset, length).await?)
    }

    /// Closes a handle.
    pub fn release(&self, handle: HandleId) {
        self.handles.remove(handle);
    }

    /// Files and directories, and bytes, in all.
    pub fn totals(&self) -> (u64, u64) {
        (self.tree.len() as u64, self.tree.total_bytes())
    }

    /// An extended attribute, which only the mount itself gives: `user.parquedb.stats` (counters, JSON),
    /// `user.parquedb.revision`, and `user.parquedb.sha256` of files.
    pub fn xattr(&self, ino: Ino, name: &str) -> Result<Option<String>, VfsError> {
        let attr = self.attr(ino)?;
        Ok(match (name, attr.kind) {
            ("user.parquedb.stats", _) => Some(self.counters.to_json()),
            ("user.parquedb.revision", _) => self.revision.map(|revision| revision.to_string()),
            ("user.parquedb.sha256", AttrKind::File) => match self.tree.node(ino).map(|node| &node.kind) {
                Some(NodeKind::File { hash, .. }) => hash.sha256().map(|hash| hash.to_string()),
                _ => None,
            },
            _ => None,
        })
    }
}
