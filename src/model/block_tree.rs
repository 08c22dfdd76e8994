//! The block tree of a content: hashes by which single blocks can be told to be right, long before the whole content
//! is here and can be compared with its SHA-256.
//!
//! A leaf is the hash of a block, a node that of the two below it; one that is left over goes up as it is. The root
//! is the hash of the content's size and the topmost node, so the size decides the shape. Each kind of hash begins
//! with a byte of its own: none can be taken for another. Of every SHA-256 the first half is kept. That is 128 bits
//! against whoever wants to put other bytes in a block's place, and it is what fits beside the bytes in a header.
//! Two blocks of one hash could be found with 2^64 steps, but only by who makes the content, and the SHA-256 of the
//! whole stays its identity.

use std::fmt;
use std::ops::Range;

use ring::digest::{Context, SHA256};

use super::{ByteRange, LEAF, LeafRange};

/// Contents up to this size have no tree: who reads them fetches them whole and checks them by their own hash.
pub const WHOLE_AT_ONCE: u64 = 1 << 20;
/// Contents beyond this size have none: it is held in memory while they are stored.
const LARGEST: u64 = 128 << 30;
/// A proof is for no more blocks.
pub const MOST_PROVEN: u64 = 128;
/// One for more blocks than this tells right pairs of blocks from wrong ones, not single blocks: a proof travels in a
/// header, and proxies want all of these within four kibibytes.
pub const MOST_PROVEN_SINGLY: u64 = 64;

const OF_LEAF: u8 = 0;
const OF_NODE: u8 = 1;
const OF_ROOT: u8 = 2;

/// The hash of a block, or of two hashes.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockHash(pub [u8; Self::BYTES]);

/// What a block tree ends in: stands for a content's size and every block of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct BlockRoot(pub BlockHash);

impl BlockHash {
    /// Bytes in a hash.
    pub const BYTES: usize = 16;

    fn of(kind: u8, parts: [&[u8]; 2]) -> Self {
        let mut context = begin(kind);
        parts.iter().for_each(|part| context.update(part));
        Self::end(context)
    }

    fn end(context: Context) -> Self {
        let mut half = [0; Self::BYTES];
        half.copy_from_slice(&context.finish().as_ref()[..Self::BYTES]);
        Self(half)
    }

    /// Reads 32 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut hash = [0; Self::BYTES];
        hex::decode_to_slice(text, &mut hash).ok()?;
        Some(Self(hash))
    }

    /// Hashes that stand one behind the other.
    pub fn read_all(bytes: &[u8]) -> Option<Vec<Self>> {
        let (hashes, rest) = bytes.as_chunks();
        rest.is_empty().then(|| hashes.iter().map(|hash| Self(*hash)).collect())
    }
}

impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block:{self}")
    }
}

impl fmt::Debug for BlockRoot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "root:{}", self.0)
    }
}

impl BlockRoot {
    /// The root above the topmost node.
    pub fn above(top: &BlockHash, size: u64) -> Self {
        Self(BlockHash::of(OF_ROOT, [&size.to_le_bytes(), &top.0]))
    }
}

fn begin(kind: u8) -> Context {
    let mut context = Context::new(&SHA256);
    context.update(&[kind]);
    context
}

fn leaf(block: &[u8]) -> BlockHash {
    BlockHash::of(OF_LEAF, [block, &[]])
}

fn above(left: &BlockHash, right: &BlockHash) -> BlockHash {
    BlockHash::of(OF_NODE, [&left.0, &right.0])
}

/// The levels of a tree, leaves first, as positions in the sequence of all its nodes.
fn levels(size: u64) -> impl Iterator<Item = Range<u64>> {
    let leaves = 0..size.div_ceil(LEAF);
    std::iter::successors(Some(leaves), |below| {
        let width = below.end - below.start;
        (width > 1).then(|| below.end..below.end + width.div_ceil(2))
    })
}

