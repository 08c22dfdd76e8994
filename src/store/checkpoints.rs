//! Checkpoints beside the log of revisions, so that a process starting anew need not read every change. A missing or
//! damaged one loses nothing, but where the revisions before it have expired.
//!
//! A checkpoint is the *whole* of the files, or what changed *since* the last whole one. Every [`CHECKPOINT_EVERY`]th
//! revision has one; it is whole again when the changes since the last whole one are a sixty-fourth of the files. So
//! the bytes written for a publish depend on the change, and not on the database.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::{GetResult, ObjectStoreExt};
use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::commits::RecentCommits;
use super::database::State;
use super::keys::CheckpointKind;
use super::{Database, StoreError, keys};
use crate::manifest::Entry;
use crate::model::{DbPath, Revision, Sha256};
use crate::wire::PutEntry;

/// Every how many revisions one is stored.
pub(super) const CHECKPOINT_EVERY: u64 = 128;
/// Up to so many files, every checkpoint is whole.
const ALWAYS_WHOLE: usize = 4096;
/// A whole one follows when this share of the files has changed since the last.
const WHOLE_AFTER_SHARE: usize = 64;
/// Up to so many entries are written before the publish is answered; more are written beside it.
const WRITTEN_AT_ONCE: usize = 20_000;
/// A line longer than this is none of ours.
const LONGEST_LINE: usize = 16 << 20;

/// The first line. Then follow one line for each entry, or for each path that is gone just the path, and a last line
/// with the hash of all that stands before it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    format: u64,
    revision: Revision,
    /// The hash of the revision's record.
    record_hash: Sha256,
    time: String,
    /// The revision of the whole checkpoint that this one continues; none, if it is whole itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<Revision>,
}

#[derive(Serialize, Deserialize)]
struct Closing {
    sha256: Sha256,
}

/// What has changed since the last whole checkpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct SinceWhole {
    /// The revision of that checkpoint; zero, where there is none.
    pub(super) whole: Revision,
    pub(super) paths: BTreeSet<DbPath>,
    /// The revision of a whole one that is being written: until that is done, nobody knows what the next one continues.
    writing: Option<Revision>,
}

impl SinceWhole {
    /// Of so many changes that the next one is whole anyway, nothing need be remembered.
    pub(super) fn forget_beyond(&mut self, files: usize) {
        if self.writing.is_none() && self.paths.len() > ALWAYS_WHOLE.max(files / WHOLE_AFTER_SHARE) {
            *self = Self::default();
        }
    }
}

/// A checkpoint as it was read.
pub(super) struct Checkpoint {
    pub(super) revision: Revision,
    pub(super) record_hash: Sha256,
    pub(super) time: String,
    pub(super) since: Option<Revision>,
    /// What it says of paths: an entry, or that there is none.
    pub(super) files: BTreeMap<DbPath, Option<Entry>>,
}

/// What is written: taken from the state at once, and written without holding anybody up.
struct ToWrite {
    header: Header,
    files: Arc<BTreeMap<DbPath, Entry>>,
    /// What changed since the last whole one.
    paths: BTreeSet<DbPath>,
}

/// Makes files what a checkpoint, or a change, says of them.
pub(super) fn overlay(
    files: &mut BTreeMap<DbPath, Entry>,
    said: impl IntoIterator<Item = (DbPath, Option<Entry>)>,
) {
    for (path, entry) in said {
        match entry {
            Some(entry) => files.insert(path, entry),
            None => files.remove(&path),
        };
    }
}

fn is_due_whole(files: usize, changed: usize) -> bool {
    files <= ALWAYS_WHOLE || changed >= files / WHOLE_AFTER_SHARE
}

impl Database {
    /// Starts from the newest checkpoint, if one was stored.
    pub(super) async fn load_newest_checkpoint(&self) -> Result<(), StoreError> {
        let last = self.revisions().last(0).await?;
        let mut number = last - last % CHECKPOINT_EVERY;
        while number > 0 {
            if self.start_from_checkpoint(Revision(number)).await? {
                return Ok(());
            }
            // Before that there is nothing to begin with but what the markers name.
            if self.present_record(Revision(number)).await?.0.expired.is_some() {
                return Ok(());
            }
            number -= CHECKPOINT_EVERY;
        }
        Ok(())
    }

