//! What is local and not published, as people and programs want to know it: from memory, or from the disk of a replica
//! whether a daemon has it or not.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use super::OverlayError;
use super::asked::Extent;
use super::staged::StagedFiles;
use super::upper::{Upper, UpperNode};
use crate::manifest::stays_put;
use crate::model::{ByteRange, ContentHash, DbPath};
use crate::state::{Boot, Content, Journal, Kind, NodeId, Rows};

/// One local change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The path, which need not be text.
    pub path: OsString,
    /// What is local about it.
    pub what: Changed,
}

/// What is local about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Changed {
    /// A file that the remote did not have when it was made.
    Created {
        /// Its size in bytes.
        size: u64,
    },
    /// A file of the remote's with other bytes.
    Edited {
        /// Its size in bytes.
        size: u64,
        /// Which bytes are local; nothing where all are.
        ranges: Option<Vec<ByteRange>>,
        /// Where the remote has it, if it was moved.
        from: Option<DbPath>,
        /// Some of its bytes are only with the remote.
        depends_on_remote: bool,
    },
    /// A file of the remote's with another name.
    Renamed {
        /// The name it has with the remote.
        from: DbPath,
        /// Its size in bytes.
        size: u64,
    },
    /// A file of the remote's that was removed.
    Deleted,
    /// What the manifest has no room for: it is here, and stays here (rule 22).
    HereOnly(HereOnly),
}

/// What never travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HereOnly {
    /// Permissions, an owner, times, extended attributes.
    Attributes,
    /// A directory in which there is nothing.
    EmptyDirectory,
    /// A symbolic link.
    Symlink,
    /// A fifo, socket or device.
    Special,
    /// A file with a name that no manifest can have.
    Name,
    /// Something with a protected name (rule 11).
    Protected,
}

impl Changed {
    /// Whether it is to be published.
    pub fn travels(&self) -> bool {
        !matches!(self, Self::HereOnly(_))
    }

    /// The same of what has a protected name.
    fn here_only(self) -> Self {
        if self.travels() { Self::HereOnly(HereOnly::Protected) } else { self }
    }
}

impl Upper {
    /// All local changes, by path. `size`: how long a file is that is all local.
    pub fn pending(&self, size: impl Fn(&UpperNode) -> u64) -> Vec<Pending> {
        let mut pending = Vec::new();
        let mut moved = HashSet::new();
        for (_, node) in self.nodes().filter(|(id, _)| *id != NodeId::ROOT) {
            for (parent, name) in &node.names {
                let Some(mut path) = self.path(*parent).map(|above| above.join(OsStr::new("/"))) else {
                    continue;
                };
                if !path.is_empty() {
                    path.push("/");
                }
                path.push(name);
                let known = path.to_str().and_then(|path| DbPath::parse(path).ok());
                if let Some(what) = self.change_of(node, known.as_ref(), &size) {
                    let what = if known.as_ref().is_some_and(stays_put) { what.here_only() } else { what };
                    if let Changed::Renamed { from, .. } | Changed::Edited { from: Some(from), .. } = &what {
                        moved.insert(from.clone());
                    }
                    pending.push(Pending { path, what });
                }
            }
        }
        for entry in self.covers() {
            if !self.is_named(&entry.path) && !moved.contains(&entry.path) {
                let stays = stays_put(&entry.path);
                let what = if stays { Changed::HereOnly(HereOnly::Protected) } else { Changed::Deleted };
                pending.push(Pending { path: entry.path.as_str().into(), what });
            }
        }
        pending.sort_by(|a, b| a.path.cmp(&b.path));
        pending
    }

    fn change_of(
        &self,
        node: &UpperNode,
        path: Option<&DbPath>,
        size: &impl Fn(&UpperNode) -> u64,
    ) -> Option<Changed> {
        let file = match &node.row.kind {
            Kind::File => node.file.as_ref()?,
            Kind::Symlink(_) => return Some(Changed::HereOnly(HereOnly::Symlink)),
            Kind::Special { .. } => return Some(Changed::HereOnly(HereOnly::Special)),
            Kind::Directory => {
                let empty = node.row.touched && node.children.is_empty();
                return empty.then_some(Changed::HereOnly(HereOnly::EmptyDirectory));
            }
        };
        let Some(path) = path else { return Some(Changed::HereOnly(HereOnly::Name)) };
        let is_below = |size: u64, hash: ContentHash| {
            self.cover(path).is_some_and(|entry| (entry.size, entry.hash) == (size, hash))
        };
        match file.content() {
            Content::Base(base) if base.path == *path || is_below(base.size, base.hash) => {
                node.row.touched.then_some(Changed::HereOnly(HereOnly::Attributes))
            }
            // Published; its bytes are here for as long as somebody reads them.
            Content::Staged { under: None, .. }
                if file.digest().is_some_and(|digest| is_below(digest.size, digest.hash.into())) =>
            {
                node.row.touched.then_some(Changed::HereOnly(HereOnly::Attributes))
            }
            Content::Base(base) => Some(Changed::Renamed { from: base.path, size: base.size }),
            Content::Staged { under: Some(under), .. } => {
                let ranges = match file.extent() {
                    Extent::Ranges(ranges) => Some(ranges),
                    Extent::None | Extent::All => None,
                };
                Some(Changed::Edited {
                    size: under.size,
                    ranges,
                    from: (under.base.path != *path).then_some(under.base.path),
                    depends_on_remote: file.missing(0).is_some(),
                })
            }
            Content::Staged { under: None, .. } if self.cover(path).is_some() => {
                Some(Changed::Edited { size: size(node), ranges: None, from: None, depends_on_remote: false })
            }
            Content::Staged { under: None, .. } => Some(Changed::Created { size: size(node) }),
        }
    }

    fn is_named(&self, path: &DbPath) -> bool {
        let found = path.components().try_fold(NodeId::ROOT, |at, name| self.child(at, OsStr::new(name)));
        found.and_then(|id| self.node(id)).is_some_and(|node| node.file.is_some())
    }
}

/// Looks at a replica's state without taking it: a daemon may be writing to it.
pub fn pending_at(dir: &Path) -> Result<Vec<Pending>, OverlayError> {
    let boot = Boot::current()?;
    let staged = StagedFiles::at(dir);
    let mut rows = Rows::open_read_only(dir)?;
    loop {
        let stored = rows.load()?;
        let committed = stored.committed;
        let mut upper = Upper::load(stored);
        for (_, changes) in Journal::read(dir, &boot, committed)? {
            changes.iter().for_each(|change| upper.apply(change));
        }
        // What was committed meanwhile may have been in a part of the journal that is written over by now.
        if rows.committed()? == committed {
            let length = |node: &UpperNode| {
                let file = node.file.as_ref().and_then(|file| file.staged());
                file.and_then(|file| std::fs::metadata(staged.path(file)).ok()).map_or(0, |found| found.len())
            };
            return Ok(upper.pending(length));
        }
    }
}
