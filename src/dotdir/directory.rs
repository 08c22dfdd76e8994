//! What lies in `.parquedb`, and what can be asked of it. All of it may wait for the remote.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::numbers::DotNode;
use super::revisions::{History, Revisions};
use crate::fetch::ReaderThread;
use crate::model::Revision;
use crate::namespace::Ino;
use crate::overlay::Seek;
use crate::vfs::{Attr, AttrKind, HandleId, Listed, Pid, Taken, Telling, Vfs, VfsError};

const STATUS: &str = "status.json";
const CONFLICTS: &str = "conflicts";
const REVISIONS: &str = "revisions";

/// What `.parquedb` shows.
pub struct DotDirOptions {
    /// How things stand, as JSON; asked each time somebody opens `status.json`.
    pub status: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    /// Where versions that have lost a conflict are kept, if there is such a place.
    pub conflicts: Option<PathBuf>,
    /// Earlier revisions, where the remote has them.
    pub history: Option<Box<dyn History>>,
}

/// The directory `.parquedb` of a mount.
pub struct DotDir {
    status: Box<dyn Fn() -> Vec<u8> + Send + Sync>,
    conflicts: Option<PathBuf>,
    revisions: Option<Revisions>,
    /// In nanoseconds since 1970.
    mounted: i64,
    handles: Mutex<HashMap<u64, Open>>,
    next: AtomicU64,
}

/// An open file or directory.
#[derive(Clone)]
enum Open {
    Bytes(Bytes),
    Listing(Arc<[Entry]>),
    Past(Revision, Arc<Vfs>, HandleId),
}

/// A name in one of the directories that are no revision's.
struct Entry {
    name: OsString,
    attr: Attr,
}

impl DotDir {
    /// What a mount shows as `.parquedb`; `mounted` is the time of its files.
    pub fn new(options: DotDirOptions, mounted: i64) -> Self {
        let DotDirOptions { status, conflicts, history } = options;
        Self {
            status,
            conflicts,
            revisions: history.map(Revisions::new),
            mounted,
            handles: Mutex::default(),
            next: AtomicU64::new(0),
        }
    }

    /// The attributes of `.parquedb` itself.
    pub fn root(&self) -> Attr {
        self.own(DotNode::Root, AttrKind::Directory, 0o555, 4096, self.mounted)
    }

    fn own(&self, node: DotNode, kind: AttrKind, mode: u16, size: u64, time: i64) -> Attr {
        Attr {
            ino: node.ino(),
            kind,
            size,
            blocks: size.div_ceil(512),
            accessed: time,
            modified: time,
            changed: time,
            // Of a directory: nobody knows how many are in it, and nobody may count on it.
            links: 1,
            mode,
            uid: rustix::process::getuid().as_raw(),
            gid: rustix::process::getgid().as_raw(),
            device: 0,
            is_local: true,
        }
    }

    fn revisions(&self) -> Result<&Revisions, VfsError> {
        self.revisions.as_ref().ok_or(VfsError::NotFound)
    }

    /// The attributes of something in it.
    pub async fn attr(&self, node: DotNode) -> Result<Attr, VfsError> {
        match node {
            DotNode::Root => Ok(self.root()),
            DotNode::Status => {
                let size = (self.status)().len() as u64;
                Ok(self.own(node, AttrKind::File, 0o444, size, self.mounted))
            }
            DotNode::Conflicts => {
                let target = self.conflicts.as_ref().ok_or(VfsError::NotFound)?;
                let size = target.as_os_str().len() as u64;
                Ok(self.own(node, AttrKind::Symlink, 0o777, size, self.mounted))
            }
            DotNode::Revisions => {
                self.revisions()?;
                Ok(self.own(node, AttrKind::Directory, 0o555, 4096, self.mounted))
            }
            DotNode::Past(revision, Ino::ROOT) => {
                // To list revisions with their dates is not to look into each.
                if let Some(known) = self.revisions()?.known(revision) {
                    return Ok(self.own(node, AttrKind::Directory, 0o555, 4096, known.published));
                }
                let attr = self.revisions()?.look_into(revision).await?.attr(Ino::ROOT)?;
                Ok(self.own(node, AttrKind::Directory, 0o555, 4096, attr.modified))
            }
            DotNode::Past(revision, ino) => {
                Ok(outward(revision, self.revisions()?.look_into(revision).await?.attr(ino)?))
            }
        }
    }