/// Whether a content of this size has a tree.
pub fn has_tree(size: u64) -> bool {
    (WHOLE_AT_ONCE + 1..=LARGEST).contains(&size)
}

/// The blocks of a range that can be proven: whole ones, and not too many.
pub fn provable(range: ByteRange, size: u64) -> Option<LeafRange> {
    let blocks = LeafRange::covering(range);
    let whole = !range.is_empty() && blocks.bytes(size) == range;
    (whole && blocks.len() <= MOST_PROVEN).then_some(blocks)
}

/// How many nodes the tree of a content has.
pub fn node_count(size: u64) -> u64 {
    levels(size).last().map_or(0, |top| top.end)
}

/// The level of the hashes that blocks are compared with: leaves, or what is above pairs of them.
fn grain(blocks: LeafRange) -> usize {
    usize::from(blocks.len() > MOST_PROVEN_SINGLY)
}

/// What proves `blocks`, as positions in the sequence of all nodes: level by level the nodes beside them that the next
/// level needs, left before right; and before those of the level blocks are compared with, the blocks' own there.
pub fn proof_positions(blocks: LeafRange, size: u64) -> Vec<Range<u64>> {
    let mut positions = Vec::new();
    let mut run = blocks;
    for (depth, level) in levels(size).enumerate() {
        let width = level.end - level.start;
        if depth == grain(blocks) {
            positions.push(level.start + run.start..level.start + run.end);
        }
        if run.start % 2 == 1 {
            positions.push(level.start + run.start - 1..level.start + run.start);
        }
        if run.end % 2 == 1 && run.end < width {
            positions.push(level.start + run.end..level.start + run.end + 1);
        }
        run = LeafRange { start: run.start / 2, end: run.end.div_ceil(2) };
    }
    positions
}

/// A tree being computed while its content streams by.
pub struct BlockTreeBuilder {
    leaves: Vec<BlockHash>,
    block: Context,
    in_block: u64,
    size: u64,
}

impl Default for BlockTreeBuilder {
    fn default() -> Self {
        Self { leaves: Vec::new(), block: begin(OF_LEAF), in_block: 0, size: 0 }
    }
}

impl BlockTreeBuilder {
    /// Takes the next bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        self.size += bytes.len() as u64;
        while !bytes.is_empty() {
            let room = usize::try_from(LEAF - self.in_block).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            self.block.update(now);
            self.in_block += now.len() as u64;
            bytes = later;
            if self.in_block == LEAF {
                self.end_block();
            }
        }
    }

    fn end_block(&mut self) {
        let block = std::mem::replace(&mut self.block, begin(OF_LEAF));
        self.leaves.push(BlockHash::end(block));
        self.in_block = 0;
    }

    /// The tree of all bytes taken; nothing has none.
    pub fn finish(mut self) -> Option<BlockTree> {
        if self.in_block > 0 {
            self.end_block();
        }
        let mut nodes = self.leaves;
        for level in levels(self.size) {
            let index = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
            let (start, end) = (index(level.start), index(level.end));
            if end - start == 1 {
                break;
            }
            for left in (start..end).step_by(2) {
                let node = if left + 1 < end { above(&nodes[left], &nodes[left + 1]) } else { nodes[left] };
                nodes.push(node);
            }
        }
        let root = BlockRoot::above(nodes.last()?, self.size);
        Some(BlockTree { nodes, root })
    }
}

/// A content's tree.
pub struct BlockTree {
    /// Every node, leaves first, level by level.
    pub nodes: Vec<BlockHash>,
    /// Its root.
    pub root: BlockRoot,
}

/// The hashes of some blocks, which were shown to lie below a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenBlocks {
    blocks: LeafRange,
    hashes: Vec<BlockHash>,
    /// The leaves beside the first and the last block, where pairs are compared. Not shown to lie below the root: if
    /// one does not, the block beside it is taken for a wrong one.
    edges: [Option<BlockHash>; 2],
}

