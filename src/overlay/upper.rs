//! The upper layer: what is local, in memory. It changes by [`Change`]s and in no other way, whether they come from a
//! program or from the disk after a start.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use super::local_file::LocalFile;
use super::overlay::implied_directory;
use crate::model::DbPath;
use crate::state::{BaseEntry, Change, Content, Kind, NodeId, NodeRow, Stored};

/// All that is local.
#[derive(Debug, Default)]
pub struct Upper {
    nodes: HashMap<NodeId, UpperNode>,
    covers: HashMap<DbPath, BaseEntry>,
}

/// A local file, directory or other thing.
#[derive(Debug)]
pub struct UpperNode {
    /// Its attributes.
    pub row: NodeRow,
    /// Its names: directory and name.
    pub names: Vec<(NodeId, OsString)>,
    /// What lies in it.
    pub children: BTreeMap<OsString, NodeId>,
    /// How many of them are directories.
    pub subdirectories: u32,
    /// Extended attributes.
    pub xattrs: BTreeMap<OsString, Vec<u8>>,
    /// A file's bytes.
    pub file: Option<Arc<LocalFile>>,
    /// How often the kernel was told of it and has not forgotten it.
    known: AtomicU64,
    /// Handles that are open on it.
    open: AtomicU32,
    /// The number of the flip that brought what it shows, if one of this life did.
    brought: AtomicU32,
}

impl UpperNode {
    fn new(row: NodeRow) -> Self {
        Self {
            row,
            names: Vec::new(),
            children: BTreeMap::new(),
            subdirectories: 0,
            xattrs: BTreeMap::new(),
            file: None,
            known: AtomicU64::new(0),
            open: AtomicU32::new(0),
            brought: AtomicU32::new(0),
        }
    }

    /// Notes the number of the flip that brought what it shows.
    pub fn brought_by(&self, flip: u32) {
        self.brought.store(flip, Ordering::Relaxed);
    }

    /// That number, or 0.
    pub fn brought(&self) -> u32 {
        self.brought.load(Ordering::Relaxed)
    }

    /// Whether it is a directory.
    pub fn is_directory(&self) -> bool {
        self.row.kind == Kind::Directory
    }

    /// Notes that the kernel is being told of it so many times. Said before the answer is sent.
    pub fn told(&self, times: u64) {
        self.known.fetch_add(times, Ordering::Relaxed);
    }

    /// Notes that the kernel has forgotten it so many times.
    pub fn forgotten(&self, times: u64) {
        let fewer = |known: u64| Some(known.saturating_sub(times));
        let _ = self.known.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer);
    }

    /// How often the kernel was told of it and has not forgotten it.
    pub fn known_times(&self) -> u64 {
        self.known.load(Ordering::Relaxed)
    }

    /// Notes a handle that is opened.
    pub fn opened(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes a handle that is closed; whether it was the last.
    pub fn closed(&self) -> bool {
        let fewer = |open: u32| open.checked_sub(1);
        self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fewer) == Ok(1)
    }

    /// Whether a handle is open on it.
    pub fn is_open(&self) -> bool {
        self.open.load(Ordering::Relaxed) > 0
    }

    /// Whether nothing leads to it any more: no name, no handle, no memory of the kernel's.
    pub fn is_lost(&self) -> bool {
        self.names.is_empty() && !self.is_open() && self.known.load(Ordering::Relaxed) == 0
    }
}

impl Upper {
    /// Nothing is local.
    pub fn empty() -> Self {
        let mut upper = Self::default();
        upper.apply(&Change::Node(NodeId::ROOT, implied_directory()));
        upper
    }

