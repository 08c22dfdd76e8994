//! Writing a revision as a plain tree. Files come first, then the manifest that names them, then what it names no
//! more goes: a reader that holds the old manifest meets a changed file at worst, which it notices.
//!
//! What is about to be written is noted first, in a file of the export's own. A directory without that note is somebody
//! else's, and so is a file that is neither what the note says nor what the manifest before said.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;

use super::PlainError;
use crate::disk::{Readers, replace_file};
use crate::manifest::{Entry, MANIFEST_PATH, Manifest, PRIVATE_DIR, stays_put};
use crate::model::{ByteRange, DbPath, Revision};
use crate::store::{Database, Published};
use crate::tree::{Applied, Aside, Believed, Durability, Hasher, Occupant, Root, Stamp, hash_file};

/// The note: the manifest of the export that is under way, or was the last one.
const NOTE: &str = "export.json";

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
    let io = PlainError::directory(directory.display());
    std::fs::create_dir_all(directory.join(MANIFEST_PATH).parent().unwrap_or(directory)).map_err(&io)?;
    let earlier = Earlier::of(directory, &manifest)?;
    let root = Root::open(directory).map_err(&io)?;
    note(directory, &manifest)?;
    let mut report = ExportReport { revision, withheld, ..ExportReport::default() };
    let (in_the_way, gone) = earlier.not_in(&manifest);
    for path in in_the_way {
        report.removed += u64::from(earlier.remove(&root, &path)?);
    }
    for (path, entry) in &manifest.files {
        report.files += 1;
        if earlier.write(database, &root, path, entry).await? {
            report.written += 1;
            report.bytes += entry.size;
        }
    }
    root.sync_everything().map_err(&io)?;
    let target = directory.join(MANIFEST_PATH);
    let document = manifest.to_json_pretty();
    if std::fs::read(&target).ok().as_ref() != Some(&document) {
        replace_file(&target, &document, Readers::Everyone)
            .map_err(PlainError::directory(target.display()))?;
    }
    for path in gone {
        report.removed += u64::from(earlier.remove(&root, &path)?);
    }
    root.sync_everything().map_err(&io)?;
    Ok(report)
}

fn read(directory: &Path, json: &[u8]) -> Result<Manifest, PlainError> {
    let path = directory.join(MANIFEST_PATH).display().to_string();
    Manifest::from_json(json).map_err(|source| PlainError::Manifest { path, source })
}

fn note(directory: &Path, manifest: &Manifest) -> Result<(), PlainError> {
    let private = directory.join(PRIVATE_DIR);
    std::fs::create_dir_all(&private).map_err(PlainError::directory(private.display()))?;
    let path = private.join(NOTE);
    replace_file(&path, &manifest.to_json(), Readers::Everyone).map_err(PlainError::directory(path.display()))
}

/// What exports before this one have written here: for each path one or two entries, if the last was cut off.
struct Earlier(BTreeMap<DbPath, Vec<Entry>>);

impl Earlier {
    fn of(directory: &Path, manifest: &Manifest) -> Result<Self, PlainError> {
        let shown = directory.display().to_string();
        let optional = |path: &Path| match std::fs::read(path) {
            Ok(bytes) => read(directory, &bytes).map(Some),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(PlainError::directory(path.display())(error)),
        };
        let mut earlier = Self(BTreeMap::new());
        let Some(noted) = optional(&directory.join(PRIVATE_DIR).join(NOTE))? else {
            return if holds_a_file(directory).map_err(PlainError::directory(&shown))? {
                Err(PlainError::NotOurs { path: shown, why: "is not empty and no export" })
            } else {
                Ok(earlier)
            };
        };
        for before in [Some(noted), optional(&directory.join(MANIFEST_PATH))?].into_iter().flatten() {
            if before.database_id != manifest.database_id {
                return Err(PlainError::NotOurs { path: shown, why: "holds another database" });
            }
            for (path, entry) in before.files {
                earlier.0.entry(path).or_default().push(entry);
            }
        }
        Ok(earlier)
    }

