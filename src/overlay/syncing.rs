//! When bytes are synced: at an `fsync`, before a commit that speaks of them, and every so often though nobody asked.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::OverlayError;
use super::local_file::{LocalFile, changed};
use super::overlay::{Overlay, Pending};
use super::staged::StagedFiles;
use crate::state::{Change, NodeId, StagedId};

/// Names are on the disk after so long, though nobody asked for it.
const EVERY: Duration = Duration::from_secs(5);
/// And bytes after so many times that: who writes a lot and removes it again need not wait for the disk.
const BYTES_EVERY: u32 = 6;
/// More files than that are not synced one by one.
const MANY: usize = 32;
/// `f_type` of FUSE, where `syncfs` syncs nothing.
const FUSE: i64 = 0x6573_5546;

/// What is asked for of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durably {
    /// Its bytes, and what it takes to read them.
    Data,
    /// Its times, too.
    All,
}

/// Hears whether what was asked for is on the disk.
pub type Told = Box<dyn FnOnce(Result<(), &OverlayError>) + Send>;

/// What was noted last of a file: so many bytes were on the disk when it was measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Noted {
    pub(super) size: u64,
    pub(super) measured: u64,
}

/// Whether a note that says the same as the last one is to be written down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Same {
    IsKnown,
    IsNews,
}

impl Noted {
    /// Takes the place of what was noted before, unless that was measured later; whether it is to be written down.
    fn replaces_in(self, noted: &mut HashMap<NodeId, Self>, node: NodeId, same: Same) -> bool {
        match noted.insert(node, self) {
            Some(last) if last.measured > self.measured => {
                noted.insert(node, last);
                false
            }
            Some(last) => last.size != self.size || same == Same::IsNews,
            None => true,
        }
    }
}

/// How a sync failed.
enum NotSynced {
    /// Before the disk was asked: nothing is lost.
    Unopened(io::Error),
    /// The disk did not take the bytes.
    Refused(io::Error),
}

/// Those whose changes are to be committed next.
#[derive(Default)]
pub(super) struct Waiting {
    told: Vec<Told>,
    somebody_commits: bool,
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("told", &self.told.len()).finish_non_exhaustive()
    }
}

impl Overlay {
    /// Syncs what the changes that are about to be committed speak of. A disk that does not take a file's bytes fails the commit,
    /// so that whoever waits for it hears of that; the next one goes on without that file. `synced`: what the commit is to note.
    pub(super) fn sync_before(
        &self,
        pending: &mut Pending,
        synced: &mut Vec<Change>,
    ) -> Result<(), OverlayError> {
        for (file, node) in &pending.sync_first {
            if self.has_failed(*node) {
                continue;
            }
            match self.sync_one(*file, *node) {
                Ok(change) => synced.extend(change),
                Err(NotSynced::Unopened(error)) => return Err(error.into()),
                Err(NotSynced::Refused(error)) => {
                    tracing::error!(%error, file = file.0, "the disk did not take what was written to a file");
                    self.failed.lock().unwrap_or_else(|e| e.into_inner()).insert(*node);
                    // What it was to replace stays on the disk: until the next start, which sweeps.
                    pending.remove.clear();
                    return Err(error.into());
                }
            }
        }
        Ok(())
    }