    /// What the disk has.
    pub fn load(stored: Stored) -> Self {
        let mut upper = Self::default();
        for (id, node) in stored.nodes {
            let file = node.content.map(|content| {
                LocalFile::new(id, content, node.locals, node.filled, node.synced.map(|(size, _)| size))
            });
            let mut loaded = UpperNode::new(node.row);
            loaded.file = file.map(Arc::new);
            loaded.xattrs =
                node.xattrs.into_iter().map(|(name, value)| (OsString::from_vec(name), value)).collect();
            upper.nodes.insert(id, loaded);
        }
        for (parent, name, node) in stored.names {
            upper.apply(&Change::Name { parent, name, node });
        }
        upper.covers = stored.covers.into_iter().map(|entry| (entry.path.clone(), entry)).collect();
        upper
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&UpperNode> {
        self.nodes.get(&id)
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = (NodeId, &UpperNode)> {
        self.nodes.iter().map(|(id, node)| (*id, node))
    }

    /// What a name in a local directory leads to.
    pub fn child(&self, parent: NodeId, name: &OsStr) -> Option<NodeId> {
        self.nodes.get(&parent)?.children.get(name).copied()
    }

    /// The entry of the remote that is not shown at a path, if one is not.
    pub fn cover(&self, path: &DbPath) -> Option<&BaseEntry> {
        self.covers.get(path)
    }

    /// All entries of the remote that are not shown.
    pub fn covers(&self) -> impl Iterator<Item = &BaseEntry> {
        self.covers.values()
    }

    /// The path of one of a node's names, from the root; not of one that is gone.
    pub fn path(&self, id: NodeId) -> Option<Vec<&OsStr>> {
        let mut components = Vec::new();
        let mut at = id;
        while at != NodeId::ROOT {
            let (parent, name) = self.nodes.get(&at)?.names.first()?;
            components.push(name.as_os_str());
            at = *parent;
        }
        components.reverse();
        Some(components)
    }

    /// What makes a file the remote's again that was opened for writing and not changed, where nobody has it open. Nothing, if
    /// anything about it is local.
    pub fn given_back(&self, id: NodeId, node: &UpperNode) -> Option<Vec<Change>> {
        let Content::Base(entry) = node.file.as_ref()?.content() else { return None };
        let [(parent, name)] = node.names.as_slice() else { return None };
        // It may have been moved with a directory it lies in.
        let stays = self.path(id)?.into_iter().eq(entry.path.components().map(OsStr::new));
        if !stays || node.is_open() || node.row.touched || !node.xattrs.is_empty() {
            return None;
        }
        let name = name.as_bytes().to_vec();
        Some(vec![
            Change::NameGone { parent: *parent, name },
            Change::NodeGone(id),
            Change::CoverGone(entry.path),
        ])
    }

    /// Takes a change in.
    pub fn apply(&mut self, change: &Change) {
        match change {
            Change::Node(id, row) => match self.nodes.get_mut(id) {
                Some(node) => node.row = row.clone(),
                None => {
                    self.nodes.insert(*id, UpperNode::new(row.clone()));
                }
            },
            Change::Content(id, content) => {
                if let Some(node) = self.nodes.get_mut(id) {
                    match &node.file {
                        Some(file) => file.replay_content(content),
                        None => {
                            node.file = Some(Arc::new(LocalFile::new(
                                *id,
                                content.clone(),
                                Vec::new(),
                                Vec::new(),
                                None,
                            )))
                        }
                    }
                }
            }
            Change::NodeGone(id) => {
                self.nodes.remove(id);
            }
            Change::Name { parent, name, node } => {
                let name = OsStr::from_bytes(name).to_owned();
                self.unname(*parent, &name);
                let Some(named) = self.nodes.get_mut(node) else { return };
                named.names.push((*parent, name.clone()));
                let is_directory = named.is_directory();
                if let Some(parent) = self.nodes.get_mut(parent) {
                    parent.children.insert(name, *node);
                    parent.subdirectories += u32::from(is_directory);
                }
            }
            Change::NameGone { parent, name } => self.unname(*parent, OsStr::from_bytes(name)),
            Change::Cover(entry) => {
                self.covers.insert(entry.path.clone(), entry.clone());
            }
            Change::CoverGone(path) => {
                self.covers.remove(path);
            }
            Change::Xattr { node, name, value } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.xattrs.insert(OsStr::from_bytes(name).to_owned(), value.clone());
                }
            }
            Change::XattrGone { node, name } => {
                if let Some(node) = self.nodes.get_mut(node) {
                    node.xattrs.remove(OsStr::from_bytes(name));
                }
            }
            Change::Local { node, .. }
            | Change::Filled { node, .. }
            | Change::Size { node, .. }
            | Change::Synced { node, .. } => {
                if let Some(file) = self.nodes.get(node).and_then(|node| node.file.as_ref()) {
                    file.replay(change);
                }
            }
        }
    }

    fn unname(&mut self, parent: NodeId, name: &OsStr) {
        let Some(directory) = self.nodes.get_mut(&parent) else { return };
        let Some(node) = directory.children.remove(name) else { return };
        let Some(named) = self.nodes.get_mut(&node) else { return };
        named.names.retain(|(at, called)| (*at, called.as_os_str()) != (parent, name));
        if named.is_directory()
            && let Some(directory) = self.nodes.get_mut(&parent)
        {
            directory.subdirectories = directory.subdirectories.saturating_sub(1);
        }
    }
}
