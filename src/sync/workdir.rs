//! A directory that is synced, and its memory of the last sync: the base in `_meta/manifest.json`, and beside it what the
//! seed's manifest has no room for.

use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;

use super::SyncError;
use super::apply::recover;
use super::brake::{Brake, Deletions};
use super::changes::{Changes, Files};
use super::noted::PendingCommit;
use super::reconcile::{Plan, same};
use super::state::{Anchor, Seen, Summary, SyncState, own_path};
use crate::disk::random_hex;
use crate::manifest::{Entry, MANIFEST_PATH, Manifest, PRIVATE_DIR};
use crate::model::{DbPath, DbRef, Revision, Sha256, Visibility};
use crate::remote::{Known, RequestSource};
use crate::tree::{Durability, Moment, Occupant, Root, Stamp};
use crate::wire::PutEntry;

/// Manifests above this many bytes are read as they come: slower, and not beside what is made of them.
const LARGE_MANIFEST: u64 = 256 << 20;

/// A directory that is synced with a database.
pub(super) struct Workdir {
    root: Arc<Root>,
    /// What the directory's manifest says but for its files.
    manifest: Option<Manifest>,
    /// The manifest's files: what both sides last agreed on.
    base: Files,
    /// Whether the base is another one than the manifest on disk has.
    moved: bool,
    /// What the manifest on disk was when it was read or written.
    stamp: Option<Stamp>,
    state: Option<SyncState>,
    /// A commit whose fate is not known.
    pending: Option<PendingCommit>,
    /// Held as long as a run is at work.
    _lock: Option<File>,
}

/// Whether the run will change anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Intent {
    /// It only looks: no lock, no file of ours.
    Look,
    /// It holds the directory's lock while it works.
    Work,
}

/// What a database is called, for its manifest.
pub(super) struct Identity<'a> {
    pub(super) id: &'a str,
    pub(super) name: &'a str,
    pub(super) reference: &'a DbRef,
    pub(super) visibility: Visibility,
    pub(super) synced_from: &'a str,
}

/// Whether the remote's log was asked for a commit whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Log {
    Asked,
    NotAsked,
}

/// The remote as a run has left it.
pub(super) struct Reached<'a> {
    pub(super) revision: Option<Revision>,
    /// Of the manifest at that revision, if it was the current one.
    pub(super) etag: Option<&'a str>,
    pub(super) anchor: Option<(Revision, Sha256)>,
    /// Whether it is known what became of a commit that was sent.
    pub(super) log: Log,
    /// How it differs from the base there was before the run, and from what both have agreed on since.
    pub(super) changes: &'a Changes,
}

/// A directory whose manifest has not been read.
pub(super) struct Unread {
    root: Arc<Root>,
    lock: Option<File>,
    /// What the manifest on disk is.
    stamp: Option<Stamp>,
    state: Option<SyncState>,
    pending: Option<PendingCommit>,
}

impl Unread {
    /// Opens a directory that exists. What a killed run had taken out of the tree is brought back.
    pub(super) fn open(path: &Path, intent: Intent) -> Result<Self, SyncError> {
        let shown = path.display();
        let root = Arc::new(Root::open(path).map_err(SyncError::directory(shown))?);
        let private = path.join(PRIVATE_DIR);
        let lock = match intent {
            Intent::Look => None,
            Intent::Work => {
                let file = root.open_private("lock").map_err(SyncError::directory(private.display()))?;
                match file.try_lock() {
                    Ok(()) => {}
                    Err(TryLockError::WouldBlock) => {
                        return Err(SyncError::Busy { path: path.display().to_string() });
                    }
                    Err(TryLockError::Error(error)) => {
                        return Err(SyncError::directory(private.display())(error));
                    }
                }
                root.sweep_staged().map_err(SyncError::directory(private.display()))?;
                recover(&root)?;
                Some(file)
            }
        };
        let stamp = match root.occupant(&own_path(MANIFEST_PATH)?) {
            Ok(Occupant::File(stamp)) => Some(stamp),
            Ok(_) => None,
            Err(error) => return Err(SyncError::directory(path.join(MANIFEST_PATH).display())(error)),
        };
        let state = SyncState::read(&root)?;
        let pending = PendingCommit::read(&root)?;
        Ok(Self { root, lock, stamp, state, pending })
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// What the manifest on disk is.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.stamp
    }

