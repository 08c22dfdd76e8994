//! A database as it was: one path, or the whole manifest, at a revision that is not the current one. The log is
//! walked back from that revision to the nearest whole checkpoint, so what it costs does not grow with the history;
//! what was read on the way is kept for the next question, because a reader that asks once asks for more.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

use lru::LruCache;

use super::checkpoints::{CHECKPOINT_EVERY, Checkpoint, overlay};
use super::database::{Database, Published};
use super::{RevisionRecord, StoreError};
use crate::manifest::Entry;
use crate::model::{DbPath, Revision, Sha256};

/// Steps kept, counted in entries; of a larger database, as many as two of its manifests have.
const KEEP_ENTRIES: usize = 200_000;
/// Steps kept, counted by themselves.
const KEEP_STEPS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

/// What has been read of a database's past.
pub(super) struct History(Mutex<Kept>);

struct Kept {
    /// What history begins with, where the revisions before have expired.
    beginning: Option<(Revision, Arc<Step>)>,
    steps: LruCache<Revision, Arc<Step>>,
    entries: usize,
}

/// What one revision says of the files: its change, or what the checkpoint beside it says.
struct Step {
    files: HashMap<DbPath, Option<Entry>>,
    /// Where to ask next what this does not say; nowhere, if it says everything.
    next: Option<Revision>,
    time: String,
    record_hash: Sha256,
}

impl Default for History {
    fn default() -> Self {
        Self(Mutex::new(Kept { beginning: None, steps: LruCache::new(KEEP_STEPS), entries: 0 }))
    }
}

impl History {
    fn get(&self, revision: Revision) -> Option<Arc<Step>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).steps.get(&revision).cloned()
    }

    fn keep(&self, revision: Revision, step: &Arc<Step>, limit: usize) {
        let mut kept = self.0.lock().unwrap_or_else(|e| e.into_inner());
        kept.entries += step.files.len();
        if let Some((_, replaced)) = kept.steps.push(revision, step.clone()) {
            kept.entries -= replaced.files.len();
        }
        while kept.entries > limit
            && kept.steps.len() > 1
            && let Some((_, oldest)) = kept.steps.pop_lru()
        {
            kept.entries -= oldest.files.len();
        }
    }
}

impl Database {
    /// One file as `revision` had it; nothing where it had none, or is not there.
    pub async fn file_at(&self, path: &DbPath, revision: Revision) -> Result<Option<Entry>, StoreError> {
        let mut at = self.known_revision(revision);
        while let Some(here) = at {
            let step = self.step(here, revision).await?;
            if let Some(said) = step.files.get(path) {
                return Ok(said.clone());
            }
            at = step.next;
        }
        Ok(None)
    }

    /// The manifest as `revision` had it; nothing where there is no such revision.
    pub async fn published_at(self: &Arc<Self>, revision: Revision) -> Result<Option<Published>, StoreError> {
        let steps = self.steps_to(revision).await?;
        let database = self.clone();
        let written = tokio::task::spawn_blocking(move || {
            let newest = steps.first()?;
            let state = database.read();
            let etag = state.manifest_etag_at(Some(newest.record_hash));
            let json = state.render_manifest_of(&files_of(&steps), &newest.time).into();
            Some(Published { json, etag, revision, time: newest.time.clone() })
        });
        Ok(written.await.ok().flatten())
    }

    /// The files as `revision` had them.
    pub(super) async fn files_at(&self, revision: Revision) -> Result<BTreeMap<DbPath, Entry>, StoreError> {
        Ok(files_of(&self.steps_to(revision).await?))
    }

    /// From that revision back to where all is said.
    async fn steps_to(&self, revision: Revision) -> Result<Vec<Arc<Step>>, StoreError> {
        let mut steps = Vec::new();
        let mut at = self.known_revision(revision);
        while let Some(here) = at {
            let step = self.step(here, revision).await?;
            at = step.next;
            steps.push(step);
        }
        Ok(steps)
    }

    /// The revision, if there is one of that number.
    fn known_revision(&self, revision: Revision) -> Option<Revision> {
        (revision <= self.revision().0 && revision != Revision::NONE).then_some(revision)
    }

    /// What is said at `revision`, on the way back from `asked`.
    async fn step(&self, revision: Revision, asked: Revision) -> Result<Arc<Step>, StoreError> {
        if let Some(step) = self.history.get(revision) {
            return Ok(step);
        }
        let (record, record_hash) = self.present_record(revision).await?;
        if record.expired.is_some() {
            return self.first_kept_step(revision, asked).await;
        }
        let checkpoint =
            if revision.0.is_multiple_of(CHECKPOINT_EVERY) { self.checkpoint(revision).await? } else { None };
        let step = Arc::new(match checkpoint {
            Some(checkpoint) => Step::of_checkpoint(checkpoint),
            None => {
                let RevisionRecord { put, delete, time, .. } = record;
                // Deletions first, as they are applied.
                let deleted = delete.into_iter().map(|path| (path, None));
                let files = deleted.chain(put.into_iter().map(|put| (put.path, Some(put.entry)))).collect();
                let next = Some(Revision(revision.0 - 1)).filter(|next| *next != Revision::NONE);
                Step { files, next, time, record_hash }
            }
        });
        let limit = KEEP_ENTRIES.max(2 * self.read().files.len());
        self.history.keep(revision, &step, limit);
        Ok(step)
    }

