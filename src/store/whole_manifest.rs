//! Whole manifests beside the log of revisions, so that a process starting anew need not read every delta. A
//! missing or damaged one loses nothing.

use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use super::log::{encode, get_optional};
use super::{Database, StoreError, keys};
use crate::model::{Revision, Sha256};
use crate::wire::PutEntry;

/// Every how many revisions one is stored.
pub(super) const WHOLE_MANIFEST_EVERY: u64 = 128;

/// A whole manifest beside the log. It only saves reading deltas: a missing one loses nothing.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct WholeManifest {
    format: u64,
    revision: Revision,
    record_hash: Sha256,
    pub(super) time: String,
    pub(super) files: Vec<PutEntry>,
}

impl Database {
    /// Starts from the newest whole manifest, if one was stored.
    pub(super) async fn load_newest_whole_manifest(&self) -> Result<(), StoreError> {
        let last = self.revisions().last(0).await?;
        let mut number = last - last % WHOLE_MANIFEST_EVERY;
        while number > 0 {
            let whole = match self.record(Revision(number)).await? {
                Some((_, record_hash)) => self.whole_manifest(Revision(number), record_hash).await?,
                None => None,
            };
            if let Some(whole) = whole {
                let mut state = self.write();
                state.revision = whole.revision;
                state.record_hash = Some(whole.record_hash);
                state.time = whole.time;
                state.files = whole.files.into_iter().map(|put| (put.path, put.entry)).collect();
                return Ok(());
            }
            number -= WHOLE_MANIFEST_EVERY;
        }
        Ok(())
    }

    /// The whole manifest beside the revision with that record. One that is damaged, or does not belong to the log,
    /// is passed over: the log has everything.
    pub(super) async fn whole_manifest(
        &self,
        revision: Revision,
        record_hash: Sha256,
    ) -> Result<Option<WholeManifest>, StoreError> {
        let key = keys::whole_manifest(&self.id, revision.0);
        let stored = get_optional(&*self.objects, &key).await?.unwrap_or_default();
        let whole = serde_json::from_slice::<WholeManifest>(&stored).ok();
        Ok(whole.filter(|whole| {
            whole.format == 1 && whole.revision == revision && whole.record_hash == record_hash
        }))
    }

    /// Stores the whole manifest of the current revision beside the log.
    pub(super) async fn store_whole_manifest(&self) -> Result<(), StoreError> {
        let whole = {
            let state = self.read();
            let Some(record_hash) = state.record_hash else { return Ok(()) };
            let files =
                state.files.iter().map(|(path, entry)| PutEntry { path: path.clone(), entry: entry.clone() });
            WholeManifest {
                format: 1,
                revision: state.revision,
                record_hash,
                time: state.time.clone(),
                files: files.collect(),
            }
        };
        let key = keys::whole_manifest(&self.id, whole.revision.0);
        let stored = self.objects.put(&key, encode(&whole).into()).await;
        stored.map(drop).map_err(StoreError::unavailable("store a whole manifest"))
    }
}