    /// Makes the checkpoint at `revision` the state, if there is a sound one.
    pub(super) async fn start_from_checkpoint(&self, revision: Revision) -> Result<bool, StoreError> {
        let Some(newest) = self.checkpoint(revision).await? else { return Ok(false) };
        let (whole, since) = match newest.since {
            None => (newest, None),
            Some(whole) => match self.checkpoint(whole).await? {
                Some(whole) if whole.since.is_none() => (whole, Some(newest)),
                _ => return Ok(false),
            },
        };
        let mut since_whole = SinceWhole { whole: whole.revision, ..SinceWhole::default() };
        let (mut time, mut record_hash) = (whole.time, whole.record_hash);
        let mut files = BTreeMap::new();
        overlay(&mut files, whole.files);
        if let Some(since) = since {
            (time, record_hash) = (since.time, since.record_hash);
            since_whole.paths.extend(since.files.keys().cloned());
            overlay(&mut files, since.files);
        }
        let mut state = self.write();
        state.revision = revision;
        state.record_hash = Some(record_hash);
        state.time = time;
        state.files = Arc::new(files);
        state.since_whole = since_whole;
        state.commits = RecentCommits::default();
        Ok(true)
    }

    /// The checkpoint beside that revision, the whole one if it has both. One that is damaged, or does not belong to
    /// the log, is passed over.
    pub(super) async fn checkpoint(&self, revision: Revision) -> Result<Option<Checkpoint>, StoreError> {
        let Some((_, record_hash)) = self.record(revision).await? else { return Ok(None) };
        for kind in [CheckpointKind::Whole, CheckpointKind::Since] {
            let cannot = StoreError::unavailable("read a checkpoint");
            let found = match self.objects.get(&keys::checkpoint(&self.id, revision, kind)).await {
                Ok(found) => found,
                Err(object_store::Error::NotFound { .. }) => continue,
                Err(error) => return Err(cannot(error)),
            };
            let read = read_checkpoint(found).await?.filter(|read| {
                read.revision == revision
                    && read.record_hash == record_hash
                    && CheckpointKind::of(read.since) == kind
            });
            if read.is_some() {
                return Ok(read);
            }
            tracing::error!(database = %self.id, %revision, ?kind, "a checkpoint is damaged");
        }
        Ok(None)
    }

    /// The revisions that have a checkpoint beside them, sound or not.
    pub(super) async fn stored_checkpoints(&self) -> Result<BTreeSet<Revision>, StoreError> {
        let listed = self.objects.list(Some(&keys::checkpoints(&self.id)));
        let number = |object: object_store::ObjectMeta| {
            let name = object.location.filename()?;
            name.strip_suffix(".since").unwrap_or(name).parse().ok().map(Revision)
        };
        let numbers = listed.try_filter_map(|object| std::future::ready(Ok(number(object))));
        numbers.try_collect().await.map_err(StoreError::unavailable("list checkpoints"))
    }

    /// Stores the checkpoint of the current revision if one is due. It only saves later readers some work: what was
    /// published is published either way.
    pub(super) async fn store_checkpoint_if_due(self: &Arc<Self>) {
        let to_write = {
            let mut state = self.write();
            if !state.revision.0.is_multiple_of(CHECKPOINT_EVERY) || state.since_whole.writing.is_some() {
                return;
            }
            state.checkpoint_to_write()
        };
        let Some(to_write) = to_write else { return };
        let entries =
            if to_write.header.since.is_none() { to_write.files.len() } else { to_write.paths.len() };
        let database = self.clone();
        let writing = async move { database.write_due_checkpoint(to_write).await };
        // On its own: who published may hang up.
        let writing = tokio::spawn(writing);
        if entries <= WRITTEN_AT_ONCE {
            let _ = writing.await;
        }
    }

