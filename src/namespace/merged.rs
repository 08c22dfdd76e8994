//! The mount as it is seen: the revision shown, and over it what is local. A local name hides the remote's of the same
//! path; what was changed, moved or removed here is *covered* below, by the entry it was: another one that the remote
//! publishes at that path is a newcomer and is shown (rule 10).
//!
//! A remote file that becomes local keeps its number, so that the kernel and everybody who has it open go on with it.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;

use super::flip::{Difference, Outdated, Whose};
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

/// From one revision to a later one.
#[derive(Debug, Clone, Copy)]
pub struct FlipStep<'a> {
    /// What differs.
    pub difference: &'a Difference,
    /// When the later one was published, in nanoseconds since 1970.
    pub published: i64,
    /// The earlier one.
    pub last: Option<Revision>,
    /// Who has made the later one.
    pub whose: Whose,
}

/// How a name in a local directory is seen.
#[derive(Debug, Clone, Copy)]
struct Seen {
    leads_to: Option<Ino>,
    /// The lower layer has it as it is seen, under the same numbers: then it knows what the kernel has to be told.
    is_known_below: bool,
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
        match self.resolve(ino) {
            // No name is empty.
            Some(Place::Local(id)) => !self.has_other_than(id, OsStr::new("")),
            Some(Place::Base(ino)) => !self.base.is_visible(ino),
            None => true,
        }
    }

    /// The directories among what is local in a directory.
    fn local_directories(&self, directory: NodeId) -> impl Iterator<Item = (&OsStr, NodeId)> {
        let children = self.upper.node(directory).into_iter().flat_map(|node| &node.children);
        let directories =
            children.filter(|(_, id)| self.upper.node(**id).is_some_and(UpperNode::is_directory));
        directories.map(|(name, id)| (name.as_os_str(), *id))
    }

    /// Whether something local in a directory has a name, and so hides what the remote has of that name.
    fn hides(&self, directory: Ino, name: &str) -> bool {
        self.local(directory).is_some_and(|(_, local)| local.children.contains_key(OsStr::new(name)))
    }

    /// How many directories lie in a directory.
    pub fn subdirectories(&self, ino: Ino) -> u32 {
        let base = self.base_directory(ino).and_then(|base| Some((base, self.base.node(base)?)));
        let below = base.map_or(0, |(_, node)| match &node.kind {
            NodeKind::Directory { subdirectories, .. } => *subdirectories,
            NodeKind::File { .. } => 0,
        });
        let Some((id, node)) = self.local(ino) else { return below };
        if node.subdirectories == 0 {
            return below;
        }
        let here = self.local_directories(id).filter(|(name, child)| {
            // Those of both layers were counted below.
            let both = base
                .zip(name.to_str())
                .and_then(|((base, _), name)| self.base.lookup(base, name))
                .and_then(|ino| self.base.node(ino))
                .is_some_and(Node::is_directory);
            !both && self.is_shown(*child)
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

    /// Takes changes in, as they were recorded.
    pub fn apply(&mut self, changes: &[Change]) {
        let mut uncovered = Vec::new();
        for change in changes {
            self.upper.apply(change);
            match change {
                Change::Cover(entry) => self.cover(entry),
                Change::CoverGone(path) => {
                    if let Some(ino) = self.base.find_path(path) {
                        self.base.uncover(ino);
                        uncovered.push(ino);
                    }
                }
                Change::NodeGone(id) => self.forget_number(*id),
                _ => {}
            }
        }
        // Its number went with what was local there, wherever that is now: one number is one file.
        for ino in uncovered.into_iter().filter(|ino| self.by_base_number.contains_key(ino)) {
            self.base.renumber(ino);
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
        self.forget_number(id);
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
    /// again, is another one with another number. Of anything else nothing is to be done.
    pub fn leave_place(&mut self, id: NodeId) {
        if let Some(base) = self.under.remove(&id)
            && self.by_base_number.contains_key(&base)
        {
            self.base.renumber(base);
        }
        let below: Vec<NodeId> = self.local_directories(id).map(|(_, child)| child).collect();
        for child in below {
            self.leave_place(child);
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
            let children: Vec<(NodeId, Option<Ino>)> = self
                .local_directories(directory)
                .map(|(name, child)| {
                    let below =
                        base.zip(name.to_str()).and_then(|(base, name)| self.base.lookup_any(base, name));
                    (child, below.filter(|ino| self.base.node(*ino).is_some_and(Node::is_directory)))
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

    /// A later revision comes in below, and with it what it changes above: `changes`, which are recorded, about these paths and
    /// those in `besides`, where the remote's version may take the place of a local one.
    pub fn flip(&mut self, step: &FlipStep<'_>, besides: &[DbPath], changes: &[Change]) -> Outdated {
        let FlipStep { difference, published, last, whose } = *step;
        let before = self.names_in_local_directories(difference.paths().chain(besides));
        self.apply(changes);
        let mut outdated = self.base.apply(difference, published, last, whose);
        for path in difference.paths() {
            // The remote may have published just what is covered.
            if let Some(entry) = self.upper.cover(path).cloned() {
                self.cover(&entry);
            }
        }
        self.put_under();
        self.base.show_anew(besides);
        let mut changed = HashSet::new();
        for ((directory, name), before) in before {
            let after = self.seen(directory, name);
            if after.leads_to != before.leads_to && !(before.is_known_below && after.is_known_below) {
                let ino = self.ino(directory);
                outdated.names.push((ino, name.into()));
                if changed.insert(ino) {
                    outdated.directories.push(ino);
                }
            }
        }
        outdated
    }

    /// How names are seen that lie in local directories.
    fn names_in_local_directories<'a>(
        &self,
        paths: impl Iterator<Item = &'a DbPath>,
    ) -> HashMap<(NodeId, &'a str), Seen> {
        let mut names = HashMap::new();
        for path in paths {
            let mut at = NodeId::ROOT;
            for name in path.components() {
                names.entry((at, name)).or_insert_with(|| self.seen(at, name));
                match self.upper.child(at, OsStr::new(name)) {
                    Some(child) if self.upper.node(child).is_some_and(UpperNode::is_directory) => at = child,
                    _ => break,
                }
            }
        }
        names
    }

    fn seen(&self, directory: NodeId, name: &str) -> Seen {
        let ino = self.ino(directory);
        let leads_to = self.child(ino, OsStr::new(name)).map(|place| self.ino_of(place));
        let below = self.under.get(&directory).copied();
        let is_known_below =
            below == Some(ino) && below.and_then(|below| self.base.lookup_any(below, name)) == leads_to;
        Seen { leads_to, is_known_below }
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
            if let Some((id, _)) = self.local(ino) {
                open.extend(self.local_directories(id).map(|(_, child)| self.ino(child)));
            }
            let Some(base) = self.base_directory(ino) else { continue };
            let Some(children) = self.base.children(base) else { continue };
            for at in 0..children.len() {
                let Some((child, node)) = self.base.child(children, at) else { continue };
                // One that is local as well was found above; one that a local name hides does not move.
                if node.is_directory() && self.base.is_visible(child) && !self.hides(ino, node.name()) {
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
            !node.is_directory() && node.is_shown() && !self.hides(directory, node.name())
        });
        files.map(|(ino, _)| ino).collect()
    }
}