    fn sync_one(&self, file: StagedId, node: NodeId) -> Result<Option<Change>, NotSynced> {
        let measured = self.measure();
        let open = match self.staged.open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened.map_err(NotSynced::Unopened)?,
        };
        let before = open.metadata().map_err(NotSynced::Unopened)?;
        open.sync_data().map_err(NotSynced::Refused)?;
        self.staged.sync_name(file).map_err(NotSynced::Refused)?;
        let (size, changed) = (before.len(), changed(&before));
        let is_news = Noted { size, measured }.replaces_in(&mut self.noted(), node, Same::IsNews);
        Ok(is_news.then_some(Change::Synced { node, size, changed }))
    }

    /// What was noted is not in the tables after all.
    pub(super) fn unnote(&self, synced: &[Change]) {
        let mut noted = self.noted();
        for change in synced {
            if let Change::Synced { node, .. } = change {
                noted.remove(node);
            }
        }
    }

    /// To be called before a file is measured that is to be synced then: a note of a later measure is never replaced by an
    /// earlier one's, though its sync took longer.
    pub(super) fn measure(&self) -> u64 {
        self.measures.fetch_add(1, Ordering::SeqCst)
    }

    /// Makes a file durable, its bytes and its name (rule 17). Never waits for the network.
    pub fn fsync(&self, file: &LocalFile, what: Durably, told: Told) {
        match file.make_durable(self, Some(what)) {
            Ok(()) => self.commit_for(told),
            Err(error) => told(Err(&error)),
        }
    }

    /// Commits everything that was recorded until now and says how it went. Who comes while somebody commits leaves it to him,
    /// so that one commit serves all who wait (rule 18) and no thread waits with them.
    pub fn commit_for(&self, told: Told) {
        let mut waiting = self.waiting();
        waiting.told.push(told);
        if std::mem::replace(&mut waiting.somebody_commits, true) {
            return;
        }
        while !waiting.told.is_empty() {
            let served = std::mem::take(&mut waiting.told);
            drop(waiting);
            let done = self.commit();
            for told in served {
                told(done.as_ref().copied());
            }
            waiting = self.waiting();
        }
        waiting.somebody_commits = false;
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn noted(&self) -> MutexGuard<'_, HashMap<NodeId, Noted>> {
        self.noted.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// So many bytes of a file without a base are on the disk.
    pub(super) fn note_synced(&self, node: NodeId, note: Noted, changed: i64) {
        // In this order, for a commit may be noting while it holds the log.
        let mut log = self.log();
        // A data base's file is synced many times and stays as long.
        if note.replaces_in(&mut self.noted(), node, Same::IsKnown) {
            // The journal need not have it: what counts in this boot only has no use for it.
            log.pending.add([Change::Synced { node, size: note.size, changed }]);
        }
    }

    /// Notes that a file may be written to from now on, by us or by the kernel.
    pub fn may_be_written(&self, file: &Arc<LocalFile>) {
        self.dirty.lock().unwrap_or_else(|e| e.into_inner()).insert(file.node(), file.clone());
    }

    /// Syncs everything there is: at the end, and every few seconds. Returns where the staged files lie that could not be synced,
    /// below the replica's directory; of all others what was written before the call is on the disk.
    pub fn sync_everything(&self) -> Result<Vec<String>, OverlayError> {
        // What another thread has taken up is on the disk only when that has come to its end.
        let _one_at_a_time = self.syncing.lock().unwrap_or_else(|e| e.into_inner());
        let dirty: Vec<Arc<LocalFile>> = {
            let dirty = || self.dirty.lock().unwrap_or_else(|e| e.into_inner());
            let all = std::mem::take(&mut *dirty());
            // Who has it open may go on writing. Asked without the lock, which is taken after the files' own.
            let open: Vec<_> =
                all.iter().filter(|(_, file)| file.is_open()).map(|(id, file)| (*id, file.clone())).collect();
            dirty().extend(open);
            all.into_values().collect()
        };
        let again = self.sync_all(&dirty);
        let failed = again.iter().filter_map(|file| file.staged()).map(StagedFiles::place).collect();
        self.dirty
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .extend(again.into_iter().map(|file| (file.node(), file)));
        self.commit()?;
        self.dir.set_room_aside();
        Ok(failed)
    }

    /// Syncs many files: all at once where the file system can do that, for each one by itself takes a turn of the disk.
    /// Returns those that are to be synced another time.
    pub(super) fn sync_all(&self, files: &[Arc<LocalFile>]) -> Vec<Arc<LocalFile>> {
        let mut one_by_one: Vec<&Arc<LocalFile>> = Vec::new();
        let mut marked = Vec::new();
        for file in files {
            match file.unsynced(self) {
                Ok(Some(mark)) if !file.is_open() => marked.push((file, mark)),
                Ok(None) if !file.is_open() => {}
                _ => one_by_one.push(file),
            }
        }
        if marked.len() > MANY && self.sync_file_system().unwrap_or(false) {
            let changed =
                |(file, mark): &(&Arc<LocalFile>, _)| !file.was_synced(self, *mark).unwrap_or(false);
            one_by_one.extend(marked.into_iter().filter(changed).map(|(file, _)| file));
        } else {
            one_by_one.extend(marked.into_iter().map(|(file, _)| file));
        }
        let mut again = Vec::new();
        for file in one_by_one {
            if let Err(error) = file.make_durable(self, None) {
                tracing::error!(%error, node = file.node().0, "what was written to a file is not on the disk");
                again.push(file.clone());
            }
        }
        again
    }

    /// Syncs everything on the disk; `false` where that cannot be had.
    fn sync_file_system(&self) -> Result<bool, OverlayError> {
        let dir = File::open(self.dir.path())?;
        let kind = rustix::fs::fstatfs(&dir).map_err(io::Error::from)?.f_type;
        Ok(kind != FUSE && rustix::fs::syncfs(&dir).is_ok())
    }

    /// Commits every few seconds and when the journal fills, until the overlay is dropped.
    pub fn start_committing(self: &Arc<Self>) -> io::Result<()> {
        let overlay = Arc::downgrade(self);
        let thread = std::thread::Builder::new().name("overlay-commit".into()).spawn(move || {
            let mut bytes_due = Instant::now() + EVERY * BYTES_EVERY;
            loop {
                std::thread::park_timeout(EVERY);
                let Some(overlay) = overlay.upgrade() else { return };
                let synced = if Instant::now() >= bytes_due {
                    bytes_due = Instant::now() + EVERY * BYTES_EVERY;
                    overlay.sync_everything().map(drop)
                } else {
                    overlay.commit()
                };
                if let Err(error) = synced {
                    tracing::error!(%error, "local changes are not on the disk yet: trying again");
                }
            }
        })?;
        *self.committer.lock().unwrap_or_else(|e| e.into_inner()) = Some(thread.thread().clone());
        Ok(())
    }
}
