//! The local side: which files there are, and how they differ from the base. Only what may have changed is read.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::changes::{Changes, Files, SideView};
use super::filter::Filter;
use super::reconcile::same;
use super::{Event, Reporter, SyncError};
use crate::manifest::{Entry, SharedTypes};
use crate::model::{ContentHash, DbPath};
use crate::tree::{
    self, Believed, HashIndex, KnownFile, Moment, Occupant, Root, Skipped, Stamp, hash_quiet_file,
};
use crate::wire::content_type_of;

/// A file that was found.
struct Found {
    path: DbPath,
    stamp: Stamp,
    /// What it holds, where that is known and a later change will show.
    hash: Option<ContentHash>,
    /// The run is about it.
    meant: bool,
}

/// What a directory has, and what is known of it without reading any file, nor the base.
pub(super) struct Looked {
    files: Vec<Found>,
    skipped: Vec<Skipped>,
    /// What the index said of itself.
    indexed: Indexed,
    moment: Option<Moment>,
}

/// An index as it lies on the disk.
#[derive(Debug, Clone, Copy)]
struct Indexed {
    files: u64,
    all_of: Option<Stamp>,
}

/// Looks at a directory. `moment` is when the run began, if it will remember what it reads.
pub(super) async fn look(root: &Arc<Root>, moment: Option<Moment>) -> Result<Looked, SyncError> {
    let (shown, root) = (root.path().display().to_string(), root.clone());
    let looked = tokio::task::spawn_blocking(move || {
        let scan = tree::scan(&root)?;
        let index = HashIndex::load(&root);
        let known: Vec<_> = index.known(scan.files.iter().map(|(path, stamp)| (path, stamp))).collect();
        let files = scan.files.into_iter().zip(known);
        let found = files.map(|((path, stamp), hash)| Found { path, stamp, hash, meant: true });
        let indexed = Indexed { files: index.len(), all_of: index.all_of() };
        Ok(Looked { files: found.collect(), skipped: scan.skipped, indexed, moment })
    });
    looked.await.map_err(io::Error::other).and_then(|looked| looked).map_err(SyncError::directory(shown))
}

impl Looked {
    /// Whether the files are just those that a manifest lists, told by what it is on the disk.
    pub(super) fn is_all_of(&self, manifest: Option<Stamp>) -> bool {
        manifest.is_some()
            && self.indexed.all_of == manifest
            && self.indexed.files == self.files.len() as u64
            && self.files.iter().all(|file| file.hash.is_some())
    }

    /// Where the files are.
    pub(super) fn paths(&self) -> impl Iterator<Item = &DbPath> {
        self.files.iter().map(|file| &file.path)
    }

    /// What was left out and is worth telling.
    pub(super) fn into_skipped(self) -> Vec<Skipped> {
        self.skipped
    }
}

/// A directory as it is.
pub(super) struct Near {
    /// How it differs from the base.
    pub(super) changes: Changes,
    /// What was left out and is worth telling.
    pub(super) skipped: Vec<Skipped>,
    /// Paths of the base where something stands that is no file: they are neither deleted nor replaced.
    pub(super) occupied: BTreeSet<DbPath>,
    /// Files that the run is not about, and which neither the base nor the remote has.
    pub(super) beside: Vec<DbPath>,
    /// Every file, by path.
    files: Vec<Found>,
    /// What this run has put in place or removed since.
    since: BTreeMap<DbPath, Option<(Stamp, Option<ContentHash>)>>,
    /// The manifest whose files the index has.
    all_of: Option<Stamp>,
    /// Whether what is known of some file is not in the index.
    learned: bool,
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
    /// What an earlier run was about to bring.
    pub(super) arriving: &'a Changes,
}

/// Compares what was found with the base, and reads what may have changed, several files at a time. Files that vanish
/// meanwhile are absent.
pub(super) async fn read(
    looked: Looked,
    question: Question<'_>,
    reporter: &dyn Reporter,
) -> Result<Near, SyncError> {
    let root = question.root;
    let mut near = Near {
        changes: Changes::new(),
        skipped: looked.skipped,
        occupied: BTreeSet::new(),
        beside: Vec::new(),
        files: looked.files,
        since: BTreeMap::new(),
        all_of: looked.indexed.all_of,
        learned: false,
        moment: looked.moment,
    };
    let missing = near.read_files(question, reporter).await?;
    for path in missing {
        match root.occupant(path).map_err(SyncError::directory(path))? {
            Occupant::Nothing | Occupant::Directory => drop(near.changes.insert(path.clone(), None)),
            Occupant::File(_) | Occupant::Obstacle => drop(near.occupied.insert(path.clone())),
        }
    }
    Ok(near)
}

