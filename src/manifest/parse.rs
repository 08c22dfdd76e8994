//! Reading a manifest written by someone else: one pass, no intermediate tree, unknown fields kept, everything a
//! hostile writer could use refused with the path that did it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{self, DeserializeSeed, MapAccess, Visitor};
use serde_json::{Map, Value};

use super::document::check_shape;
use super::{Entry, Manifest, SharedTypes, block_hashes, is_reserved};
use crate::model::{ContentHash, DbPath, Visibility};

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A later format than this program knows.
    #[error("the manifest has format {version}, and this program knows format 1: a newer parquedb is needed")]
    Newer {
        /// The format it says it has.
        version: u64,
    },
    /// Not a manifest, or one with an entry that must not be followed.
    #[error("the manifest is damaged: {reason}")]
    Corrupt {
        /// What is wrong and where.
        reason: String,
    },
}

pub(super) fn parse(json: &[u8]) -> Result<Manifest, ManifestError> {
    let error = match serde_json::from_slice::<Document>(json) {
        Ok(Document(manifest)) => return finish(manifest),
        Err(error) => error,
    };
    // A later format may differ anywhere, so its number decides before any other complaint.
    #[derive(serde::Deserialize)]
    struct Format {
        version: u64,
    }
    match serde_json::from_slice::<Format>(json) {
        Ok(Format { version }) if version > 1 => Err(ManifestError::Newer { version }),
        _ => Err(ManifestError::Corrupt { reason: error.to_string() }),
    }
}

/// The same of what is too large to be in memory twice.
pub(super) fn parse_stream(json: impl std::io::Read) -> Result<Manifest, ManifestError> {
    match serde_json::from_reader::<_, Document>(json) {
        Ok(Document(manifest)) => finish(manifest),
        Err(error) => Err(ManifestError::Corrupt { reason: error.to_string() }),
    }
}

fn finish(manifest: Manifest) -> Result<Manifest, ManifestError> {
    match check_shape(&manifest.files) {
        Ok(()) => Ok(manifest),
        Err(path) => {
            Err(ManifestError::Corrupt { reason: format!("'{path}' lies below a path that is a file") })
        }
    }
}

struct Document(Manifest);

impl<'de> de::Deserialize<'de> for Document {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(DocumentVisitor).map(Document)
    }
}

struct DocumentVisitor;

impl<'de> Visitor<'de> for DocumentVisitor {
    type Value = Manifest;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a manifest object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Manifest, A::Error> {
        let mut version: Option<u64> = None;
        let (mut database_id, mut name, mut last_synced_at) = (None, None, None);
        let (mut owner, mut slug, mut synced_from) = (None, None, None);
        let mut visibility: Option<Visibility> = None;
        let mut files = None;
        let mut metadata = None;
        let mut unknown = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match key.as_str() {
                "version" => version = Some(map.next_value()?),
                "databaseId" => database_id = Some(map.next_value()?),
                "name" => name = Some(map.next_value()?),
                "lastSyncedAt" => last_synced_at = Some(map.next_value()?),
                "owner" => owner = map.next_value()?,
                "slug" => slug = map.next_value()?,
                "syncedFrom" => synced_from = map.next_value()?,
                "visibility" => visibility = Some(map.next_value()?),
                "files" if files.is_some() => return Err(de::Error::duplicate_field("files")),
                "files" => files = Some(map.next_value_seed(FilesSeed)?),
                "metadata" => metadata = Some(map.next_value()?),
                _ => {
                    let value = map.next_value::<Value>()?;
                    unknown.insert(key, value);
                }
            }
        }
        match version {
            Some(1) => {}
            Some(other) => return Err(de::Error::custom(format_args!("format {other}"))),
            None => return Err(de::Error::missing_field("version")),
        }
        Ok(Manifest {
            database_id: database_id.ok_or_else(|| de::Error::missing_field("databaseId"))?,
            name: name.ok_or_else(|| de::Error::missing_field("name"))?,
            owner,
            slug,
            visibility: visibility.unwrap_or_default(),
            last_synced_at: last_synced_at.unwrap_or_default(),
            synced_from,
            files: files.ok_or_else(|| de::Error::missing_field("files"))?,
            metadata,
            unknown,
        })
    }
}

struct FilesSeed;

