//! The nouns of the house: paths, hashes, ranges, revisions, visibility. No I/O and no async here, so every
//! floor above may speak in these words.

mod block_tree;
mod blocks;
mod exit;
mod hash;
mod path;
mod range;
mod reference;
mod revision;
mod token;
mod visibility;

pub use block_tree::{
    BlockHash, BlockRoot, BlockTree, BlockTreeBuilder, MOST_PROVEN, MOST_PROVEN_SINGLY, ProvenBlocks, Then,
    WHOLE_AT_ONCE, has_tree, node_count, proof_positions, provable,
};
pub use blocks::{BLOCK, BlockRange, LEAF, LeafRange};
pub use exit::ExitCode;
pub use hash::{ContentHash, HashParseError, Sha256};
pub(crate) use path::encode_segment;
pub use path::{DbPath, MAX_COMPONENT_BYTES, MAX_COMPONENTS, MAX_PATH_BYTES, PathError};
pub use range::ByteRange;
pub use reference::{DbRef, ReferenceError, is_owner_name, is_slug, slugify};
pub use revision::Revision;
pub use token::Token;
pub use visibility::{Visibility, VisibilityError};
