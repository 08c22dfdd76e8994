//! Opening a store, and making a new one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use serde::{Deserialize, Serialize};

#[cfg(test)]
use super::faults::Faulty;
use super::location::{Missing, StoreLocation};
use super::log::{create_or_read, decode, encode, get_optional};
use super::objects::Objects;
use super::probe::check_creates_once;
use super::single_writer::SingleWriter;
use super::{Database, StoreError, keys};
use crate::model::DbRef;

/// The layout this program reads and writes.
const FORMAT: u64 = 1;
/// A write that takes longer was cut off.
const STAGED_FOR: Duration = Duration::from_secs(24 * 3600);

/// A store that is attached: its format is known to be ours.
pub struct Store {
    pub(super) objects: Objects,
    /// Databases this process has met, with what it knows of their present state.
    pub(super) known: std::sync::Mutex<HashMap<String, Arc<Database>>>,
    /// Which ids names have: a name never gets another one.
    pub(super) ids: std::sync::RwLock<HashMap<DbRef, String>>,
}

/// Who writes to a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Writers {
    /// Any number of processes: the store must create an object only where there is none, and is tried.
    #[default]
    Many,
    /// This process alone, on a store that does not.
    Single,
}

#[derive(Serialize, Deserialize)]
struct StoreDocument {
    format: u64,
    id: String,
}

impl Store {
    /// Opens the store at a place to write to it.
    pub async fn open_at(
        location: &StoreLocation,
        missing: Missing,
        writers: Writers,
    ) -> Result<Self, StoreError> {
        let objects = location.objects(missing)?;
        let place = location.to_string();
        // Before anything is written: a place that is a mistake stays as it is.
        if !is_store(&objects).await? {
            if missing == Missing::Refuse {
                return Err(StoreError::NoStore { place });
            }
            if !is_empty(&objects).await? {
                return Err(StoreError::NotAStore { place });
            }
        }
        let objects = match writers {
            Writers::Many => {
                check_creates_once(&*objects, &place).await?;
                objects
            }
            Writers::Single => {
                let taken = SingleWriter::take(objects.durable()).await;
                let taken = taken.map_err(StoreError::unavailable("be taken over"))?;
                objects.written_by(Arc::new(taken))
            }
        };
        Self::attach(objects).await
    }

    /// Removes what writes that were cut off have left in a directory. No listing shows it.
    pub async fn remove_staged(&self) -> Result<u64, StoreError> {
        let Some(directory) = self.objects.directory() else { return Ok(0) };
        let shown = directory.display().to_string();
        let removed = tokio::task::spawn_blocking(move || remove_old_staged(&directory)).await;
        let removed = removed.map_err(std::io::Error::other).and_then(|removed| removed);
        removed.map_err(|source| StoreError::Directory { path: shown, source })
    }

    /// Opens the store at a place to read it: nothing is written there.
    pub async fn open_read_only(location: &StoreLocation) -> Result<Self, StoreError> {
        let objects = location.objects(Missing::Refuse)?;
        if !is_store(&objects).await? {
            return Err(StoreError::NoStore { place: location.to_string() });
        }
        Self::attach(objects).await
    }

    /// Attaches any object store, marking an empty one as a parquedb store.
    pub(super) async fn attach(objects: Objects) -> Result<Self, StoreError> {
        let key = object_store::path::Path::from(keys::STORE);
        let bytes = match get_optional(&*objects, &key).await? {
            Some(there) => there,
            None => {
                let id = format!("st_{}", crate::disk::random_hex::<8>());
                create_or_read(&*objects, &key, encode(&StoreDocument { format: FORMAT, id })).await?
            }
        };
        let document: StoreDocument = decode(&key, &bytes)?;
        if document.format != FORMAT {
            return Err(StoreError::Newer { format: document.format });
        }
        Ok(Self { objects, known: Default::default(), ids: Default::default() })
    }

    /// An empty store in memory, for tests of what lies above.
    #[cfg(test)]
    pub(crate) async fn in_memory() -> Self {
        Self::attach(Objects::in_memory()).await.unwrap()
    }

    /// The same on a disk that fails when it is told to.
    #[cfg(test)]
    pub(crate) async fn failing(seed: u64) -> (Self, Arc<Faulty>) {
        let memory = Arc::new(object_store::memory::InMemory::new());
        let objects = Faulty::failing(memory, 0, seed);
        (Self::attach(Objects::of(objects.clone())).await.unwrap(), objects)
    }
}

/// Files that are written under another name until they are whole: the name, `#`, and digits.
fn remove_old_staged(directory: &Path) -> std::io::Result<u64> {
    let is_staged = |name: &std::ffi::OsStr| {
        let number = name.to_str().and_then(|name| name.rsplit_once('#')).map(|(_, number)| number);
        number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    };
    // Servers go on writing: what has gone since it was listed is in nobody's way.
    let unless_gone = |done: std::io::Result<u64>| match done {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        done => done,
    };
    let remove = |path: &Path| {
        // A writer may be at work on it.
        let old = std::fs::symlink_metadata(path)?.modified()?.elapsed().is_ok_and(|age| age > STAGED_FOR);
        if old { std::fs::remove_file(path).map(|()| 1) } else { Ok(0) }
    };
    let mut removed = 0;
    for entry in walkdir::WalkDir::new(directory).into_iter().filter_map(Result::ok) {
        if entry.file_type().is_file() && is_staged(entry.file_name()) {
            removed += unless_gone(remove(entry.path()))?;
        }
    }
    Ok(removed)
}

/// Whether nothing lies there but what an attempt to make a store may have left.
async fn is_empty(objects: &Objects) -> Result<bool, StoreError> {
    let ours = |path: &object_store::path::Path| {
        [keys::CLOCK, keys::WRITER].contains(&path.as_ref()) || path.as_ref().starts_with("probes/")
    };
    let mut others = objects.list(None).try_filter(|object| std::future::ready(!ours(&object.location)));
    let first = others.try_next().await.map_err(StoreError::unavailable("be listed"))?;
    Ok(first.is_none())
}

async fn is_store(objects: &Objects) -> Result<bool, StoreError> {
    Ok(get_optional(&**objects, &object_store::path::Path::from(keys::STORE)).await?.is_some())
}
