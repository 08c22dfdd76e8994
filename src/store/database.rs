//! A database as the server knows it: its settings and its current revision, kept in memory and brought up to
//! date from the logs whenever someone asks, because other processes may publish to the same store.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use tokio::sync::watch;

use super::checkpoints::SinceWhole;
use super::commits::RecentCommits;
use super::condemned::Condemned;
use super::history::History;
use super::log::{Append, NumberedLog, decode, encode};
use super::merge_sent::Files;
use super::objects::Objects;
use super::open_files::OpenFiles;
use super::upkeep::Named;
use super::{DatabaseSettings, RevisionRecord, StoreError, keys};
use crate::manifest::{Entry, ManifestView};
use crate::model::{DbPath, Revision, Sha256, Visibility};
use crate::wire::PutEntry;

/// Records fetched at once.
const RECORDS_AT_ONCE: usize = 8;
/// A page of changes ends after so many entries.
const MOST_ENTRIES: usize = 100_000;
/// A rendered manifest up to this size is kept for the next request.
const KEEP_RENDERED: usize = 64 << 20;

/// A database of a store. Cheap to share; every method sees the state at its last [`Database::refresh`].
pub struct Database {
    pub(super) objects: Objects,
    pub(super) id: String,
    pub(super) state: RwLock<State>,
    /// Held while reading the logs, and while publishing, so that one process does either once at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// When the last look at the logs began that ended well.
    looked: tokio::sync::Mutex<Option<Instant>>,
    rendered: std::sync::Mutex<Option<Published>>,
    pub(super) history: History,
    pub(super) open_files: OpenFiles,
    /// Tells of every revision as it is taken in.
    newest: watch::Sender<Revision>,
    /// What kept revisions name, where somebody asked for a content by its hash.
    pub(super) named: tokio::sync::Mutex<Option<Named>>,
}

pub(super) struct State {
    pub(super) settings: DatabaseSettings,
    pub(super) settings_number: u64,
    pub(super) revision: Revision,
    /// The hash of the current revision's record; zeros before the first.
    pub(super) record_hash: Option<Sha256>,
    pub(super) time: String,
    /// Shared with whoever writes them out, so that nobody waits for that.
    pub(super) files: Arc<BTreeMap<DbPath, Entry>>,
    pub(super) commits: RecentCommits,
    pub(super) since_whole: SinceWhole,
    pub(super) condemned: Condemned,
}

/// A manifest, ready to send.
#[derive(Clone)]
pub struct Published {
    /// The document.
    pub json: Bytes,
    /// Its entity tag, with quotes.
    pub etag: String,
    /// Which revision it is.
    pub revision: Revision,
    /// When it was published.
    pub time: String,
}

impl Database {
    /// The database of that id as it is now; nothing where it has no settings.
    pub(super) async fn load(objects: Objects, id: &str) -> Result<Option<Self>, StoreError> {
        let Some(database) = Self::new(objects, id).await? else { return Ok(None) };
        database.load_newest_checkpoint().await?;
        database.refresh().await?;
        Ok(Some(database))
    }

    /// The database of that id before its first revision.
    pub(super) async fn new(objects: Objects, id: &str) -> Result<Option<Self>, StoreError> {
        let log = NumberedLog { objects: &objects, prefix: keys::settings(id) };
        let settings_number = log.last(0).await?;
        let Some(bytes) = log.get(settings_number).await? else { return Ok(None) };
        let settings = decode(&log.key(settings_number), &bytes)?;
        let state = State {
            settings,
            settings_number,
            revision: Revision::NONE,
            record_hash: None,
            time: String::new(),
            files: Arc::default(),
            commits: RecentCommits::default(),
            since_whole: SinceWhole::default(),
            condemned: Condemned::default(),
        };
        Ok(Some(Self {
            objects: objects.clone(),
            id: id.to_owned(),
            state: RwLock::new(state),
            turn: tokio::sync::Mutex::new(()),
            looked: tokio::sync::Mutex::new(None),
            rendered: std::sync::Mutex::new(None),
            history: History::default(),
            open_files: OpenFiles::default(),
            newest: watch::Sender::new(Revision::NONE),
            named: tokio::sync::Mutex::new(None),
        }))
    }