    async fn write_due_checkpoint(&self, to_write: ToWrite) {
        let (revision, whole) = (to_write.header.revision, to_write.header.since.is_none());
        let written = self.write_checkpoint(&to_write).await;
        let since = &mut self.write().since_whole;
        // Unless the state has begun anew from another checkpoint meanwhile.
        if whole && since.writing == Some(revision) {
            since.writing = None;
            match written {
                Ok(()) => since.whole = revision,
                Err(_) => since.paths.extend(to_write.paths),
            }
        }
        if let Err(error) = written {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, database = %self.id, %revision, "no checkpoint was stored");
        }
    }

    /// Stores a whole checkpoint of these files, the ones at `revision`.
    pub(super) async fn store_whole_checkpoint(
        &self,
        revision: Revision,
        files: BTreeMap<DbPath, Entry>,
        time: String,
        record_hash: Sha256,
    ) -> Result<(), StoreError> {
        let header = Header { format: 1, revision, record_hash, time, since: None };
        self.write_checkpoint(&ToWrite { header, files: Arc::new(files), paths: BTreeSet::new() }).await
    }

    async fn write_checkpoint(&self, to_write: &ToWrite) -> Result<(), StoreError> {
        let kind = CheckpointKind::of(to_write.header.since);
        let key = keys::checkpoint(&self.id, to_write.header.revision, kind);
        let mut writer = BufWriter::new(self.objects.durable(), key);
        let cannot = |error: std::io::Error| {
            let source = object_store::Error::Generic { store: "checkpoint", source: error.into() };
            StoreError::unavailable("store a checkpoint")(source)
        };
        let mut digest = Context::new(&SHA256);
        let mut piece = BytesMut::new();
        let mut put_line = |piece: &mut BytesMut, line: Vec<u8>| {
            let start = piece.len();
            piece.extend_from_slice(&line);
            piece.extend_from_slice(b"\n");
            digest.update(&piece[start..]);
        };
        put_line(&mut piece, json_line(&to_write.header));
        let lines: Box<dyn Iterator<Item = Vec<u8>> + Send + '_> = match to_write.header.since {
            None => Box::new(to_write.files.iter().map(|(path, entry)| json_line(&entry.with_path(path)))),
            Some(_) => Box::new(to_write.paths.iter().map(|path| match to_write.files.get(path) {
                Some(entry) => json_line(&entry.with_path(path)),
                None => json_line(path),
            })),
        };
        for line in lines {
            put_line(&mut piece, line);
            if piece.len() >= 1 << 20 {
                writer.put(piece.split().freeze()).await.map_err(|error| cannot(error.into()))?;
            }
        }
        let closing = Closing { sha256: Sha256::from_digest(&digest.finish()) };
        piece.extend_from_slice(&json_line(&closing));
        piece.extend_from_slice(b"\n");
        writer.put(piece.freeze()).await.map_err(|error| cannot(error.into()))?;
        writer.shutdown().await.map_err(cannot)
    }
}

impl State {
    fn checkpoint_to_write(&mut self) -> Option<ToWrite> {
        let since = &mut self.since_whole;
        let whole = since.whole == Revision::NONE || is_due_whole(self.files.len(), since.paths.len());
        let header = Header {
            format: 1,
            revision: self.revision,
            record_hash: self.record_hash?,
            time: self.time.clone(),
            since: (!whole).then_some(since.whole),
        };
        since.writing = whole.then_some(self.revision);
        let paths = if whole { std::mem::take(&mut since.paths) } else { since.paths.clone() };
        Some(ToWrite { header, files: self.files.clone(), paths })
    }
}

fn json_line<T: Serialize>(value: &T) -> Vec<u8> {
    // Our own documents always serialize: their keys are strings.
    serde_json::to_vec(value).unwrap_or_default()
}

/// Reads a checkpoint line by line; nothing, if it is damaged in any way.
async fn read_checkpoint(found: GetResult) -> Result<Option<Checkpoint>, StoreError> {
    let mut pieces = found.into_stream().map_err(StoreError::unavailable("read a checkpoint")).boxed();
    let mut reader =
        Reader { header: None, files: BTreeMap::new(), digest: Context::new(&SHA256), closed: false };
    let mut rest = BytesMut::new();
    while let Some(piece) = pieces.try_next().await? {
        rest.extend_from_slice(&piece);
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line = rest.split_to(end + 1).freeze();
            if reader.take_line(&line).is_none() {
                return Ok(None);
            }
        }
        if rest.len() > LONGEST_LINE {
            return Ok(None);
        }
    }
    let Reader { header: Some(header), files, closed: true, .. } = reader else { return Ok(None) };
    if !rest.is_empty() {
        return Ok(None);
    }
    let Header { revision, record_hash, time, since, .. } = header;
    Ok(Some(Checkpoint { revision, record_hash, time, since, files }))
}

struct Reader {
    header: Option<Header>,
    files: BTreeMap<DbPath, Option<Entry>>,
    digest: Context,
    closed: bool,
}

impl Reader {
    fn take_line(&mut self, line: &Bytes) -> Option<()> {
        if self.closed {
            return None;
        }
        if self.header.is_none() {
            let header: Header =
                serde_json::from_slice(line).ok().filter(|header: &Header| header.format == 1)?;
            self.header = Some(header);
        } else if line.starts_with(b"\"") {
            self.files.insert(serde_json::from_slice(line).ok()?, None);
        } else if line.starts_with(b"{\"sha256\"") {
            let closing: Closing = serde_json::from_slice(line).ok()?;
            self.closed = closing.sha256 == Sha256::from_digest(&self.digest.clone().finish());
            return self.closed.then_some(());
        } else {
            let PutEntry { path, entry } = serde_json::from_slice(line).ok()?;
            self.files.insert(path, Some(entry));
        }
        self.digest.update(line);
        Some(())
    }
}
