//! A person decides a conflict. Nothing is sent: the base moves to what the remote had, so the next run publishes the decision,
//! or meets a new conflict where the remote has changed again.

use std::fs::File;
use std::io;
use std::path::Path;

use jiff::Timestamp;

use super::SyncError;
use super::brake::{Brake, Deletions};
use super::changes::Changes;
use super::kept::{Kept, Outcome, Record, Recorded, Version};
use super::workdir::{Identity, Intent, Log, Reached, Workdir};
use crate::manifest::Entry;
use crate::model::{DbPath, DbRef};
use crate::tree::{Applied, Durability, Occupant, Root, Staged, hash_file};
use crate::wire::PutEntry;

/// What a conflict is decided for.
#[derive(Debug, Clone, Copy)]
pub enum Choice<'a> {
    /// What is here.
    Local,
    /// What the remote had.
    Remote,
    /// What this file holds.
    File(&'a Path),
}

/// Decides the conflict about `path`. What is replaced here is kept beside the database.
pub fn resolve(directory: &Path, path: &DbPath, choice: Choice<'_>) -> Result<(), SyncError> {
    let mut workdir = Workdir::open(directory, Intent::Work)?;
    let mut kept = Kept::open(workdir.root())?;
    let Some(decided) = open_conflict(&kept, path) else {
        return Err(SyncError::NoConflict { path: path.clone() });
    };
    let (record, recorded) = decided;
    let others: Vec<_> = recorded.against.iter().filter_map(|other| open_conflict(&kept, other)).collect();
    let root = workdir.root().clone();
    match choice {
        Choice::Local => {}
        Choice::Remote => {
            // Nothing is touched before all that is to come is here.
            let staged = match &recorded.remote {
                Some(PutEntry { entry, .. }) => Some(stage_copy(&root, &record, path, entry)?),
                None => None,
            };
            for (record, other) in &others {
                clear(&mut kept, &root, record, &other.path)?;
            }
            match staged {
                Some(staged) => replace(&mut kept, &root, &record, path, staged)?,
                None => clear(&mut kept, &root, &record, path)?,
            }
        }
        Choice::File(file) => {
            let staged = File::open(file).and_then(|file| root.stage_copy(&file, None));
            let staged = staged.map_err(SyncError::directory(file.display()))?;
            replace(&mut kept, &root, &record, path, staged)?;
        }
    }
    let outcome = match choice {
        Choice::Local => Outcome::KeptLocal,
        Choice::Remote => Outcome::KeptRemote,
        Choice::File(_) => Outcome::Replaced,
    };
    let seen = workdir
        .manifest()
        .and_then(|manifest| DbRef::new(manifest.owner.as_deref()?, manifest.slug.as_deref()?).ok());
    let mut seen = seen.map(|reference| (workdir.seen(&reference), reference));
    for (record, recorded) in std::iter::once((record, recorded)).chain(others) {
        let itself = recorded.path == *path;
        let remote = recorded.remote.map(|put| put.entry);
        // What the remote has under the other names is not here: the next run brings it.
        if itself || matches!(choice, Choice::Local | Choice::File(_)) || remote.is_none() {
            if let Some((_, changes)) = seen.as_mut().and_then(|(seen, _)| seen.as_mut()) {
                // Told by how it differed from the base there was; what the remote has is no other for it.
                let before = workdir.base().get(&recorded.path).cloned();
                changes.entry(recorded.path.clone()).or_insert(before);
            }
            workdir.move_base(&recorded.path, remote);
        }
        kept.decide(&record.when, &recorded.path, outcome)?;
    }
    save(&mut workdir, seen)
}

/// The latest conflict about a path that nobody has decided.
fn open_conflict(kept: &Kept, path: &DbPath) -> Option<(Record, Recorded)> {
    let is_it = |recorded: &&Recorded| recorded.path == *path && recorded.outcome == Outcome::Open;
    kept.records().iter().rev().find_map(|record| {
        let recorded = record.conflicts.iter().find(is_it)?;
        Some((record.clone(), recorded.clone()))
    })
}

/// Takes away what is at a path; it is kept.
fn clear(kept: &mut Kept, root: &Root, record: &Record, path: &DbPath) -> Result<(), SyncError> {
    let failed = |error| SyncError::directory(path)(error);
    if let Occupant::File(_) = root.occupant(path).map_err(failed)? {
        kept.keep_local(record, path)?;
        // The link has touched it.
        if let Occupant::File(stamp) = root.occupant(path).map_err(failed)?
            && root.remove(path, stamp, Durability::Now).map_err(failed)? == Applied::Overtaken
        {
            return Err(SyncError::Overtaken { path: path.clone() });
        }
    }
    Ok(())
}

/// Puts a content in the place of what is at a path; that is kept.
fn replace(
    kept: &mut Kept,
    root: &Root,
    record: &Record,
    path: &DbPath,
    staged: Staged,
) -> Result<(), SyncError> {
    let failed = |error| SyncError::directory(path)(error);
    if let Occupant::File(_) = root.occupant(path).map_err(failed)? {
        kept.keep_local(record, path)?;
    }
    let expected = match root.occupant(path).map_err(failed)? {
        Occupant::File(stamp) => Some(stamp),
        _ => None,
    };
    match root.place(staged, path, expected, Durability::Now).map_err(failed)? {
        Applied::Done => Ok(()),
        Applied::Overtaken => Err(SyncError::Overtaken { path: path.clone() }),
    }
}

/// The remote's version, from the copy that was kept of it.
fn stage_copy(root: &Root, record: &Record, path: &DbPath, entry: &Entry) -> Result<Staged, SyncError> {
    let copy = record.copy(path, Version::Remote);
    let file = match root.open_file(&copy) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(SyncError::NotKept { path: path.clone() });
        }
        Err(error) => return Err(SyncError::directory(&copy)(error)),
    };
    let (hash, _) = hash_file(&file, Some(&entry.hash)).map_err(SyncError::directory(&copy))?;
    if hash != entry.hash {
        return Err(SyncError::WrongContent { path: copy });
    }
    root.stage_copy(&file, entry.modified()).map_err(SyncError::directory(&copy))
}

type Seen = (Option<(crate::remote::Known, Changes)>, DbRef);

fn save(workdir: &mut Workdir, seen: Option<Seen>) -> Result<(), SyncError> {
    let (Some(manifest), Some((seen, reference))) = (workdir.manifest().cloned(), seen) else {
        return Ok(());
    };
    let identity = Identity {
        id: &manifest.database_id,
        name: &manifest.name,
        reference: &reference,
        visibility: manifest.visibility,
        synced_from: manifest.synced_from.as_deref().unwrap_or("local"),
    };
    let (nothing, log) = (Changes::new(), Log::NotAsked);
    let reached = match &seen {
        Some((known, changes)) => {
            Reached { revision: known.revision, etag: Some(&known.etag), anchor: None, log, changes }
        }
        None => Reached { revision: None, etag: None, anchor: None, log, changes: &nothing },
    };
    let none = Deletions { time: Timestamp::now(), here: 0, there: 0 };
    workdir.save(&identity, &reached, none, Brake::On)
}