    /// Takes in what other processes had changed when this was called. Of many who ask at once, one looks for all that
    /// came before it did.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        // In a directory a look is cheaper than waiting for somebody else's.
        if self.objects.are_files() {
            return self.look().await;
        }
        let asked = Instant::now();
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|began| began > asked) {
            return Ok(());
        }
        let began = Instant::now();
        self.look().await?;
        *looked = Some(began);
        Ok(())
    }

    /// The same, unless somebody has looked within `age`.
    pub async fn refresh_within(&self, age: Duration) -> Result<(), StoreError> {
        let mut looked = self.looked.lock().await;
        if looked.is_some_and(|began| began.elapsed() < age) {
            return Ok(());
        }
        let began = Instant::now();
        self.look().await?;
        *looked = Some(began);
        Ok(())
    }

    /// Whether a look at the store is one into a directory, and no request.
    pub fn is_in_files(&self) -> bool {
        self.objects.are_files()
    }

    async fn look(&self) -> Result<(), StoreError> {
        let (revision, settings, condemned) = {
            let state = self.read();
            (state.revision.0, state.settings_number, state.condemned.number)
        };
        let (revisions, settings_log, condemned_log) =
            (self.revisions(), self.settings_log(), self.condemned_log());
        let (revision_is_new, settings_are_new, condemned_is_new) = tokio::try_join!(
            revisions.has(revision + 1),
            settings_log.has(settings + 1),
            condemned_log.has(condemned + 1),
        )?;
        if !(revision_is_new || settings_are_new || condemned_is_new) {
            return Ok(());
        }
        let _turn = self.turn.lock().await;
        self.catch_up().await
    }

    /// Applies every log entry not yet seen. The caller holds `turn`.
    pub(super) async fn catch_up(&self) -> Result<(), StoreError> {
        let settings_log = self.settings_log();
        let seen = self.read().settings_number;
        let last = settings_log.last(seen).await?;
        if last != seen {
            let key = settings_log.key(last);
            let bytes = settings_log.get(last).await?.unwrap_or_default();
            let settings = decode(&key, &bytes)?;
            let mut state = self.write();
            (state.settings, state.settings_number) = (settings, last);
        }
        self.catch_up_condemned().await?;
        loop {
            let next = self.read().revision.next();
            let Some((record, hash)) = self.record(next).await? else { return Ok(()) };
            match record.expired {
                None => self.apply(record, hash)?,
                Some(_) => {
                    let kept_from = self.kept_from(next).await?;
                    if !self.start_from_checkpoint(kept_from).await? {
                        return Err(self.damaged(kept_from, "what it begins with is missing"));
                    }
                }
            }
        }
    }

    /// A revision's record and its hash.
    pub(super) async fn record(
        &self,
        revision: Revision,
    ) -> Result<Option<(RevisionRecord, Sha256)>, StoreError> {
        let log = self.revisions();
        let Some(bytes) = log.get(revision.0).await? else { return Ok(None) };
        let key = log.key(revision.0);
        let record: RevisionRecord = decode(&key, &bytes)?;
        if record.format != 1 {
            return Err(StoreError::Newer { format: record.format });
        }
        let hash = record.expired.as_ref().map_or_else(|| Sha256::of(&bytes), |expired| expired.record_hash);
        Ok(Some((record, hash)))
    }

    /// Up to `limit` revisions after `since`, oldest first; fewer where they have many entries. What each changed is an
    /// error where that is not kept.
    pub async fn changes(&self, since: Revision, limit: usize) -> Result<Vec<RevisionRecord>, StoreError> {
        let first = since.0.saturating_add(1);
        let last = self.revision().0.0.min(since.0.saturating_add(limit as u64));
        let fetched = futures::stream::iter(first..=last).map(|number| self.present_record(Revision(number)));
        let mut fetched = fetched.buffered(RECORDS_AT_ONCE);
        let (mut records, mut entries) = (Vec::new(), 0);
        while let Some((record, _)) = fetched.try_next().await? {
            if record.expired.is_some() {
                let kept_from = self.kept_from(record.revision).await?;
                return Err(StoreError::Expired { revision: since, kept_from });
            }
            entries += record.put.len() + record.delete.len();
            records.push(record);
            if entries > MOST_ENTRIES {
                break;
            }
        }
        Ok(records)
    }

    /// What `tell` makes of the records from one revision through another, or of what is left of them, and of their
    /// hashes; oldest first. Few records are in memory at a time: one may have a million entries.
    pub async fn log<T>(
        &self,
        from: Revision,
        through: Revision,
        tell: impl Fn(RevisionRecord, Sha256) -> T,
    ) -> Result<Vec<T>, StoreError> {
        let fetched =
            futures::stream::iter(from.0..=through.0).map(|number| self.present_record(Revision(number)));
        fetched.buffered(RECORDS_AT_ONCE).map_ok(|(record, hash)| tell(record, hash)).try_collect().await
    }

    /// The record of a revision that must be there.
    pub(super) async fn present_record(
        &self,
        revision: Revision,
    ) -> Result<(RevisionRecord, Sha256), StoreError> {
        let found = self.record(revision).await?;
        found.ok_or_else(|| self.damaged(revision, "it is missing from the log"))
    }

    /// The oldest revision that is kept, given one that is not.
    pub(super) async fn kept_from(&self, expired: Revision) -> Result<Revision, StoreError> {
        let mut revision = expired;
        loop {
            match self.present_record(revision).await?.0.expired {
                Some(expired) if expired.kept_from > revision => revision = expired.kept_from,
                Some(_) => return Err(self.damaged(revision, "it expired and names no later one")),
                None => return Ok(revision),
            }
        }
    }

    pub(super) fn damaged(&self, revision: Revision, reason: &str) -> StoreError {
        StoreError::Damaged { key: self.revisions().key(revision.0).to_string(), reason: reason.to_owned() }
    }

    /// Moves the state one revision forward, if the record continues it.
    pub(super) fn apply(&self, record: RevisionRecord, hash: Sha256) -> Result<(), StoreError> {
        let mut state = self.write();
        if record.revision != state.revision.next() || record.parent != state.record_hash {
            return Err(self.damaged(record.revision, "it does not continue the revision before it"));
        }
        let state = &mut *state;
        let files = Arc::make_mut(&mut state.files);
        for path in record.delete {
            files.remove(&path);
            state.since_whole.paths.insert(path);
        }
        for PutEntry { path, entry } in record.put {
            state.since_whole.paths.insert(path.clone());
            files.insert(path, entry);
        }
        state.since_whole.forget_beyond(files.len());
        state.revision = record.revision;
        state.record_hash = Some(hash);
        state.time = record.time;
        state.commits.add(record.revision, &record.commit_id, hash);
        self.newest.send_replace(record.revision);
        Ok(())
    }

    /// Tells of every revision as it is taken in, whoever published it.
    pub fn newest(&self) -> watch::Receiver<Revision> {
        self.newest.subscribe()
    }

    pub(super) async fn set_visibility(&self, visibility: Visibility) -> Result<(), StoreError> {
        loop {
            self.refresh().await?;
            let (number, mut settings) = {
                let state = self.read();
                (state.settings_number, state.settings.clone())
            };
            if settings.visibility == visibility {
                return Ok(());
            }
            settings.visibility = visibility;
            settings.updated_at = Timestamp::now().to_string();
            match self.settings_log().append(number + 1, encode(&settings)).await? {
                Append::Done => {}
                Append::Taken => continue,
            }
        }
    }

    /// The id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The settings.
    pub fn settings(&self) -> DatabaseSettings {
        self.read().settings.clone()
    }

    /// The current revision and when it was published.
    pub fn revision(&self) -> (Revision, String) {
        let state = self.read();
        (state.revision, state.time.clone())
    }

    /// The current revision, when it was published, its record's hash (nothing before the first), and its manifest's
    /// entity tag: of one moment.
    pub fn present(&self) -> (Revision, String, Option<Sha256>, String) {
        let state = self.read();
        (state.revision, state.time.clone(), state.record_hash, state.manifest_etag())
    }

    /// The current revision and its manifest's entity tag.
    pub fn current(&self) -> (Revision, String) {
        let state = self.read();
        (state.revision, state.manifest_etag())
    }

    /// The entity tag of the manifest at `revision`; nothing where there is none.
    pub async fn manifest_etag_at(&self, revision: Revision) -> Result<Option<String>, StoreError> {
        let (current, etag) = self.current();
        if revision == current {
            return Ok(Some(etag));
        }
        if revision == Revision::NONE || revision > current {
            return Ok(None);
        }
        let record = self.record(revision).await?;
        Ok(record.map(|(_, hash)| self.read().manifest_etag_at(Some(hash))))
    }

    /// One file of the current revision.
    pub fn file(&self, path: &DbPath) -> Option<(Entry, Revision)> {
        let state = self.read();
        Some((state.files.get(path)?.clone(), state.revision))
    }

    /// The files of a revision: the current one's are at hand.
    pub async fn files_of(&self, revision: Revision) -> Result<Arc<Files>, StoreError> {
        {
            let state = self.read();
            if state.revision == revision {
                return Ok(state.files.clone());
            }
        }
        self.files_at(revision).await.map(Arc::new)
    }

    /// Calls `visit` for every file of the current revision.
    pub fn for_each_file(&self, mut visit: impl FnMut(&DbPath, &Entry)) {
        self.read().files.iter().for_each(|(path, entry)| visit(path, entry));
    }

    /// The current manifest's entity tag, with quotes.
    pub fn manifest_etag(&self) -> String {
        self.read().manifest_etag()
    }

    /// The current manifest; nothing while nothing is published. A large one takes a while to write: it is written
    /// where that holds nobody up.
    pub async fn published(self: &Arc<Self>) -> Option<Published> {
        let database = self.clone();
        tokio::task::spawn_blocking(move || database.render()).await.ok().flatten()
    }

    fn render(&self) -> Option<Published> {
        let state = self.read();
        if state.revision == Revision::NONE {
            return None;
        }
        let etag = state.manifest_etag();
        let kept = self.rendered.lock().unwrap_or_else(|e| e.into_inner()).clone();
        if let Some(kept) = kept.filter(|kept| kept.etag == etag) {
            return Some(kept);
        }
        let json = state.render_manifest_of(&state.files, &state.time).into();
        let published = Published { json, etag, revision: state.revision, time: state.time.clone() };
        drop(state);
        let keep = (published.json.len() <= KEEP_RENDERED).then(|| published.clone());
        *self.rendered.lock().unwrap_or_else(|e| e.into_inner()) = keep;
        Some(published)
    }

    pub(super) fn revisions(&self) -> NumberedLog<'_> {
        NumberedLog { objects: &self.objects, prefix: keys::revisions(&self.id) }
    }

    pub(super) fn settings_log(&self) -> NumberedLog<'_> {
        NumberedLog { objects: &self.objects, prefix: keys::settings(&self.id) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(|e| e.into_inner())
    }
}

impl State {
    /// The current manifest's tag.
    pub(super) fn manifest_etag(&self) -> String {
        self.manifest_etag_at(self.record_hash)
    }

    /// The manifest's tag at the revision with that record: it changes with the revision and with the settings
    /// that show in the document.
    pub(super) fn manifest_etag_at(&self, record_hash: Option<Sha256>) -> String {
        let record = record_hash.map(|hash| hash.to_string()).unwrap_or_default();
        format!("\"{}\"", Sha256::of(format!("{record}:{}", self.settings_number).as_bytes()))
    }

    /// The document of these files, with today's settings.
    pub(super) fn render_manifest_of(&self, files: &BTreeMap<DbPath, Entry>, time: &str) -> Vec<u8> {
        ManifestView {
            database_id: &self.settings.id,
            name: &self.settings.name,
            owner: Some(&self.settings.owner),
            slug: Some(&self.settings.slug),
            visibility: self.settings.visibility,
            last_synced_at: time,
            synced_from: None,
            files,
            metadata: None,
            unknown: &serde_json::Map::new(),
        }
        .to_json()
    }
}
