//! From one revision to another: what differs, applied to the tree in place. What stays keeps its number; what has
//! another content gets a new one, so that pages the kernel has of the old one can never be taken for it.

use std::collections::{BTreeMap, HashSet};

use super::node::{FileEntry, Flip, Ino, Node, NodeKind, State};
use super::tree::{ROOT, Removed, Tree};
use crate::manifest::Entry;
use crate::model::{DbPath, Revision};

/// What differs between two revisions: files that are there then, and paths that are not.
#[derive(Debug, Clone, Default)]
pub struct Difference(BTreeMap<DbPath, Option<FileEntry>>);

/// What the kernel has to forget after a flip, as far as it may know it.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outdated {
    /// Names, by the directory they are or were in.
    pub names: Vec<(Ino, Box<str>)>,
    /// Files of which the attributes changed and the content did not.
    pub attributes: Vec<Ino>,
    /// Directories in which something changed.
    pub directories: Vec<Ino>,
}

impl Difference {
    /// Takes in a later change: files put, then paths removed before that.
    pub fn then(
        &mut self,
        put: impl IntoIterator<Item = (DbPath, FileEntry)>,
        delete: impl IntoIterator<Item = DbPath>,
    ) {
        self.0.extend(delete.into_iter().map(|path| (path, None)));
        self.0.extend(put.into_iter().map(|(path, file)| (path, Some(file))));
    }

    /// All paths that differ.
    pub fn paths(&self) -> impl Iterator<Item = &DbPath> {
        self.0.keys()
    }

    /// All paths that differ, each with the file that is there then.
    pub fn files(&self) -> impl Iterator<Item = (&DbPath, Option<&FileEntry>)> {
        self.0.iter().map(|(path, file)| (path, file.as_ref()))
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many paths differ.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

/// Whose changes lead from one revision to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Somebody else's, perhaps.
    Others,
    /// Those of this mount, which shows them already: nobody can see the step.
    Ours,
}

/// The difference as a tree of names.
#[derive(Default)]
struct Edit<'a> {
    here: Option<Option<FileEntry>>,
    below: BTreeMap<&'a str, Edit<'a>>,
}

impl Edit<'_> {
    fn puts_below(&self) -> bool {
        self.below.values().any(|edit| matches!(edit.here, Some(Some(_))) || edit.puts_below())
    }
}

impl Tree {
    /// What differs between this tree and a manifest's files.
    pub fn difference(&self, files: &BTreeMap<DbPath, Entry>) -> Difference {
        let mut difference = Difference::default();
        let mut same = HashSet::new();
        for (path, entry) in files {
            let file = FileEntry::from(entry);
            let found = self.find_path(path);
            let node = found.and_then(|ino| self.node(ino));
            let (slot, _) = found.and_then(Ino::parts).unwrap_or((ROOT, 0));
            match node.map(|node| (&node.kind, node.modified)) {
                Some((NodeKind::File { size, hash, blocks }, modified)) => {
                    same.insert(slot);
                    if (FileEntry { size: *size, hash: *hash, blocks: *blocks, modified }) != file {
                        difference.0.insert(path.clone(), Some(file));
                    }
                }
                _ => {
                    difference.0.insert(path.clone(), Some(file));
                }
            }
        }
        for (slot, node) in self.nodes.iter().enumerate() {
            let slot = slot as u32;
            let is_file = node.is_in_tree() && !node.is_directory();
            if is_file
                && !same.contains(&slot)
                && let Some(path) = self.path(self.ino_at(slot))
            {
                // A path that becomes a directory's name is put nowhere else.
                difference.0.entry(path).or_insert(None);
            }
        }
        difference
    }

    /// Moves the tree to the revision that differs so, published at `published` (nanoseconds since 1970), from `last`.
    /// It takes any difference: where one contradicts the tree, what it puts holds.
    pub fn apply(
        &mut self,
        difference: &Difference,
        published: i64,
        last: Option<Revision>,
        whose: Whose,
    ) -> Outdated {
        let mut root = Edit::default();
        for (path, file) in &difference.0 {
            let mut at = &mut root;
            for name in path.components() {
                at = at.below.entry(name).or_default();
            }
            at.here = Some(*file);
        }
        if whose == Whose::Others {
            self.flip = Flip(self.flip.0 + 1);
        }
        let mut outdated = Outdated::default();
        let step = Step { published, last, whose };
        self.edit_directory(ROOT, &root, &step, &mut outdated);
        outdated
    }

