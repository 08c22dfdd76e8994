//! The whole document in memory, and the rules that hold for its paths together.

use std::collections::BTreeMap;
use std::io;

use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::{Entry, ManifestError};
use crate::model::{DbPath, Visibility};

/// A checked manifest of format 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The database's id.
    pub database_id: String,
    /// The name people gave it.
    pub name: String,
    /// Its owner's name.
    pub owner: Option<String>,
    /// Its slug.
    pub slug: Option<String>,
    /// Its visibility.
    pub visibility: Visibility,
    /// `lastSyncedAt`, as written: each side's own.
    pub last_synced_at: String,
    /// `syncedFrom`.
    pub synced_from: Option<String>,
    /// Its files.
    pub files: BTreeMap<DbPath, Entry>,
    /// `metadata`.
    pub metadata: Option<Value>,
    /// Fields this program does not know.
    pub unknown: Map<String, Value>,
}

impl Manifest {
    /// Reads and checks a document.
    pub fn from_json(json: &[u8]) -> Result<Self, ManifestError> {
        super::parse::parse(json)
    }

    /// Reads a document as it comes, slower and without having it in memory beside what is made of it. That it is of a later
    /// format is not told from other damage.
    pub fn from_stream(json: impl io::Read) -> Result<Self, ManifestError> {
        super::parse::parse_stream(json)
    }

    /// The document on one line, as it travels.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Writes the document with line breaks, as it lies in a directory for people to read.
    pub fn write_pretty(&self, to: impl io::Write) -> io::Result<()> {
        serde_json::to_writer_pretty(to, self).map_err(io::Error::from)
    }

    /// The document with line breaks.
    pub fn to_json_pretty(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }
}

impl serde::Serialize for Manifest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        ManifestView {
            database_id: &self.database_id,
            name: &self.name,
            owner: self.owner.as_deref(),
            slug: self.slug.as_deref(),
            visibility: self.visibility,
            last_synced_at: &self.last_synced_at,
            synced_from: self.synced_from.as_deref(),
            files: &self.files,
            metadata: self.metadata.as_ref(),
            unknown: &self.unknown,
        }
        .serialize(serializer)
    }
}

/// A manifest whose parts lie elsewhere, to be written without copying them.
pub(crate) struct ManifestView<'a> {
    pub(crate) database_id: &'a str,
    pub(crate) name: &'a str,
    pub(crate) owner: Option<&'a str>,
    pub(crate) slug: Option<&'a str>,
    pub(crate) visibility: Visibility,
    pub(crate) last_synced_at: &'a str,
    pub(crate) synced_from: Option<&'a str>,
    pub(crate) files: &'a BTreeMap<DbPath, Entry>,
    pub(crate) metadata: Option<&'a Value>,
    pub(crate) unknown: &'a Map<String, Value>,
}

impl ManifestView<'_> {
    /// The document on one line, as it travels.
    pub(crate) fn to_json(&self) -> Vec<u8> {
        // Writing to memory, and every map key is a string: this cannot fail.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

impl serde::Serialize for ManifestView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct Files<'a>(&'a BTreeMap<DbPath, Entry>);
        impl serde::Serialize for Files<'_> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_map(self.0.iter().map(|(path, entry)| (path, entry.with_path(path))))
            }
        }
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("version", &1)?;
        map.serialize_entry("databaseId", self.database_id)?;
        map.serialize_entry("name", self.name)?;
        if let Some(owner) = self.owner {
            map.serialize_entry("owner", owner)?;
        }
        if let Some(slug) = self.slug {
            map.serialize_entry("slug", slug)?;
        }
        map.serialize_entry("visibility", &self.visibility)?;
        map.serialize_entry("lastSyncedAt", self.last_synced_at)?;
        map.serialize_entry("files", &Files(self.files))?;
        if let Some(from) = self.synced_from {
            map.serialize_entry("syncedFrom", from)?;
        }
        if let Some(metadata) = self.metadata {
            map.serialize_entry("metadata", metadata)?;
        }
        for (key, value) in self.unknown {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Refuses a set of files in which one name is both a file and a directory.
pub(crate) fn check_shape(files: &BTreeMap<DbPath, Entry>) -> Result<(), DbPath> {
    let mut checked = None;
    for path in files.keys() {
        // Neighbours mostly lie in one directory, which is looked for once.
        let directory = path.ancestors().next();
        if directory != checked && path.ancestors().any(|ancestor| files.contains_key(ancestor)) {
            return Err(path.clone());
        }
        checked = directory;
    }
    Ok(())
}
