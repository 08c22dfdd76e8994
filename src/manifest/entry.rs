//! One file of a manifest.

use std::sync::Arc;

use jiff::Timestamp;
use serde::ser::SerializeMap;
use serde_json::{Map, Value};

use super::block_hashes;
use crate::model::{BlockRoot, ContentHash, DbPath};

/// What a manifest says of one file. Its path is the key it is stored under.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// Size in bytes.
    pub size: u64,
    /// The hash of the whole content.
    pub hash: ContentHash,
    /// The text of `modifiedAt`, kept as written: an unreadable date loses comparisons but is not rewritten.
    pub modified_at: Arc<str>,
    /// `etag`, where the writer recorded one.
    pub etag: Option<Arc<str>>,
    /// `contentType`, where the writer recorded one.
    pub content_type: Option<Arc<str>>,
    /// `blockHashes`, as far as this program knows them: what single blocks can be checked by. Set by the server.
    pub blocks: Option<BlockRoot>,
    /// Fields this program does not know.
    pub unknown: Option<Box<Map<String, Value>>>,
}

impl Entry {
    /// When the content last changed, if `modifiedAt` is a date at all.
    pub fn modified(&self) -> Option<Timestamp> {
        self.modified_at.parse().ok()
    }

    /// Whether both entries name the same bytes.
    pub fn same_content(&self, other: &Self) -> bool {
        self.size == other.size && self.hash == other.hash
    }

    /// The entry with these block hashes, whatever it said of them before.
    pub fn with_blocks(mut self, blocks: Option<BlockRoot>) -> Self {
        self.blocks = blocks;
        if let Some(unknown) = &mut self.unknown {
            unknown.remove(block_hashes::FIELD);
        }
        self.unknown = self.unknown.filter(|unknown| !unknown.is_empty());
        self
    }

    /// The entry with its path beside it, as the manifest writes it.
    pub fn with_path<'a>(&'a self, path: &'a DbPath) -> EntryAt<'a> {
        EntryAt { path, entry: self }
    }
}

/// Whether both are the same bytes, or nothing.
pub fn same(a: Option<&Entry>, b: Option<&Entry>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.same_content(b),
        _ => false,
    }
}

/// Lets entries that follow one another share the text of their type: of a million, few have different ones.
#[derive(Debug, Default)]
pub(crate) struct SharedTypes(Option<Arc<str>>);

impl SharedTypes {
    /// Takes the text of the entry before, where it is the same.
    pub(crate) fn share(&mut self, entry: &mut Entry) {
        let Some(own) = &mut entry.content_type else { return };
        match &self.0 {
            Some(last) if last == own => own.clone_from(last),
            _ => self.0 = Some(own.clone()),
        }
    }
}

/// An entry and its path, to be serialized as one object.
#[derive(Debug, Clone, Copy)]
pub struct EntryAt<'a> {
    path: &'a DbPath,
    entry: &'a Entry,
}

impl serde::Serialize for EntryAt<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("path", self.path)?;
        map.serialize_entry("size", &self.entry.size)?;
        map.serialize_entry("hash", &format_args!("{}", self.entry.hash))?;
        map.serialize_entry("hashAlgorithm", self.entry.hash.algorithm())?;
        map.serialize_entry("modifiedAt", &self.entry.modified_at)?;
        if let Some(etag) = &self.entry.etag {
            map.serialize_entry("etag", etag)?;
        }
        if let Some(content_type) = &self.entry.content_type {
            map.serialize_entry("contentType", content_type)?;
        }
        if let Some(blocks) = &self.entry.blocks {
            map.serialize_entry(block_hashes::FIELD, &block_hashes::to_json(blocks))?;
        }
        for (key, value) in self.entry.unknown.iter().flat_map(|fields| fields.iter()) {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

/// Entries for tests.
#[cfg(test)]
impl Entry {
    /// An entry of that content, and no more.
    pub(crate) fn of(hash: crate::model::Sha256, size: u64) -> Self {
        Self {
            size,
            hash: ContentHash::Sha256(hash),
            modified_at: "2026-01-01T00:00:00Z".into(),
            etag: None,
            content_type: None,
            blocks: None,
            unknown: None,
        }
    }

    /// Paths and versions of a byte each.
    pub(crate) fn versions(list: &[(&str, u8)]) -> std::collections::BTreeMap<DbPath, Self> {
        let entry = |version| Self::of(crate::model::Sha256([version; 32]), 1);
        list.iter().map(|(path, version)| (DbPath::parse(path).unwrap(), entry(*version))).collect()
    }
}