impl<'de> DeserializeSeed<'de> for FilesSeed {
    type Value = BTreeMap<DbPath, Entry>;
    fn deserialize<D: de::Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FilesSeed {
    type Value = BTreeMap<DbPath, Entry>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of files by path")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut files, mut types) = (Vec::new(), SharedTypes::default());
        while let Some(path) = map.next_key::<DbPath>()? {
            if is_reserved(&path) {
                return Err(de::Error::custom(format_args!("'{path}' is reserved for the tools")));
            }
            let mut named = map.next_value::<NamedEntry<'de>>()?;
            types.share(&mut named.entry);
            if named.path.is_some_and(|inner| inner.0 != path.as_str()) {
                return Err(de::Error::custom(format_args!("the entry at '{path}' names another path")));
            }
            files.push((path, named.entry));
        }
        // Built at once: they mostly come in order.
        files.sort_by(|(a, _), (b, _)| a.cmp(b));
        if let Some(pair) = files.windows(2).find(|pair| pair[0].0 == pair[1].0) {
            return Err(de::Error::custom(format_args!("'{}' is listed twice", pair[0].0)));
        }
        Ok(files.into_iter().collect())
    }
}

/// A text that is looked at and not kept: of a million entries, nobody wants a copy of each.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// An entry as it is written: with its path inside, which must repeat its key.
struct NamedEntry<'a> {
    path: Option<Text<'a>>,
    entry: Entry,
}

impl<'de> de::Deserialize<'de> for NamedEntry<'de> {
    fn deserialize<D: de::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntryVisitor)
    }
}

struct EntryVisitor;

impl<'de> Visitor<'de> for EntryVisitor {
    type Value = NamedEntry<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a file entry")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NamedEntry<'de>, A::Error> {
        let (mut path, mut size, mut hash, mut algorithm) =
            (None, None, None::<Text<'de>>, None::<Text<'de>>);
        let (mut modified_at, mut etag, mut content_type, mut blocks) = (None, None, None, None);
        let mut unknown = Map::new();
        while let Some(Text(key)) = map.next_key()? {
            match key.as_ref() {
                "path" => path = Some(map.next_value()?),
                "size" => size = Some(map.next_value()?),
                "hash" => hash = Some(map.next_value()?),
                "hashAlgorithm" => algorithm = Some(map.next_value()?),
                "modifiedAt" => modified_at = Some(map.next_value()?),
                "etag" => etag = map.next_value()?,
                "contentType" => content_type = map.next_value()?,
                key => {
                    let value = map.next_value::<Value>()?;
                    // Written twice, the last one holds.
                    if key == block_hashes::FIELD {
                        unknown.remove(key);
                        blocks = block_hashes::from_json(&value);
                    }
                    if key != block_hashes::FIELD || blocks.is_none() {
                        unknown.insert(key.to_owned(), value);
                    }
                }
            }
        }
        let hash = hash.ok_or_else(|| de::Error::missing_field("hash"))?;
        let algorithm = algorithm.ok_or_else(|| de::Error::missing_field("hashAlgorithm"))?;
        let size: u64 = size.ok_or_else(|| de::Error::missing_field("size"))?;
        // Offsets travel to the kernel as i64.
        if i64::try_from(size).is_err() {
            return Err(de::Error::custom("a file is larger than 2^63 bytes"));
        }
        let entry = Entry {
            size,
            hash: ContentHash::parse(&algorithm.0, &hash.0)
                .map_err(|e| de::Error::custom(format_args!("{} hash: {e}", algorithm.0)))?,
            modified_at: modified_at.unwrap_or_default(),
            etag,
            content_type,
            blocks,
            unknown: (!unknown.is_empty()).then(|| Box::new(unknown)),
        };
        Ok(NamedEntry { path, entry })
    }
}

