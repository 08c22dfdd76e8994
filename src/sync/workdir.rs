//! A directory's memory of its last sync: the base in `_meta/manifest.json`, and beside it what the seed's
//! manifest has no room for, in `.parquedb/sync.json`.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SyncError;
use super::plan::Files;
use crate::disk::{Readers, replace_file};
use crate::manifest::{MANIFEST_PATH, Manifest, PRIVATE_DIR};
use crate::model::{DbPath, DbRef, Revision, Visibility};
use crate::tree::Root;
use crate::wire::PutEntry;

const STATE_FORMAT: u64 = 1;

/// A directory that is synced with a database.
pub struct Workdir {
    root: std::sync::Arc<Root>,
    manifest: Option<Manifest>,
    state: SyncState,
    _lock: Option<File>,
}

/// `.parquedb/sync.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SyncState {
    format: u64,
    /// The highest revision seen of the database.
    revision: Revision,
    /// A commit that was sent and whose answer has not been taken in (rule 3).
    pending: Option<PendingCommit>,
}

impl Default for SyncState {
    fn default() -> Self {
        Self { format: STATE_FORMAT, revision: Revision::NONE, pending: None }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PendingCommit {
    pub(super) database_id: String,
    pub(super) commit_id: String,
    pub(super) put: Vec<PutEntry>,
    pub(super) delete: Vec<DbPath>,
}

/// Whether the run will change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    /// It only looks: no lock, no file of ours.
    Look,
    /// It holds the directory's lock while it works.
    Work,
}

/// What a database is called, for its manifest.
pub(super) struct Identity<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) reference: &'a DbRef,
    pub(super) visibility: Visibility,
    pub(super) synced_from: &'a str,
}

