//! What makes local changes last. A change is recorded in the journal before it is acknowledged; every few seconds, and
//! at an `fsync`, what was recorded is committed to the tables, for all who wait at once (rule 18).
//!
//! Order: bytes are synced before a commit that names them, and a staged file is removed after the commit that says that
//! nobody needs it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Thread;

use tokio::sync::watch;

use super::OverlayError;
use super::local_file::LocalFile;
use super::staged::StagedFiles;
use super::syncing::{Noted, Waiting};
use crate::state::{
    Boot, Change, Content, Journal, JournalError, Kind, NodeId, NodeRow, Rows, StagedId, StateDir,
};

/// So much room is not kept waiting for the next commit.
const MUCH_ROOM: u64 = 16 << 20;

/// The overlay's way to the disk.
#[derive(Debug)]
pub struct Overlay {
    pub(super) dir: StateDir,
    pub(super) boot: Boot,
    pub(super) staged: StagedFiles,
    pub(super) next: AtomicU64,
    pub(super) log: Mutex<Log>,
    pub(super) rows: Mutex<Rows>,
    /// The last turn that is in the tables.
    pub(super) committed: AtomicU64,
    pub(super) waiting: Mutex<Waiting>,
    /// Files that may have bytes that are not on the disk.
    pub(super) dirty: Mutex<HashMap<NodeId, Arc<LocalFile>>>,
    /// Held while all of those are synced.
    pub(super) syncing: Mutex<()>,
    pub(super) failed: Mutex<HashSet<NodeId>>,
    /// What the tables, with what is pending, say of files without a base: so many bytes are on the disk.
    pub(super) noted: Mutex<HashMap<NodeId, Noted>>,
    /// Counts when files were measured to be synced.
    pub(super) measures: AtomicU64,
    /// Staged files made since the last commit began.
    pub(super) fresh: Mutex<HashSet<StagedId>>,
    /// Files that need the remote for some of their bytes.
    pub(super) dependent: Mutex<BTreeSet<NodeId>>,
    pub(super) committer: Mutex<Option<Thread>>,
    /// Counts what people have changed, as far as it may travel.
    pub(super) stirs: watch::Sender<u64>,
}

#[derive(Debug)]
pub(super) struct Log {
    /// None while the last daemon's is read.
    pub(super) journal: Option<Journal>,
    /// Recorded and not committed.
    pub(super) pending: Pending,
}

#[derive(Debug, Default)]
pub(super) struct Pending {
    pub(super) changes: Vec<Change>,
    /// The number of the last record.
    pub(super) last: u64,
    /// Counts whatever was added, since the start.
    pub(super) turn: u64,
    /// Whose bytes are to be on the disk before the commit.
    pub(super) sync_first: BTreeMap<StagedId, NodeId>,
    /// Of nobody's use after the commit.
    pub(super) remove: Vec<StagedId>,
}

impl Pending {
    pub(super) fn add(&mut self, changes: impl IntoIterator<Item = Change>) {
        self.changes.extend(changes);
        self.turn += 1;
    }

    /// Everything there is, to be committed; what is added from now on is the next one's.
    fn take(&mut self) -> Self {
        let next = Self { last: self.last, turn: self.turn, ..Self::default() };
        std::mem::replace(self, next)
    }
}

impl Overlay {
    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A number for a new node or staged file.
    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Somebody has changed something that may have to be published.
    pub fn stirred(&self) {
        self.stirs.send_modify(|stirs| *stirs += 1);
    }

    /// Counts that.
    pub fn stirs(&self) -> watch::Receiver<u64> {
        self.stirs.subscribe()
    }

    /// A new node's number.
    pub fn new_node(&self) -> NodeId {
        NodeId(self.next_id())
    }

    /// A new, empty staged file, for a file that has no base.
    pub fn new_file(&self) -> Result<Content, OverlayError> {
        let file = StagedId(self.next_id());
        self.staged.create(file)?;
        self.fresh().insert(file);
        Ok(Content::Staged { file, under: None })
    }

    /// Gives a new staged file up that came to nothing.
    pub fn drop_new_file(&self, content: &Content) {
        if let Content::Staged { file, .. } = content {
            let _ = self.staged.remove(*file);
        }
    }

