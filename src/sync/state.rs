//! What a directory remembers of the remote, beside its manifest: `.parquedb/sync.json`.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::SyncError;
use super::brake::Deletions;
use crate::manifest::ManifestError;
use crate::model::{DbPath, DbRef, Revision, Sha256, Visibility};
use crate::remote::Known;
use crate::tree::{Durability, Pieces, Root, Stamp};
use crate::wire::PutEntry;

const FORMAT: u64 = 1;
const PATH: &str = ".parquedb/sync.json";

/// `.parquedb/sync.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SyncState {
    pub(super) format: u64,
    /// The database the rest is about.
    pub(super) database_id: String,
    /// The highest revision seen of it.
    pub(super) revision: Revision,
    /// A revision of it, and its hash: as long as the remote has both together, its history is the one we know.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) anchor: Option<Anchor>,
    /// The directory's manifest, but for its files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) manifest: Option<Summary>,
    /// The remote as it was seen last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) seen: Option<Seen>,
    /// What was deleted lately, for the brake.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) deletions: Vec<Deletions>,
    /// What somebody has told the syncs to wait for.
    #[serde(default, skip_serializing_if = "Waits::is_nothing")]
    pub(super) waits: Waits,
}

/// What syncs wait for until somebody says otherwise, in this life or a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Waits {
    /// Nobody wants any.
    pub paused: bool,
    /// What is changed belongs together, and is not complete (F39).
    pub gathering: bool,
}

impl Waits {
    fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Anchor {
    pub(super) revision: Revision,
    pub(super) hash: Sha256,
}

impl SyncState {
    /// Of a database of which nothing is known.
    pub(super) fn of(id: &str) -> Self {
        Self {
            format: FORMAT,
            database_id: id.to_owned(),
            revision: Revision::NONE,
            anchor: None,
            manifest: None,
            seen: None,
            deletions: Vec::new(),
            waits: Waits::default(),
        }
    }

    /// Reads a directory's.
    pub(super) fn read(root: &Root) -> Result<Option<Self>, SyncError> {
        let shown = root.path().join(PATH).display().to_string();
        let read = root.read_own(&own_path(PATH)?).map_err(SyncError::directory(&shown))?;
        let Some((bytes, _)) = read else { return Ok(None) };
        read_format(&bytes, FORMAT, shown).map(Some)
    }

    /// Writes it, durably.
    pub(super) fn write(&self, root: &Root) -> Result<(), SyncError> {
        let write = |to: &mut Pieces| Ok(serde_json::to_writer_pretty(to, self)?);
        let written = root.replace_own_large(&own_path(PATH)?, Durability::Now, write);
        written.map_err(SyncError::directory(root.path().join(PATH).display()))
    }

    /// What to ask the remote about `database`, if what was seen of it differs from the manifest that is `base` as it says; and
    /// how it differs.
    pub(super) fn seen_of(&self, database: &DbRef, base: Option<Stamp>) -> Option<(Known, &Seen)> {
        let manifest = self.manifest.as_ref().filter(|manifest| Some(manifest.of) == base)?;
        let named = manifest.owner == database.owner() && manifest.slug == database.slug();
        let seen = self.seen.as_ref().filter(|seen| named && seen.base == base)?;
        let known = Known {
            database: database.clone(),
            id: self.database_id.clone(),
            etag: seen.etag.clone(),
            revision: Some(seen.revision),
        };
        Some((known, seen))
    }
}

/// What a manifest says but for its files, so that it need not be read where nothing has changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    /// Which manifest: what it was on the disk.
    pub(super) of: Stamp,
    pub(super) owner: String,
    pub(super) slug: String,
    pub(super) name: String,
    pub(super) visibility: Visibility,
    pub(super) last_synced_at: String,
    /// How many files it lists.
    pub(super) files: usize,
}

/// The remote's manifest at one revision, told by how it differs from the base: so that the next run asks for what is new.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Seen {
    pub(super) revision: Revision,
    pub(super) etag: String,
    /// The base it differs from: the manifest file that was written with it.
    pub(super) base: Option<Stamp>,
    /// What the remote has, and the base has not.
    pub(super) put: Vec<PutEntry>,
    /// What the base has, and the remote has not.
    pub(super) delete: Vec<DbPath>,
}

pub(super) fn own_path(text: &str) -> Result<DbPath, SyncError> {
    DbPath::parse(text).map_err(|error| SyncError::directory(text)(io::Error::other(error)))
}

/// Reads one of the tools' own JSON texts, of which this program knows one format.
pub(super) fn read_format<T: DeserializeOwned>(
    json: &[u8],
    known: u64,
    path: String,
) -> Result<T, SyncError> {
    #[derive(Deserialize)]
    struct Format {
        format: u64,
    }
    match serde_json::from_slice(json) {
        Ok(Format { format }) if format == known => {}
        Ok(Format { format }) => {
            let source = ManifestError::Newer { version: format };
            return Err(SyncError::LocalManifest { path, source });
        }
        Err(error) => return Err(damaged(path, &error)),
    }
    serde_json::from_slice(json).map_err(|error| damaged(path, &error))
}

/// One of the tools' own files that is not understood.
pub(super) fn damaged(path: String, error: &serde_json::Error) -> SyncError {
    SyncError::LocalManifest { path, source: ManifestError::Corrupt { reason: error.to_string() } }
}
