//! Block trees beside the contents they belong to: written with a content, read by the node. A missing or damaged one
//! loses nothing but the proof: readers check the whole content all the same.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::condemned::StoredContent;
use super::{Database, StoreError, keys};
use crate::model::{
    BlockHash, BlockRoot, BlockTree, LeafRange, ProvenBlocks, Sha256, has_tree, node_count, proof_positions,
};
use crate::wire::BlockProof;

/// Then the content's size and the root; then every node, leaves first, level by level.
const MAGIC: &[u8; 8] = b"PQTREE01";
const HEADER: u64 = 8 + 8 + NODE;
const NODE: u64 = BlockHash::BYTES as u64;

/// Stores the tree of a content.
pub(super) async fn store_tree(
    objects: &dyn ObjectStore,
    key: &Path,
    tree: BlockTree,
    size: u64,
) -> Result<(), StoreError> {
    let mut bytes = BytesMut::with_capacity(HEADER as usize + tree.nodes.len() * BlockHash::BYTES);
    bytes.put_slice(MAGIC);
    bytes.put_u64_le(size);
    bytes.put_slice(&tree.root.0.0);
    tree.nodes.iter().for_each(|node| bytes.put_slice(&node.0));
    // Another upload of the same content writes the same.
    let stored = objects.put(key, bytes.freeze().into()).await;
    stored.map(drop).map_err(StoreError::unavailable("store block hashes"))
}

impl Database {
    /// The root of a stored content's tree, if there is a sound one.
    pub(super) async fn block_root(&self, content: &StoredContent, size: u64) -> Option<BlockRoot> {
        if !has_tree(size) {
            return None;
        }
        let end = HEADER + node_count(size) * NODE;
        let parts = self.read_tree(content, &[0..HEADER, end - NODE..end]).await;
        let root = parts.as_ref().map(|parts| parts.as_ref().map(|parts| read_root(parts, size)));
        match root {
            Ok(None) => None,
            Ok(Some(Some(root))) => Some(root),
            // It may be cut short: publishing does not fail for it.
            failed => {
                tracing::error!(database = %self.id, %content, ?failed, "a block tree in the store cannot be read");
                None
            }
        }
    }

    /// Whether the tree stored with a content has just these nodes.
    pub(super) async fn has_tree_nodes(
        &self,
        content: &StoredContent,
        nodes: &[BlockHash],
    ) -> Result<bool, StoreError> {
        let end = HEADER + nodes.len() as u64 * NODE;
        let all = HEADER..end;
        let stored = self.read_tree(content, std::slice::from_ref(&all)).await?;
        let stored = stored.and_then(|parts| BlockHash::read_all(&parts.concat()));
        Ok(stored.is_some_and(|stored| stored == nodes))
    }

    /// What proves blocks of a content to whoever knows its root; nothing if the store has no tree that does.
    pub async fn prove(
        &self,
        hash: &Sha256,
        size: u64,
        root: &BlockRoot,
        blocks: LeafRange,
    ) -> Result<Option<BlockProof>, StoreError> {
        let positions = proof_positions(blocks, size).into_iter();
        let ranges: Vec<_> =
            positions.map(|run| HEADER + run.start * NODE..HEADER + run.end * NODE).collect();
        let Some(parts) = self.read_tree(&self.live(hash), &ranges).await? else { return Ok(None) };
        let nodes = BlockHash::read_all(&parts.concat()).unwrap_or_default();
        // A tree that has rotted must not make right bytes look wrong.
        if ProvenBlocks::new(root, size, blocks, &nodes).is_none() {
            tracing::error!(database = %self.id, %hash, "the block tree in the store is damaged");
            return Ok(None);
        }
        Ok(Some(BlockProof { blocks, nodes }))
    }

    async fn read_tree(
        &self,
        content: &StoredContent,
        ranges: &[Range<u64>],
    ) -> Result<Option<Vec<Bytes>>, StoreError> {
        match self.objects.get_ranges(&keys::block_tree(&self.id, content), ranges).await {
            Ok(parts) => Ok(Some(parts)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::unavailable("read block hashes")(error)),
        }
    }
}

