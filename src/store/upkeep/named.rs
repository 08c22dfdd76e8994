//! Which contents the kept revisions name.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};

use super::AT_ONCE;
use crate::model::{DbPath, Revision, Sha256};
use crate::store::{Database, RevisionRecord, StoreError};

/// Every content that a kept revision names.
pub(in crate::store) struct Named {
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
        while let Some((record, _)) = records.try_next().await? {
            self.add(record);
        }
        Ok(())
    }

    fn add(&mut self, record: RevisionRecord) {
        for put in record.put.into_iter().chain(record.set_aside) {
            if let Some(hash) = put.entry.hash.sha256() {
                let at = NamedAt { size: put.entry.size, path: put.path, revision: record.revision };
                self.contents.entry(hash).or_insert(at);
            }
        }
    }
}

impl Database {
    /// The contents named by every revision from `from` up to now. Those before `from` do not count.
    pub(super) async fn named_contents_from(&self, from: Revision) -> Result<Named, StoreError> {
        let through = self.revision().0;
        let mut named = Named { through, contents: HashMap::new() };
        if from > Revision(1) {
            for (path, entry) in self.files_at(from).await? {
                if let Some(hash) = entry.hash.sha256() {
                    let at = NamedAt { size: entry.size, path, revision: from };
                    named.contents.entry(hash).or_insert(at);
                }
            }
        }
        named.add_records(self, from.0.max(1)..=through.0).await?;
        Ok(named)
    }

    /// The size of a content, if a kept revision names it: whoever may read all of a database may read that
    /// (rule 27).
    pub async fn named_size(&self, hash: &Sha256) -> Result<Option<u64>, StoreError> {
        let mut named = self.named.lock().await;
        let known = match named.take() {
            Some(mut known) => {
                known.catch_up(self).await?;
                known
            }
            None => {
                self.refresh().await?;
                self.named_contents_from(self.oldest_kept(self.revision().0).await?).await?
            }
        };
        let size = known.contents.get(hash).map(|at| at.size);
        *named = Some(known);
        Ok(size)
    }

    /// The oldest revision that has not expired: what expired is at the beginning, without gaps.
    pub(super) async fn oldest_kept(&self, through: Revision) -> Result<Revision, StoreError> {
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
