//! Whether a store keeps the one promise that everything here rests on: an object that is there is not created
//! again. There are stores that answer 200 to such a request, and overwrite.

use futures::StreamExt;
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode};

use super::{StoreError, keys};
use crate::disk::random_hex;

/// Who tries to create the same object at once.
const RACERS: usize = 4;

/// Refuses a store that lets an object be created twice, one after the other or at once.
pub(super) async fn check_creates_once(objects: &dyn ObjectStore, place: &str) -> Result<(), StoreError> {
    let [one_by_one, at_once] =
        ["first", "raced"].map(|what| keys::probe(&format!("{what}-{}", random_hex::<8>())));
    let first = creates(objects, &one_by_one).await?;
    let second = creates(objects, &one_by_one).await?;
    let racers = futures::stream::iter(0..RACERS).map(|_| creates(objects, &at_once));
    let won: Vec<_> = racers.buffer_unordered(RACERS).collect().await;
    let won = won.into_iter().collect::<Result<Vec<_>, _>>()?;
    for key in [one_by_one, at_once] {
        // What stays of a probe is in nobody's way.
        let _ = objects.delete(&key).await;
    }
    // A write that the client library repeated after a lost answer counts as nobody's: none, then, but not two.
    if (first && second) || won.iter().filter(|won| **won).count() > 1 {
        return Err(StoreError::Overwrites { place: place.to_owned() });
    }
    Ok(())
}

async fn creates(objects: &dyn ObjectStore, key: &Path) -> Result<bool, StoreError> {
    match objects.put_opts(key, random_hex::<8>().into(), PutMode::Create.into()).await {
        Ok(_) => Ok(true),
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
        Err(error) => Err(StoreError::unavailable("be written to")(error)),
    }
}