impl Workdir {
    /// Opens a directory that exists, reading what it remembers.
    pub(super) fn open(path: &Path, intent: Intent) -> Result<Self, SyncError> {
        let shown = path.display();
        let root = Root::open(path).map_err(SyncError::directory(shown))?;
        let private = path.join(PRIVATE_DIR);
        let lock = match intent {
            Intent::Look => None,
            Intent::Work => {
                create_private_dir(&private).map_err(SyncError::directory(private.display()))?;
                let file =
                    open_lock(&private.join("lock")).map_err(SyncError::directory(private.display()))?;
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Err(SyncError::Busy { path: path.display().to_string() });
                    }
                    Err(TryLockError::Error(error)) => {
                        return Err(SyncError::directory(private.display())(error));
                    }
                }
                root.sweep_staged().map_err(SyncError::directory(private.display()))?;
                Some(file)
            }
        };
        let manifest = Self::read_manifest(path)?;
        let state_path = private.join("sync.json");
        let state = match std::fs::read(&state_path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::from),
            Err(error) if is_absent(&error) => Ok(SyncState::default()),
            Err(error) => Err(error),
        };
        let state = state.map_err(SyncError::directory(state_path.display()))?;
        // A directory whose manifest was removed starts anew, whatever it had seen.
        let state = if manifest.is_some() || state.pending.is_some() { state } else { SyncState::default() };
        Ok(Self { root: std::sync::Arc::new(root), manifest, state, _lock: lock })
    }

    fn read_manifest(path: &Path) -> Result<Option<Manifest>, SyncError> {
        let at = path.join(MANIFEST_PATH);
        match std::fs::read(&at) {
            Ok(bytes) => Manifest::from_json(&bytes)
                .map(Some)
                .map_err(|source| SyncError::LocalManifest { path: at.display().to_string(), source }),
            Err(error) if is_absent(&error) => Ok(None),
            Err(error) => Err(SyncError::directory(at.display())(error)),
        }
    }

    pub(super) fn root(&self) -> &std::sync::Arc<Root> {
        &self.root
    }

    /// The manifest of the last sync.
    pub fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// The base for a sync with database `id`, whose current files are `remote` at `revision`. Paths of a commit
    /// whose answer was lost count as settled where the remote has just what was sent (rule 3).
    pub(super) fn base(
        &self,
        id: &str,
        revision: Option<Revision>,
        remote: &Files,
    ) -> Result<Files, SyncError> {
        let mut base = match &self.manifest {
            Some(manifest) if manifest.database_id != id => {
                return Err(SyncError::OtherDatabase {
                    here: manifest.database_id.clone(),
                    there: id.to_owned(),
                });
            }
            Some(manifest) => manifest.files.clone(),
            None => Files::new(),
        };
        if let Some(there) = revision.filter(|there| *there < self.state.revision) {
            return Err(SyncError::RolledBack { here: self.state.revision, there });
        }
        if let Some(pending) = self.state.pending.as_ref().filter(|pending| pending.database_id == id) {
            for put in &pending.put {
                if remote.get(&put.path).is_some_and(|entry| entry.same_content(&put.entry)) {
                    base.insert(put.path.clone(), put.entry.clone());
                }
            }
            for path in pending.delete.iter().filter(|path| !remote.contains_key(*path)) {
                base.remove(path);
            }
        }
        Ok(base)
    }

    /// Remembers a commit before it is sent.
    pub(super) fn save_pending(&mut self, pending: PendingCommit) -> Result<(), SyncError> {
        self.state.pending = Some(pending);
        self.write_state()
    }

    /// Remembers what both sides now agree on, durably. Writes nothing where nothing has changed.
    pub(super) fn save_base(
        &mut self,
        identity: &Identity<'_>,
        files: Files,
        revision: Option<Revision>,
    ) -> Result<(), SyncError> {
        let (metadata, unknown) = match &self.manifest {
            Some(manifest) => (manifest.metadata.clone(), manifest.unknown.clone()),
            None => Default::default(),
        };
        let mut manifest = Manifest {
            database_id: identity.id.to_owned(),
            name: identity.name.to_owned(),
            owner: Some(identity.reference.owner().to_owned()),
            slug: Some(identity.reference.slug().to_owned()),
            visibility: identity.visibility,
            last_synced_at: self.manifest.as_ref().map(|m| m.last_synced_at.clone()).unwrap_or_default(),
            synced_from: Some(identity.synced_from.to_owned()),
            files,
            metadata,
            unknown,
        };
        // Another database numbers its revisions for itself.
        let moved_on = self.manifest.as_ref().is_some_and(|before| before.database_id != identity.id);
        if self.manifest.as_ref() != Some(&manifest) {
            manifest.last_synced_at = Timestamp::now().to_string();
            let path = self.root.path().join(MANIFEST_PATH);
            let written = path
                .parent()
                .map_or(Ok(()), create_private_dir)
                .and_then(|()| replace_file(&path, &manifest.to_json_pretty(), Readers::Everyone));
            written.map_err(SyncError::directory(path.display()))?;
            self.manifest = Some(manifest);
        }
        let seen = if moved_on { Revision::NONE } else { self.state.revision };
        let revision = revision.unwrap_or_default().max(seen);
        if self.state.revision != revision || self.state.pending.is_some() {
            self.state.revision = revision;
            self.state.pending = None;
            self.write_state()?;
        }
        Ok(())
    }

    fn write_state(&self) -> Result<(), SyncError> {
        let path = self.root.path().join(PRIVATE_DIR).join("sync.json");
        let bytes = serde_json::to_vec_pretty(&self.state).unwrap_or_default();
        replace_file(&path, &bytes, Readers::Everyone).map_err(SyncError::directory(path.display()))
    }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Opens the lock, which must not be a link to elsewhere either.
fn open_lock(path: &Path) -> io::Result<File> {
    File::options().write(true).create(true).truncate(false).custom_flags(libc::O_NOFOLLOW).open(path)
}

/// Makes one of our directories, which must not be a link to elsewhere.
fn create_private_dir(path: &Path) -> io::Result<()> {
    match std::fs::create_dir(path) {
        Ok(()) => path.parent().map_or(Ok(()), crate::disk::sync_dir),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            if std::fs::symlink_metadata(path)?.is_dir() { Ok(()) } else { Err(error) }
        }
        Err(error) => Err(error),
    }
}