    /// What a name leads to.
    pub async fn lookup(&self, parent: DotNode, name: &OsStr, asker: Pid) -> Result<Attr, VfsError> {
        match parent {
            DotNode::Root => {
                let named = self.names().find(|(known, _)| *known == name);
                self.attr(named.ok_or(VfsError::NotFound)?.1).await
            }
            DotNode::Status | DotNode::Conflicts => Err(VfsError::NotADirectory),
            DotNode::Revisions => {
                // `01` is no name of revision 1.
                let number =
                    name.to_str().and_then(|name| name.parse().ok().filter(|n: &u64| n.to_string() == name));
                let node = number.and_then(|number| DotNode::of_revision(Revision(number)));
                self.attr(node.ok_or(VfsError::NotFound)?).await
            }
            DotNode::Past(revision, ino) => {
                let vfs = self.revisions()?.look_into(revision).await?;
                Ok(outward(revision, vfs.lookup(ino, name, asker)?))
            }
        }
    }

    fn names(&self) -> impl Iterator<Item = (&'static str, DotNode)> {
        let conflicts = self.conflicts.as_ref().map(|_| (CONFLICTS, DotNode::Conflicts));
        let revisions = self.revisions.as_ref().map(|_| (REVISIONS, DotNode::Revisions));
        [Some((STATUS, DotNode::Status)), conflicts, revisions].into_iter().flatten()
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, node: DotNode) -> Result<Vec<u8>, VfsError> {
        match (node, &self.conflicts) {
            (DotNode::Conflicts, Some(target)) => Ok(target.as_os_str().as_bytes().to_vec()),
            _ => Err(VfsError::Invalid),
        }
    }

    /// Opens a file for reading; whether the kernel may keep what it reads.
    pub async fn open(&self, node: DotNode, opener: Pid) -> Result<(u64, bool), VfsError> {
        match node {
            DotNode::Status => Ok((self.insert(Open::Bytes((self.status)().into())), false)),
            DotNode::Past(revision, ino) => {
                let vfs = self.revisions()?.look_into(revision).await?;
                let opened = vfs.open(ino, opener)?;
                let verified = vfs.is_verified(opened.handle);
                Ok((self.insert(Open::Past(revision, vfs, opened.handle)), verified))
            }
            DotNode::Root | DotNode::Revisions => Err(VfsError::IsADirectory),
            DotNode::Conflicts => Err(VfsError::Invalid),
        }
    }

    fn insert(&self, open: Open) -> u64 {
        // Of the numbers that the mount's own handles do not have.
        let id = Ino::BESIDE | self.next.fetch_add(1, Ordering::Relaxed);
        self.handles().insert(id, open);
        id
    }

