//! Collection and row counts for metadata, from the footers of Parquet files, remembered by content.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroUsize;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use futures::{StreamExt, TryStreamExt};
use lru::LruCache;

use crate::model::{ByteRange, Revision, Sha256};
use crate::rows;
use crate::store::{Database, StoreError};

/// How many contents' counts are remembered.
const REMEMBERED: usize = 1_000_000;
/// How many footers are read at once.
const AT_ONCE: usize = 8;

/// What a database holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) collections: u64,
    pub(super) entities: u64,
}

/// Counts already made.
pub(super) struct Counts {
    rows: Mutex<LruCache<Sha256, u64>>,
    databases: Mutex<HashMap<String, (Revision, Count)>>,
}

impl Default for Counts {
    fn default() -> Self {
        let capacity = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self { rows: Mutex::new(LruCache::new(capacity)), databases: Mutex::default() }
    }
}

impl Counts {
    /// Counts the current revision's collections (`data/<ns>/…`) and the rows of their Parquet files.
    pub(super) async fn of(&self, database: &Database) -> Result<Count, StoreError> {
        let revision = database.revision().0;
        let known = self.databases.lock().unwrap_or_else(|e| e.into_inner()).get(database.id()).copied();
        if let Some((_, count)) = known.filter(|(at, _)| *at == revision) {
            return Ok(count);
        }
        let mut collections = BTreeSet::new();
        let mut files = Vec::new();
        database.for_each_file(|path, entry| {
            if let Some(collection) = path.collection() {
                collections.insert(collection.to_owned());
                if let (true, Some(hash)) = (path.name().ends_with(".parquet"), entry.hash.sha256()) {
                    files.push((hash, entry.size));
                }
            }
        });
        let rows = futures::stream::iter(files).map(|(hash, size)| self.rows(database, hash, size));
        let entities = rows
            .buffer_unordered(AT_ONCE)
            .try_fold(0_u64, |sum, rows| async move { Ok(sum.saturating_add(rows)) })
            .await?;
        let count = Count { collections: collections.len() as u64, entities };
        self.databases
            .lock()
            .unwrap_or_else(|e| e.into_inner())
            .insert(database.id().to_owned(), (revision, count));
        Ok(count)
    }

    /// A file's rows; a file that is not Parquet after all has none.
    async fn rows(&self, database: &Database, hash: Sha256, size: u64) -> Result<u64, StoreError> {
        if let Some(rows) = self.rows.lock().unwrap_or_else(|e| e.into_inner()).get(&hash) {
            return Ok(*rows);
        }
        // A description must not fail for one file that cannot be read; it is counted when it can.
        let rows = match read_rows(database, hash, size).await {
            Ok(rows) => rows,
            Err(error) => {
                tracing::error!(%hash, error = &error as &dyn std::error::Error, "rows not counted");
                return Ok(0);
            }
        };
        self.rows.lock().unwrap_or_else(|e| e.into_inner()).put(hash, rows);
        Ok(rows)
    }
}

async fn read_rows(database: &Database, hash: Sha256, size: u64) -> Result<u64, StoreError> {
    let Some(tail_start) = size.checked_sub(8) else { return Ok(0) };
    let tail = read(database, hash, ByteRange::new(tail_start, size)).await?;
    let Ok(tail) = <[u8; 8]>::try_from(tail.as_ref()) else { return Ok(0) };
    let Ok(length) = rows::metadata_length(tail) else { return Ok(0) };
    let Some(start) = tail_start.checked_sub(length) else { return Ok(0) };
    let metadata = read(database, hash, ByteRange::new(start, tail_start)).await?;
    Ok(rows::row_count(&metadata).unwrap_or(0))
}

async fn read(database: &Database, hash: Sha256, range: ByteRange) -> Result<Bytes, StoreError> {
    let stream = database.read_content(&hash, range).await?;
    let all = stream.try_fold(BytesMut::new(), |mut all, piece| async move {
        all.extend_from_slice(&piece);
        Ok(all)
    });
    all.await.map(BytesMut::freeze)
}
