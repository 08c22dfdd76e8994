//! A tree of nodes from a manifest.
//!
//! Nodes lie in one vector. A directory's children are sorted by name: looking up is a binary search, listing is a
//! slice, and a position in a listing stays meaningful. `flip.rs` moves a tree to another revision.

use std::collections::{BTreeMap, HashMap};

use super::node::{Children, FileEntry, Flip, Ino, Node, NodeKind, State};
use crate::manifest::Entry;
use crate::model::{DbPath, Revision};

/// All files of a revision, and those of earlier ones that are still in use.
#[derive(Debug)]
pub struct Tree {
    pub(super) nodes: Vec<Node>,
    pub(super) free: Vec<u32>,
    /// Nodes that are not in the tree any more.
    pub(super) removed: HashMap<u32, Removed>,
    pub(super) flip: Flip,
    pub(super) shown: u64,
    pub(super) bytes: u64,
    /// How many nodes are covered.
    pub(super) covered: usize,
}

/// When a node left the tree.
#[derive(Debug, Clone, Copy)]
pub(super) struct Removed {
    pub(super) by: Flip,
    /// The last revision that had it.
    pub(super) last: Option<Revision>,
}

pub(super) const ROOT: u32 = 0;

impl Tree {
    /// Builds the tree of a manifest's files, published at `published` (nanoseconds since 1970). Their paths do not
    /// clash: reading the manifest saw to it.
    pub fn build(files: &BTreeMap<DbPath, Entry>, published: i64) -> Self {
        let mut tree = Self {
            nodes: Vec::with_capacity(files.len() + files.len() / 8 + 1),
            free: Vec::new(),
            removed: HashMap::new(),
            flip: Flip::default(),
            shown: 1,
            bytes: 0,
            covered: 0,
        };
        tree.nodes.push(Node::new("", ROOT, 0, Flip(0), NodeKind::empty_directory(), published));
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        // Paths come sorted by their bytes, so those below one directory, having a prefix in common, follow each
        // other: the open directories are a stack, and none is opened twice.
        let mut open: Vec<(String, u32)> = Vec::new();
        for (path, entry) in files {
            let components: Vec<&str> = path.components().collect();
            let (name, directories) = components.split_last().unwrap_or((&"", &[]));
            let shared = open.iter().zip(directories).take_while(|((open, _), name)| open == *name).count();
            open.truncate(shared);
            for directory in &directories[shared..] {
                let parent = open.last().map_or(ROOT, |(_, slot)| *slot);
                let slot = tree.create(directory, parent, NodeKind::empty_directory(), published);
                children.entry(parent).or_default().push(slot);
                open.push(((*directory).to_owned(), slot));
            }
            let parent = open.last().map_or(ROOT, |(_, slot)| *slot);
            let slot = tree.create_file(name, parent, &FileEntry::from(entry));
            children.entry(parent).or_default().push(slot);
        }
        // A directory comes after the one it lies in, and is counted there when it has its own children.
        let mut children: Vec<(u32, Vec<u32>)> = children.into_iter().collect();
        children.sort_unstable_by_key(|(directory, _)| std::cmp::Reverse(*directory));
        for (directory, mut slots) in children {
            slots.sort_unstable_by(|a, b| tree.nodes[*a as usize].name.cmp(&tree.nodes[*b as usize].name));
            tree.set_children(directory, slots);
        }
        tree
    }

    pub(super) fn create_file(&mut self, name: &str, parent: u32, file: &FileEntry) -> u32 {
        self.bytes = self.bytes.saturating_add(file.size);
        let kind = NodeKind::File { size: file.size, hash: file.hash, blocks: file.blocks };
        self.create(name, parent, kind, file.modified)
    }

    pub(super) fn create(&mut self, name: &str, parent: u32, kind: NodeKind, modified: i64) -> u32 {
        self.shown += 1;
        if let Some(slot) = self.free.pop() {
            let place = &mut self.nodes[slot as usize];
            *place = Node::new(name, parent, place.generation, self.flip, kind, modified);
            return slot;
        }
        // Four billion nodes do not fit into memory.
        let slot = self.nodes.len() as u32;
        self.nodes.push(Node::new(name, parent, 0, self.flip, kind, modified));
        slot
    }

    pub(super) fn set_children(&mut self, directory: u32, slots: Vec<u32>) {
        self.nodes[directory as usize].kind =
            NodeKind::Directory { children: Children(slots.into()), subdirectories: 0, visible: 0 };
        self.count(directory);
    }

    /// Counts anew what is visible in a directory.
    pub(super) fn count(&mut self, directory: u32) {
        let NodeKind::Directory { children, .. } = &self.nodes[directory as usize].kind else { return };
        let visible = children.0.iter().filter(|slot| self.is_visible_at(**slot));
        let (mut all, mut directories) = (0_u32, 0_u32);
        for slot in visible {
            all = all.saturating_add(1);
            directories = directories.saturating_add(u32::from(self.nodes[*slot as usize].is_directory()));
        }
        if let NodeKind::Directory { subdirectories, visible, .. } = &mut self.nodes[directory as usize].kind
        {
            (*subdirectories, *visible) = (directories, all);
        }
    }

