//! Which content has which MD5, where it was uploaded by somebody who named no SHA-256. Within one database only: an MD5
//! is too weak to name bytes between databases (rule 5).

use object_store::ObjectStoreExt;
use serde::{Deserialize, Serialize};

use super::log::{decode, encode, get_optional};
use super::merge_sent::Files;
use super::{Database, PublishError, StoreError, keys};
use crate::manifest::Entry;
use crate::model::{ContentHash, Sha256};

#[derive(Serialize, Deserialize)]
struct Record {
    format: u64,
    sha256: Sha256,
}

impl Database {
    /// Remembers which content was uploaded. A later one with the same MD5 and size takes the place of an earlier one.
    pub(super) async fn remember_md5(
        &self,
        md5: [u8; 16],
        size: u64,
        sha256: Sha256,
    ) -> Result<(), StoreError> {
        let key = keys::md5(&self.id, &md5, size);
        let stored = self.objects.put(&key, encode(&Record { format: 1, sha256 }).into()).await;
        stored.map(drop).map_err(StoreError::unavailable("remember an upload"))
    }

    /// The same files, every entry with a SHA-256: MD5s are looked up among what was uploaded here.
    pub async fn with_sha256(&self, files: Files) -> Result<Files, PublishError> {
        let mut known = Files::new();
        let mut unknown = Vec::new();
        for (path, entry) in files {
            let hash = match entry.hash {
                ContentHash::Sha256(_) => Some(entry.hash),
                ContentHash::Md5(md5) => {
                    let key = keys::md5(&self.id, &md5, entry.size);
                    let record = get_optional(&*self.objects, &key).await?;
                    let record = record.map(|bytes| decode::<Record>(&key, &bytes)).transpose()?;
                    record.map(|record| ContentHash::Sha256(record.sha256))
                }
            };
            match hash {
                Some(hash) => drop(known.insert(path, Entry { hash, ..entry })),
                None => unknown.push(path),
            }
        }
        if unknown.is_empty() {
            return Ok(known);
        }
        let reason = "the content of these entries is not stored: upload it first".to_owned();
        Err(PublishError::Rejected { reason, paths: unknown })
    }
}