    /// Records what is about to be acknowledged: when this returns, it survives the daemon. In the order of the calls.
    pub fn record(&self, changes: Vec<Change>) -> Result<(), OverlayError> {
        self.record_with(changes, |_| {})
    }

    /// The same; once it survives a power cut, the bytes of this staged file do too.
    pub(super) fn record_after_sync(
        &self,
        changes: Vec<Change>,
        (node, file): (NodeId, StagedId),
    ) -> Result<(), OverlayError> {
        self.record_with(changes, |pending| {
            pending.sync_first.insert(file, node);
        })
    }

    /// The same for files that take others' names: never shall there be the name and not the bytes (rule 17).
    pub fn record_replacing<'a>(
        &self,
        changes: Vec<Change>,
        by: impl IntoIterator<Item = &'a LocalFile>,
    ) -> Result<(), OverlayError> {
        let files: Vec<_> = by.into_iter().filter_map(|by| Some((by.staged()?, by.node()))).collect();
        self.record_with(changes, |pending| pending.sync_first.extend(files.iter().copied()))
    }

    /// The same; the staged file is of nobody's use once it survives a power cut; or at once, if no commit knows of it.
    pub fn record_removing(&self, changes: Vec<Change>, file: Option<StagedId>) -> Result<(), OverlayError> {
        let Some(file) = file else { return self.record(changes) };
        if self.fresh().remove(&file) {
            self.record(changes)?;
            self.remove(vec![file]);
            return Ok(());
        }
        self.record_with(changes, |pending| pending.remove.push(file))?;
        if std::fs::metadata(self.staged.path(file)).is_ok_and(|found| found.len() >= MUCH_ROOM) {
            self.wake_committer();
        }
        Ok(())
    }

    fn fresh(&self) -> MutexGuard<'_, HashSet<StagedId>> {
        self.fresh.lock().unwrap_or_else(|e| e.into_inner())
    }

    fn record_with(&self, changes: Vec<Change>, note: impl Fn(&mut Pending)) -> Result<(), OverlayError> {
        let mut tries = 0;
        loop {
            let mut log = self.log();
            let Log { journal, pending } = &mut *log;
            let Some(journal) = journal else {
                pending.add(changes);
                note(pending);
                return Ok(());
            };
            match journal.append(&changes) {
                Ok(number) => {
                    pending.add(changes);
                    pending.last = number;
                    note(pending);
                    let fills = journal.is_filling();
                    drop(log);
                    if fills {
                        self.wake_committer();
                    }
                    return Ok(());
                }
                Err(JournalError::TooLong) => {
                    drop(log);
                    return self.commit_at_once(changes, note);
                }
                Err(JournalError::Full) if tries < 3 => {
                    drop(log);
                    self.commit()?;
                    tries += 1;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn wake_committer(&self) {
        if let Some(committer) = &*self.committer.lock().unwrap_or_else(|e| e.into_inner()) {
            committer.unpark();
        }
    }

    /// Commits what is too much for a journal's record, the rename of a large directory, say: nothing else is recorded until
    /// it is done, so that no record follows one that is not there.
    fn commit_at_once(&self, changes: Vec<Change>, note: impl Fn(&mut Pending)) -> Result<(), OverlayError> {
        let mut rows = self.rows.lock().unwrap_or_else(|e| e.into_inner());
        let mut log = self.log();
        let Log { journal: Some(journal), pending } = &mut *log else { return Ok(()) };
        let (before, removed, last) = (pending.changes.len(), pending.remove.len(), pending.last);
        self.fresh().clear();
        pending.add(changes);
        pending.last = journal.next_number();
        note(pending);
        if let Err(error) = self.take_in(&mut rows, pending) {
            pending.changes.truncate(before);
            pending.remove.truncate(removed);
            pending.last = last;
            return Err(error);
        }
        journal.skip();
        journal.committed(pending.last);
        let done = pending.take();
        self.committed.store(done.turn, Ordering::SeqCst);
        drop(log);
        self.remove(done.remove);
        Ok(())
    }

    /// Commits everything that was recorded until now, unless somebody else does just that.
    pub fn commit(&self) -> Result<(), OverlayError> {
        let wanted = self.log().pending.turn;
        self.commit_through(wanted)
    }

    fn commit_through(&self, wanted: u64) -> Result<(), OverlayError> {
        if self.committed.load(Ordering::SeqCst) >= wanted {
            return Ok(());
        }
        let mut rows = self.rows.lock().unwrap_or_else(|e| e.into_inner());
        if self.committed.load(Ordering::SeqCst) >= wanted {
            return Ok(());
        }
        let mut pending = {
            let mut log = self.log();
            self.fresh().clear();
            log.pending.take()
        };
        if let Err(error) = self.take_in(&mut rows, &mut pending) {
            tracing::error!(%error, "local changes could not be committed; they are in the journal");
            let mut log = self.log();
            let later = std::mem::replace(&mut log.pending, pending);
            (log.pending.last, log.pending.turn) = (later.last, later.turn);
            log.pending.changes.extend(later.changes);
            log.pending.sync_first.extend(later.sync_first);
            log.pending.remove.extend(later.remove);
            return Err(error);
        }
        if let Some(journal) = &mut self.log().journal {
            journal.committed(pending.last);
        }
        self.committed.store(pending.turn, Ordering::SeqCst);
        drop(rows);
        self.remove(pending.remove);
        Ok(())
    }

    /// One transaction, after the bytes that it speaks of.
    fn take_in(&self, rows: &mut Rows, pending: &mut Pending) -> Result<(), OverlayError> {
        let mut synced = Vec::new();
        let done =
            self.sync_before(pending, &mut synced).and_then(|()| self.write_rows(rows, pending, &synced));
        if done.is_err() {
            self.unnote(&synced);
        }
        done
    }

    fn write_rows(&self, rows: &mut Rows, pending: &Pending, synced: &[Change]) -> Result<(), OverlayError> {
        let next = self.next.load(Ordering::Relaxed);
        let mut commit = || {
            let changes = pending.changes.iter().chain(synced);
            rows.commit(changes, pending.last, next, self.boot.as_str()).map_err(OverlayError::from)
        };
        match commit() {
            Err(error) if error.is_for_want_of_room() && self.dir.give_room_up() => {
                tracing::warn!(dir = %self.dir.path().display(), "the disk is full: using the room that was set aside");
                commit()
            }
            done => done,
        }
    }

    pub(super) fn remove(&self, files: Vec<StagedId>) {
        for file in files {
            if let Err(error) = self.staged.remove(file) {
                tracing::warn!(%error, file = file.0, "a staged file stays until the next start");
            }
        }
    }

    /// Whether the disk refused bytes of the file once, where nobody could be told.
    pub(super) fn has_failed(&self, node: NodeId) -> bool {
        self.failed.lock().unwrap_or_else(|e| e.into_inner()).contains(&node)
    }

    /// A node is gone: nothing of it is to be synced any more.
    pub fn forget(&self, node: NodeId) {
        self.dirty.lock().unwrap_or_else(|e| e.into_inner()).remove(&node);
        self.failed.lock().unwrap_or_else(|e| e.into_inner()).remove(&node);
        self.noted().remove(&node);
    }

    /// Where it lies.
    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
    }

    /// It is mounted no more: whoever mounts it next need only wait.
    pub fn is_ending(&self) {
        self.dir.is_ending();
    }

    pub(super) fn depends_on_remote(&self, node: NodeId) {
        self.dependent.lock().unwrap_or_else(|e| e.into_inner()).insert(node);
    }

    /// The files that need the remote for some of their bytes, as far as they were not taken before.
    pub fn take_dependent(&self) -> BTreeSet<NodeId> {
        std::mem::take(&mut *self.dependent.lock().unwrap_or_else(|e| e.into_inner()))
    }

    /// What there is on the disk that local changes lie on.
    pub fn disk(&self) -> Result<rustix::fs::StatVfs, OverlayError> {
        Ok(rustix::fs::statvfs(self.dir.path()).map_err(io::Error::from)?)
    }
}

/// A directory that is here only because something in it is.
pub fn implied_directory() -> NodeRow {
    NodeRow {
        kind: Kind::Directory,
        mode: 0o755,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        accessed: 0,
        modified: 0,
        changed: 0,
        touched: false,
    }
}
