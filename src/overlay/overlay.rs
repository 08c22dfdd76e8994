//! What makes local changes last. A change is recorded in the journal before it is acknowledged; every few seconds, and
//! at an `fsync`, what was recorded is committed to the tables, for all who wait at once (rule 18).
//!
//! Order: bytes are synced before a commit that names them, and a staged file is removed after the commit that says that
//! nobody needs it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::Thread;
use std::time::{Duration, Instant};

use super::OverlayError;
use super::local_file::LocalFile;
use super::staged::StagedFiles;
use super::upper::Upper;
use crate::state::{
    Boot, Change, Content, Journal, JournalError, Kind, NodeId, NodeRow, Rows, StagedId, StateDir,
};

/// Names are on the disk after so long, though nobody asked for it.
const EVERY: Duration = Duration::from_secs(5);
/// And bytes after so many times that: who writes a lot and removes it again need not wait for the disk.
const BYTES_EVERY: u32 = 6;
/// So much room is not kept waiting for the next commit.
const MUCH_ROOM: u64 = 16 << 20;
/// More files than that are not synced one by one.
const MANY: usize = 32;
/// `f_type` of FUSE, where `syncfs` syncs nothing.
const FUSE: i64 = 0x6573_5546;

/// The overlay's way to the disk.
#[derive(Debug)]
pub struct Overlay {
    dir: StateDir,
    boot: Boot,
    pub(super) staged: StagedFiles,
    next: AtomicU64,
    log: Mutex<Log>,
    rows: Mutex<Rows>,
    committed: AtomicU64,
    /// Files that may have bytes that are not on the disk.
    dirty: Mutex<HashMap<NodeId, Arc<LocalFile>>>,
    failed: Mutex<HashSet<NodeId>>,
    /// Staged files made since the last commit began.
    fresh: Mutex<HashSet<StagedId>>,
    /// Files that need the remote for some of their bytes.
    dependent: Mutex<BTreeSet<NodeId>>,
    committer: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Log {
    /// None while the last daemon's is read.
    journal: Option<Journal>,
    /// Recorded and not committed.
    pending: Pending,
}

#[derive(Debug, Default)]
struct Pending {
    changes: Vec<Change>,
    /// The number of the last record.
    last: u64,
    /// Whose bytes are to be on the disk before the commit.
    sync_first: BTreeMap<StagedId, NodeId>,
    /// Of nobody's use after the commit.
    remove: Vec<StagedId>,
}

/// What was found when the state was opened.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Changes that had been acknowledged and not committed when the last daemon died.
    pub replayed: usize,
    /// Files of which something was written and not synced before the machine stopped: it was given up.
    pub given_up: Vec<NodeId>,
}