    fn edit_directory(&mut self, directory: u32, edit: &Edit<'_>, step: &Step, outdated: &mut Outdated) {
        let NodeKind::Directory { children: old, .. } = &self.nodes[directory as usize].kind else { return };
        let old = old.clone();
        let mut changed = Vec::new();
        for (name, edit) in &edit.below {
            let before = self.find(&old, name);
            let after = self.edit_name(directory, name, before, edit, step, outdated);
            if before != after {
                changed.push((*name, before, after));
            }
        }
        if changed.is_empty() {
            // Something may have come in a directory of which nothing was shown.
            if self.covered > 0 {
                self.count(directory);
            }
            return;
        }
        let mut children = Vec::with_capacity(old.0.len() + changed.len());
        let mut rest = old.0.iter().copied().peekable();
        for (name, before, after) in &changed {
            while let Some(slot) = rest.next_if(|slot| &*self.nodes[*slot as usize].name < *name) {
                children.push(slot);
            }
            rest.next_if(|slot| Some(*slot) == *before);
            children.extend(after);
        }
        children.extend(rest);
        if step.whose == Whose::Ours {
            for slot in changed.into_iter().filter_map(|(_, before, _)| before) {
                self.remove(slot, step);
            }
            return self.set_children(directory, children);
        }
        let said_absent = self.nodes[directory as usize].take_said_absent();
        let ino = self.ino_at(directory);
        for (name, before, _) in changed {
            let remembered = match before {
                Some(slot) => self.nodes[slot as usize].is_known(),
                None => said_absent,
            };
            if remembered {
                outdated.names.push((ino, name.into()));
            }
            if let Some(slot) = before {
                self.remove(slot, step);
            }
        }
        self.set_children(directory, children);
        let flip = self.flip;
        let node = &mut self.nodes[directory as usize];
        node.changed = flip;
        // Two revisions of one time are still two.
        node.modified = if step.published == node.modified { node.modified + 1 } else { step.published };
        node.listing_changed();
        if directory == ROOT || node.is_known() {
            outdated.directories.push(ino);
        }
    }

    /// What bears `name` afterwards.
    fn edit_name(
        &mut self,
        parent: u32,
        name: &str,
        before: Option<u32>,
        edit: &Edit<'_>,
        step: &Step,
        outdated: &mut Outdated,
    ) -> Option<u32> {
        let was_directory = before.filter(|slot| self.nodes[*slot as usize].is_directory());
        if let Some(Some(file)) = &edit.here {
            if let Some(slot) = before
                && let node = &mut self.nodes[slot as usize]
                && let NodeKind::File { size, hash, blocks } = &mut node.kind
                && (*size, *hash) == (file.size, file.hash)
            {
                // They may have been computed since: it is the same content.
                *blocks = file.blocks;
                if node.modified != file.modified {
                    node.modified = file.modified;
                    if node.is_known() {
                        outdated.attributes.push(Ino::new(slot, node.generation));
                    }
                }
                return Some(slot);
            }
            return Some(self.create_file(name, parent, file));
        }
        if let Some(slot) = was_directory {
            self.edit_directory(slot, edit, step, outdated);
            let left = matches!(&self.nodes[slot as usize].kind, NodeKind::Directory { children, .. } if !children.0.is_empty());
            return left.then_some(slot);
        }
        if edit.puts_below() {
            let slot = self.create(name, parent, NodeKind::empty_directory(), step.published);
            self.edit_directory(slot, edit, step, outdated);
            return Some(slot);
        }
        before.filter(|_| edit.here.is_none())
    }

    fn remove(&mut self, slot: u32, step: &Step) {
        let node = &mut self.nodes[slot as usize];
        let was_covered = node.state == State::Covered;
        node.state = State::Removed;
        match &node.kind {
            NodeKind::File { .. } if was_covered => self.covered -= 1,
            _ => self.shown -= 1,
        }
        match &node.kind {
            NodeKind::File { size, .. } if !was_covered => self.bytes = self.bytes.saturating_sub(*size),
            NodeKind::File { .. } => {}
            NodeKind::Directory { children, .. } => {
                let children = children.clone();
                for child in children.0.iter() {
                    self.remove(*child, step);
                }
            }
        }
        self.removed.insert(slot, Removed { by: self.flip, last: step.last });
    }