    fn handles(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Open>> {
        self.handles.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn handle(&self, id: u64) -> Result<Open, VfsError> {
        self.handles().get(&id).cloned().ok_or(VfsError::BadHandle)
    }

    /// Reads from an open file.
    pub async fn read(
        &self,
        handle: u64,
        thread: ReaderThread,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, VfsError> {
        match self.handle(handle)? {
            Open::Bytes(bytes) => {
                let end = offset.saturating_add(length).min(bytes.len() as u64);
                let start = offset.min(end);
                // Within the bytes, which are in memory.
                Ok(bytes.slice(start as usize..end as usize))
            }
            Open::Past(_, vfs, handle) => match vfs.read_cached(handle, thread, offset, length)? {
                Some(bytes) => Ok(bytes),
                None => vfs.read(handle, thread, offset, length).await,
            },
            Open::Listing(_) => Err(VfsError::IsADirectory),
        }
    }

    /// Opens a directory.
    pub async fn open_directory(&self, node: DotNode, opener: Pid) -> Result<u64, VfsError> {
        let entry = |name: &str, attr: Attr| Entry { name: name.into(), attr };
        match node {
            DotNode::Root => {
                let mut entries = vec![entry(".", self.root()), entry("..", self.root())];
                for (name, node) in self.names() {
                    entries.push(entry(name, self.attr(node).await?));
                }
                Ok(self.insert(Open::Listing(entries.into())))
            }
            DotNode::Revisions => {
                let listed = self.revisions()?.list().await?;
                let own = self.attr(node).await?;
                let mut entries = vec![entry(".", own), entry("..", self.root())];
                for known in listed.iter() {
                    let Some(node) = DotNode::of_revision(known.revision) else { continue };
                    let attr = self.own(node, AttrKind::Directory, 0o555, 4096, known.published);
                    entries.push(entry(&known.revision.to_string(), attr));
                }
                Ok(self.insert(Open::Listing(entries.into())))
            }
            DotNode::Past(revision, ino) => {
                let vfs = self.revisions()?.look_into(revision).await?;
                let (handle, _) = vfs.open_directory(ino, opener)?;
                Ok(self.insert(Open::Past(revision, vfs, handle)))
            }
            DotNode::Status | DotNode::Conflicts => Err(VfsError::NotADirectory),
        }
    }

    /// An open directory's entries from a position on, as long as `take` wants more.
    pub fn list(
        &self,
        handle: u64,
        from: u64,
        telling: Telling,
        mut take: impl FnMut(Listed<'_>) -> Taken,
    ) -> Result<(), VfsError> {
        match self.handle(handle)? {
            Open::Listing(entries) => {
                let skipped = usize::try_from(from).unwrap_or(usize::MAX);
                for (entry, next) in entries.iter().skip(skipped).zip(from + 1..) {
                    let Entry { name, attr } = entry;
                    if take(Listed { next, name, attr: *attr, gone: false }) == Taken::Full {
                        break;
                    }
                }
                Ok(())
            }
            Open::Past(revision, vfs, handle) => vfs.list(handle, from, telling, |listed| {
                take(Listed { attr: outward(revision, listed.attr), ..listed })
            }),
            Open::Bytes(_) => Err(VfsError::NotADirectory),
        }
    }

    /// Closes a file.
    pub fn release(&self, handle: u64) {
        if let Some(Open::Past(_, vfs, handle)) = self.handles().remove(&handle) {
            vfs.release(handle);
        }
    }

    /// Closes a directory.
    pub fn close_directory(&self, handle: u64) {
        if let Some(Open::Past(_, vfs, handle)) = self.handles().remove(&handle) {
            vfs.close_directory(handle);
        }
    }

    /// An extended attribute; only files of revisions have some.
    pub async fn xattr(&self, node: DotNode, name: &OsStr) -> Result<Option<Vec<u8>>, VfsError> {
        let DotNode::Past(revision, ino) = node else { return Ok(None) };
        self.revisions()?.look_into(revision).await?.xattr(ino, name)
    }

    /// Where an open file has data, or a hole.
    pub fn seek(&self, handle: u64, from: Seek) -> Result<u64, VfsError> {
        match self.handle(handle)? {
            Open::Past(_, vfs, handle) => vfs.seek(handle, from),
            _ => Err(VfsError::Invalid),
        }
    }

    /// Lets go of what nobody has looked at for a while.
    pub fn sweep(&self) {
        self.revisions.iter().for_each(Revisions::sweep);
    }
}

/// What a revision says of a file, as the mount says it.
fn outward(revision: Revision, attr: Attr) -> Attr {
    let links = if attr.kind == AttrKind::Directory { 1 } else { attr.links };
    Attr { ino: DotNode::Past(revision, attr.ino).ino(), links, ..attr }
}
