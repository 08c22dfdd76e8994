//! Writing a revision as a plain tree. Files come first, then the manifest that names them, then what it names no
//! more goes: a reader that holds the old manifest meets a changed file at worst, which it notices.

use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;

use super::PlainError;
use crate::disk::{Readers, replace_file};
use crate::manifest::{Entry, MANIFEST_PATH, Manifest, stays_put};
use crate::model::{ByteRange, DbPath, Revision};
use crate::store::{Database, Published};
use crate::tree::{Applied, Durability, Hasher, Occupant, Root};

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExportReport {
    /// The revision that the tree shows.
    pub revision: Revision,
    /// Files it has.
    pub files: u64,
    /// Those that had to be written.
    pub written: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files of the revision before that went.
    pub removed: u64,
    /// Files of the database that do not leave it, because of their names.
    pub withheld: Vec<DbPath>,
}

/// Makes `directory` the plain tree of a revision; of the current one, where none is given. What the last export
/// wrote and is still right stays.
pub async fn export(
    database: &Arc<Database>,
    revision: Option<Revision>,
    directory: &Path,
) -> Result<ExportReport, PlainError> {
    let published = match revision {
        Some(revision) => database.published_at(revision).await?,
        None => database.published().await,
    };
    let Published { json, revision, .. } =
        published.ok_or_else(|| PlainError::NoRevision(revision.unwrap_or_else(|| database.revision().0)))?;
    let mut manifest = read(directory, &json)?;
    let withheld: Vec<DbPath> = manifest.files.keys().filter(|path| stays_put(path)).cloned().collect();
    manifest.files.retain(|path, _| !stays_put(path));
    let shown = directory.display().to_string();
    std::fs::create_dir_all(directory).map_err(PlainError::directory(&shown))?;
    let before = earlier_export(directory, &manifest)?;
    let root = Root::open(directory).map_err(PlainError::directory(&shown))?;
    let mut report = ExportReport { revision, withheld, ..ExportReport::default() };
    for (path, entry) in &manifest.files {
        report.files += 1;
        let known = before.as_ref().and_then(|before| before.files.get(path));
        if write_file(database, &root, path, entry, known).await? {
            report.written += 1;
            report.bytes += entry.size;
        }
    }
    root.sync_everything().map_err(PlainError::directory(&shown))?;
    let target = directory.join(MANIFEST_PATH);
    std::fs::create_dir_all(target.parent().unwrap_or(directory)).map_err(PlainError::directory(&shown))?;
    let document = manifest.to_json_pretty();
    if std::fs::read(&target).ok().as_ref() != Some(&document) {
        replace_file(&target, &document, Readers::Everyone)
            .map_err(PlainError::directory(target.display()))?;
    }
    for path in before.iter().flat_map(|before| before.files.keys()) {
        if !manifest.files.contains_key(path) && remove_file(&root, path)? {
            report.removed += 1;
        }
    }
    root.sync_everything().map_err(PlainError::directory(&shown))?;
    Ok(report)
}

fn read(directory: &Path, json: &[u8]) -> Result<Manifest, PlainError> {
    let path = directory.join(MANIFEST_PATH).display().to_string();
    Manifest::from_json(json).map_err(|source| PlainError::Manifest { path, source })
}

/// The manifest of the export before. A directory that holds anything else is not touched.
fn earlier_export(directory: &Path, manifest: &Manifest) -> Result<Option<Manifest>, PlainError> {
    let shown = directory.display().to_string();
    match std::fs::read(directory.join(MANIFEST_PATH)) {
        Ok(bytes) => {
            let before = read(directory, &bytes)?;
            if before.database_id != manifest.database_id {
                return Err(PlainError::NotOurs { path: shown, why: "holds another database" });
            }
            // A synced directory has edits that nobody else has.
            if directory.join(crate::manifest::PRIVATE_DIR).join("sync.json").exists() {
                return Err(PlainError::NotOurs { path: shown, why: "is a synced directory, not an export" });
            }
            Ok(Some(before))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let ours = |name: &std::ffi::OsStr| name == crate::manifest::PRIVATE_DIR;
            let entries = std::fs::read_dir(directory).map_err(PlainError::directory(&shown))?;
            match entries.filter_map(Result::ok).find(|entry| !ours(&entry.file_name())) {
                // Files of an export that was cut off are told by nothing: it began in an empty directory.
                Some(_) if !directory.join(crate::manifest::PRIVATE_DIR).exists() => {
                    Err(PlainError::NotOurs { path: shown, why: "is not empty and no export" })
                }
                _ => Ok(None),
            }
        }
        Err(error) => Err(PlainError::directory(&shown)(error)),
    }
}

/// Writes a file, unless the one there is what the last export wrote and still right.
async fn write_file(
    database: &Database,
    root: &Root,
    path: &DbPath,
    entry: &Entry,
    known: Option<&Entry>,
) -> Result<bool, PlainError> {
    let io = PlainError::directory(path);
    let there = match root.occupant(path).map_err(&io)? {
        Occupant::File(stamp) => Some(stamp),
        Occupant::Nothing | Occupant::Directory => None,
        Occupant::Obstacle => {
            return Err(PlainError::NotOurs { path: path.to_string(), why: "is no regular file" });
        }
    };
    let untouched = there.is_some_and(|stamp| {
        stamp.size() == entry.size && entry.modified().is_none_or(|time| time == stamp.modified())
    });
    if untouched && known.is_some_and(|known| known.same_content(entry)) {
        return Ok(false);
    }
    let Some(hash) = entry.hash.sha256() else {
        return Err(PlainError::WrongContent { path: path.clone() });
    };
    let mut staged = root.stage().map_err(&io)?;
    let mut hasher = Hasher::sha256();
    let mut bytes = database.read_content(&hash, ByteRange::new(0, entry.size)).await?;
    while let Some(piece) = bytes.try_next().await? {
        hasher.update(&piece);
        staged.write(&piece).map_err(&io)?;
    }
    if hasher.finish() != entry.hash {
        return Err(PlainError::WrongContent { path: path.clone() });
    }
    staged.seal(entry.modified(), Durability::Later).map_err(&io)?;
    match root.place(staged, path, there, Durability::Later).map_err(&io)? {
        Applied::Done => Ok(true),
        Applied::Overtaken => {
            Err(PlainError::NotOurs { path: path.to_string(), why: "is being changed by somebody else" })
        }
    }
}

fn remove_file(root: &Root, path: &DbPath) -> Result<bool, PlainError> {
    let io = PlainError::directory(path);
    let Occupant::File(stamp) = root.occupant(path).map_err(&io)? else { return Ok(false) };
    Ok(root.remove(path, stamp, Durability::Later).map_err(&io)? == Applied::Done)
}
