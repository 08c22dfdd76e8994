//! When bytes are synced: at an `fsync`, before a commit that speaks of them, and every so often though nobody asked.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use super::OverlayError;
use super::local_file::{LocalFile, changed};
use super::overlay::{Overlay, Pending};
use crate::state::{Change, NodeId, StagedId};

/// Names are on the disk after so long, though nobody asked for it.
const EVERY: Duration = Duration::from_secs(5);
/// And bytes after so many times that: who writes a lot and removes it again need not wait for the disk.
const BYTES_EVERY: u32 = 6;
/// More files than that are not synced one by one.
const MANY: usize = 32;
/// `f_type` of FUSE, where `syncfs` syncs nothing.
const FUSE: i64 = 0x6573_5546;

/// Hears whether what was asked for is on the disk.
pub type Told = Box<dyn FnOnce(Result<(), &OverlayError>) + Send>;

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
    /// Syncs what the changes that are about to be committed speak of.
    pub(super) fn sync_before(&self, pending: &mut Pending) -> Vec<Change> {
        let mut synced = Vec::new();
        for (file, node) in &pending.sync_first {
            match self.sync_one(*file) {
                Ok(Some((size, changed))) => {
                    self.noted().remove(node);
                    synced.push(Change::Synced { node: *node, size, changed });
                }
                Ok(None) => {}
                Err(error) => {
                    // An `fsync` of it will say so. What else was done is not to be lost with it.
                    tracing::error!(%error, file = file.0, "the disk did not take what was written to a file");
                    self.failed.lock().unwrap_or_else(|e| e.into_inner()).insert(*node);
                    // What it was to replace stays on the disk: until the next start, which sweeps.
                    pending.remove.clear();
                }
            }
        }
        synced
    }

    fn sync_one(&self, file: StagedId) -> io::Result<Option<(u64, i64)>> {
        let open = match self.staged.open(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            opened => opened?,
        };
        let before = open.metadata()?;
        open.sync_data()?;
        self.staged.sync_name(file)?;
        Ok(Some((before.len(), changed(&before))))
    }

    /// Makes a file durable, its bytes and its name (rule 17). Never waits for the network.
    pub fn fsync(&self, file: &LocalFile, told: Told) {
        match file.make_durable(self, true) {
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

    pub(super) fn noted(&self) -> MutexGuard<'_, HashMap<NodeId, u64>> {
        self.noted.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// So many bytes of a file without a base are on the disk. Called for one file by one at a time.
    pub(super) fn note_synced(&self, node: NodeId, size: u64, changed: i64) -> Result<(), OverlayError> {
        // A data base's file is synced many times and stays as long.
        if self.noted().get(&node) == Some(&size) {
            return Ok(());
        }
        // The journal need not have it: what counts in this boot only has no use for it.
        self.log().pending.add([Change::Synced { node, size, changed }]);
        self.noted().insert(node, size);
        Ok(())
    }

    /// Notes that a file may be written to from now on, by us or by the kernel.
    pub fn may_be_written(&self, file: &Arc<LocalFile>) {
        self.dirty.lock().unwrap_or_else(|e| e.into_inner()).insert(file.node(), file.clone());
    }

    /// Syncs everything there is: at the end, and every few seconds.
    pub fn sync_everything(&self) -> Result<(), OverlayError> {
        let dirty: Vec<Arc<LocalFile>> = {
            let mut dirty = self.dirty.lock().unwrap_or_else(|e| e.into_inner());
            // Who has it open may go on writing.
            let (open, closed): (HashMap<_, _>, HashMap<_, _>) =
                std::mem::take(&mut *dirty).into_iter().partition(|(_, file)| file.is_open());
            *dirty = open;
            dirty.values().cloned().chain(closed.into_values()).collect()
        };
        let again = self.sync_all(&dirty);
        self.dirty
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .extend(again.into_iter().map(|file| (file.node(), file)));
        self.commit()?;
        self.dir.set_room_aside();
        Ok(())
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
            if let Err(error) = file.make_durable(self, false) {
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
                    overlay.sync_everything()
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