    /// Files that are shown at these paths may be so only now: whoever has read what was shown before is not to read these as well.
    pub fn show_anew(&mut self, paths: &[DbPath]) {
        let shown =
            |path: &DbPath| self.find_path(path).filter(|ino| self.node(*ino).is_some_and(Node::is_shown));
        let slots: Vec<u32> = paths.iter().filter_map(shown).filter_map(|ino| Some(ino.parts()?.0)).collect();
        if slots.is_empty() {
            return;
        }
        self.flip = Flip(self.flip.0 + 1);
        for slot in slots {
            self.nodes[slot as usize].since = self.flip;
        }
    }

    /// Gives back the places of nodes that nobody uses any more. Listings and scans that were begun since `oldest` still
    /// need the names that were removed after that.
    pub fn sweep(&mut self, oldest: Flip) {
        // A directory goes after what lay in it.
        while self.sweep_leaves(oldest) {}
    }

    fn sweep_leaves(&mut self, oldest: Flip) -> bool {
        let (nodes, removed) = (&self.nodes, &self.removed);
        let parents: HashSet<u32> = removed.keys().map(|slot| nodes[*slot as usize].parent).collect();
        let unused = removed.iter().filter(|(slot, removed)| {
            removed.by <= oldest && !nodes[**slot as usize].is_needed() && !parents.contains(slot)
        });
        let unused: Vec<u32> = unused.map(|(slot, _)| *slot).collect();
        for slot in &unused {
            let slot = *slot;
            self.removed.remove(&slot);
            let node = &mut self.nodes[slot as usize];
            node.state = State::Free;
            node.name = "".into();
            node.kind = NodeKind::empty_directory();
            // A place whose numbers are used up stays unused.
            if let Some(next) = Ino::next_generation(node.generation) {
                node.generation = next;
                self.free.push(slot);
            }
        }
        !unused.is_empty() && !self.removed.is_empty()
    }

    /// How many nodes are kept that are not shown any more.
    pub fn kept(&self) -> usize {
        self.removed.len()
    }
}

struct Step {
    published: i64,
    last: Option<Revision>,
    whose: Whose,
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::{files, shown};
    use super::*;

    fn flip(tree: &mut Tree, to: &[(&str, &str)]) -> Outdated {
        let difference = tree.difference(&files(to));
        tree.apply(&difference, 7, Some(Revision(1)), Whose::Others)
    }

    fn ino(tree: &Tree, path: &str) -> Ino {
        path.split('/').fold(Ino::ROOT, |at, name| tree.lookup(at, name).unwrap())
    }

    #[test]
    fn what_stays_keeps_its_number_and_what_changes_gets_a_new_one() {
        let mut tree = Tree::build(&files(&[("d/a", "1"), ("d/b", "2"), ("e/f/g", "3"), ("z", "4")]), 0);
        let before = shown(&tree);
        let (d, e) = (ino(&tree, "d"), ino(&tree, "e"));
        flip(&mut tree, &[("d/a", "1"), ("d/b", "changed"), ("d/new/x", "5"), ("z", "4")]);
        let after = shown(&tree);
        assert_eq!((after["d/a"], after["z"], ino(&tree, "d")), (before["d/a"], before["z"], d));
        assert_ne!(after["d/b"], before["d/b"]);
        assert!(!after.contains_key("e/f/g") && tree.lookup(Ino::ROOT, "e").is_none());
        assert!(!tree.node(e).unwrap().is_shown());
        assert_eq!(tree.last_revision(before["d/b"]), Some(Revision(1)));
        assert_eq!(tree.path(before["e/f/g"]).unwrap().as_str(), "e/f/g", "an open file knows where it was");
        assert_eq!((tree.len(), tree.total_bytes()), (1 + 2 + 4, 1 + 7 + 1 + 1));
    }

    #[test]
    fn a_file_becomes_a_directory_and_a_directory_a_file() {
        let mut tree = Tree::build(&files(&[("a", "1"), ("b/x/y", "2"), ("b/z", "3"), ("a.b", "4")]), 0);
        flip(&mut tree, &[("a/x", "1"), ("a/y/z", "5"), ("b", "2"), ("a.b", "4")]);
        assert!(shown(&tree).keys().eq(["a.b", "a/x", "a/y/z", "b"]));
        flip(&mut tree, &[("a", "1"), ("b/x/y", "2")]);
        assert!(shown(&tree).keys().eq(["a", "b/x/y"]));
        flip(&mut tree, &[]);
        assert!(tree.is_empty() && shown(&tree).is_empty() && tree.total_bytes() == 0);
    }

