//! The local side: which files there are, and how they differ from the base. Only what may have changed is read.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::changes::{Changes, Files, SideView};
use super::filter::Filter;
use super::reconcile::same;
use super::{Event, Reporter, SyncError};
use crate::manifest::Entry;
use crate::model::{ContentHash, DbPath};
use crate::tree::{self, Believed, HashIndex, Moment, Occupant, Root, Skipped, Stamp, hash_file};
use crate::wire::content_type_of;

/// A directory as it is.
pub(super) struct Near {
    /// How it differs from the base.
    pub(super) changes: Changes,
    /// The files that were looked at.
    pub(super) stamps: BTreeMap<DbPath, Stamp>,
    /// What was left out and is worth telling.
    pub(super) skipped: Vec<Skipped>,
    /// Paths of the base where something stands that is no file: they are neither deleted nor replaced.
    pub(super) occupied: BTreeSet<DbPath>,
    /// What is known of the files' contents.
    pub(super) index: HashIndex,
    index_changed: bool,
    moment: Option<Moment>,
}

/// What a directory is compared with.
#[derive(Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) root: &'a Arc<Root>,
    pub(super) base: &'a Files,
    pub(super) remote: &'a Changes,
    pub(super) filter: &'a Filter,
    /// Whether files count that neither the base nor the remote has.
    pub(super) newcomers: bool,
    /// When this run began, if it will remember what it reads.
    pub(super) moment: Option<Moment>,
}

/// Looks at a directory, and reads what may have changed, several files at a time. Files that vanish meanwhile are absent.
pub(super) async fn read(question: Question<'_>, reporter: &dyn Reporter) -> Result<Near, SyncError> {
    let Question { root, base, remote, filter, newcomers, moment } = question;
    let shown = root.path().display();
    let walked = {
        let root = root.clone();
        tokio::task::spawn_blocking(move || Ok((tree::scan(&root)?, HashIndex::load(&root)))).await
    };
    let (scan, mut index) =
        walked.map_err(io::Error::other).and_then(|walked| walked).map_err(SyncError::directory(shown))?;
    let there = SideView { base, changes: remote };
    index.retain(|path| scan.files.contains_key(path));
    let mut stamps = scan.files;
    stamps.retain(|path, _| {
        filter.takes(path) && (newcomers || base.contains_key(path) || there.get(path).is_some())
    });
    let mut near = Near {
        changes: Changes::new(),
        stamps,
        skipped: scan.skipped,
        occupied: BTreeSet::new(),
        index,
        index_changed: false,
        moment,
    };
    near.read_files(root, base, there, reporter).await?;
    for path in base.keys().filter(|path| filter.takes(path) && !near.stamps.contains_key(*path)) {
        match root.occupant(path).map_err(SyncError::directory(path))? {
            Occupant::Nothing | Occupant::Directory => drop(near.changes.insert(path.clone(), None)),
            Occupant::File(_) | Occupant::Obstacle => drop(near.occupied.insert(path.clone())),
        }
    }
    Ok(near)
}

impl Near {
    /// Compares every file with the base, by the same algorithm.
    async fn read_files(
        &mut self,
        root: &Arc<Root>,
        base: &Files,
        there: SideView<'_>,
        reporter: &dyn Reporter,
    ) -> Result<(), SyncError> {
        let mut unread = Vec::new();
        let mut compared = Vec::new();
        for (path, stamp) in &self.stamps {
            let like = base.get(path).or_else(|| there.get(path)).map(|entry| entry.hash);
            let known = self.index.get(path, stamp);
            let fits = |known: &ContentHash| match like {
                Some(like) => like.algorithm() == known.algorithm(),
                None => known.sha256().is_some(),
            };
            match known.filter(fits) {
                Some(hash) => compared.push((path.clone(), hash, *stamp)),
                None => unread.push((path, *stamp, like)),
            }
        }
        reporter.report(Event::Hashing { bytes: unread.iter().map(|(_, stamp, _)| stamp.size()).sum() });
        let hashed =
            unread.into_iter().map(|(path, stamp, like)| hash_one(root, path, stamp, like, reporter));
        let at_once = std::thread::available_parallelism().map_or(2, |n| n.get());
        let read: Vec<_> = futures::stream::iter(hashed).buffer_unordered(at_once).try_collect().await?;
        reporter.report(Event::Finished);
        for (path, found) in read {
            let Some((hash, stamp)) = found else {
                self.stamps.remove(&path);
                continue;
            };
            self.stamps.insert(path.clone(), stamp);
            self.remember(&path, stamp, hash);
            compared.push((path, hash, stamp));
        }
        for (path, hash, stamp) in compared {
            let same = |entry: &Entry| (entry.size, entry.hash) == (stamp.size(), hash);
            if !base.get(&path).is_some_and(same) {
                let entry = entry_of(&path, hash, stamp);
                self.changes.insert(path, Some(entry));
            }
        }
        Ok(())
    }

