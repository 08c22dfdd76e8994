//! A tree of inodes from a manifest.
//!
//! Nodes lie in one vector; an inode's number is its index plus one, so the root is 1 as FUSE wants it. A
//! directory's children are sorted by name: looking up is a binary search, listing is a slice, and a position in
//! a listing stays meaningful.

use std::collections::BTreeMap;

use crate::manifest::Entry;
use crate::model::{ContentHash, DbPath};

/// An inode's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ino(pub u64);

impl Ino {
    /// The mount's own directory.
    pub const ROOT: Self = Self(1);
}

/// A file or directory.
#[derive(Debug)]
pub struct Node {
    /// The name in its directory; empty for the root.
    pub name: Box<str>,
    /// The directory it lies in; the root's is the root.
    pub parent: Ino,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Debug)]
pub enum NodeKind {
    /// A directory.
    Directory {
        /// Sorted by name.
        children: Vec<Ino>,
        /// How many of them are directories.
        subdirectories: u32,
    },
    /// A file, by the content it has.
    File {
        /// Size in bytes.
        size: u64,
        /// The content's hash.
        hash: ContentHash,
        /// When it last changed, in nanoseconds since 1970; the manifest's date, if it is one.
        modified: i64,
    },
}

/// A directory's children in order.
pub type Children<'a> = &'a [Ino];

/// All files of a revision.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    bytes: u64,
}

impl Tree {
    /// Builds the tree of a manifest's files. Their paths do not clash: reading the manifest saw to it.
    pub fn build(files: &BTreeMap<DbPath, Entry>) -> Self {
        let mut tree = Self { nodes: Vec::with_capacity(files.len() + files.len() / 8 + 1), bytes: 0 };
        tree.nodes.push(Node { name: "".into(), parent: Ino::ROOT, kind: empty_directory() });
        // Paths come sorted by their bytes, so those below one directory, having a prefix in common, follow each
        // other: the open directories are a stack, and none is opened twice.
        let mut open: Vec<(String, Ino)> = Vec::new();
        for (path, entry) in files {
            let components: Vec<&str> = path.components().collect();
            let (name, directories) = components.split_last().unwrap_or((&"", &[]));
            let shared = open.iter().zip(directories).take_while(|((open, _), name)| open == *name).count();
            open.truncate(shared);
            for directory in &directories[shared..] {
                let parent = open.last().map_or(Ino::ROOT, |(_, ino)| *ino);
                let ino = tree.add(parent, directory, empty_directory());
                open.push(((*directory).to_owned(), ino));
            }
            let parent = open.last().map_or(Ino::ROOT, |(_, ino)| *ino);
            let modified =
                entry.modified().and_then(|time| i64::try_from(time.as_nanosecond()).ok()).unwrap_or(0);
            tree.bytes = tree.bytes.saturating_add(entry.size);
            tree.add(parent, name, NodeKind::File { size: entry.size, hash: entry.hash, modified });
        }
        tree.sort();
        tree
    }

    fn add(&mut self, parent: Ino, name: &str, kind: NodeKind) -> Ino {
        let ino = Ino(self.nodes.len() as u64 + 1);
        let is_directory = matches!(kind, NodeKind::Directory { .. });
        self.nodes.push(Node { name: name.into(), parent, kind });
        if let Some(Node { kind: NodeKind::Directory { children, subdirectories }, .. }) =
            self.node_mut(parent)
        {
            children.push(ino);
            *subdirectories += u32::from(is_directory);
        }
        ino
    }

    fn sort(&mut self) {
        for index in 0..self.nodes.len() {
            let NodeKind::Directory { children, .. } = &mut self.nodes[index].kind else { continue };
            let mut sorted = std::mem::take(children);
            sorted.sort_by(|a, b| self.name(*a).cmp(self.name(*b)));
            if let NodeKind::Directory { children, .. } = &mut self.nodes[index].kind {
                *children = sorted;
            }
        }
    }

    /// A node by its number.
    pub fn node(&self, ino: Ino) -> Option<&Node> {
        self.nodes.get(usize::try_from(ino.0.checked_sub(1)?).ok()?)
    }

    fn node_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        self.nodes.get_mut(usize::try_from(ino.0.checked_sub(1)?).ok()?)
    }

    fn name(&self, ino: Ino) -> &str {
        self.node(ino).map_or("", |node| &node.name)
    }

    /// A directory's children, sorted by name; `None` for a file.
    pub fn children(&self, ino: Ino) -> Option<Children<'_>> {
        match &self.node(ino)?.kind {
            NodeKind::Directory { children, .. } => Some(children),
            NodeKind::File { .. } => None,
        }
    }

    /// The child of that name.
    pub fn lookup(&self, parent: Ino, name: &str) -> Option<Ino> {
        let children = self.children(parent)?;
        let at = children.binary_search_by(|child| self.name(*child).cmp(name)).ok()?;
        children.get(at).copied()
    }

    /// The node's path; `None` for the root.
    pub fn path(&self, ino: Ino) -> Option<DbPath> {
        let mut components = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT {
            let node = self.node(at)?;
            components.push(&*node.name);
            at = node.parent;
        }
        components.reverse();
        DbPath::parse(&components.join("/")).ok()
    }

    /// How many nodes there are, the root included.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there are no files.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// The sizes of all files together.
    pub fn total_bytes(&self) -> u64 {
        self.bytes
    }
}

fn empty_directory() -> NodeKind {
    NodeKind::Directory { children: Vec::new(), subdirectories: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sha256;

    fn build(paths: &[&str]) -> Tree {
        let entry = Entry {
            size: 3,
            hash: ContentHash::Sha256(Sha256([0; 32])),
            modified_at: "2026-01-02T03:04:05.678Z".into(),
            etag: None,
            content_type: None,
            unknown: None,
        };
        Tree::build(&paths.iter().map(|path| (DbPath::parse(path).unwrap(), entry.clone())).collect())
    }

    fn find(tree: &Tree, at: Ino, out: &mut Vec<String>) {
        for child in tree.children(at).unwrap_or_default() {
            match tree.node(*child).unwrap().kind {
                NodeKind::Directory { .. } => find(tree, *child, out),
                NodeKind::File { .. } => out.push(tree.path(*child).unwrap().as_str().to_owned()),
            }
        }
    }

    #[test]
    fn the_tree_has_just_the_manifests_paths() {
        let mut paths = ["a/b", "a.b/c", "a/c/d", "a-/x", "z", "a/b.c/d", "ü/é", "a/b-", "m/n/o/p"];
        let tree = build(&paths);
        let mut found = Vec::new();
        find(&tree, Ino::ROOT, &mut found);
        found.sort();
        paths.sort();
        assert_eq!(found, paths);
        assert_eq!(tree.total_bytes(), 27);
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
            for ino in 1..=tree.len() as u64 {
                let names: Vec<_> = tree.children(Ino(ino)).unwrap_or_default().iter().map(|c| tree.name(*c)).collect();
                proptest::prop_assert!(names.is_sorted_by(|a, b| a < b), "{:?}", names);
            }
        }
    }
}
