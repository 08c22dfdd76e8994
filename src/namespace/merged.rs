//! The mount as it is seen: the revision shown, and over it what is local. A local name hides the remote's of the same
//! path; what was changed, moved or removed here is *covered* below, by the entry it was: another one that the remote
//! publishes at that path is a newcomer and is shown (rule 10).
//!
//! A remote file that becomes local keeps its number, so that the kernel and everybody who has it open go on with it.

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

use super::flip::{Difference, Outdated};
use super::node::{Ino, Node, NodeKind};
use super::tree::Tree;
use crate::model::{DbPath, Revision};
use crate::overlay::{Upper, UpperNode};
use crate::state::{BaseEntry, Change, NodeId};

/// Numbers of local nodes have this bit, which those of the revision's do not.
const LOCAL: u64 = 1 << 63;

/// What a number stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// A node of the remote's.
    Base(Ino),
    /// A local one.
    Local(NodeId),
}

/// A revision under what is local.
#[derive(Debug)]
pub struct Merged {
    /// The lower layer.
    pub base: Tree,
    /// The upper layer.
    pub upper: Upper,
    /// Local nodes by the number they had when they were the remote's.
    by_base_number: HashMap<Ino, NodeId>,
    /// The numbers of local nodes that bear another one than their own.
    numbers: HashMap<NodeId, Ino>,
    /// The remote's directory of the same path, by the local one.
    under: HashMap<NodeId, Ino>,
}

impl Merged {
    /// Lays what is local over a revision.
    pub fn new(base: Tree, upper: Upper) -> Self {
        let mut merged = Self {
            base,
            upper,
            by_base_number: HashMap::new(),
            numbers: HashMap::new(),
            under: HashMap::new(),
        };
        merged.show_as(NodeId::ROOT, Ino::ROOT);
        merged.under.insert(NodeId::ROOT, Ino::ROOT);
        let covers: Vec<BaseEntry> = merged.upper.covers().cloned().collect();
        for entry in &covers {
            merged.cover(entry);
        }
        merged.put_under();
        merged
    }

    /// What a number stands for.
    pub fn resolve(&self, ino: Ino) -> Option<Place> {
        if let Some(id) = self.by_base_number.get(&ino) {
            return self.upper.node(*id).map(|_| Place::Local(*id));
        }
        if ino.0 & LOCAL != 0 {
            // One that bears another number now has left this one for good.
            let id = NodeId(ino.0 & !LOCAL);
            return (self.ino(id) == ino && self.upper.node(id).is_some()).then_some(Place::Local(id));
        }
        self.base.node(ino).map(|_| Place::Base(ino))
    }

    /// The number of a local node.
    pub fn ino(&self, id: NodeId) -> Ino {
        self.numbers.get(&id).copied().unwrap_or(Ino(LOCAL | id.0))
    }

    /// The number of what stands at a place.
    pub fn ino_of(&self, place: Place) -> Ino {
        match place {
            Place::Base(ino) => ino,
            Place::Local(id) => self.ino(id),
        }
    }

    /// The local node of a number, if it is one.
    pub fn local(&self, ino: Ino) -> Option<(NodeId, &UpperNode)> {
        match self.resolve(ino)? {
            Place::Local(id) => Some((id, self.upper.node(id)?)),
            Place::Base(_) => None,
        }
    }

    /// The remote's directory behind a directory of the mount, if there is one.
    pub fn base_directory(&self, ino: Ino) -> Option<Ino> {
        match self.resolve(ino)? {
            Place::Base(ino) => self.base.node(ino).filter(|node| node.is_directory()).map(|_| ino),
            Place::Local(id) => self.under.get(&id).copied(),
        }
    }

    /// Whether a number stands for a directory.
    pub fn is_directory(&self, ino: Ino) -> bool {
        match self.resolve(ino) {
            Some(Place::Base(ino)) => self.base.node(ino).is_some_and(Node::is_directory),
            Some(Place::Local(id)) => self.upper.node(id).is_some_and(UpperNode::is_directory),
            None => false,
        }
    }