impl Near {
    /// Compares every file with the base, by the same algorithm. Returns the paths of the base that have no file.
    async fn read_files<'a>(
        &mut self,
        question: Question<'a>,
        reporter: &dyn Reporter,
    ) -> Result<Vec<&'a DbPath>, SyncError> {
        let Question { root, base, remote, filter, newcomers, arriving } = question;
        let there = SideView { base, changes: remote };
        let mut unread = Vec::new();
        let (mut listed, mut missing) = (base.iter().peekable(), Vec::new());
        // Made a map of at the end: made one by one, it takes nearly twice the memory.
        let mut changes = Vec::new();
        let mut types = SharedTypes::default();
        for (n, file) in self.files.iter_mut().enumerate() {
            let before = loop {
                match listed.peek().map(|(path, _)| (*path).cmp(&file.path)) {
                    Some(Ordering::Less) => missing.extend(listed.next().map(|(path, _)| path)),
                    Some(Ordering::Equal) => break listed.next().map(|(_, entry)| entry),
                    Some(Ordering::Greater) | None => break None,
                }
            };
            let known =
                before.is_some() || there.get(&file.path).is_some() || arriving.contains_key(&file.path);
            file.meant = filter.takes(&file.path) && (newcomers || known);
            if !file.meant {
                if !known {
                    self.beside.push(file.path.clone());
                }
                continue;
            }
            let like = before.or_else(|| there.get(&file.path)).map(|entry| entry.hash);
            let fits = |known: &ContentHash| match like {
                Some(like) => like.algorithm() == known.algorithm(),
                None => known.sha256().is_some(),
            };
            match file.hash.filter(fits) {
                Some(hash) => {
                    if before.is_none_or(|entry| (entry.size, entry.hash) != (file.stamp.size(), hash)) {
                        let mut entry = entry_of(&file.path, hash, file.stamp);
                        types.share(&mut entry);
                        changes.push((file.path.clone(), Some(entry)));
                    }
                }
                None => unread.push((n, file.path.clone(), file.stamp, like)),
            }
        }
        missing.extend(listed.map(|(path, _)| path));
        reporter.report(Event::Hashing { bytes: unread.iter().map(|(_, _, stamp, _)| stamp.size()).sum() });
        let hashed = unread.into_iter().map(|(n, path, stamp, like)| async move {
            Ok::<_, SyncError>((n, hash_one(root, &path, stamp, like, reporter).await?))
        });
        let at_once = std::thread::available_parallelism().map_or(2, |n| n.get());
        let mut read = futures::stream::iter(hashed).buffer_unordered(at_once);
        while let Some((n, found)) = read.try_next().await? {
            let file = &mut self.files[n];
            let Some((hash, stamp, quiet)) = found else {
                file.meant = false;
                file.hash = None;
                missing.extend(base.get_key_value(&file.path).map(|(path, _)| path));
                continue;
            };
            file.stamp = stamp;
            // Remembered, unless a later change might not show.
            file.hash = self.moment.filter(|moment| quiet && moment.trusts(&stamp)).map(|_| hash);
            self.learned |= file.hash.is_some();
            if base.get(&file.path).is_none_or(|entry| (entry.size, entry.hash) != (stamp.size(), hash)) {
                let mut entry = entry_of(&file.path, hash, stamp);
                types.share(&mut entry);
                changes.push((file.path.clone(), Some(entry)));
            }
        }
        drop(read);
        self.changes = changes.into_iter().collect();
        reporter.report(Event::Finished);
        missing.retain(|path| filter.takes(path));
        Ok(missing)
    }

    /// What of these changes stands here already, as they say: it is told apart from what was changed here. What the run is not
    /// about is looked at, too.
    pub(super) async fn take_arrived(
        &mut self,
        root: &Arc<Root>,
        filter: &Filter,
        arriving: Changes,
    ) -> Result<Changes, SyncError> {
        let mut arrived = Changes::new();
        for (path, entry) in arriving {
            let stands = if filter.takes(&path) {
                self.changes.get(&path).is_some_and(|here| same(here.as_ref(), entry.as_ref()))
            } else {
                let like = entry.as_ref().map(|entry| entry.hash);
                let here = match root.occupant(&path).map_err(SyncError::directory(&path))? {
                    Occupant::File(stamp) => hash_one(root, &path, stamp, like, &()).await?,
                    Occupant::Nothing | Occupant::Directory | Occupant::Obstacle => None,
                };
                let here = here.map(|(hash, stamp, _)| entry_of(&path, hash, stamp));
                same(here.as_ref(), entry.as_ref())
            };
            if stands {
                self.changes.remove(&path);
                arrived.insert(path, entry);
            }
        }
        Ok(arrived)
    }

    /// What the file at a path was when it was looked at; none where the run is about no such file.
    pub(super) fn stamp(&self, path: &DbPath) -> Option<Stamp> {
        if let Some(since) = self.since.get(path) {
            return since.map(|(stamp, _)| stamp);
        }
        let at = self.files.binary_search_by(|file| file.path.cmp(path)).ok()?;
        Some(&self.files[at]).filter(|file| file.meant).map(|file| file.stamp)
    }

    /// What the file at a path is believed to be; none where there was none.
    pub(super) fn believed(&self, base: &Files, path: &DbPath) -> Option<Believed> {
        let stamp = self.stamp(path)?;
        let hash = SideView { base, changes: &self.changes }.get(path).map(|entry| entry.hash);
        // Only of what was left alone while it was read, and long before, a later change shows.
        let at = self.files.binary_search_by(|file| file.path.cmp(path)).ok();
        let shows = at.is_some_and(|at| self.files[at].hash.is_some());
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
                hash_one(root, path, stamp, like, &()).await?
            }
            Occupant::Nothing | Occupant::Directory => None,
            Occupant::Obstacle => {
                self.occupied.insert(path.clone());
                return Ok(());
            }
        };
        self.since.insert(path.clone(), found.map(|(_, stamp, _)| (stamp, None)));
        let entry = found.map(|(hash, stamp, _)| entry_of(path, hash, stamp));
        match same(base.get(path), entry.as_ref()) {
            true => drop(self.changes.remove(path)),
            false => drop(self.changes.insert(path.clone(), entry)),
        }
        Ok(())
    }

    /// Remembers a file that this run has put in place. It bears the time its content was changed at, long ago: whatever
    /// changes it later shows in that.
    pub(super) fn placed(&mut self, root: &Root, path: &DbPath, sealed: Option<Stamp>, hash: ContentHash) {
        let shows = |stamp: &Stamp| {
            sealed.is_some_and(|sealed| sealed.same_bytes(stamp))
                && self.moment.is_some_and(|moment| moment.is_long_after(stamp.modified()))
        };
        let stands = match root.occupant(path) {
            Ok(Occupant::File(stamp)) => Some((stamp, Some(hash).filter(|_| shows(&stamp)))),
            _ => None,
        };
        self.since.insert(path.clone(), stands);
    }

    /// Forgets a file that this run has removed.
    pub(super) fn gone(&mut self, path: &DbPath) {
        self.since.insert(path.clone(), None);
    }

    /// Every file whose content is known, by path.
    fn known(&self) -> impl Iterator<Item = KnownFile<'_>> {
        let before = self.files.iter().filter(|file| !self.since.contains_key(&file.path));
        let mut before = before.filter_map(|file| known_file(&file.path, file.stamp, file.hash)).peekable();
        let since = self
            .since
            .iter()
            .filter_map(|(path, file)| file.and_then(|(stamp, hash)| known_file(path, stamp, hash)));
        let mut since = since.peekable();
        std::iter::from_fn(move || match (before.peek(), since.peek()) {
            (Some(a), Some(b)) if b.path < a.path => since.next(),
            (Some(_), _) => before.next(),
            (None, _) => since.next(),
        })
    }

    /// Writes down what is known of the files' contents, if that is more than before: what is wrong of what was known shows by
    /// itself. `manifest` is what lists `base`.
    pub(super) fn save_index(&self, root: &Root, base: &Files, manifest: Option<Stamp>) -> io::Result<()> {
        let learned = self.learned || self.since.values().flatten().any(|(_, hash)| hash.is_some());
        let all_of = manifest.filter(|_| self.knows_all(base));
        if !learned && (all_of.is_none() || all_of == self.all_of) {
            return Ok(());
        }
        HashIndex::save(root, all_of, self.known())
    }

    /// Whether the files are just those of the base, and it is known of each that it holds the same.
    fn knows_all(&self, base: &Files) -> bool {
        if self.files.iter().any(|file| file.hash.is_none() && !self.since.contains_key(&file.path)) {
            return false;
        }
        let mut listed = base.iter();
        let mut same = |file: KnownFile<'_>| {
            listed.next().is_some_and(|(path, entry)| {
                path.as_str() == file.path && (entry.size, entry.hash) == (file.stamp.size(), file.hash)
            })
        };
        self.known().all(&mut same) && listed.next().is_none()
    }
}

fn known_file(path: &DbPath, stamp: Stamp, hash: Option<ContentHash>) -> Option<KnownFile<'_>> {
    Some(KnownFile { path: path.as_str(), stamp, hash: hash? })
}

/// Reads a file, and says whether it was left alone meanwhile; none where there is none any more.
async fn hash_one(
    root: &Arc<Root>,
    path: &DbPath,
    stamp: Stamp,
    like: Option<ContentHash>,
    reporter: &dyn Reporter,
) -> Result<Option<(ContentHash, Stamp, bool)>, SyncError> {
    let (root, read) = (root.clone(), path.clone());
    let read = tokio::task::spawn_blocking(move || {
        root.open_file(&read).and_then(|file| hash_quiet_file(&file, like.as_ref()))
    });
    let read = read.await.map_err(io::Error::other).and_then(|read| read);
    reporter.report(Event::Progress { bytes: stamp.size() });
    match read {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(SyncError::directory(path)(error)),
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
