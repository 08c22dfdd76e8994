//! `blockHashes` of an entry: `{algorithm, blockSize, root}`. Other ways of hashing blocks are kept as they came, like
//! every field this program does not know.

use serde_json::{Value, json};

use crate::model::{BlockHash, BlockRoot, LEAF};

pub(super) const FIELD: &str = "blockHashes";
/// A tree of the first halves of SHA-256, as `model/block_tree.rs` computes it.
const ALGORITHM: &str = "sha256-128-tree";

pub(super) fn to_json(root: &BlockRoot) -> Value {
    json!({"algorithm": ALGORITHM, "blockSize": LEAF, "root": root.0.to_string()})
}

/// The root, if this is just what we would write.
pub(super) fn from_json(value: &Value) -> Option<BlockRoot> {
    let root = BlockRoot(BlockHash::parse(value.get("root")?.as_str()?)?);
    (to_json(&root) == *value).then_some(root)
}