fn read_root(parts: &[Bytes], size: u64) -> Option<BlockRoot> {
    let [header, top] = parts else { return None };
    let rest = header.strip_prefix(MAGIC)?.strip_prefix(&size.to_le_bytes())?;
    let root = BlockRoot(*BlockHash::read_all(rest)?.first()?);
    (BlockRoot::above(BlockHash::read_all(top)?.first()?, size) == root).then_some(root)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::publish::tests::{change, database};
    use super::*;
    use crate::manifest::Entry;
    use crate::model::{DbPath, LEAF};
    use crate::wire::PutEntry;

    async fn upload(database: &Arc<Database>, bytes: &[u8], announced: bool) -> Sha256 {
        let hash = Sha256::of(bytes);
        let mut upload = database.upload(bytes.len() as u64, announced.then_some(hash)).await.unwrap();
        for piece in bytes.chunks(100_001) {
            upload.write(piece).await.unwrap();
        }
        assert_eq!(upload.finish().await.unwrap(), hash);
        hash
    }

    fn entry(hash: Sha256, size: u64) -> Entry {
        Entry { blocks: Some(BlockRoot(BlockHash([9; 16]))), ..Entry::of(hash, size) }
    }

    async fn publish(database: &Arc<Database>, name: &str, entry: Entry) -> Entry {
        let path = DbPath::parse(name).unwrap();
        let base = database.revision().0.0;
        let put = vec![PutEntry { path: path.clone(), entry }];
        database.publish(change(base, name, put, &[])).await.unwrap();
        database.file(&path).unwrap().0
    }

    fn bytes(size: u64) -> Vec<u8> {
        (0..size).map(|at| (at / 7 % 251) as u8).collect()
    }

    #[tokio::test]
    async fn what_is_uploaded_can_be_proven_by_the_root_the_server_publishes() {
        let (_store, database) = database().await;
        for (name, size, announced) in [("first", (3 << 20) + 5, true), ("other", 2 << 20, false)] {
            let bytes = bytes(size);
            let hash = upload(&database, &bytes, announced).await;
            let published = publish(&database, name, entry(hash, size)).await;
            let root = published.blocks.unwrap();
            assert_ne!(root, BlockRoot(BlockHash([9; 16])), "it is not taken from the client");
            let last = size.div_ceil(LEAF);
            for (start, end) in [(0, 1), (5, 20), (last - 3, last)] {
                let blocks = LeafRange { start, end };
                let proof = database.prove(&hash, size, &root, blocks).await.unwrap().unwrap();
                let proven = ProvenBlocks::new(&root, size, blocks, &proof.nodes).unwrap();
                let range = blocks.bytes(size);
                let part = &bytes[range.start as usize..range.end as usize];
                assert_eq!(proven.look(start, part).right as u64, blocks.len());
            }
        }
    }

    #[tokio::test]
    async fn small_contents_have_none_and_a_client_cannot_give_them_one() {
        let (_store, database) = database().await;
        let size = 1 << 20;
        let hash = upload(&database, &bytes(size), true).await;
        let published = publish(&database, "small-one", entry(hash, size)).await;
        assert_eq!(published.blocks, None);
    }

    #[tokio::test]
    async fn a_missing_or_damaged_tree_costs_the_proof_and_nothing_else() {
        let (store, database) = database().await;
        let size = 2 << 20;
        let hash = upload(&database, &bytes(size), true).await;
        let root = publish(&database, "right-one", entry(hash, size)).await.blocks.unwrap();
        let key = keys::block_tree(database.id(), &database.live(&hash));
        let whole = store.objects.get(&key).await.unwrap().bytes().await.unwrap();
        let blocks = LeafRange { start: 3, end: 4 };
        for (what, at) in [("the leaf", HEADER as usize + 3 * 16), ("the magic", 0), ("the root", 16)] {
            let mut damaged = whole.to_vec();
            damaged[at] ^= 1;
            store.objects.put(&key, damaged.into()).await.unwrap();
            let proof = database.prove(&hash, size, &root, blocks).await.unwrap();
            assert_eq!(proof.is_none(), what == "the leaf", "{what}");
            let found = database.block_root(&database.live(&hash), size).await;
            assert_eq!(found.is_none(), what != "the leaf", "{what}");
        }
        store.objects.put(&key, whole.slice(..whole.len() - 1).into()).await.unwrap();
        assert!(database.claim(&hash, size).await.unwrap());
        assert_eq!(publish(&database, "cut-short", entry(hash, size)).await.blocks, None);
        store.objects.delete(&key).await.unwrap();
        assert_eq!(database.prove(&hash, size, &root, blocks).await.unwrap(), None);
        assert_eq!(publish(&database, "second-one", entry(hash, size)).await.blocks, None);
    }
}
