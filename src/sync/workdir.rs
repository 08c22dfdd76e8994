//! A directory's memory of its last sync: the base in `_meta/manifest.json`, and beside it what the seed's
//! manifest has no room for, in `.parquedb/sync.json`.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::SyncError;
use super::plan::Files;
use crate::disk::{Readers, replace_file};
use crate::manifest::{MANIFEST_PATH, Manifest, ManifestError, PRIVATE_DIR};
use crate::model::{DbPath, DbRef, Revision, Sha256, Visibility};
use crate::tree::Root;
use crate::wire::PutEntry;

const STATE_FORMAT: u64 = 1;
const STATE_FILE: &str = "sync.json";

/// A directory that is synced with a database.
pub struct Workdir {
    root: Arc<Root>,
    manifest: Option<Manifest>,
    state: Option<SyncState>,
    _lock: Option<File>,
}

/// `.parquedb/sync.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SyncState {
    format: u64,
    /// The database the rest is about.
    database_id: String,
    /// The highest revision seen of it.
    revision: Revision,
    /// A revision of it, and its hash: as long as the remote has both together, its history is the one we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    anchor: Option<Anchor>,
    /// A commit that was sent and whose answer has not been taken in (rule 3).
    pending: Option<PendingCommit>,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Anchor {
    revision: Revision,
    hash: Sha256,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PendingCommit {
    pub(super) commit_id: String,
    pub(super) base: Revision,
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
                let file = root.open_private("lock").map_err(SyncError::directory(private.display()))?;
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
        let manifest = Self::read_manifest(&root)?;
        let state = Self::read_state(&root)?;
        // A directory whose manifest was removed starts anew, but for a commit whose fate is open.
        let state = match manifest {
            Some(_) => state,
            None => state.filter(|state| state.pending.is_some()).map(|state| SyncState {
                revision: Revision::NONE,
                anchor: None,
                ..state
            }),
        };
        Ok(Self { root: Arc::new(root), manifest, state, _lock: lock })
    }

    fn read_state(root: &Root) -> Result<Option<SyncState>, SyncError> {
        #[derive(Deserialize)]
        struct Format {
            format: u64,
        }
        let shown = root.path().join(PRIVATE_DIR).join(STATE_FILE).display().to_string();
        let Some(bytes) = read_own(root, &[PRIVATE_DIR, STATE_FILE]).map_err(SyncError::directory(&shown))?
        else {
            return Ok(None);
        };
        match serde_json::from_slice::<Format>(&bytes) {
            Ok(Format { format: STATE_FORMAT }) => {}
            Ok(Format { format }) => {
                let source = ManifestError::Newer { version: format };
                return Err(SyncError::LocalManifest { path: shown, source });
            }
            Err(error) => return Err(damaged(shown, &error)),
        }
        serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(shown, &error))
    }

    fn read_manifest(root: &Root) -> Result<Option<Manifest>, SyncError> {
        let shown = root.path().join(MANIFEST_PATH).display().to_string();
        let components: Vec<&str> = MANIFEST_PATH.split('/').collect();
        match read_own(root, &components).map_err(SyncError::directory(&shown))? {
            Some(bytes) => Manifest::from_json(&bytes)
                .map(Some)
                .map_err(|source| SyncError::LocalManifest { path: shown, source }),
            None => Ok(None),
        }
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// Whether the last sync was with another database than `id`.
    pub(super) fn belongs_to_another(&self, id: &str) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.database_id != id)
    }

    fn state_of(&self, id: &str) -> Option<&SyncState> {
        self.state.as_ref().filter(|state| state.database_id == id)
    }

    /// A commit to database `id` whose fate is not known.
    pub(super) fn pending(&self, id: &str) -> Option<&PendingCommit> {
        self.state_of(id)?.pending.as_ref()
    }

    /// A revision of database `id` that was seen, and its hash.
    pub(super) fn anchor(&self, id: &str) -> Option<(Revision, Sha256)> {
        let anchor = self.state_of(id)?.anchor?;
        Some((anchor.revision, anchor.hash))
    }

    /// The base for a sync with database `id`, which is at `revision`, where the remote numbers its revisions.
    /// What `landed` published is settled: the directory and that revision agree on it (rule 3).
    pub(super) fn base(
        &self,
        id: &str,
        revision: Option<Revision>,
        landed: Option<&PendingCommit>,
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
        let seen = self.state_of(id).map(|state| state.revision).unwrap_or_default();
        if let Some(there) = revision.filter(|there| *there < seen) {
            return Err(SyncError::RolledBack { here: seen, there });
        }
        for put in landed.iter().flat_map(|landed| &landed.put) {
            base.insert(put.path.clone(), put.entry.clone());
        }
        for path in landed.iter().flat_map(|landed| &landed.delete) {
            base.remove(path);
        }
        Ok(base)
    }

    /// Remembers a commit before it is sent.
    pub(super) fn save_pending(&mut self, id: &str, pending: PendingCommit) -> Result<(), SyncError> {
        let known = self.state_of(id);
        self.write_state(SyncState {
            format: STATE_FORMAT,
            database_id: id.to_owned(),
            revision: known.map(|state| state.revision).unwrap_or_default(),
            anchor: known.and_then(|state| state.anchor),
            pending: Some(pending),
        })
    }

    /// Remembers what both sides now agree on, durably. Writes nothing where nothing has changed.
    pub(super) fn save_base(
        &mut self,
        identity: &Identity<'_>,
        files: Files,
        revision: Option<Revision>,
        anchor: Option<(Revision, Sha256)>,
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
        let known = self.state_of(identity.id);
        let seen = known.map(|state| state.revision).unwrap_or_default();
        let anchor = anchor.map(|(revision, hash)| Anchor { revision, hash });
        let settled = SyncState {
            format: STATE_FORMAT,
            database_id: identity.id.to_owned(),
            revision: revision.unwrap_or_default().max(seen),
            anchor: anchor.or(known.and_then(|state| state.anchor)),
            pending: None,
        };
        if self.state.as_ref() == Some(&settled) { Ok(()) } else { self.write_state(settled) }
    }

    fn write_state(&mut self, state: SyncState) -> Result<(), SyncError> {
        let path = self.root.path().join(PRIVATE_DIR).join(STATE_FILE);
        let bytes = serde_json::to_vec_pretty(&state).unwrap_or_default();
        replace_file(&path, &bytes, Readers::Everyone).map_err(SyncError::directory(path.display()))?;
        self.state = Some(state);
        Ok(())
    }
}

/// Reads one of the tools' own files; a link in its place is not followed.
fn read_own(root: &Root, components: &[&str]) -> io::Result<Option<Vec<u8>>> {
    let path = DbPath::parse(&components.join("/")).map_err(io::Error::other)?;
    match root.open_file(&path) {
        Ok(mut file) => {
            let mut bytes = Vec::new();
            io::Read::read_to_end(&mut file, &mut bytes)?;
            Ok(Some(bytes))
        }
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn damaged(path: String, error: &serde_json::Error) -> SyncError {
    SyncError::LocalManifest { path, source: ManifestError::Corrupt { reason: error.to_string() } }
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
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