/// What a look at blocks found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// So many from the first on are right.
    pub right: usize,
    /// What follows them.
    pub then: Then,
}

/// What follows the blocks that are right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// Nothing, or half of a pair.
    More,
    /// Something else than the content's next block, or its next two.
    Wrong,
}

impl ProvenBlocks {
    /// What `proof`, the nodes at [`proof_positions`], says of `blocks`, if it leads to `root`.
    pub fn new(root: &BlockRoot, size: u64, blocks: LeafRange, proof: &[BlockHash]) -> Option<Self> {
        if blocks.is_empty() || blocks.end > size.div_ceil(LEAF) || blocks.len() > MOST_PROVEN {
            return None;
        }
        let (mut proof, mut run) = (proof.iter().copied(), blocks);
        let (mut row, mut hashes, mut edges) = (Vec::new(), Vec::new(), [None; 2]);
        for (depth, level) in levels(size).enumerate() {
            if depth == grain(blocks) {
                hashes = proof.by_ref().take(usize::try_from(run.len()).ok()?).collect();
                row = hashes.clone();
            }
            let left = if run.start % 2 == 1 { Some(proof.next()?) } else { None };
            let right = if run.end % 2 == 1 && run.end < level.end - level.start {
                Some(proof.next()?)
            } else {
                None
            };
            if depth < grain(blocks) {
                edges = [left, right];
            } else {
                row.splice(0..0, left);
                row.extend(right);
                row =
                    row.chunks(2).map(|pair| if let [l, r] = pair { above(l, r) } else { pair[0] }).collect();
            }
            run = LeafRange { start: run.start / 2, end: run.end.div_ceil(2) };
        }
        let right = proof.next().is_none() && BlockRoot::above(row.first()?, size) == *root;
        right.then_some(Self { blocks, hashes, edges })
    }

    /// How many of the blocks that `bytes` consists of are right. `first` is where the blocks begin, or where an earlier
    /// look ended; the last block may be a content's last, short one.
    pub fn look(&self, first: u64, bytes: &[u8]) -> Found {
        let (mut right, mut rest) = (0, bytes);
        loop {
            let then = match self.look_at_one(first + right, rest) {
                Some(0) => Then::Wrong,
                None => Then::More,
                Some(count) => {
                    right += count;
                    rest = &rest[rest.len().min(count as usize * LEAF as usize)..];
                    continue;
                }
            };
            return Found { right: usize::try_from(right).unwrap_or(usize::MAX), then };
        }
    }

    /// How many blocks the next hash stands for, or none if they are wrong; nothing if they are not all here.
    fn look_at_one(&self, at: u64, bytes: &[u8]) -> Option<u64> {
        let grain = grain(self.blocks);
        let mut blocks = bytes.chunks(LEAF as usize).map(leaf);
        let has_one = bytes.len() as u64 <= LEAF;
        let at_edge = at + 1 == self.blocks.end || (at == self.blocks.start && self.edges[0].is_some());
        if grain == 1 && has_one && !at_edge {
            return None;
        }
        let one = blocks.next()?;
        let (count, found) = match self.edges {
            _ if grain == 0 => (1, one),
            [Some(before), _] if at == self.blocks.start => (1, above(&before, &one)),
            [_, Some(after)] if at + 1 == self.blocks.end => (1, above(&one, &after)),
            // The content's last block, left over.
            _ if at + 1 == self.blocks.end => (1, one),
            _ => (2, above(&one, &blocks.next()?)),
        };
        let place = |block: u64| usize::try_from(block >> grain).ok();
        let expected = self.hashes.get(place(at)? - place(self.blocks.start)?);
        Some(if expected == Some(&found) { count } else { 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at * 31 + at / LEAF * 7) as u8).collect()
    }

    fn tree(bytes: &[u8]) -> BlockTree {
        let mut builder = BlockTreeBuilder::default();
        builder.update(bytes);
        builder.finish().unwrap()
    }

