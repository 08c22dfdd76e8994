//! Opening a store, and making a new one.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use object_store::local::LocalFileSystem;
use object_store::{ObjectStore, PutMode};
use serde::{Deserialize, Serialize};

use super::log::{decode, encode, get_optional};
use super::{Database, StoreError, keys};

/// The layout this program reads and writes.
const FORMAT: u64 = 1;

/// A store that is attached: its format is known to be ours.
pub struct Store {
    pub(super) objects: Arc<dyn ObjectStore>,
    /// Databases this process has met, with what it knows of their present state.
    pub(super) known: std::sync::Mutex<HashMap<String, Arc<Database>>>,
}

#[derive(Serialize, Deserialize)]
struct StoreDocument {
    format: u64,
    id: String,
}

impl Store {
    /// Opens the store in a directory, making both if need be. Every write is made durable before it is
    /// acknowledged, names of new directories included (rule 7).
    pub async fn open_directory(dir: &Path) -> Result<Self, StoreError> {
        let unusable = |source| StoreError::Directory { path: dir.display().to_string(), source };
        let fresh = match std::fs::read_dir(dir) {
            Ok(mut entries) => entries.next().is_none(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
            Err(error) => return Err(unusable(error)),
        };
        if !fresh && !dir.join(keys::STORE).exists() {
            return Err(StoreError::NotAStore { path: dir.display().to_string() });
        }
        create_private_dirs(dir).map_err(unusable)?;
        let objects = LocalFileSystem::new_with_prefix(dir)
            .map_err(StoreError::unavailable("open its directory"))?
            .with_fsync(true);
        Self::attach(Arc::new(objects)).await
    }

    /// Attaches any object store, marking an empty one as a parquedb store.
    pub(super) async fn attach(objects: Arc<dyn ObjectStore>) -> Result<Self, StoreError> {
        let key = object_store::path::Path::from(keys::STORE);
        if get_optional(&*objects, &key).await?.is_none() {
            let id = format!("st_{}", crate::disk::random_hex::<8>());
            let document = encode(&StoreDocument { format: FORMAT, id });
            match objects.put_opts(&key, document.into(), PutMode::Create.into()).await {
                Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => {}
                Err(error) => return Err(StoreError::unavailable("be created")(error)),
            }
        }
        let bytes = get_optional(&*objects, &key).await?.unwrap_or_default();
        let document: StoreDocument = decode(&key, &bytes)?;
        if document.format != FORMAT {
            return Err(StoreError::Newer { format: document.format });
        }
        Ok(Self { objects, known: std::sync::Mutex::default() })
    }

    /// An empty store in memory, for tests of what lies above.
    #[cfg(test)]
    pub(crate) async fn in_memory() -> Self {
        Self::attach(Arc::new(object_store::memory::InMemory::new())).await.unwrap()
    }
}

/// Creates `dir` and its missing parents for the owner alone, and makes their names durable.
fn create_private_dirs(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let missing: Vec<_> = dir.ancestors().take_while(|d| !d.as_os_str().is_empty() && !d.exists()).collect();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    for made in missing {
        let parent = made.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        crate::disk::sync_dir(parent)?;
    }
    Ok(())
}
