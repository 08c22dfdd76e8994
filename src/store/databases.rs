//! A database as the server knows it: its settings and its current revision, kept in memory and brought up to
//! date from the logs whenever someone asks, because other processes may publish to the same store.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock, RwLockReadGuard};

use bytes::Bytes;
use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode};
use serde::{Deserialize, Serialize};

use super::log::{Append, NumberedLog, decode, encode, get_optional};
use super::{DatabaseSettings, RevisionRecord, Store, StoreError, keys};
use crate::disk::random_hex;
use crate::manifest::{Entry, ManifestView};
use crate::model::{DbPath, DbRef, Revision, Sha256, Visibility};
use crate::wire::PutEntry;

/// Every how many revisions the whole manifest is stored beside the deltas, so that a process starting anew
/// reads at most this many.
pub(super) const WHOLE_MANIFEST_EVERY: u64 = 128;
/// Hexadecimal digits of a database's id, after `db_`.
const ID_DIGITS: usize = 24;
/// A rendered manifest up to this size is kept for the next request.
const KEEP_RENDERED: usize = 64 << 20;

/// A database of a store. Cheap to share; every method sees the state at its last [`Database::refresh`].
pub struct Database {
    pub(super) objects: Arc<dyn ObjectStore>,
    pub(super) id: String,
    pub(super) state: RwLock<State>,
    /// Held while reading the logs, and while publishing, so that one process does either once at a time.
    pub(super) turn: tokio::sync::Mutex<()>,
    rendered: std::sync::Mutex<Option<Published>>,
}

pub(super) struct State {
    pub(super) settings: DatabaseSettings,
    pub(super) settings_number: u64,
    pub(super) revision: Revision,
    /// The hash of the current revision's record; zeros before the first.
    pub(super) record_hash: Option<Sha256>,
    pub(super) time: String,
    pub(super) files: BTreeMap<DbPath, Entry>,
}

/// The current manifest, ready to send.
#[derive(Clone)]
pub struct Published {
    /// The document.
    pub json: Bytes,
    /// Its entity tag, with quotes.
    pub etag: String,
    /// Which revision it is.
    pub revision: Revision,
}

/// What `register` is given.
#[derive(Debug, Clone)]
pub struct Registration {
    /// `owner/slug`.
    pub reference: DbRef,
    /// The name for people.
    pub name: String,
    /// Sets the visibility where given.
    pub visibility: Option<Visibility>,
}

#[derive(Serialize, Deserialize)]
struct NameRecord {
    id: String,
}

/// A whole manifest beside the log. It only saves reading deltas: a missing one loses nothing.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct WholeManifest {
    format: u64,
    revision: Revision,
    record_hash: Sha256,
    time: String,
    files: Vec<PutEntry>,
}

impl Store {
    /// The database of that name, brought up to date; nothing where there is none.
    pub async fn find(&self, reference: &DbRef) -> Result<Option<Arc<Database>>, StoreError> {
        self.open_named(&keys::name(reference.owner(), reference.slug())).await
    }

    async fn open_named(&self, key: &Path) -> Result<Option<Arc<Database>>, StoreError> {
        let Some(bytes) = get_optional(&*self.objects, key).await? else { return Ok(None) };
        let record: NameRecord = decode(key, &bytes)?;
        self.open(&record.id).await
    }

    /// The database of that id, brought up to date; nothing where there is none.
    pub async fn open(&self, id: &str) -> Result<Option<Arc<Database>>, StoreError> {
        // Ids come from requests and become part of object names.
        let digits = id.strip_prefix("db_").unwrap_or_default();
        if digits.len() != ID_DIGITS || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let known = self.known.lock().unwrap_or_else(|e| e.into_inner()).get(id).cloned();
        if let Some(database) = known {
            database.refresh().await?;
            return Ok(Some(database));
        }
        let Some(database) = Database::load(self.objects.clone(), id).await? else { return Ok(None) };
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        Ok(Some(known.entry(id.to_owned()).or_insert_with(|| Arc::new(database)).clone()))
    }