    fn proof(tree: &BlockTree, blocks: LeafRange, size: u64) -> Vec<BlockHash> {
        let positions = proof_positions(blocks, size).into_iter().flatten();
        positions.map(|at| tree.nodes[at as usize]).collect()
    }

    #[test]
    fn the_smallest_trees_by_hand() {
        let bytes = content(2 * LEAF + 5);
        let block = |n: usize| &bytes[n * LEAF as usize..bytes.len().min((n + 1) * LEAF as usize)];
        let hash = |parts: &[&[u8]]| {
            let digest = ring::digest::digest(&SHA256, &parts.concat());
            BlockHash(digest.as_ref()[..16].try_into().unwrap())
        };
        let leaves = [hash(&[&[0], block(0)]), hash(&[&[0], block(1)]), hash(&[&[0], block(2)])];
        let pair = hash(&[&[1], &leaves[0].0, &leaves[1].0]);
        let top = hash(&[&[1], &pair.0, &leaves[2].0]);
        let root = hash(&[&[2], &(2 * LEAF + 5).to_le_bytes(), &top.0]);
        let tree = tree(&bytes);
        assert_eq!(tree.nodes, [leaves[0], leaves[1], leaves[2], pair, leaves[2], top]);
        assert_eq!(tree.root, BlockRoot(root));
        assert!(BlockTreeBuilder::default().finish().is_none());
    }

    #[test]
    fn a_proof_fits_into_a_header_however_large_the_content() {
        for size in [LARGEST, LARGEST - 5 * LEAF, 3 * LARGEST / 4 + 1] {
            let blocks = size.div_ceil(LEAF);
            for start in [0, 1, blocks / 2 - 33, blocks / 2 - 31, blocks - 64] {
                let run = LeafRange { start, end: start + MOST_PROVEN_SINGLY };
                let nodes: u64 = proof_positions(run, size).iter().map(|run| run.end - run.start).sum();
                assert!(nodes <= 112, "{nodes} for {run:?}");
                let run = LeafRange {
                    start: start.min(blocks - MOST_PROVEN),
                    end: start.min(blocks - MOST_PROVEN) + MOST_PROVEN,
                };
                let nodes: u64 = proof_positions(run, size).iter().map(|run| run.end - run.start).sum();
                assert!(nodes <= 112, "{nodes} for {run:?}");
            }
        }
    }

    #[test]
    fn whole_blocks_can_be_proven_and_nothing_else() {
        let size = 134 * LEAF + 9;
        let blocks = |start, end| provable(ByteRange::new(start, end), size).map(|run| (run.start, run.end));
        assert_eq!(blocks(0, LEAF), Some((0, 1)));
        assert_eq!(blocks(7 * LEAF, size), Some((7, 135)));
        assert_eq!(blocks(134 * LEAF, size), Some((134, 135)));
        for (start, end) in [(0, 1), (1, LEAF), (0, LEAF + 1), (6 * LEAF, size), (LEAF, LEAF)] {
            assert_eq!(blocks(start, end), None, "{start}..{end}");
        }
    }

