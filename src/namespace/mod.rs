//! The mount as it is seen: a manifest's paths as a tree of inodes, which moves from one revision to the next whole;
//! what is local over it; and the last manifest on disk, to start from.

mod flip;
mod merged;
mod node;
mod order;
mod remembered;
mod tree;

pub use flip::{Difference, Outdated, Whose};
pub use merged::{FlipStep, Merged, Place};
pub use node::{Children, FileEntry, Flip, Ino, Node, NodeKind};
pub use order::{FileOrder, Rank};
pub use remembered::{Kept, Remembered, RememberedManifest};
pub use tree::Tree;