    /// Forgets what was read of revisions, some of which have expired.
    pub(super) fn forget_history(&self) {
        let mut kept = self.history.0.lock().unwrap_or_else(|e| e.into_inner());
        kept.beginning = None;
        kept.steps.clear();
        kept.entries = 0;
    }

    /// Where the way back from `asked` has come to a revision that has expired: the checkpoint that history now
    /// begins with says the rest.
    async fn first_kept_step(&self, expired: Revision, asked: Revision) -> Result<Arc<Step>, StoreError> {
        let kept_from = self.kept_from(expired).await?;
        if asked < kept_from {
            return Err(StoreError::Expired { revision: asked, kept_from });
        }
        let lock = || self.history.0.lock().unwrap_or_else(|e| e.into_inner());
        let known = lock().beginning.clone().filter(|(revision, _)| *revision == kept_from);
        if let Some((_, step)) = known {
            return Ok(step);
        }
        match self.checkpoint(kept_from).await? {
            Some(checkpoint) if checkpoint.since.is_none() => {
                let step = Arc::new(Step::of_checkpoint(checkpoint));
                lock().beginning = Some((kept_from, step.clone()));
                Ok(step)
            }
            _ => Err(self.damaged(kept_from, "what it begins with is missing")),
        }
    }
}

impl Step {
    fn of_checkpoint(checkpoint: Checkpoint) -> Self {
        let Checkpoint { record_hash, time, since, files, .. } = checkpoint;
        Self { files: files.into_iter().collect(), next: since, time, record_hash }
    }
}

/// The files that steps lead to, newest first.
fn files_of(steps: &[Arc<Step>]) -> BTreeMap<DbPath, Entry> {
    let mut files = BTreeMap::new();
    for step in steps.iter().rev() {
        overlay(&mut files, step.files.iter().map(|(path, said)| (path.clone(), said.clone())));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::super::publish::tests::{change, database, put};
    use super::*;
    use crate::manifest::Manifest;

    /// Publishes a history of puts and deletions over a few paths, and gives the manifests as they were.
    async fn history_of(database: &Arc<Database>, revisions: u64) -> Vec<Published> {
        let mut then = Vec::new();
        for n in 0..revisions {
            let (name, deleted) = (format!("f{}", n % 5), format!("f{}", (n + 2) % 5));
            let is_there = database.file(&DbPath::parse(&deleted).unwrap()).is_some();
            let delete: &[&str] = if n % 3 == 0 && is_there { &[&deleted] } else { &[] };
            let entry = put(database, &name, &n.to_string()).await;
            database.publish(change(n, &format!("commit{n}"), vec![entry], delete)).await.unwrap();
            then.push(database.published().await.unwrap());
        }
        then
    }

    #[tokio::test]
    async fn every_revision_is_answered_as_it_was() {
        let (store, database) = database().await;
        let then = history_of(&database, 2 * CHECKPOINT_EVERY + 9).await;
        let anew = super::super::Store::attach(store.objects.clone()).await.unwrap();
        let anew = anew.open(database.id()).await.unwrap().unwrap();
        for expected in &then {
            let found = anew.published_at(expected.revision).await.unwrap().unwrap();
            assert_eq!((&found.json, &found.etag), (&expected.json, &expected.etag), "{}", expected.revision);
            let files = Manifest::from_json(&expected.json).unwrap().files;
            for n in 0..5 {
                let path = DbPath::parse(&format!("f{n}")).unwrap();
                let at = anew.file_at(&path, expected.revision).await.unwrap();
                assert_eq!(at.as_ref(), files.get(&path), "{path} at {}", expected.revision);
            }
        }
        let beyond = Revision(then.len() as u64 + 1);
        assert!(anew.published_at(beyond).await.unwrap().is_none());
        assert!(anew.published_at(Revision::NONE).await.unwrap().is_none());
        let path = DbPath::parse("f0").unwrap();
        for none in [beyond, Revision::NONE, Revision(u64::MAX)] {
            assert!(anew.file_at(&path, none).await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_long_history_is_read_back_to_the_nearest_whole_manifest_and_kept_within_its_limit() {
        let (store, database) = database().await;
        history_of(&database, CHECKPOINT_EVERY + 4).await;
        let anew = super::super::Store::attach(store.objects.clone()).await.unwrap();
        let anew = anew.open(database.id()).await.unwrap().unwrap();
        let absent = DbPath::parse("never/there").unwrap();
        let newest = anew.revision().0;
        assert!(anew.file_at(&absent, newest).await.unwrap().is_none());
        let kept = |database: &Database| database.history.0.lock().unwrap().steps.len();
        assert_eq!(kept(&anew), 5, "four changes and one checkpoint were read");
        let step = anew.history.get(newest).unwrap();
        for revision in 1000..1010 {
            anew.history.keep(Revision(revision), &step, 3);
        }
        assert!(kept(&anew) <= 3, "{}", kept(&anew));
    }
}