    fn is_visible_at(&self, slot: u32) -> bool {
        let node = &self.nodes[slot as usize];
        node.is_shown()
            && match &node.kind {
                NodeKind::Directory { visible, .. } => *visible > 0,
                NodeKind::File { .. } => true,
            }
    }

    /// Whether a node is shown; a directory is as long as something in it is.
    pub fn is_visible(&self, ino: Ino) -> bool {
        ino == Ino::ROOT
            || self.node(ino).is_some() && ino.parts().is_some_and(|(slot, _)| self.is_visible_at(slot))
    }

    /// Covers a file: it is not shown until it is uncovered, or another one comes in its place.
    pub fn cover(&mut self, ino: Ino) {
        self.set_covered(ino, State::Shown, State::Covered);
    }

    /// Shows a file again.
    pub fn uncover(&mut self, ino: Ino) {
        self.set_covered(ino, State::Covered, State::Shown);
    }

    fn set_covered(&mut self, ino: Ino, from: State, to: State) {
        let Some((slot, _)) = ino.parts().filter(|_| self.node(ino).is_some()) else { return };
        let node = &mut self.nodes[slot as usize];
        let NodeKind::File { size, .. } = node.kind else { return };
        if node.state != from {
            return;
        }
        node.state = to;
        let parent = node.parent;
        if to == State::Covered {
            (self.covered, self.shown) = (self.covered + 1, self.shown - 1);
            self.bytes = self.bytes.saturating_sub(size);
        } else {
            (self.covered, self.shown) = (self.covered - 1, self.shown + 1);
            self.bytes = self.bytes.saturating_add(size);
        }
        self.one_more_or_less(parent, if to == State::Shown { 1 } else { -1 }, 0);
    }

    /// A directory shows one entry more or less; whether that shows or hides it is passed on to its parent.
    fn one_more_or_less(&mut self, mut slot: u32, more: i32, mut directories: i32) {
        loop {
            let node = &mut self.nodes[slot as usize];
            let NodeKind::Directory { subdirectories, visible, .. } = &mut node.kind else { return };
            let was = *visible;
            *visible = visible.saturating_add_signed(more);
            *subdirectories = subdirectories.saturating_add_signed(directories);
            if slot == ROOT || (was > 0) == (*visible > 0) {
                return;
            }
            slot = node.parent;
            directories = more;
        }
    }

    /// Gives a node another number; the old one is never given again.
    pub fn renumber(&mut self, ino: Ino) -> Option<Ino> {
        let (slot, _) = ino.parts().filter(|_| self.node(ino).is_some())?;
        let node = &mut self.nodes[slot as usize];
        node.generation = Ino::next_generation(node.generation)?;
        node.set_known(0);
        Some(self.ino_at(slot))
    }

    /// Where a path leads, covered or not.
    pub fn find_path(&self, path: &DbPath) -> Option<Ino> {
        path.components().try_fold(Ino::ROOT, |at, name| self.lookup_any(at, name))
    }

    /// The child of that name, covered or not.
    pub fn lookup_any(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.find(self.children(parent)?, name).map(|slot| self.ino_at(slot))
    }

    pub(super) fn ino_at(&self, slot: u32) -> Ino {
        Ino::new(slot, self.nodes[slot as usize].generation)
    }

