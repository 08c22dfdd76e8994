//! Which contents the kept revisions name.

use std::collections::HashMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::AT_ONCE;
use crate::manifest::Entry;
use crate::model::{DbPath, Revision, Sha256};
use crate::store::{Database, RevisionRecord, StoreError};

/// Every content that a kept revision names.
pub(in crate::store) struct Named {
    /// The oldest revision that counts.
    from: Revision,
    /// The last one looked at.
    pub(super) through: Revision,
    /// Hashes, and for each where it is named: for messages.
    pub(super) contents: HashMap<Sha256, NamedAt>,
}

/// A place where a content is named.
#[derive(Debug, Clone)]
pub(super) struct NamedAt {
    pub(super) size: u64,
    pub(super) path: DbPath,
    pub(super) revision: Revision,
}

/// Notes the content of an entry, unless it is named somewhere already.
pub(super) fn note(contents: &mut HashMap<Sha256, NamedAt>, path: DbPath, entry: &Entry, revision: Revision) {
    if let Some(hash) = entry.hash.sha256() {
        contents.entry(hash).or_insert(NamedAt { size: entry.size, path, revision });
    }
}

impl Named {
    /// Takes in revisions published since.
    pub(super) async fn catch_up(&mut self, database: &Database) -> Result<(), StoreError> {
        database.refresh().await?;
        let through = database.revision().0;
        self.add_records(database, self.through.0 + 1..=through.0).await?;
        self.through = through;
        Ok(())
    }

    async fn add_records(
        &mut self,
        database: &Database,
        numbers: std::ops::RangeInclusive<u64>,
    ) -> Result<(), StoreError> {
        let records = futures::stream::iter(numbers).map(|number| database.present_record(Revision(number)));
        let mut records = records.buffered(AT_ONCE);
        let mut covered = Revision::NONE;
        while let Some((record, _)) = records.try_next().await? {
            if record.expired.is_none() {
                self.add(record);
            } else if record.revision >= covered {
                // What it named and is still there, the files of the oldest revision kept after it name.
                covered = database.kept_from(record.revision).await?;
                database.refresh().await?;
                self.add_files_of(database, covered).await?;
                self.through = self.through.max(covered);
            }
        }
        Ok(())
    }

    async fn add_files_of(&mut self, database: &Database, revision: Revision) -> Result<(), StoreError> {
        for (path, entry) in database.files_at(revision).await? {
            note(&mut self.contents, path, &entry, revision);
        }
        Ok(())
    }

    fn add(&mut self, record: RevisionRecord) {
        for put in record.put.into_iter().chain(record.set_aside) {
            note(&mut self.contents, put.path, &put.entry, record.revision);
        }
    }
}

impl Database {
    /// The contents named by every revision from `from` up to now. Those before `from` do not count.
    pub(super) async fn named_contents_from(&self, from: Revision) -> Result<Named, StoreError> {
        let through = self.revision().0;
        let mut named = Named { from, through, contents: HashMap::new() };
        if from > Revision(1) {
            named.add_files_of(self, from).await?;
        }
        named.add_records(self, from.0.max(1)..=through.0).await?;
        Ok(named)
    }

    /// The size of a content, if a kept revision names it: whoever may read all of a database may read that
    /// (rule 27).
    pub async fn named_size(self: &Arc<Self>, hash: &Sha256) -> Result<Option<u64>, StoreError> {
        let (database, hash) = (self.clone(), *hash);
        // On its own: reading a long history must get on although whoever asked first has gone.
        let looking = tokio::spawn(async move {
            let mut named = database.named.lock().await;
            let expired = match &*named {
                Some(known) => database.present_record(known.from).await?.0.expired.is_some(),
                None => true,
            };
            if expired {
                database.refresh().await?;
                let oldest = database.oldest_kept(database.revision().0).await?;
                *named = Some(database.named_contents_from(oldest).await?);
            }
            let Some(known) = named.as_mut() else { return Ok(None) };
            known.catch_up(&database).await?;
            Ok(known.contents.get(&hash).map(|at| at.size))
        });
        looking.await.unwrap_or_else(|error| {
            Err(StoreError::Damaged {
                key: self.id().to_owned(),
                reason: format!("it cannot be read: {error}"),
            })
        })
    }

    /// The oldest revision whose files can be had. Where an expiry was cut off, that is where it would have ended.
    pub(super) async fn oldest_kept(&self, through: Revision) -> Result<Revision, StoreError> {
        let unmarked = self.first_unmarked(through).await?;
        if unmarked <= Revision(1) {
            return Ok(unmarked);
        }
        Ok(unmarked.max(self.kept_from(Revision(unmarked.0 - 1)).await?))
    }

    /// The first revision without a marker, of a log that has its markers at the beginning.
    pub(super) async fn first_unmarked(&self, through: Revision) -> Result<Revision, StoreError> {
        let (mut expired, mut kept) = (0, through.0.max(1));
        while kept - expired > 1 {
            let middle = expired + (kept - expired) / 2;
            match self.present_record(Revision(middle)).await?.0.expired {
                Some(_) => expired = middle,
                None => kept = middle,
            }
        }
        Ok(Revision(kept))
    }
}
