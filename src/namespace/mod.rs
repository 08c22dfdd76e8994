//! The mount as it is seen: a manifest's paths as a tree of inodes, which moves from one revision to the next whole;
//! and the last manifest on disk, to start from.

mod flip;
mod node;
mod order;
mod remembered;
mod tree;

pub use flip::{Difference, Outdated};
pub use node::{Children, FileEntry, Flip, Ino, Node, NodeKind};
pub use order::{FileOrder, Rank};
pub use remembered::{Kept, Remembered, RememberedManifest};
pub use tree::Tree;
