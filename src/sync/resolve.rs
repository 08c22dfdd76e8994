//! A person decides a conflict. Nothing is sent: the base moves to what the remote had, so the next run publishes the decision,
//! or meets a new conflict where the remote has changed again.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::SyncError;
use super::apply::recover;
use super::brake::{Brake, Deletions};
use super::changes::Changes;
use super::kept::Kept;
use super::near::entry_of;
use super::noted::Arriving;
use super::record::{Outcome, Record, Recorded, Version};
use super::workdir::{Identity, Intent, Log, Reached, Workdir};
use crate::manifest::{Entry, PRIVATE_DIR};
use crate::model::{ContentHash, DbPath, DbRef};
use crate::tree::{Applied, Aside, Believed, Durability, Occupant, Root, Staged, Stamp, hash_file};
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
    if !directory.join(PRIVATE_DIR).is_dir() {
        return Err(SyncError::NoConflict { path: path.clone() });
    }
    let mut workdir = Workdir::open(directory, Intent::Work)?;
    let mut kept = Kept::open(workdir.root())?;
    if workdir.manifest().is_none_or(|manifest| manifest.owner.is_none() || manifest.slug.is_none()) {
        return Err(SyncError::NeverSynced);
    }
    let Some((when, recorded)) = open_conflict(&kept, path) else {
        return Err(SyncError::NoConflict { path: path.clone() });
    };
    let others: Vec<_> = recorded.against.iter().filter_map(|other| open_conflict(&kept, other)).collect();
    let root = workdir.root().clone();
    let mut replacing = Replacing { root: &root, kept: &mut kept };
    let outcome = match choice {
        Choice::Local => {
            // A run that did not come to its end may have brought the remote's version, and kept the one that was here.
            if let (Some(here), Some(there)) = (&recorded.local, &recorded.remote)
                && replacing.kept.has(&Record::copy_of(&when, path, Version::Local))
                && let Some((hash, _)) = replacing.read(path)?
                && hash == there.entry.hash
                && hash != here.entry.hash
            {
                let (hash, staged) = stage_copy(&root, &when, path, &here.entry, Version::Local)?;
                replacing.replace(&when, path, hash, staged)?;
            }
            Outcome::KeptLocal
        }
        Choice::Remote => {
            // Nothing is touched before all that is to come is here.
            let staged = match &recorded.remote {
                Some(PutEntry { entry, .. }) => Some(stage_copy(&root, &when, path, entry, Version::Remote)?),
                None => None,
            };
            for (when, other) in &others {
                replacing.clear(when, &other.path)?;
            }
            match staged {
                Some((hash, staged)) => replacing.replace(&when, path, hash, staged)?,
                None => replacing.clear(&when, path)?,
            }
            Outcome::KeptRemote
        }
        Choice::File(file) => {
            let failed = |error| SyncError::directory(file.display())(error);
            let from = File::open(file).map_err(failed)?;
            let (hash, _) = hash_file(&from, None).map_err(failed)?;
            let staged = root.stage_copy(&from, None).map_err(failed)?;
            replacing.replace(&when, path, hash, staged)?;
            Outcome::Replaced
        }
    };
    let all: Vec<_> = std::iter::once((when, recorded)).chain(others).collect();
    let decided: Vec<_> = all.iter().map(|(when, one)| (when.clone(), one.path.clone())).collect();
    // What the remote has under the other names is not here: the next run brings it.
    let settled = all
        .into_iter()
        .filter(|(_, one)| one.path == *path || !matches!(choice, Choice::Remote) || one.remote.is_none());
    let settled: Changes =
        settled.map(|(_, one)| (one.path.clone(), one.remote.clone().map(|put| put.entry))).collect();
    settle(&mut workdir, settled)?;
    kept.decide(&decided, outcome)
}

/// The latest conflict about a path that nobody has decided, and when it was met.
fn open_conflict(kept: &Kept, path: &DbPath) -> Option<(String, Recorded)> {
    let is_it = |recorded: &&Recorded| recorded.path == *path && recorded.outcome == Outcome::Open;
    kept.records()
        .iter()
        .rev()
        .find_map(|record| Some((record.when.clone(), record.conflicts.iter().find(is_it)?.clone())))
}