    /// Creates the database, or finds it and applies the given visibility.
    pub async fn register(&self, wanted: &Registration) -> Result<Arc<Database>, StoreError> {
        if let Some(database) = self.find(&wanted.reference).await? {
            if let Some(visibility) = wanted.visibility {
                database.set_visibility(visibility).await?;
            }
            return Ok(database);
        }
        let now = Timestamp::now().to_string();
        let id = format!("db_{}", random_hex::<{ ID_DIGITS / 2 }>());
        let settings = DatabaseSettings {
            id: id.clone(),
            name: wanted.name.clone(),
            owner: wanted.reference.owner().to_owned(),
            slug: wanted.reference.slug().to_owned(),
            visibility: wanted.visibility.unwrap_or_default(),
            description: None,
            created_at: now.clone(),
            updated_at: now,
        };
        // Settings first, name last: a crash between leaves an id nobody can find, never a name without settings.
        let log = NumberedLog { objects: &*self.objects, prefix: keys::settings(&id) };
        log.append(1, encode(&settings)).await?;
        let name = keys::name(&settings.owner, &settings.slug);
        match self.objects.put_opts(&name, encode(&NameRecord { id }).into(), PutMode::Create.into()).await {
            Ok(_) => {}
            // Someone registered the same name just now: theirs it is.
            Err(object_store::Error::AlreadyExists { .. }) => {}
            Err(error) => return Err(StoreError::unavailable("register a name")(error)),
        }
        let found = self.find(&wanted.reference).await?;
        found.ok_or_else(|| StoreError::Damaged { key: name.to_string(), reason: "it vanished".into() })
    }

    /// All databases, in the order of their names.
    pub async fn all(&self) -> Result<Vec<Arc<Database>>, StoreError> {
        let prefix = keys::names();
        let listed: Vec<_> = self
            .objects
            .list(Some(&prefix))
            .try_collect()
            .await
            .map_err(StoreError::unavailable("list its databases"))?;
        let mut names: Vec<_> = listed.into_iter().map(|object| object.location).collect();
        names.sort();
        let mut databases = Vec::with_capacity(names.len());
        for key in names {
            match self.open_named(&key).await {
                Ok(found) => databases.extend(found),
                // One damaged database must not hide the others.
                Err(error) => tracing::error!(%key, error = &error as &dyn std::error::Error, "not listed"),
            }
        }
        Ok(databases)
    }
}

impl Database {
    async fn load(objects: Arc<dyn ObjectStore>, id: &str) -> Result<Option<Self>, StoreError> {
        let log = NumberedLog { objects: &*objects, prefix: keys::settings(id) };
        let settings_number = log.last(0).await?;
        let Some(bytes) = log.get(settings_number).await? else { return Ok(None) };
        let settings = decode(&log.key(settings_number), &bytes)?;
        let state = State {
            settings,
            settings_number,
            revision: Revision::NONE,
            record_hash: None,
            time: String::new(),
            files: BTreeMap::new(),
        };
        let database = Self {
            objects: objects.clone(),
            id: id.to_owned(),
            state: RwLock::new(state),
            turn: tokio::sync::Mutex::new(()),
            rendered: std::sync::Mutex::new(None),
        };
        database.load_newest_whole_manifest().await?;
        database.refresh().await?;
        Ok(Some(database))
    }

    /// Starts from the newest whole manifest, if one was stored.
    async fn load_newest_whole_manifest(&self) -> Result<(), StoreError> {
        let last = self.revisions().last(0).await?;
        let mut number = last - last % WHOLE_MANIFEST_EVERY;
        while number > 0 {
            let key = keys::whole_manifest(&self.id, number);
            // One that is damaged, or does not belong to the log, is passed over: the log has everything.
            let stored = get_optional(&*self.objects, &key).await?.unwrap_or_default();
            let whole =
                serde_json::from_slice::<WholeManifest>(&stored).ok().filter(|whole| whole.format == 1);
            let record = self.record(Revision(number)).await?;
            let belongs =
                |whole: &WholeManifest| record.as_ref().is_some_and(|(_, hash)| *hash == whole.record_hash);
            if let Some(whole) = whole.filter(belongs) {
                let mut state = self.write();
                state.revision = whole.revision;
                state.record_hash = Some(whole.record_hash);
                state.time = whole.time;
                state.files = whole.files.into_iter().map(|put| (put.path, put.entry)).collect();
                return Ok(());
            }
            number -= WHOLE_MANIFEST_EVERY;
        }
        Ok(())
    }