    /// What time it is by the clock of the directory's file system; none where this run changes nothing there.
    pub(super) fn moment(&self) -> Result<Option<Moment>, SyncError> {
        let moment = self.lock.as_ref().map(Root::moment).transpose();
        moment.map_err(SyncError::directory(self.root.path().display()))
    }

    /// What to ask the remote about, where it was the same as the base when it was seen last, and no commit's fate is open; and
    /// what the base is called.
    pub(super) fn in_step(&self, database: &DbRef) -> Option<(Known, &Summary)> {
        let state = self.state.as_ref().filter(|_| self.pending.is_none())?;
        let (known, seen) = state.seen_of(database, self.stamp)?;
        let in_step = seen.put.is_empty() && seen.delete.is_empty();
        Some((known, state.manifest.as_ref().filter(|_| in_step)?))
    }

    /// What the directory was synced with last, and when; none where that is not known without reading the manifest.
    fn summary(&self) -> Option<&Summary> {
        self.state.as_ref()?.manifest.as_ref().filter(|manifest| Some(manifest.of) == self.stamp)
    }

    /// Reads the manifest.
    pub(super) fn read(self) -> Result<Workdir, SyncError> {
        let Self { root, lock, state, pending, .. } = self;
        let shown = root.path().join(MANIFEST_PATH).display().to_string();
        let (mut manifest, stamp) = match read_manifest(&root, shown)? {
            Some((manifest, stamp)) => (Some(manifest), Some(stamp)),
            None => (None, None),
        };
        let base = manifest.as_mut().map(|manifest| std::mem::take(&mut manifest.files)).unwrap_or_default();
        // A directory whose manifest was removed starts anew, but for a commit whose fate is open.
        let state = state.filter(|_| manifest.is_some());
        Ok(Workdir { root, manifest, base, moved: false, stamp, state, pending, _lock: lock })
    }
}

fn read_manifest(root: &Root, shown: String) -> Result<Option<(Manifest, Stamp)>, SyncError> {
    let path = own_path(MANIFEST_PATH)?;
    let damaged = |source| SyncError::LocalManifest { path: shown.clone(), source };
    if let Ok(Occupant::File(stamp)) = root.occupant(&path)
        && stamp.size() > LARGE_MANIFEST
    {
        let file = root.open_file(&path).map_err(SyncError::directory(&shown))?;
        let stamp = Stamp::of_file(&file).map_err(SyncError::directory(&shown))?;
        let manifest = Manifest::from_stream(io::BufReader::with_capacity(1 << 20, file));
        return Ok(Some((manifest.map_err(damaged)?, stamp)));
    }
    let Some((bytes, stamp)) = root.read_own(&path).map_err(SyncError::directory(&shown))? else {
        return Ok(None);
    };
    Ok(Some((Manifest::from_json(&bytes).map_err(damaged)?, stamp)))
}

/// What a directory was synced with last.
#[derive(Debug, Clone, PartialEq)]
pub struct LastSync {
    /// The database.
    pub database: DbRef,
    /// When.
    pub time: String,
    /// How many files both sides had then.
    pub files: usize,
}

/// What a directory was synced with last, if it says so; whether it can be synced is for a run to say.
pub fn last_sync(directory: &Path) -> Option<LastSync> {
    let unread = Unread::open(directory, Intent::Look).ok()?;
    if let Some(summary) = unread.summary() {
        let database = DbRef::new(&summary.owner, &summary.slug).ok()?;
        return Some(LastSync { database, time: summary.last_synced_at.clone(), files: summary.files });
    }
    let workdir = unread.read().ok()?;
    let (manifest, files) = (workdir.manifest?, workdir.base.len());
    let database = DbRef::new(manifest.owner.as_deref()?, manifest.slug.as_deref()?).ok()?;
    Some(LastSync { database, time: manifest.last_synced_at, files })
}

impl Workdir {
    /// Opens a directory that exists, reading what it remembers.
    pub(super) fn open(path: &Path, intent: Intent) -> Result<Self, SyncError> {
        Unread::open(path, intent)?.read()
    }

    pub(super) fn root(&self) -> &Arc<Root> {
        &self.root
    }

    /// What the directory says of the database it was synced with last, but for its files.
    pub(super) fn manifest(&self) -> Option<&Manifest> {
        self.manifest.as_ref()
    }