/// Files that go, or make room for another one; all of them are kept.
struct Replacing<'a> {
    root: &'a Arc<Root>,
    kept: &'a mut Kept,
}

impl Replacing<'_> {
    /// Keeps what is at a path, and says what it is.
    fn keep(&mut self, when: &str, path: &DbPath) -> Result<Option<Believed>, SyncError> {
        let Some((hash, stamp)) = self.read(path)? else { return Ok(None) };
        self.kept.keep_here(when, path, entry_of(path, hash, stamp))?;
        Ok(Some(Believed { stamp, hash: Some(hash), shows: false }))
    }

    /// What the file at a path holds; none where there is none.
    fn read(&self, path: &DbPath) -> Result<Option<(ContentHash, Stamp)>, SyncError> {
        let failed = |error| SyncError::directory(path)(error);
        if !matches!(self.root.occupant(path).map_err(failed)?, Occupant::File(_)) {
            return Ok(None);
        }
        let read = self.root.open_file(path).and_then(|file| hash_file(&file, None));
        read.map(Some).map_err(failed)
    }

    /// Takes away what is at a path.
    fn clear(&mut self, when: &str, path: &DbPath) -> Result<(), SyncError> {
        let Some(believed) = self.keep(when, path)? else { return Ok(()) };
        let aside = Aside::removed(path.clone(), believed);
        self.change(path, aside.clone(), |root| root.remove(&aside, Durability::Now))
    }

    /// Puts a content in the place of what is at a path.
    fn replace(
        &mut self,
        when: &str,
        path: &DbPath,
        hash: ContentHash,
        staged: Staged,
    ) -> Result<(), SyncError> {
        match self.keep(when, path)? {
            Some(believed) => {
                let aside = Aside::replaced(path.clone(), believed, staged.inode(), hash);
                self.change(path, aside.clone(), |root| root.replace(staged, &aside, Durability::Now))
            }
            None => done(path, self.root.place(staged, path, Durability::Now)),
        }
    }

    /// Changes one file, which is written down before, and brought back where somebody has changed it meanwhile.
    fn change(
        &self,
        path: &DbPath,
        aside: Aside,
        act: impl FnOnce(&Root) -> io::Result<Applied>,
    ) -> Result<(), SyncError> {
        self.root.note_asides(&[aside]).map_err(SyncError::directory(path))?;
        let applied = act(self.root);
        recover(self.root)?;
        done(path, applied)
    }
}

fn done(path: &DbPath, applied: io::Result<Applied>) -> Result<(), SyncError> {
    match applied.map_err(SyncError::directory(path))? {
        Applied::Done => Ok(()),
        Applied::Overtaken => Err(SyncError::Overtaken { path: path.clone() }),
    }
}

/// One of the versions, from the copy that was kept of it.
fn stage_copy(
    root: &Root,
    when: &str,
    path: &DbPath,
    entry: &Entry,
    version: Version,
) -> Result<(ContentHash, Staged), SyncError> {
    let copy = Record::copy_of(when, path, version);
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
    let staged = root.stage_copy(&file, entry.modified()).map_err(SyncError::directory(&copy))?;
    Ok((hash, staged))
}

/// Moves the base of every path to what the remote had there.
fn settle(workdir: &mut Workdir, settled: Changes) -> Result<(), SyncError> {
    let Some(manifest) = workdir.manifest().cloned() else { return Ok(()) };
    let (Some(owner), Some(slug)) = (manifest.owner.as_deref(), manifest.slug.as_deref()) else {
        return Ok(());
    };
    let Ok(reference) = DbRef::new(owner, slug) else { return Ok(()) };
    // What was to come there says nothing of what was decided.
    Arriving::forget_some(workdir.root(), settled.keys())?;
    let mut seen = workdir.seen(&reference);
    let mut unseen = Changes::new();
    workdir.settle_earlier(settled, seen.as_mut().map_or(&mut unseen, |(_, changes)| changes));
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