    /// A node by its number: one that is shown, or was and is still in use.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        let (slot, generation) = ino.parts()?;
        self.nodes
            .get(slot as usize)
            .filter(|node| node.generation == generation && node.state != State::Free)
    }

    /// The directory a node lies in; the root's is the root.
    pub fn parent(&self, ino: Ino) -> Option<Ino> {
        Some(self.ino_at(self.node(ino)?.parent))
    }

    /// A directory's children, sorted by name; `None` for a file.
    pub fn children(&self, ino: Ino) -> Option<&Children> {
        match &self.node(ino)?.kind {
            NodeKind::Directory { children, .. } => Some(children),
            NodeKind::File { .. } => None,
        }
    }

    /// The child at a position, of a listing that may be an earlier one.
    pub fn child(&self, children: &Children, at: usize) -> Option<(Ino, &Node)> {
        let slot = *children.0.get(at)?;
        Some((self.ino_at(slot), self.nodes.get(slot as usize)?))
    }

    /// The child of that name that is shown.
    pub fn lookup(&self, parent: Ino, name: &str) -> Option<Ino> {
        self.lookup_any(parent, name).filter(|ino| self.is_visible(*ino))
    }

    pub(super) fn find(&self, children: &Children, name: &str) -> Option<u32> {
        let at = children.0.binary_search_by(|slot| (*self.nodes[*slot as usize].name).cmp(name)).ok()?;
        children.0.get(at).copied()
    }

    /// The node's path; `None` for the root, and for what lies in a directory that is gone altogether.
    pub fn path(&self, ino: Ino) -> Option<DbPath> {
        let mut components = Vec::new();
        let (mut slot, _) = ino.parts()?;
        let mut node = self.node(ino)?;
        while slot != ROOT {
            if node.state == State::Free {
                return None;
            }
            components.push(&*node.name);
            slot = node.parent;
            node = self.nodes.get(slot as usize)?;
        }
        components.reverse();
        DbPath::parse(&components.join("/")).ok()
    }

    /// Whether a name in a directory was removed and is still in use.
    pub fn had(&self, parent: Ino, name: &str) -> bool {
        let parent = parent.parts().map(|(slot, _)| slot);
        let nodes = self.removed.keys().map(|slot| &self.nodes[*slot as usize]);
        nodes.into_iter().any(|node| Some(node.parent) == parent && *node.name == *name)
    }

    /// The last revision that had a node that is not in the tree any more.
    pub fn last_revision(&self, ino: Ino) -> Option<Revision> {
        let (slot, _) = ino.parts()?;
        self.removed.get(&slot)?.last
    }

    /// How often it has changed.
    pub fn flip(&self) -> Flip {
        self.flip
    }

    /// How many nodes are shown, the root included.
    pub fn len(&self) -> u64 {
        self.shown
    }

    /// How many files the revision has, covered or not. Looks at all of them.
    pub fn count_files(&self) -> usize {
        self.nodes.iter().filter(|node| node.is_in_tree() && !node.is_directory()).count()
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.shown <= 1
    }

    /// The sizes of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::model::{ContentHash, Sha256};

    pub(in super::super) fn entry(content: &str) -> Entry {
        Entry {
            size: content.len() as u64,
            hash: ContentHash::Sha256(Sha256::of(content.as_bytes())),
            modified_at: "2026-01-02T03:04:05.678Z".into(),
            etag: None,
            content_type: None,
            blocks: None,
            unknown: None,
        }
    }

    pub(in super::super) fn files(files: &[(&str, &str)]) -> BTreeMap<DbPath, Entry> {
        files.iter().map(|(path, content)| (DbPath::parse(path).unwrap(), entry(content))).collect()
    }

    pub(in super::super) fn build(paths: &[&str]) -> Tree {
        Tree::build(&files(&paths.iter().map(|path| (*path, "abc")).collect::<Vec<_>>()), 0)
    }

    fn walk(tree: &Tree, at: Ino, out: &mut Vec<(String, Ino)>) {
        let children = tree.children(at).unwrap();
        let names: Vec<&str> =
            (0..children.0.len()).map(|n| tree.child(children, n).unwrap().1.name()).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
        for n in 0..children.0.len() {
            let (ino, node) = tree.child(children, n).unwrap();
            assert!(node.is_shown() && tree.parent(ino) == Some(at));
            if node.is_directory() {
                assert!(!tree.children(ino).unwrap().0.is_empty(), "no directory is empty");
                walk(tree, ino, out);
            } else {
                out.push((tree.path(ino).unwrap().as_str().to_owned(), ino));
            }
        }
    }

    /// Every file shown with its number, by path.
    pub(in super::super) fn shown(tree: &Tree) -> BTreeMap<String, Ino> {
        let mut out = Vec::new();
        walk(tree, Ino::ROOT, &mut out);
        out.into_iter().collect()
    }

    #[test]
    fn the_tree_has_just_the_manifests_paths() {
        let mut paths = ["a/b", "a.b/c", "a/c/d", "a-/x", "z", "a/b.c/d", "ü/é", "a/b-", "m/n/o/p"];
        let tree = build(&paths);
        paths.sort();
        assert!(shown(&tree).keys().eq(paths.iter()));
        assert_eq!(tree.total_bytes(), 27);
    }

    #[test]
    fn an_entry_takes_little_memory() {
        assert!(size_of::<Node>() <= 128, "{}", size_of::<Node>());
    }

    proptest::proptest! {
        #[test]
        fn every_path_is_found_by_its_names_and_no_directory_twice(
            paths in proptest::collection::btree_set("[ab.-]{1,2}(/[ab.-]{1,2}){0,3}", 1..40)
        ) {
            let valid: Vec<&str> = paths.iter().map(String::as_str).filter(|p| DbPath::parse(p).is_ok()).collect();
            let is_directory = |path: &str| valid.iter().any(|other| other.starts_with(&format!("{path}/")));
            let files: Vec<&str> = valid.iter().copied().filter(|path| !is_directory(path)).collect();
            let tree = build(&files);
            for path in &files {
                let mut at = Ino::ROOT;
                for name in path.split('/') {
                    at = tree.lookup(at, name).unwrap();
                }
                let found = tree.path(at).unwrap();
                proptest::prop_assert_eq!(found.as_str(), *path);
            }
            proptest::prop_assert_eq!(shown(&tree).len(), files.len());
        }
    }
}
