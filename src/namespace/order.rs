//! All files of a tree in one line, directory after directory and by name within each: the order in which those who
//! read many files open them. A picture of one revision; a flip makes it untrue.

use super::node::{Flip, Ino, NodeKind};
use super::tree::{ROOT, Tree};

/// A file's place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rank(pub u32);

/// The files of one revision in line.
#[derive(Debug)]
pub struct FileOrder {
    flip: Flip,
    /// Slots by rank.
    slots: Vec<u32>,
    /// Ranks by slot; of what is no file, none.
    ranks: Vec<Option<Rank>>,
}

impl Tree {
    /// Puts its files in line. Looks at every node once.
    pub fn in_order(&self) -> FileOrder {
        let mut order = FileOrder { flip: self.flip, slots: Vec::new(), ranks: vec![None; self.nodes.len()] };
        let mut open = vec![ROOT];
        while let Some(slot) = open.pop() {
            match &self.nodes[slot as usize].kind {
                NodeKind::Directory { children, .. } => open.extend(children.0.iter().rev()),
                NodeKind::File { .. } => {
                    // There are no more files than slots, which have 32 bits.
                    order.ranks[slot as usize] = Some(Rank(order.slots.len() as u32));
                    order.slots.push(slot);
                }
            }
        }
        order
    }

    /// The file of a rank, if the order is this revision's.
    pub fn ranked(&self, order: &FileOrder, rank: Rank) -> Option<Ino> {
        let slot = order.slots.get(rank.0 as usize).filter(|_| order.is_of(self))?;
        Some(self.ino_at(*slot))
    }

    /// The rank of a file that is shown, if the order is this revision's.
    pub fn rank(&self, order: &FileOrder, ino: Ino) -> Option<Rank> {
        self.node(ino).filter(|node| node.is_shown() && order.is_of(self))?;
        let (slot, _) = ino.parts()?;
        *order.ranks.get(slot as usize)?
    }

    /// The directories a node lies in, from the root down.
    pub fn directories(&self, ino: Ino) -> Vec<Ino> {
        let mut above = Vec::new();
        let mut at = ino;
        while at != Ino::ROOT
            && let Some(parent) = self.parent(at)
        {
            above.push(parent);
            at = parent;
        }
        above.reverse();
        above
    }
}

impl FileOrder {
    /// Whether it is the order of the revision that the tree shows.
    pub fn is_of(&self, tree: &Tree) -> bool {
        self.flip == tree.flip
    }
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::build;
    use super::*;

    #[test]
    fn files_stand_in_line_as_they_are_listed() {
        let paths = ["a=1/x", "a=1/y", "a=10/x", "a=2/x", "b", "c/d/e"];
        let tree = build(&paths);
        let order = tree.in_order();
        let path = |rank| tree.ranked(&order, Rank(rank)).and_then(|ino| tree.path(ino));
        let found: Vec<String> = (0..).map_while(path).map(|path| path.as_str().to_owned()).collect();
        assert_eq!(found, paths);
        for rank in 0..6 {
            assert_eq!(tree.rank(&order, tree.ranked(&order, Rank(rank)).unwrap()), Some(Rank(rank)));
        }
        let deepest = tree.ranked(&order, Rank(5)).unwrap();
        assert_eq!(tree.directories(deepest).len(), 3);
        assert_eq!(tree.rank(&order, tree.directories(deepest)[1]), None, "a directory has none");
    }
}