    /// What both sides last agreed on, path by path (rule 8).
    pub(super) fn base(&self) -> &Files {
        &self.base
    }

    /// What the manifest on disk is; none where another one is to be written.
    pub(super) fn stamp(&self) -> Option<Stamp> {
        self.stamp.filter(|_| !self.moved)
    }

    /// Whether the last sync was with another database than `id`.
    pub(super) fn belongs_to_another(&self, id: &str) -> bool {
        self.manifest.as_ref().is_some_and(|manifest| manifest.database_id != id)
    }

    /// Forgets the base: the database it was of has been replaced by one that agrees with nobody yet, unless it is by a commit
    /// of this directory's own.
    pub(super) fn start_anew(&mut self) {
        self.manifest = None;
        self.state = None;
        self.base.clear();
        self.moved = true;
    }

    fn state_of(&self, id: &str) -> Option<&SyncState> {
        self.state.as_ref().filter(|state| state.database_id == id)
    }

    /// A commit to database `id` whose fate is not known.
    pub(super) fn pending(&self, id: &str) -> Option<&PendingCommit> {
        self.pending.as_ref().filter(|pending| pending.database_id == id)
    }

    /// A revision of database `id` that was seen, and its hash.
    pub(super) fn anchor(&self, id: &str) -> Option<(Revision, Sha256)> {
        let anchor = self.state_of(id)?.anchor?;
        Some((anchor.revision, anchor.hash))
    }

    /// The remote as it was seen last, if that is known of this database, and no commit's fate is open: what to ask about, and
    /// how it differs from the base.
    pub(super) fn seen(&self, database: &DbRef) -> Option<(Known, Changes)> {
        let state = self.state_of(&self.manifest.as_ref()?.database_id).filter(|_| self.pending.is_none())?;
        let (known, seen) = state.seen_of(database, self.stamp)?;
        let mut changes: Changes =
            seen.put.iter().map(|put| (put.path.clone(), Some(put.entry.clone()))).collect();
        changes.extend(seen.delete.iter().map(|path| (path.clone(), None)));
        Some((known, changes))
    }

    /// Halts where database `id`, which is at `revision`, is not the one the base is of, or is older than it was seen.
    pub(super) fn check(&self, id: &str, revision: Option<Revision>) -> Result<(), SyncError> {
        if let Some(manifest) = self.manifest.as_ref().filter(|manifest| manifest.database_id != id) {
            return Err(SyncError::OtherDatabase {
                here: manifest.database_id.clone(),
                there: id.to_owned(),
            });
        }
        let seen = self.state_of(id).map(|state| state.revision).unwrap_or_default();
        match revision.filter(|there| *there < seen) {
            Some(there) => Err(SyncError::RolledBack { here: seen, there }),
            None => Ok(()),
        }
    }

    /// Both sides have agreed on these paths before, though the base does not know. `there` are the remote's changes since
    /// the base, before and after.
    pub(super) fn settle_earlier(&mut self, settled: Changes, there: &mut Changes) {
        for (path, entry) in settled {
            // Said of the base there was: what it moves to, the remote may or may not have any more.
            let before = self.base.get(&path).cloned();
            there.entry(path.clone()).or_insert(before);
            self.move_base(&path, entry);
        }
        there.retain(|path, entry| !same(self.base.get(path), entry.as_ref()));
    }

    /// Moves the base of one path: that is what both sides have agreed on.
    pub(super) fn move_base(&mut self, path: &DbPath, entry: Option<Entry>) {
        match entry {
            Some(entry) => drop(self.base.insert(path.clone(), entry)),
            None => drop(self.base.remove(path)),
        }
        self.moved = true;
    }

    /// Moves the base of every path that the plan has settled.
    pub(super) fn settle(&mut self, plan: &Plan) {
        self.moved |= plan.settle(&mut self.base);
    }

    /// What was deleted within a day before `now`.
    pub(super) fn deletions(&self, id: &str, now: Timestamp) -> Deletions {
        let all = self.state_of(id).map(|state| &state.deletions[..]).unwrap_or_default();
        Deletions::within_a_day(all, now)
    }

    /// Writes down a commit that is about to be sent to database `id`. Returns its request.
    pub(super) fn note_commit(
        &mut self,
        id: &str,
        base: Revision,
        plan: &Plan,
    ) -> Result<RequestSource, SyncError> {
        let pending = PendingCommit::new(id, random_hex::<16>(), base);
        let request = pending.write(&self.root, plan)?;
        self.pending = Some(pending);
        Ok(request)
    }