    /// What the file at a path is believed to be; none where there was none.
    pub(super) fn believed(&self, base: &Files, path: &DbPath) -> Option<Believed> {
        let stamp = *self.stamps.get(path)?;
        let hash = SideView { base, changes: &self.changes }.get(path).map(|entry| entry.hash);
        let shows = self.moment.is_some_and(|moment| moment.trusts(&stamp));
        Some(Believed { stamp, hash, shows })
    }

    /// Looks once more at a file that was changed meanwhile.
    pub(super) async fn look_again(
        &mut self,
        root: &Arc<Root>,
        base: &Files,
        path: &DbPath,
    ) -> Result<(), SyncError> {
        let found = match root.occupant(path).map_err(SyncError::directory(path))? {
            Occupant::File(stamp) => {
                let like = base.get(path).map(|entry| entry.hash);
                hash_one(root, path, stamp, like, &()).await?.1
            }
            Occupant::Nothing | Occupant::Directory => None,
            Occupant::Obstacle => {
                self.occupied.insert(path.clone());
                return Ok(());
            }
        };
        self.index_changed |= self.index.remove(path);
        let entry = found.map(|(hash, stamp)| {
            self.stamps.insert(path.clone(), stamp);
            entry_of(path, hash, stamp)
        });
        if entry.is_none() {
            self.stamps.remove(path);
        }
        match same(base.get(path), entry.as_ref()) {
            true => drop(self.changes.remove(path)),
            false => drop(self.changes.insert(path.clone(), entry)),
        }
        Ok(())
    }

    /// Remembers what was read, unless a later change might not show.
    fn remember(&mut self, path: &DbPath, stamp: Stamp, hash: ContentHash) {
        match self.moment {
            Some(moment) if moment.trusts(&stamp) => {
                self.index.insert(path.clone(), stamp, hash);
                self.index_changed = true;
            }
            _ => self.index_changed |= self.index.remove(path),
        }
    }

    /// Remembers a file that this run has put in place. It bears the time its content was changed at, long ago: whatever
    /// changes it later shows in that.
    pub(super) fn placed(&mut self, root: &Root, path: &DbPath, inode: u64, hash: ContentHash) {
        let is_ours =
            |stamp: &Stamp, moment: Moment| stamp.inode() == inode && moment.is_long_after(stamp.modified());
        match (root.occupant(path), self.moment) {
            (Ok(Occupant::File(stamp)), Some(moment)) if is_ours(&stamp, moment) => {
                self.index.insert(path.clone(), stamp, hash);
                self.index_changed = true;
            }
            _ => self.index_changed |= self.index.remove(path),
        }
    }

    /// Forgets a file that this run has removed.
    pub(super) fn gone(&mut self, path: &DbPath) {
        self.index_changed |= self.index.remove(path);
    }

    /// Writes down what is known of the files' contents, if that is more than before.
    pub(super) fn save_index(&mut self, root: &Root) -> io::Result<()> {
        if !self.index_changed {
            return Ok(());
        }
        self.index_changed = false;
        self.index.save(root)
    }
}

type Read = (DbPath, Option<(ContentHash, Stamp)>);

async fn hash_one(
    root: &Arc<Root>,
    path: &DbPath,
    stamp: Stamp,
    like: Option<ContentHash>,
    reporter: &dyn Reporter,
) -> Result<Read, SyncError> {
    let (root, path) = (root.clone(), path.clone());
    let (path, read) = tokio::task::spawn_blocking(move || {
        let read = root.open_file(&path).and_then(|file| hash_file(&file, like.as_ref()));
        (path, read)
    })
    .await
    .map_err(|error| SyncError::directory("hashing")(io::Error::other(error)))?;
    reporter.report(Event::Progress { bytes: stamp.size() });
    match read {
        Ok(found) => Ok((path, Some(found))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((path, None)),
        Err(error) => Err(SyncError::directory(&path)(error)),
    }
}

pub(super) fn entry_of(path: &DbPath, hash: ContentHash, stamp: Stamp) -> Entry {
    Entry {
        size: stamp.size(),
        hash,
        modified_at: stamp.modified().to_string().into(),
        etag: None,
        content_type: Some(content_type_of(path.as_str()).into()),
        blocks: None,
        unknown: None,
    }
}
