//! Block hashes as they travel: the blocks they are for, and the nodes of the proof. The blocks are named because a
//! proxy that puts ranges together may hand on the header of another answer: that one is no proof, and no lie.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::content_range::digits;
use crate::model::{BlockHash, LeafRange};

/// Asks for the proof of a range that consists of whole blocks. Its value is `1`.
pub const WANT_PROOF_HEADER: &str = "x-parquedb-want-proof";
/// Has it, beside the bytes.
pub const BLOCK_HASHES_HEADER: &str = "x-parquedb-block-hashes";

/// `first-last base64`: the nodes that prove blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockProof {
    /// The blocks.
    pub blocks: LeafRange,
    /// Their hashes, then the nodes beside them.
    pub nodes: Vec<BlockHash>,
}

impl BlockProof {
    /// Reads a header's value.
    pub fn parse(value: &str) -> Option<Self> {
        let (blocks, nodes) = value.split_once(' ')?;
        let (first, last) = blocks.split_once('-')?;
        let (start, end) = (digits(first)?, digits(last)?.checked_add(1)?);
        let nodes = BlockHash::read_all(&STANDARD.decode(nodes).ok()?)?;
        (start < end).then_some(Self { blocks: LeafRange { start, end }, nodes })
    }

    /// The header's value.
    pub fn to_header(&self) -> String {
        let nodes: Vec<u8> = self.nodes.iter().flat_map(|node| node.0).collect();
        format!("{}-{} {}", self.blocks.start, self.blocks.end - 1, STANDARD.encode(nodes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_round_trips_and_anything_unusual_is_none() {
        let nodes = vec![BlockHash([1; 16]), BlockHash([2; 16])];
        let proof = BlockProof { blocks: LeafRange { start: 3, end: 5 }, nodes };
        let text = proof.to_header();
        assert!(text.starts_with("3-4 AQEB") && text.is_ascii(), "{text}");
        assert_eq!(BlockProof::parse(&text), Some(proof));
        for bad in [
            "",
            "3-4",
            "4-3 AQEB",
            "3- AQEB",
            "3-4 AQEB",
            "3-4  ",
            "+3-4 ",
            "3-18446744073709551615 ",
            "3-4 !",
        ] {
            assert_eq!(BlockProof::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_longest_proof_leaves_room_for_the_other_headers() {
        let proof = BlockProof {
            blocks: LeafRange { start: 1 << 21, end: (1 << 21) + 64 },
            nodes: vec![BlockHash([255; 16]); 112],
        };
        assert!(proof.to_header().len() < 2500);
    }
}