    #[test]
    fn a_tree_of_another_size_or_a_node_for_a_leaf_proves_nothing() {
        let size = 4 * LEAF;
        let tree = tree(&content(size));
        let all = LeafRange::all(size);
        let nodes = proof(&tree, all, size);
        assert!(ProvenBlocks::new(&tree.root, size, all, &nodes).is_some());
        assert!(ProvenBlocks::new(&tree.root, size - 1, all, &nodes).is_none());
        // The two nodes of the second level, given out as a content of two blocks.
        let two = LeafRange::all(2 * LEAF);
        assert!(ProvenBlocks::new(&tree.root, 2 * LEAF, two, &tree.nodes[4..6]).is_none());
        assert!(ProvenBlocks::new(&tree.root, size, LeafRange { start: 4, end: 4 }, &[]).is_none());
        let beyond = LeafRange { start: 3, end: 5 };
        assert!(ProvenBlocks::new(&tree.root, size, beyond, &nodes).is_none());
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(64))]
        #[test]
        fn right_blocks_are_proven_and_altered_ones_never(
            (blocks, start, length) in (1_u64..150).prop_flat_map(|n| (Just(n), 0..n)).prop_flat_map(
                |(n, start)| (Just(n), Just(start), 1..=MOST_PROVEN.min(n - start))),
            last in 1..=LEAF,
            pieces in proptest::collection::vec(1_usize..100_000, 1..6),
            (altered, bit, moved) in (any::<proptest::sample::Index>(), 0_u32..8, 0_u64..150),
            step in 1_usize..9,
        ) {
            let size = (blocks - 1) * LEAF + last;
            let bytes = content(size);
            let mut builder = BlockTreeBuilder::default();
            let (mut rest, mut pieces) = (&bytes[..], pieces.iter().cycle());
            while !rest.is_empty() {
                let (now, later) = rest.split_at((*pieces.next().unwrap()).min(rest.len()));
                builder.update(now);
                rest = later;
            }
            let built = builder.finish().unwrap();
            prop_assert_eq!(built.nodes.len() as u64, node_count(size));
            prop_assert_eq!(built.root, tree(&bytes).root);

            let run = LeafRange { start, end: start + length };
            let nodes = proof(&built, run, size);
            let proven = ProvenBlocks::new(&built.root, size, run, &nodes).unwrap();
            let range = run.bytes(size);
            let honest = &bytes[range.start as usize..range.end as usize];
            let mut part = honest.to_vec();
            let all = Found { right: length as usize, then: Then::More };
            prop_assert_eq!(proven.look(start, &part), all);
            // As they come, in pieces of any number of blocks.
            let (mut rest, mut at) = (&part[..], start);
            let mut here = 0;
            while at < run.end {
                here = (here + step).min(rest.len().div_ceil(LEAF as usize));
                let found = proven.look(at, &rest[..rest.len().min(here * LEAF as usize)]);
                prop_assert_eq!(found.then, Then::More);
                prop_assert!(found.right + 1 >= here, "at most half of a pair waits");
                rest = &rest[rest.len().min(found.right * LEAF as usize)..];
                at += found.right as u64;
                here -= found.right;
            }

            // Any bit of the bytes.
            let at = altered.index(part.len());
            part[at] ^= 1 << bit;
            let (found, at) = (proven.look(start, &part), at / LEAF as usize);
            prop_assert_eq!(found.then, Then::Wrong);
            let least = if length <= MOST_PROVEN_SINGLY { at } else { at.saturating_sub(1) };
            prop_assert!((least..=at).contains(&found.right), "{} of {}", found.right, at);

            // Any bit of the proof, one node more or less, or the same for other blocks.
            let mut other = nodes.clone();
            other[altered.index(nodes.len())].0[altered.index(16)] ^= 1 << bit;
            // A leaf beside the blocks that stands alone is only seen to be wrong with the block it makes a pair with.
            let vouched = ProvenBlocks::new(&built.root, size, run, &other);
            prop_assert!(vouched.is_none_or(|proven| proven.look(start, honest).then == Then::Wrong));
            prop_assert!(ProvenBlocks::new(&built.root, size, run, &nodes[1..]).is_none());
            prop_assert!(ProvenBlocks::new(&built.root, size, run, &[&nodes[..], &nodes[..1]].concat()).is_none());
            let elsewhere = LeafRange { start: moved, end: moved + length };
            if elsewhere != run && elsewhere.end <= blocks {
                let vouched = ProvenBlocks::new(&built.root, size, elsewhere, &nodes);
                let range = elsewhere.bytes(size);
                let honest = &bytes[range.start as usize..range.end as usize];
                prop_assert!(vouched.is_none_or(|proven| proven.look(moved, honest).then == Then::Wrong));
            }
        }
    }

    use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq};
}
