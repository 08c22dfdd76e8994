//! A plain tree becomes a database: every file is checked against the tree's manifest on the way, and all of them are
//! one revision.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::PlainError;
use crate::disk::random_hex;
use crate::manifest::{Entry, MANIFEST_PATH, Manifest, stays_put};
use crate::model::{ContentHash, DbPath, DbRef, Revision, Visibility};
use crate::store::{Change, Database, Registration, Store};
use crate::tree::{Hasher, Root, hash_file};
use crate::wire::{CommitRequest, PutEntry};

/// Bytes read from a file at once.
const PIECE: usize = 1 << 20;

/// What to import, and as what.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// The tree.
    pub directory: PathBuf,
    /// The database's name.
    pub reference: DbRef,
    /// Who may see it; as the tree's manifest says, where nothing is given.
    pub visibility: Option<Visibility>,
}

/// What was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportReport {
    /// The new database's id.
    pub id: String,
    /// Its first revision.
    pub revision: Revision,
    /// Files it has.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Files that stay where they are, because of their names.
    pub withheld: Vec<DbPath>,
}

/// Makes a new database of a plain tree. Nothing is published unless every file is what the manifest says.
pub async fn import(store: &Store, options: &ImportOptions) -> Result<ImportReport, PlainError> {
    let manifest = read_manifest(&options.directory)?;
    let shown = options.directory.display();
    let root = Root::open(&options.directory).map_err(PlainError::directory(shown))?;
    let not_new = || PlainError::NotNew(options.reference.to_string());
    if store.find(&options.reference).await?.is_some_and(|found| found.revision().0 != Revision::NONE) {
        return Err(not_new());
    }
    let registration = Registration {
        reference: options.reference.clone(),
        name: manifest.name.clone(),
        visibility: Some(options.visibility.unwrap_or(manifest.visibility)),
    };
    let (withheld, files): (Vec<_>, Vec<_>) =
        manifest.files.into_iter().partition(|(path, _)| stays_put(path));
    // Before the name is given: a tree that is damaged makes no database.
    for (path, entry) in &files {
        check(&root, path, entry)?;
    }
    let database = store.register(&registration).await?;
    let mut put = Vec::with_capacity(files.len());
    for (path, entry) in files {
        put.push(store_file(&database, &root, path, entry).await?);
    }
    let (count, bytes) = (put.len() as u64, put.iter().map(|put| put.entry.size).sum());
    let request = CommitRequest {
        commit_id: random_hex::<16>(),
        base: Revision::NONE,
        put,
        delete: Vec::new(),
        message: Some("imported".into()),
    };
    let author = options.reference.owner().to_owned();
    let published = database.publish(Change { author, request, set_aside: Vec::new() }).await?;
    Ok(ImportReport {
        id: database.id().to_owned(),
        revision: published.revision,
        files: count,
        bytes,
        withheld: withheld.into_iter().map(|(path, _)| path).collect(),
    })
}

fn read_manifest(directory: &Path) -> Result<Manifest, PlainError> {
    let path = directory.join(MANIFEST_PATH);
    let shown = path.display().to_string();
    match std::fs::read(&path) {
        Ok(bytes) => {
            Manifest::from_json(&bytes).map_err(|source| PlainError::Manifest { path: shown, source })
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(PlainError::NoManifest { path: directory.display().to_string() })
        }
        Err(error) => Err(PlainError::directory(shown)(error)),
    }
}

/// Whether a file is there and is what the manifest says.
fn check(root: &Root, path: &DbPath, entry: &Entry) -> Result<(), PlainError> {
    let io = PlainError::directory(path);
    let file = root.open_file(path).map_err(&io)?;
    if file.metadata().map_err(&io)?.len() != entry.size {
        return Err(wrong(path, "size"));
    }
    let (hash, _) = hash_file(&file, Some(&entry.hash)).map_err(io)?;
    if hash == entry.hash { Ok(()) } else { Err(wrong(path, "hash")) }
}

fn wrong(path: &DbPath, what: &'static str) -> PlainError {
    PlainError::WrongFile { path: path.clone(), what }
}

/// Stores a file's content, checked by the manifest's own algorithm, and gives the entry to publish.
async fn store_file(
    database: &Arc<Database>,
    root: &Root,
    path: DbPath,
    entry: Entry,
) -> Result<PutEntry, PlainError> {
    use std::io::Read;
    let io = PlainError::directory(path.as_str().to_owned());
    let mut file = root.open_file(&path).map_err(&io)?;
    let mut upload = database.upload(entry.size, entry.hash.sha256()).await?;
    let mut hasher = Hasher::like(&entry.hash);
    let mut buffer = vec![0; PIECE];
    loop {
        let read = match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => &buffer[..read],
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(io(error)),
        };
        hasher.update(read);
        upload.write(read).await.map_err(|_| wrong(&path, "size"))?;
    }
    if hasher.finish() != entry.hash {
        upload.abort().await;
        return Err(wrong(&path, "hash"));
    }
    let hash = ContentHash::Sha256(upload.finish().await?);
    Ok(PutEntry { path, entry: Entry { hash, ..entry } })
}
