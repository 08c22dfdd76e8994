//! A numbered, append-only log of objects: entry n+1 is created only if it does not exist. Revisions and settings
//! are both such logs.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};

use super::StoreError;
use super::objects::Objects;

/// Entries `1..` below one prefix, named by twenty digits.
pub(super) struct NumberedLog<'a> {
    pub(super) objects: &'a Objects,
    pub(super) prefix: Path,
}

/// What became of an append.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Append {
    /// The entry is in the log, durably.
    Done,
    /// Someone else's entry has that number.
    Taken,
}

impl NumberedLog<'_> {
    pub(super) fn key(&self, number: u64) -> Path {
        self.prefix.clone().join(format!("{number:020}.json"))
    }

    /// Adds entry `number`, if there is none yet.
    pub(super) async fn append(&self, number: u64, body: Bytes) -> Result<Append, StoreError> {
        match self.objects.put_opts(&self.key(number), body.into(), PutMode::Create.into()).await {
            Ok(_) => Ok(Append::Done),
            Err(object_store::Error::AlreadyExists { .. }) => Ok(Append::Taken),
            Err(error) => Err(StoreError::unavailable("add to a log")(error)),
        }
    }

    /// Entry `number`, if it is there.
    pub(super) async fn get(&self, number: u64) -> Result<Option<Bytes>, StoreError> {
        get_optional(&**self.objects, &self.key(number)).await
    }

    /// Whether entry `number` is there.
    pub(super) async fn has(&self, number: u64) -> Result<bool, StoreError> {
        self.objects.has(&self.key(number)).await
    }

    /// The number of the last entry, searched upwards from `known`, which is there (or zero). The log has no
    /// gaps, so doubling steps and then halving ones find the end: one look when nothing is new.
    pub(super) async fn last(&self, known: u64) -> Result<u64, StoreError> {
        let (mut present, mut step) = (known, 1);
        while self.has(present + step).await? {
            present += step;
            step *= 2;
        }
        // present is there; present + step is not.
        let mut absent = present + step;
        while absent - present > 1 {
            let middle = present + (absent - present) / 2;
            if self.has(middle).await? { present = middle } else { absent = middle }
        }
        Ok(present)
    }
}

/// How often an object is tried to be made that others may be making.
const ATTEMPTS: usize = 5;

/// The object at `key`: `body`, if there was none, else what was there. A store may say of an object that somebody is
/// just making that it exists, and then it does not.
pub(super) async fn create_or_read(
    objects: &dyn ObjectStore,
    key: &Path,
    body: Bytes,
) -> Result<Bytes, StoreError> {
    for _ in 0..ATTEMPTS {
        match objects.put_opts(key, body.clone().into(), PutMode::Create.into()).await {
            Ok(_) => return Ok(body),
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(StoreError::unavailable("make an object")(error)),
        }
        if let Some(there) = get_optional(objects, key).await? {
            return Ok(there);
        }
    }
    Err(StoreError::Damaged { key: key.to_string(), reason: "it is there, and cannot be read".into() })
}

/// An object's bytes, or nothing where there is none.
pub(super) async fn get_optional(objects: &dyn ObjectStore, key: &Path) -> Result<Option<Bytes>, StoreError> {
    match objects.get(key).await {
        Ok(found) => found.bytes().await.map(Some).map_err(StoreError::unavailable("read an object")),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(StoreError::unavailable("read an object")(error)),
    }
}

/// Reads an object's JSON.
pub(super) fn decode<T: serde::de::DeserializeOwned>(key: &Path, bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes)
        .map_err(|error| StoreError::Damaged { key: key.to_string(), reason: error.to_string() })
}

/// Writes an object's JSON. The house's own documents always serialize: their keys are strings.
pub(super) fn encode<T: serde::Serialize>(document: &T) -> Bytes {
    serde_json::to_vec(document).unwrap_or_default().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_end_is_found_from_any_hint_and_a_number_is_given_once() {
        let objects = Objects::in_memory();
        let log = NumberedLog { objects: &objects, prefix: Path::from("log") };
        assert_eq!(log.last(0).await.unwrap(), 0);
        for number in 1..=37 {
            assert_eq!(log.append(number, Bytes::from("x")).await.unwrap(), Append::Done);
        }
        assert_eq!(log.append(37, Bytes::from("y")).await.unwrap(), Append::Taken);
        assert_eq!(log.get(37).await.unwrap().unwrap(), "x");
        for known in [0, 1, 5, 36, 37] {
            assert_eq!(log.last(known).await.unwrap(), 37, "from {known}");
        }
    }
}