    /// What a name in a directory leads to.
    pub fn child(&self, parent: Ino, name: &OsStr) -> Option<Place> {
        if let Some(Place::Local(directory)) = self.resolve(parent)
            && let Some(id) = self.upper.child(directory, name)
            && self.is_shown(id)
        {
            return Some(Place::Local(id));
        }
        let base = self.base_directory(parent)?;
        // A number of the remote's that was given to something local stands for that, wherever it is now.
        self.base.lookup(base, name.to_str()?).map(Place::Base)
    }

    /// Whether a local node is shown: a directory that nobody made is as long as something in it is.
    pub fn is_shown(&self, id: NodeId) -> bool {
        let Some(node) = self.upper.node(id) else { return false };
        !node.is_directory()
            || node.row.touched
            || id == NodeId::ROOT
            || self.under.get(&id).is_some_and(|base| self.base.is_visible(*base))
            || node.children.values().any(|child| self.is_shown(*child))
    }

    /// Whether nothing is shown in a directory.
    pub fn is_empty_directory(&self, ino: Ino) -> bool {
        let local = match self.resolve(ino) {
            Some(Place::Local(id)) => self.upper.node(id),
            _ => None,
        };
        if local.is_some_and(|node| node.children.values().any(|child| self.is_shown(*child))) {
            return false;
        }
        let Some(base) = self.base_directory(ino) else { return true };
        let Some(NodeKind::Directory { visible, .. }) = self.base.node(base).map(|node| &node.kind) else {
            return true;
        };
        // What a local name hides is not shown, and a local name is none here.
        *visible == 0
    }

    /// How many directories lie in a directory.
    pub fn subdirectories(&self, ino: Ino) -> u32 {
        let base = self.base_directory(ino).and_then(|base| Some((base, self.base.node(base)?)));
        let below = base.map_or(0, |(_, node)| match &node.kind {
            NodeKind::Directory { subdirectories, .. } => *subdirectories,
            NodeKind::File { .. } => 0,
        });
        let Some((_, node)) = self.local(ino) else { return below };
        if node.subdirectories == 0 {
            return below;
        }
        let here = node.children.iter().filter(|(name, child)| {
            let is_directory = self.upper.node(**child).is_some_and(UpperNode::is_directory);
            // Those of both layers were counted below.
            let both = base
                .zip(name.to_str())
                .and_then(|((base, _), name)| self.base.lookup(base, name))
                .and_then(|ino| self.base.node(ino))
                .is_some_and(Node::is_directory);
            is_directory && !both && self.is_shown(**child)
        });
        below.saturating_add(u32::try_from(here.count()).unwrap_or(u32::MAX))
    }

    /// The directory something lies in; of a file with several names, one of them.
    pub fn parent(&self, ino: Ino) -> Option<Ino> {
        match self.resolve(ino)? {
            Place::Local(NodeId::ROOT) => Some(Ino::ROOT),
            Place::Local(id) => self.upper.node(id)?.names.first().map(|(parent, _)| self.ino(*parent)),
            Place::Base(ino) => self.base.parent(ino),
        }
    }

    /// The path of something, as its names are.
    pub fn path(&self, ino: Ino) -> Option<OsString> {
        match self.resolve(ino)? {
            Place::Local(id) => Some(self.upper.path(id)?.join(OsStr::new("/"))),
            Place::Base(ino) => self.base.path(ino).map(|path| path.as_str().into()),
        }
    }

    /// Takes changes in, as they were recorded.
    pub fn apply(&mut self, changes: &[Change]) {
        for change in changes {
            self.upper.apply(change);
            match change {
                Change::Cover(entry) => self.cover(entry),
                Change::CoverGone(path) => {
                    if let Some(ino) = self.base.find_path(path) {
                        self.base.uncover(ino);
                    }
                }
                Change::NodeGone(id) => self.forget_number(*id),
                _ => {}
            }
        }
    }

    fn cover(&mut self, entry: &BaseEntry) {
        if let Some(ino) = self.base.find_path(&entry.path)
            && let Some(NodeKind::File { size, hash, .. }) = self.base.node(ino).map(|node| &node.kind)
            && (*size, *hash) == (entry.size, entry.hash)
        {
            self.base.cover(ino);
        }
    }