impl Overlay {
    /// Opens a replica's state.
    pub fn open(dir: StateDir) -> Result<(Arc<Self>, Upper, Recovered), OverlayError> {
        let boot = Boot::current()?;
        let staged = StagedFiles::below(dir.path())?;
        let mut rows = Rows::open(dir.path())?;
        let stored = rows.load()?;
        let same_boot = stored.boot.is_empty() || stored.boot == boot.as_str();
        let (committed, mut next) = (stored.committed, stored.next);
        let mut upper = Upper::load(stored);
        let records = Journal::read(dir.path(), &boot, committed)?;
        let number = records.last().map_or(committed, |(number, _)| *number);
        let mut changes: Vec<Change> = records.into_iter().flat_map(|(_, changes)| changes).collect();
        let mut recovered = Recovered { replayed: changes.len(), ..Recovered::default() };
        for change in &changes {
            upper.apply(change);
        }
        for (id, node) in upper.nodes() {
            let staged = node.file.as_ref().and_then(|file| file.staged()).map_or(0, |file| file.0);
            next = next.max(id.0 + 1).max(staged + 1);
        }
        let on_disk = staged.all()?;
        next = on_disk.iter().fold(next, |next, file| next.max(file.0 + 1));
        let overlay = Self {
            staged,
            next: AtomicU64::new(next),
            log: Mutex::new(Log {
                journal: None,
                pending: Pending { last: number + 1, ..Pending::default() },
            }),
            rows: Mutex::new(rows),
            committed: AtomicU64::new(committed),
            dirty: Mutex::default(),
            failed: Mutex::default(),
            fresh: Mutex::default(),
            dependent: Mutex::default(),
            committer: Mutex::default(),
            dir,
            boot,
        };
        if upper.node(NodeId::ROOT).is_none() {
            changes.push(Change::Node(NodeId::ROOT, implied_directory()));
        }
        // Nobody can have open what the last daemon had.
        let lost = upper.nodes().filter(|(id, node)| *id != NodeId::ROOT && node.names.is_empty());
        changes.extend(lost.map(|(id, _)| Change::NodeGone(id)));
        for change in changes.iter().skip(recovered.replayed) {
            upper.apply(change);
        }
        let files: Vec<Arc<LocalFile>> = upper.nodes().filter_map(|(_, node)| node.file.clone()).collect();
        if same_boot {
            for file in &files {
                file.finish(&overlay)?;
            }
        } else {
            for file in &files {
                if file.give_up_what_was_not_synced(&overlay)? {
                    recovered.given_up.push(file.node());
                }
            }
        }
        // `finish` may have recorded that bases are no longer needed.
        let finished = std::mem::take(&mut overlay.log().pending.changes);
        changes.extend(finished);
        changes.extend(overlay.sync_all(&files)?);
        overlay.log().pending.changes = changes;
        overlay.log().pending.sync_first.clear();
        overlay.commit()?;
        let committed = overlay.committed.load(Ordering::SeqCst);
        overlay.log().journal = Some(Journal::begin(overlay.dir.path(), &overlay.boot, committed)?);
        let used: HashSet<StagedId> = files.iter().filter_map(|file| file.staged()).collect();
        for file in on_disk.into_iter().filter(|file| !used.contains(file)) {
            overlay.staged.remove(file)?;
        }
        overlay.dir.set_room_aside();
        for file in files.iter().filter(|file| file.missing(0).is_some()) {
            overlay.depends_on_remote(file.node());
        }
        Ok((Arc::new(overlay), upper, recovered))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(|e| e.into_inner())
    }

    /// A number for a new node or staged file.
    pub(super) fn next_id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
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