    #[test]
    fn numbers_are_not_given_twice_and_places_are() {
        let mut tree = Tree::build(&files(&[("a", "0")]), 0);
        let (mut seen, places) = (HashSet::new(), 3);
        for n in 0..100 {
            flip(&mut tree, &[("a", &n.to_string())]);
            tree.sweep(tree.flip());
            let number = ino(&tree, "a");
            assert!(n == 0 || seen.insert(number), "{number:?} is given twice");
        }
        assert!(tree.nodes.len() <= places, "{} places for one file", tree.nodes.len());
    }

    #[test]
    fn what_is_in_use_is_kept_until_it_is_not() {
        let mut tree = Tree::build(&files(&[("d/a", "0"), ("b", "1")]), 0);
        let (a, d, b) = (ino(&tree, "d/a"), ino(&tree, "d"), ino(&tree, "b"));
        tree.node(a).unwrap().opened();
        tree.node(b).unwrap().told();
        tree.node(b).unwrap().told();
        let listing = tree.flip();
        flip(&mut tree, &[]);
        tree.sweep(listing);
        assert_eq!(tree.kept(), 3, "a listing that began before still shows all");
        tree.sweep(tree.flip());
        assert!(tree.node(a).is_some() && tree.node(b).is_some() && tree.node(d).is_some());
        tree.node(a).unwrap().closed();
        tree.node(b).unwrap().forgotten(2);
        tree.sweep(tree.flip());
        assert_eq!((tree.kept(), tree.node(a).is_some(), tree.node(b).is_some()), (0, false, false));
    }

    #[test]
    fn the_kernel_is_told_of_what_it_knows_and_nothing_else() {
        let mut tree =
            Tree::build(&files(&[("d/known", "0"), ("d/unknown", "1"), ("e/x", "2"), ("same", "3")]), 0);
        let (d, known) = (ino(&tree, "d"), ino(&tree, "d/known"));
        tree.node(d).unwrap().told();
        tree.node(known).unwrap().told();
        let to =
            [("d/known", "new"), ("d/unknown", "new"), ("d/added", "new"), ("e/x", "new"), ("same", "3")];
        let outdated = flip(&mut tree, &to);
        assert_eq!(outdated.names, [(d, "known".into())]);
        assert_eq!(outdated.directories, [d]);
        assert!(
            tree.node(d).unwrap().take_listing_changed() && !tree.node(d).unwrap().take_listing_changed()
        );
        tree.node(d).unwrap().said_absent();
        let outdated = flip(&mut tree, &[&to[..], &[("d/more", "x")]].concat());
        assert_eq!(outdated.names, [(d, "more".into())]);
        let mut dated = files(&[&to[..], &[("d/more", "x")]].concat());
        let same = ino(&tree, "same");
        tree.node(same).unwrap().told();
        dated.get_mut("same").unwrap().modified_at = "2027-01-01T00:00:00Z".into();
        let outdated = tree.apply(&tree.difference(&dated), 9, None, Whose::Others);
        assert_eq!(outdated, Outdated { attributes: vec![same], ..Outdated::default() });
        assert_eq!(ino(&tree, "same"), same);
    }

    proptest::proptest! {
        #[test]
        fn any_revision_follows_any_other(
            revisions in proptest::collection::vec(
                proptest::collection::btree_map("[ab.]{1,2}(/[ab.]{1,2}){0,2}", "[xy]", 0..12), 1..6)
        ) {
            let mut tree = Tree::build(&files(&[]), 0);
            let mut contents: BTreeMap<Ino, String> = BTreeMap::new();
            for revision in &revisions {
                let valid = |path: &str| DbPath::parse(path).is_ok()
                    && !revision.keys().any(|other| other.starts_with(&format!("{path}/")));
                let to: Vec<(&str, &str)> = revision.iter()
                    .filter(|(path, _)| valid(path)).map(|(path, content)| (path.as_str(), content.as_str())).collect();
                flip(&mut tree, &to);
                tree.sweep(tree.flip());
                let shown = shown(&tree);
                let mut expected: Vec<&str> = to.iter().map(|(path, _)| *path).collect();
                expected.sort_unstable();
                proptest::prop_assert!(shown.keys().eq(expected.iter()), "{:?} {:?}", shown, expected);
                for (path, content) in &to {
                    let known = contents.entry(shown[*path]).or_insert_with(|| (*content).to_owned());
                    proptest::prop_assert_eq!(&*known, content, "a number has one content");
                }
                proptest::prop_assert_eq!(tree.difference(&files(&to)).len(), 0);
                proptest::prop_assert_eq!(tree.kept(), 0);
            }
        }
    }
}