    /// Takes in what other processes have changed since the last look.
    pub async fn refresh(&self) -> Result<(), StoreError> {
        let (revision, settings) = {
            let state = self.read();
            (state.revision.0, state.settings_number)
        };
        if self.revisions().last(revision).await? == revision
            && self.settings_log().last(settings).await? == settings
        {
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
        loop {
            let next = self.read().revision.next();
            let Some((record, hash)) = self.record(next).await? else { return Ok(()) };
            self.apply(record, hash)?;
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
        Ok(Some((record, Sha256::of(&bytes))))
    }

    /// Up to `limit` revisions after `since`, oldest first.
    pub async fn changes(&self, since: Revision, limit: usize) -> Result<Vec<RevisionRecord>, StoreError> {
        let current = self.revision().0;
        let mut records = Vec::new();
        for number in (since.0.saturating_add(1)..=current.0).take(limit) {
            records.extend(self.record(Revision(number)).await?.map(|(record, _)| record));
        }
        Ok(records)
    }

    /// Moves the state one revision forward, if the record continues it.
    pub(super) fn apply(&self, record: RevisionRecord, hash: Sha256) -> Result<(), StoreError> {
        let mut state = self.write();
        if record.revision != state.revision.next() || record.parent != state.record_hash {
            return Err(StoreError::Damaged {
                key: self.revisions().key(record.revision.0).to_string(),
                reason: "it does not continue the revision before it".into(),
            });
        }
        for path in &record.delete {
            state.files.remove(path);
        }
        for PutEntry { path, entry } in record.put {
            state.files.insert(path, entry);
        }
        state.revision = record.revision;
        state.record_hash = Some(hash);
        state.time = record.time;
        Ok(())
    }

    /// Stores the whole manifest of the current revision beside the log.
    pub(super) async fn store_whole_manifest(&self) -> Result<(), StoreError> {
        let whole = {
            let state = self.read();
            let Some(record_hash) = state.record_hash else { return Ok(()) };
            let files =
                state.files.iter().map(|(path, entry)| PutEntry { path: path.clone(), entry: entry.clone() });
            WholeManifest {
                format: 1,
                revision: state.revision,
                record_hash,
                time: state.time.clone(),
                files: files.collect(),
            }
        };
        let key = keys::whole_manifest(&self.id, whole.revision.0);
        let stored = self.objects.put(&key, encode(&whole).into()).await;
        stored.map(drop).map_err(StoreError::unavailable("store a whole manifest"))
    }

    async fn set_visibility(&self, visibility: Visibility) -> Result<(), StoreError> {
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

    /// One file of the current revision.
    pub fn file(&self, path: &DbPath) -> Option<(Entry, Revision)> {
        let state = self.read();
        Some((state.files.get(path)?.clone(), state.revision))
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
        let published = Published { json: state.render_manifest().into(), etag, revision: state.revision };
        drop(state);
        let keep = (published.json.len() <= KEEP_RENDERED).then(|| published.clone());
        *self.rendered.lock().unwrap_or_else(|e| e.into_inner()) = keep;
        Some(published)
    }

    pub(super) fn revisions(&self) -> NumberedLog<'_> {
        NumberedLog { objects: &*self.objects, prefix: keys::revisions(&self.id) }
    }

    fn settings_log(&self) -> NumberedLog<'_> {
        NumberedLog { objects: &*self.objects, prefix: keys::settings(&self.id) }
    }

    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(|e| e.into_inner())
    }

    fn write(&self) -> std::sync::RwLockWriteGuard<'_, State> {
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

    fn render_manifest(&self) -> Vec<u8> {
        ManifestView {
            database_id: &self.settings.id,
            name: &self.settings.name,
            owner: Some(&self.settings.owner),
            slug: Some(&self.settings.slug),
            visibility: self.settings.visibility,
            last_synced_at: &self.time,
            synced_from: None,
            files: &self.files,
            metadata: None,
            unknown: &serde_json::Map::new(),
        }
        .to_json()
    }
}