    /// Forgets a commit that is known not to have been applied, or what it published to be settled.
    pub(super) fn forget_commit(&mut self) -> Result<(), SyncError> {
        PendingCommit::forget(&self.root)?;
        self.pending = None;
        Ok(())
    }

    fn state_for(&self, id: &str) -> SyncState {
        self.state_of(id).cloned().unwrap_or_else(|| SyncState::of(id))
    }

    /// Remembers, durably, what both sides now agree on, and what the remote has reached. Writes nothing where nothing has
    /// changed.
    pub(super) fn save(
        &mut self,
        identity: &Identity<'_>,
        reached: &Reached<'_>,
        deletions: Deletions,
        brake: Brake,
    ) -> Result<(), SyncError> {
        self.save_manifest(identity)?;
        let mut state = self.state_for(identity.id);
        let heard = reached.log == Log::Asked && self.pending.is_some();
        if heard {
            // For good with the state, which is written in any case.
            self.forget_commit()?;
        }
        state.revision = reached.revision.unwrap_or_default().max(state.revision);
        state.anchor = reached.anchor.map(|(revision, hash)| Anchor { revision, hash }).or(state.anchor);
        if let (Some(etag), Some(revision)) = (reached.etag, reached.revision) {
            let of_base = |path: &DbPath| self.base.get(path);
            let differs = reached.changes.iter().filter(|(path, entry)| !same(of_base(path), entry.as_ref()));
            let (put, delete): (Vec<_>, Vec<_>) = differs.partition(|(_, entry)| entry.is_some());
            let put = put
                .into_iter()
                .filter_map(|(path, entry)| Some(PutEntry { path: path.clone(), entry: entry.clone()? }));
            state.seen = Some(Seen {
                revision,
                etag: etag.to_owned(),
                base: self.stamp,
                put: put.collect(),
                delete: delete.into_iter().map(|(path, _)| path.clone()).collect(),
            });
        }
        state.manifest = self.stamp.zip(self.manifest.as_ref()).map(|(of, manifest)| Summary {
            of,
            owner: identity.reference.owner().to_owned(),
            slug: identity.reference.slug().to_owned(),
            name: manifest.name.clone(),
            visibility: manifest.visibility,
            last_synced_at: manifest.last_synced_at.clone(),
            files: self.base.len(),
        });
        // Deletions that were said to be meant count no more, and neither do those before.
        match brake {
            Brake::Released if deletions.any() => state.deletions.clear(),
            _ => deletions.add_to(&mut state.deletions),
        }
        if self.state.as_ref() == Some(&state) && !heard {
            return Ok(());
        }
        state.write(&self.root)?;
        self.state = Some(state);
        Ok(())
    }

    fn save_manifest(&mut self, identity: &Identity<'_>) -> Result<(), SyncError> {
        let (metadata, unknown) = match &self.manifest {
            Some(manifest) => (manifest.metadata.clone(), manifest.unknown.clone()),
            None => Default::default(),
        };
        let mut manifest = Manifest {
            database_id: identity.id.to_owned(),
            name: identity.name.to_owned(),
            owner: Some(identity.reference.owner().to_owned()),
            slug: Some(identity.reference.slug().to_owned()),
            visibility: identity.visibility,
            last_synced_at: self.manifest.as_ref().map(|m| m.last_synced_at.clone()).unwrap_or_default(),
            synced_from: Some(identity.synced_from.to_owned()),
            files: Files::new(),
            metadata,
            unknown,
        };
        if !self.moved && self.manifest.as_ref() == Some(&manifest) {
            return Ok(());
        }
        manifest.last_synced_at = Timestamp::now().to_string();
        manifest.files = std::mem::take(&mut self.base);
        let path = own_path(MANIFEST_PATH)?;
        let written = self.root.replace_own_large(&path, Durability::Now, |to| manifest.write_pretty(to));
        self.base = std::mem::take(&mut manifest.files);
        let stamp = written.and_then(|()| Stamp::of_file(self.root.open_file(&path)?));
        let shown = self.root.path().join(MANIFEST_PATH);
        self.stamp = Some(stamp.map_err(SyncError::directory(shown.display()))?);
        (self.manifest, self.moved) = (Some(manifest), false);
        Ok(())
    }
}