    /// The paths that the new manifest has no more: those in the way of what it has, where a file becomes a directory or
    /// a directory a file, and the others.
    fn not_in(&self, manifest: &Manifest) -> (Vec<DbPath>, Vec<DbPath>) {
        let directories: BTreeSet<&str> = manifest.files.keys().flat_map(DbPath::ancestors).collect();
        let in_the_way = |path: &DbPath| {
            directories.contains(path.as_str())
                || path.ancestors().any(|ancestor| manifest.files.contains_key(ancestor))
        };
        let old = self.0.keys().filter(|path| !manifest.files.contains_key(*path)).cloned();
        old.partition(in_the_way)
    }

    /// Whether what stands at a path is what an export has written there.
    fn wrote(&self, root: &Root, path: &DbPath, stamp: &Stamp) -> Result<bool, PlainError> {
        let entries = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        let mut of_that_size = entries.iter().filter(|entry| entry.size == stamp.size()).peekable();
        if of_that_size.peek().is_none() {
            return Ok(false);
        }
        // Its time is set to the entry's; where that is no date, or was changed, the bytes tell.
        if of_that_size.clone().any(|entry| entry.modified() == Some(stamp.modified())) {
            return Ok(true);
        }
        let io = PlainError::directory(path);
        let (hash, _) = hash_file(&root.open_file(path).map_err(&io)?, None).map_err(io)?;
        Ok(of_that_size.any(|entry| entry.hash == hash))
    }

    /// Writes a file, unless the one there is right already.
    async fn write(
        &self,
        database: &Database,
        root: &Root,
        path: &DbPath,
        entry: &Entry,
    ) -> Result<bool, PlainError> {
        let io = PlainError::directory(path);
        let not_ours = |why| PlainError::NotOurs { path: path.to_string(), why };
        let there = match root.occupant(path).map_err(&io)? {
            Occupant::File(stamp) => Some(stamp),
            Occupant::Nothing | Occupant::Directory => None,
            Occupant::Obstacle => return Err(not_ours("is no regular file")),
        };
        if let Some(stamp) = &there {
            if self.is_right(path, stamp, entry) {
                return Ok(false);
            }
            if !self.wrote(root, path, stamp)? {
                return Err(not_ours("is somebody's own file"));
            }
        }
        let wrong = || PlainError::WrongContent { path: path.clone() };
        let mut staged = root.stage().map_err(&io)?;
        let mut hasher = Hasher::sha256();
        let hash = entry.hash.sha256().ok_or_else(wrong)?;
        let mut bytes = database.read_content(&hash, ByteRange::new(0, entry.size)).await?;
        while let Some(piece) = bytes.try_next().await? {
            hasher.update(&piece);
            staged.write(&piece).map_err(&io)?;
        }
        if hasher.finish() != entry.hash {
            return Err(wrong());
        }
        staged.seal(entry.modified(), Durability::Later).map_err(&io)?;
        let placed = match there {
            Some(stamp) => {
                let believed = Believed { stamp, hash: None, shows: true };
                let aside = Aside::replaced(path.clone(), believed, staged.inode(), entry.hash);
                root.replace(staged, &aside, Durability::Later)
            }
            None => root.place(staged, path, Durability::Later),
        };
        match placed.map_err(&io)? {
            Applied::Done => Ok(true),
            Applied::Overtaken => Err(not_ours("is being changed by somebody else")),
        }
    }

    /// Whether the last export that got to its end wrote just this, and it was not touched since.
    fn is_right(&self, path: &DbPath, stamp: &Stamp, entry: &Entry) -> bool {
        let entries = self.0.get(path).map(Vec::as_slice).unwrap_or_default();
        !entries.is_empty()
            && entries.iter().all(|known| known.same_content(entry))
            && stamp.size() == entry.size
            && entry.modified() == Some(stamp.modified())
    }

    /// Removes a file that an export has written.
    fn remove(&self, root: &Root, path: &DbPath) -> Result<bool, PlainError> {
        let io = PlainError::directory(path);
        let Occupant::File(stamp) = root.occupant(path).map_err(&io)? else { return Ok(false) };
        if !self.wrote(root, path, &stamp)? {
            return Ok(false);
        }
        let aside = Aside::removed(path.clone(), Believed { stamp, hash: None, shows: true });
        Ok(root.remove(&aside, Durability::Later).map_err(&io)? == Applied::Done)
    }
}

/// Whether anything but directories lies in or below a directory.
fn holds_a_file(directory: &Path) -> std::io::Result<bool> {
    for entry in walkdir::WalkDir::new(directory) {
        if !entry.map_err(std::io::Error::other)?.file_type().is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}
