//! The object store below: what must be durable, what may be lost in a power cut, and its clock.

use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

use super::{StoreError, keys};

/// The store's clock is looked at again after so long.
const CLOCK_HOLDS: Duration = Duration::from_secs(60);

/// An object store, as all of this folder uses it. Dereferences to the one whose writes are durable when they are
/// acknowledged.
#[derive(Clone)]
pub(super) struct Objects {
    durable: Arc<dyn ObjectStore>,
    /// The same store; a power cut may take its last writes back. For claims, whose loss costs an upload.
    pub(super) unsynced: Arc<dyn ObjectStore>,
    clock: Arc<tokio::sync::Mutex<Option<Reading>>>,
    /// Where they lie, if that is a directory of this machine: its files are looked at without a detour.
    directory: Option<Arc<std::path::PathBuf>>,
}

/// What the store's clock showed, and when that was here.
#[derive(Clone, Copy)]
struct Reading {
    shown: Timestamp,
    here: (Instant, SystemTime),
}

impl Objects {
    pub(super) fn new(durable: Arc<dyn ObjectStore>, unsynced: Arc<dyn ObjectStore>) -> Self {
        Self { durable, unsynced, clock: Arc::default(), directory: None }
    }

    /// The same, which lie in that directory.
    pub(super) fn in_directory(self, directory: &std::path::Path) -> Self {
        Self { directory: Some(Arc::new(directory.to_owned())), ..self }
    }

    /// The same with writes of this store, under one rule more.
    pub(super) fn written_by(self, durable: Arc<dyn ObjectStore>) -> Self {
        Self { durable, ..self }
    }

    /// Whether objects are files of this machine.
    pub(super) fn are_files(&self) -> bool {
        self.directory.is_some()
    }

    /// The directory they lie in, if they are.
    pub(super) fn directory(&self) -> Option<Arc<std::path::PathBuf>> {
        self.directory.clone()
    }

    /// The file of an object, where objects are files.
    pub(super) fn file(&self, key: &Path) -> Option<std::path::PathBuf> {
        self.directory.as_ref().map(|directory| directory.join(key.as_ref()))
    }

    /// Whether there is such an object. In a directory that takes microseconds, less than handing it to another thread.
    pub(super) async fn has(&self, key: &Path) -> Result<bool, StoreError> {
        let cannot = StoreError::unavailable("look for an object");
        if let Some(file) = self.file(key) {
            return match std::fs::symlink_metadata(file) {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
                Err(error) => {
                    Err(cannot(object_store::Error::Generic { store: "directory", source: error.into() }))
                }
            };
        }
        match self.head(key).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(cannot(error)),
        }
    }

    /// The store whose writes are durable when they are acknowledged.
    pub(super) fn durable(&self) -> Arc<dyn ObjectStore> {
        self.durable.clone()
    }

    #[cfg(test)]
    pub(super) fn in_memory() -> Self {
        Self::of(Arc::new(object_store::memory::InMemory::new()))
    }

    #[cfg(test)]
    pub(super) fn of(objects: Arc<dyn ObjectStore>) -> Self {
        Self::new(objects.clone(), objects)
    }

    /// The time by the store's own clock, which is the one that dates its objects: servers' clocks differ.
    pub(super) async fn now(&self) -> Result<Timestamp, StoreError> {
        let mut reading = self.clock.lock().await;
        if let Some(known) = *reading {
            let elapsed = known.elapsed();
            if elapsed < CLOCK_HOLDS {
                let elapsed = SignedDuration::try_from(elapsed).unwrap_or_default();
                return Ok(known.shown.saturating_add(elapsed).unwrap_or(known.shown));
            }
        }
        let key = Path::from(keys::CLOCK);
        let cannot = StoreError::unavailable("tell the time");
        self.unsynced.put(&key, "{}".into()).await.map_err(&cannot)?;
        let here = (Instant::now(), SystemTime::now());
        let shown = time_of(&self.unsynced.head(&key).await.map_err(&cannot)?);
        *reading = Some(Reading { shown, here });
        Ok(shown)
    }
}

impl Reading {
    /// The monotonic clock stands still while a machine sleeps, and the other may be set back: the longer counts.
    fn elapsed(&self) -> Duration {
        self.here.0.elapsed().max(self.here.1.elapsed().unwrap_or_default())
    }
}

/// When an object was written, by the store's clock.
pub(super) fn time_of(object: &object_store::ObjectMeta) -> Timestamp {
    let (seconds, nanos) = (object.last_modified.timestamp(), object.last_modified.timestamp_subsec_nanos());
    Timestamp::new(seconds, i32::try_from(nanos).unwrap_or_default()).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl Deref for Objects {
    type Target = dyn ObjectStore;

    fn deref(&self) -> &Self::Target {
        &*self.durable
    }
}