    /// The same for a file that takes another one's name: never shall there be the name and not the bytes (rule 17).
    pub fn record_replacing(&self, changes: Vec<Change>, by: &LocalFile) -> Result<(), OverlayError> {
        match by.staged() {
            Some(file) => self.record_after_sync(changes, (by.node(), file)),
            None => self.record(changes),
        }
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
        if changes.is_empty() {
            note(&mut self.log().pending);
            return Ok(());
        }
        let mut tries = 0;
        loop {
            let mut log = self.log();
            let Log { journal, pending } = &mut *log;
            let Some(journal) = journal else {
                pending.changes.extend(changes);
                note(pending);
                return Ok(());
            };
            match journal.append(&changes) {
                Ok(number) => {
                    pending.changes.extend(changes);
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
        let (before, last) = (pending.changes.len(), pending.last);
        self.fresh().clear();
        pending.changes.extend(changes);
        pending.last = journal.next_number();
        note(pending);
        if let Err(error) = self.take_in(&mut rows, pending) {
            pending.changes.truncate(before);
            pending.last = last;
            return Err(error);
        }
        journal.skip();
        journal.committed(pending.last);
        self.committed.store(pending.last, Ordering::SeqCst);
        let remove = std::mem::take(&mut pending.remove);
        *pending = Pending { last: pending.last, ..Pending::default() };
        drop(log);
        self.remove(remove);
        Ok(())
    }

    /// Commits everything that was recorded until now, unless somebody else does just that.
    pub fn commit(&self) -> Result<(), OverlayError> {
        let wanted = self.log().pending.last;
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
        let pending = {
            let mut log = self.log();
            self.fresh().clear();
            let last = log.pending.last;
            std::mem::replace(&mut log.pending, Pending { last, ..Pending::default() })
        };
        if let Err(error) = self.take_in(&mut rows, &pending) {
            tracing::error!(%error, "local changes could not be committed; they are in the journal");
            let mut log = self.log();
            let later = std::mem::replace(&mut log.pending, pending);
            log.pending.last = later.last;
            log.pending.changes.extend(later.changes);
            log.pending.sync_first.extend(later.sync_first);
            log.pending.remove.extend(later.remove);
            return Err(error);
        }
        self.committed.store(pending.last, Ordering::SeqCst);
        if let Some(journal) = &mut self.log().journal {
            journal.committed(pending.last);
        }
        drop(rows);
        self.remove(pending.remove);
        Ok(())
    }

    /// One transaction, after the bytes that it speaks of.
    fn take_in(&self, rows: &mut Rows, pending: &Pending) -> Result<(), OverlayError> {
        let synced = self.sync_before(pending);
        let next = self.next.load(Ordering::Relaxed);
        let mut commit = || {
            let changes = pending.changes.iter().chain(&synced);
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

    fn remove(&self, files: Vec<StagedId>) {
        for file in files {
            if let Err(error) = self.staged.remove(file) {
                tracing::warn!(%error, file = file.0, "a staged file stays until the next start");
            }
        }
    }

    /// Syncs what the changes that are about to be committed speak of.
    fn sync_before(&self, pending: &Pending) -> Vec<Change> {
        let mut synced = Vec::new();
        for (file, node) in &pending.sync_first {
            match self.sync_one(*file) {
                Ok(Some((size, changed))) => synced.push(Change::Synced { node: *node, size, changed }),
                Ok(None) => {}
                Err(error) => {
                    // An `fsync` of it will say so. What else was done is not to be lost with it.
                    tracing::error!(%error, file = file.0, "the disk did not take what was written to a file");
                    self.failed.lock().unwrap_or_else(|e| e.into_inner()).insert(*node);
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
        Ok(Some((before.len(), before.ctime() * 1_000_000_000 + before.ctime_nsec())))
    }

    /// Whether the disk refused bytes of the file once, where nobody could be told.
    pub(super) fn has_failed(&self, node: NodeId) -> bool {
        self.failed.lock().unwrap_or_else(|e| e.into_inner()).contains(&node)
    }

    /// Makes a file durable, its bytes and its name (rule 17). Never waits for the network.
    pub fn fsync(&self, file: &LocalFile) -> Result<(), OverlayError> {
        if let Some(synced) = file.sync_bytes(self)? {
            self.record(vec![synced])?;
        }
        self.commit()
    }

    /// Where it lies.
    pub fn path(&self) -> &std::path::Path {
        self.dir.path()
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
        let synced = self.sync_all(&dirty)?;
        self.record(synced)?;
        self.commit()?;
        self.dir.set_room_aside();
        Ok(())
    }

    /// Syncs many files: all at once where the file system can do that, for each one by itself takes a turn of the disk.
    fn sync_all(&self, files: &[Arc<LocalFile>]) -> Result<Vec<Change>, OverlayError> {
        let (mut changes, mut unsynced) = (Vec::new(), Vec::new());
        for file in files {
            if let Some(mark) = file.unsynced(self)? {
                unsynced.push((file, mark));
            }
        }
        if unsynced.len() > MANY && self.sync_file_system()? {
            changes.extend(unsynced.iter().filter_map(|(file, mark)| file.was_synced(*mark)));
            return Ok(changes);
        }
        for (file, _) in unsynced {
            match file.sync_bytes(self) {
                Ok(synced) => changes.extend(synced),
                Err(error) => tracing::error!(%error, "the disk did not take what was written to a file"),
            }
        }
        Ok(changes)
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