    /// Shows a local node by the number that the remote's has had.
    pub fn show_as(&mut self, id: NodeId, ino: Ino) {
        self.by_base_number.insert(ino, id);
        self.numbers.insert(id, ino);
    }

    /// The same for a directory: what the remote has in it goes on being shown in it.
    pub fn show_directory_as(&mut self, id: NodeId, ino: Ino) {
        self.show_as(id, ino);
        self.under.insert(id, ino);
    }

    /// Shows a local node by a number that nobody has had, `fresh` being one; whoever has the old one keeps what that was.
    pub fn renumber_local(&mut self, id: NodeId, fresh: NodeId) {
        if let Some(ino) = self.numbers.remove(&id) {
            self.by_base_number.remove(&ino);
        }
        self.show_as(id, Ino(LOCAL | fresh.0));
    }

    /// Gives a local node a number of its own again; whoever has the old one keeps what that was.
    pub fn forget_number(&mut self, id: NodeId) {
        if let Some(ino) = self.numbers.remove(&id) {
            self.by_base_number.remove(&ino);
        }
        self.under.remove(&id);
    }

    /// A local directory has left its place, or is gone: the remote's directory there, should anything be shown in it
    /// again, is another one with another number.
    pub fn leave_place(&mut self, id: NodeId) {
        if let Some(base) = self.under.remove(&id)
            && self.by_base_number.contains_key(&base)
        {
            self.base.renumber(base);
        }
        let children: Vec<NodeId> =
            self.upper.node(id).map(|node| node.children.values().copied().collect()).unwrap_or_default();
        for child in children {
            if self.upper.node(child).is_some_and(UpperNode::is_directory) {
                self.leave_place(child);
            }
        }
    }

    /// Finds the remote's directory for each local one.
    pub fn put_under(&mut self) {
        self.put_under_below(NodeId::ROOT);
    }

    /// The same from a directory down.
    pub fn put_under_below(&mut self, top: NodeId) {
        let mut open = vec![top];
        while let Some(directory) = open.pop() {
            let base = self.under.get(&directory).copied();
            let Some(node) = self.upper.node(directory) else { continue };
            let children = node
                .children
                .iter()
                .filter(|(_, child)| self.upper.node(**child).is_some_and(UpperNode::is_directory));
            let children: Vec<(NodeId, Option<Ino>)> = children
                .map(|(name, child)| {
                    let below =
                        base.zip(name.to_str()).and_then(|(base, name)| self.base.lookup_any(base, name));
                    (*child, below.filter(|ino| self.base.node(*ino).is_some_and(Node::is_directory)))
                })
                .collect();
            for (child, below) in children {
                match below {
                    Some(ino) => {
                        self.under.insert(child, ino);
                        self.by_base_number.entry(ino).or_insert(child);
                    }
                    None => {
                        self.under.remove(&child);
                    }
                }
                open.push(child);
            }
        }
    }

    /// The difference to a later revision comes in below.
    pub fn flip(&mut self, difference: &Difference, published: i64, last: Option<Revision>) -> Outdated {
        let hidden = self.hidden_directories(difference);
        let mut outdated = self.base.apply(difference, published, last);
        for path in difference.paths() {
            // The remote may have published just what is covered.
            if let Some(entry) = self.upper.cover(path).cloned() {
                self.cover(&entry);
            }
        }
        self.put_under();
        let mut told = HashSet::new();
        for path in difference.paths() {
            self.outdate_local(path, &mut outdated, &mut told);
        }
        for ino in hidden.into_iter().filter(|ino| self.base.is_visible(*ino)) {
            // Its name was said to be absent.
            if let Some((parent, node)) = self.base.parent(ino).zip(self.base.node(ino)) {
                let parent = self.by_base_number.get(&parent).map_or(parent, |id| self.ino(*id));
                outdated.names.push((parent, node.name().into()));
                outdated.directories.push(parent);
            }
        }
        outdated
    }

