//! The mount as it is seen: a manifest's paths as a tree of inodes. Built once, then only read.

mod tree;

pub use tree::{Children, Ino, Node, NodeKind, Tree};