/// An entry standing by itself, its path inside: how the wire and the store list changes.
impl Entry {
    /// Reads `{path, size, hash, …}` with the same checks as inside a manifest.
    pub(crate) fn deserialize_with_path<'de, D: de::Deserializer<'de>>(
        deserializer: D,
    ) -> Result<(DbPath, Self), D::Error> {
        let named = <NamedEntry<'de> as de::Deserialize>::deserialize(deserializer)?;
        let text = named.path.ok_or_else(|| de::Error::missing_field("path"))?;
        let path =
            DbPath::parse(&text.0).map_err(|e| de::Error::custom(format_args!("{e}: {:?}", text.0)))?;
        if is_reserved(&path) {
            return Err(de::Error::custom(format_args!("'{path}' is reserved for the tools")));
        }
        Ok((path, named.entry))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest_with(files: &str) -> String {
        format!(
            r#"{{"version":1,"databaseId":"db_1","name":"n","visibility":"public","lastSyncedAt":"2026-02-03T10:30:00Z","files":{{{files}}}}}"#
        )
    }

    fn entry(path: &str) -> String {
        let path = serde_json::to_string(path).unwrap();
        let hash = "ab".repeat(32);
        format!(
            r#"{path}:{{"path":{path},"size":1,"hash":"{hash}","hashAlgorithm":"sha256","modifiedAt":"x"}}"#
        )
    }

    #[test]
    fn entries_that_leave_the_root_are_refused_with_their_path() {
        let escapes =
            ["../x", "/etc/passwd", "a/../../b", "a\0b", "", "a//b", ".parquedb/sync.json", MANIFEST];
        const MANIFEST: &str = "_meta/manifest.json";
        for path in escapes {
            let error = Manifest::from_json(manifest_with(&entry(path)).as_bytes()).unwrap_err();
            assert!(matches!(&error, ManifestError::Corrupt { .. }), "{path:?}: {error}");
        }
    }

    #[test]
    fn a_path_twice_or_a_file_that_is_also_a_directory_is_refused() {
        let twice = manifest_with(&format!("{},{}", entry("a"), entry("a")));
        assert!(Manifest::from_json(twice.as_bytes()).unwrap_err().to_string().contains("twice"));
        let both = manifest_with(&format!("{},{}", entry("a"), entry("a/b/c")));
        assert!(Manifest::from_json(both.as_bytes()).unwrap_err().to_string().contains("a/b/c"));
        // `a.b` sorts between `a` and `a/b`: neighbours are not enough to find the clash.
        let between = manifest_with(&format!("{},{},{}", entry("a"), entry("a.b"), entry("a/b")));
        assert!(Manifest::from_json(between.as_bytes()).is_err());
    }

    #[test]
    fn a_newer_format_is_named_whatever_else_it_changed() {
        for newer in [r#"{"version":2}"#, r#"{"files":[1,2],"version":7,"databaseId":3}"#] {
            assert!(
                matches!(Manifest::from_json(newer.as_bytes()), Err(ManifestError::Newer { .. })),
                "{newer}"
            );
        }
        for corrupt in ["", "{", "[]", "null", r#"{"version":0}"#, r#"{"version":"2"}"#, r#"{"version":1}"#] {
            assert!(
                matches!(Manifest::from_json(corrupt.as_bytes()), Err(ManifestError::Corrupt { .. })),
                "{corrupt}"
            );
        }
    }

    #[test]
    fn unknown_fields_survive_a_round_trip() {
        let text = r#"{"version":1,"databaseId":"db_1","name":"n","owner":"o","visibility":"unlisted",
            "lastSyncedAt":"t","future":{"a":[1,2]},"metadata":{"k":null},"syncedFrom":"local",
            "files":{"a":{"path":"a","size":0,"hash":"d41d8cd98f00b204e9800998ecf8427e","hashAlgorithm":"md5",
            "modifiedAt":"not a date","blocks":{"size":4,"list":["x"]},"etag":"e",
            "blockHashes":{"algorithm":"other","blockSize":1}}}}"#;
        let manifest = Manifest::from_json(text.as_bytes()).unwrap();
        let again: Value = serde_json::from_slice(&manifest.to_json()).unwrap();
        assert_eq!(again, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(Manifest::from_json(&manifest.to_json_pretty()).unwrap(), manifest);
    }

    #[test]
    fn block_hashes_are_read_where_they_are_ours_and_kept_where_not() {
        let ours =
            r#"{"algorithm":"sha256-128-tree","blockSize":32768,"root":"000102030405060708090a0b0c0d0e0f"}"#;
        let hash = "ab".repeat(32);
        for (blocks, known) in [
            (ours.to_owned(), true),
            (ours.replace("32768", "65536"), false),
            (ours.replace("0f\"", "\""), false),
            (ours.replace("tree\"", "tree\",\"salt\":1"), false),
            ("null".into(), false),
        ] {
            let text = manifest_with(&format!(
                r#""a":{{"path":"a","size":1,"hash":"{hash}","hashAlgorithm":"sha256","modifiedAt":"x","blockHashes":{blocks}}}"#
            ));
            let manifest = Manifest::from_json(text.as_bytes()).unwrap();
            let entry = &manifest.files["a"];
            assert_eq!((entry.blocks.is_some(), entry.unknown.is_none()), (known, known), "{blocks}");
            let again: Value = serde_json::from_slice(&manifest.to_json()).unwrap();
            assert_eq!(again["files"], serde_json::from_str::<Value>(&text).unwrap()["files"]);
            let without = entry.clone().with_blocks(None);
            assert!(without.blocks.is_none() && without.unknown.is_none());
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Manifest::from_json(&bytes);
        }
    }
}