    /// The directories of the remote's that a difference is about and in which nothing is shown.
    fn hidden_directories(&self, difference: &Difference) -> HashSet<Ino> {
        let mut hidden = HashSet::new();
        if self.base.has_covered() {
            for path in difference.paths() {
                let mut at = Ino::ROOT;
                for name in path.components() {
                    let Some(next) = self.base.lookup_any(at, name) else { break };
                    if self.base.node(next).is_some_and(Node::is_directory) && !self.base.is_visible(next) {
                        hidden.insert(next);
                    }
                    at = next;
                }
            }
        }
        hidden
    }

    /// What the kernel may remember of local directories that a path leads through: they have numbers of their own.
    fn outdate_local(&self, path: &DbPath, outdated: &mut Outdated, told: &mut HashSet<(NodeId, Box<str>)>) {
        let mut at = NodeId::ROOT;
        for name in path.components() {
            let fresh = told.insert((at, name.into()));
            if fresh {
                outdated.names.push((self.ino(at), name.into()));
                if !outdated.directories.contains(&self.ino(at)) {
                    outdated.directories.push(self.ino(at));
                }
            }
            match self.upper.child(at, OsStr::from_bytes(name.as_bytes())) {
                Some(child) if self.upper.node(child).is_some_and(UpperNode::is_directory) => at = child,
                _ => return,
            }
        }
    }

    /// The entry that a file of the remote's is of.
    pub fn entry(&self, ino: Ino, revision: Option<Revision>) -> Option<BaseEntry> {
        let node = self.base.node(ino)?;
        let NodeKind::File { size, hash, blocks } = node.kind else { return None };
        Some(BaseEntry { path: self.base.path(ino)?, size, hash, blocks, revision, modified: node.modified })
    }

    /// Whether anything but that name is shown in a local directory.
    pub fn has_other_than(&self, directory: NodeId, name: &OsStr) -> bool {
        let Some(node) = self.upper.node(directory) else { return false };
        if node.children.iter().any(|(other, child)| other != name && self.is_shown(*child)) {
            return true;
        }
        let Some(base) = self.under.get(&directory) else { return false };
        let Some(NodeKind::Directory { visible, .. }) = self.base.node(*base).map(|node| &node.kind) else {
            return false;
        };
        let is_that = name.to_str().is_some_and(|name| self.base.lookup(*base, name).is_some());
        *visible > u32::from(is_that)
    }

    /// A directory and all directories below it, by their numbers.
    pub fn directories_below(&self, top: NodeId) -> Vec<Ino> {
        let (mut open, mut found) = (vec![self.ino(top)], Vec::new());
        while let Some(ino) = open.pop() {
            found.push(ino);
            if let Some((_, node)) = self.local(ino) {
                let directories = node
                    .children
                    .values()
                    .filter(|child| self.upper.node(**child).is_some_and(UpperNode::is_directory));
                open.extend(directories.map(|child| self.ino(*child)));
            }
            let Some(base) = self.base_directory(ino) else { continue };
            let Some(children) = self.base.children(base) else { continue };
            for at in 0..children.len() {
                let Some((child, node)) = self.base.child(children, at) else { continue };
                // One that is local as well was found above; one that a local name hides does not move.
                let hidden = self
                    .local(ino)
                    .is_some_and(|(_, local)| local.children.contains_key(OsStr::new(node.name())));
                if node.is_directory() && self.base.is_visible(child) && !hidden {
                    open.push(child);
                }
            }
        }
        found
    }

    /// The files of the remote's that are shown in a directory.
    pub fn base_files_in(&self, directory: Ino) -> Vec<Ino> {
        let Some(base) = self.base_directory(directory) else { return Vec::new() };
        let Some(children) = self.base.children(base) else { return Vec::new() };
        let shown = (0..children.len()).filter_map(|at| self.base.child(children, at));
        let files = shown.filter(|(_, node)| {
            let hidden = self
                .local(directory)
                .is_some_and(|(_, local)| local.children.contains_key(OsStr::new(node.name())));
            !node.is_directory() && node.is_shown() && !hidden
        });
        files.map(|(ino, _)| ino).collect()
    }
}
