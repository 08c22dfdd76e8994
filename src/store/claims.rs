//! Claims: who uploads a content, or is told that it is there, means to publish it soon, and until then no
//! garbage collection may take it (rule 6).

use jiff::{SignedDuration, Timestamp};
use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use super::condemned::StoredContent;
use super::log::encode;
use super::objects::time_of;
use super::{Database, StoreError, keys};
use crate::model::{BlockHash, BlockRoot, Sha256};

/// Publishing does not rely on an older claim.
pub(super) const PUBLISHED_WITHIN: SignedDuration = SignedDuration::from_hours(24);
/// Collection respects a claim for so long: whoever was about to publish has had days to be done.
pub(super) const RESPECTED_FOR: SignedDuration = SignedDuration::from_hours(7 * 24);

/// What a claim says of a content that was there when it was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Claim {
    format: u64,
    pub(super) size: u64,
    /// Which of the contents stored under this hash it is.
    pub(super) generation: u32,
    /// The root of its block tree, in hexadecimal digits, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    blocks: Option<String>,
}

impl Claim {
    pub(super) fn blocks(&self) -> Option<BlockRoot> {
        self.blocks.as_deref().and_then(BlockHash::parse).map(BlockRoot)
    }
}

impl Database {
    /// Claims a content that is stored with that size: for a day from now on it may be published. False where it
    /// is not stored.
    pub async fn claim(&self, hash: &Sha256, size: u64) -> Result<bool, StoreError> {
        let content = self.live(hash);
        if !self.is_stored(&content, size).await? {
            return Ok(false);
        }
        let blocks = self.block_root(&content, size).await;
        self.write_claim(&content, size, blocks).await?;
        Ok(true)
    }

    /// Claims a content that is known to be stored.
    pub(super) async fn write_claim(
        &self,
        content: &StoredContent,
        size: u64,
        blocks: Option<BlockRoot>,
    ) -> Result<(), StoreError> {
        let blocks = blocks.map(|root| root.0.to_string());
        let claim = Claim { format: 1, size, generation: content.generation, blocks };
        let key = keys::claim(&self.id, &content.hash);
        let stored = self.objects.unsynced.put(&key, encode(&claim).into()).await;
        stored.map(drop).map_err(StoreError::unavailable("record a claim"))
    }

    /// The claim on a content and when it was made, by the store's clock.
    pub(super) async fn claim_on(&self, hash: &Sha256) -> Result<Option<(Claim, Timestamp)>, StoreError> {
        let cannot = StoreError::unavailable("look for a claim");
        match self.objects.get(&keys::claim(&self.id, hash)).await {
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(cannot(error)),
            Ok(found) => {
                let time = time_of(&found.meta);
                let bytes = found.bytes().await.map_err(cannot)?;
                // One that is damaged counts for nothing: it is made anew.
                let claim = serde_json::from_slice::<Claim>(&bytes).ok().filter(|claim| claim.format == 1);
                Ok(claim.map(|claim| (claim, time)))
            }
        }
    }
}
