//! What every reader of a Parquet file reads first is its end: footer and indexes. It is sent for when the file is
//! opened, and what it says of the column chunks is kept with the content.

use std::sync::Arc;

use bytes::Bytes;

use super::shared::Kept;
use super::{FetchError, Fetcher, OpenContent};
use crate::model::{ByteRange, DbPath, WHOLE_AT_ONCE};
use crate::rows::{ChunkMap, metadata_length};

/// The magic and the length in front of it.
const TRAILER: u64 = 8;
/// Requests that may come at once when the end is known: engines begin with as many row groups as they have threads,
/// and as much again is fetched ahead.
pub(super) const FIRST_REQUESTS: usize = 16;
/// What is fetched of a file's end before anything is known of it: most footers are smaller, and DuckDB reads as much.
const END: u64 = 256 << 10;
/// A footer and what its decoder makes of it take so many times its length.
const DECODED: u64 = 8;

/// What every reader of a file reads first: all of a small one, the end of a Parquet file; of others it is not known.
pub fn read_first(path: &DbPath, size: u64) -> Option<ByteRange> {
    let start = if size <= WHOLE_AT_ONCE {
        0
    } else if is_parquet(path) {
        size - END
    } else {
        return None;
    };
    Some(ByteRange::new(start, size)).filter(|first| !first.is_empty())
}

fn is_parquet(path: &DbPath) -> bool {
    [".parquet", ".parq", ".pq"].iter().any(|ending| path.as_str().ends_with(ending))
}

impl OpenContent {
    /// Sends for a Parquet file's end, or for all of a small file, and reads what the footer says once it is here.
    pub(super) fn look_at_the_end(self: &Arc<Self>) {
        let Some(first) = self.unread_first() else { return };
        // A file that is closed at once is still worth its end: it is about to be opened again.
        let content = self.clone();
        self.fetcher.runtime.spawn(async move { content.take_in_first(first).await });
        // While it is on its way.
        self.fetcher.get_ready(FIRST_REQUESTS);
    }

    /// What its readers read first, unless it was taken in already.
    pub(super) fn unread_first(&self) -> Option<ByteRange> {
        if self.cached.is_none() || self.is_complete() || self.shared.chunks.get().is_some() {
            return None;
        }
        read_first(&self.key.path, self.key.size)
    }

    /// Brings what is read first, and reads what it says of the rest.
    pub(super) async fn take_in_first(self: &Arc<Self>, first: ByteRange) {
        if self.bring(first, first).await.is_ok() && !self.is_small() {
            // By now it may be known what the link is like.
            self.fetcher.get_ready(FIRST_REQUESTS);
            let _ = self.read_footer(first).await;
        }
    }

    pub(super) fn is_parquet(&self) -> bool {
        is_parquet(&self.key.path)
    }

    /// Reads the footer, `end` of which is here.
    async fn read_footer(self: &Arc<Self>, end: ByteRange) -> Result<(), FetchError> {
        let size = self.key.size;
        let trailer = self.look(ByteRange::new(size.saturating_sub(TRAILER), size));
        let Some(trailer) = trailer.and_then(|bytes| <[u8; 8]>::try_from(&*bytes).ok()) else {
            return Ok(());
        };
        let metadata_end = size - TRAILER;
        let start = metadata_length(trailer).ok().and_then(|length| metadata_end.checked_sub(length));
        let Some(start) = start else {
            let _ = self.shared.chunks.set(None);
            return Ok(());
        };
        let metadata = ByteRange::new(start, metadata_end);
        if start < end.start {
            let missing = ByteRange::new(start, end.start);
            self.bring(missing, missing).await?;
        }
        if let Some(Err(error)) =
            self.cached.as_ref().map(|cached| cached.keep_longest(ByteRange::new(start, size)))
        {
            tracing::debug!(path = %self.key.path, %error, "its footer is evicted like anything else");
        }
        let content = self.clone();
        let takes = metadata.len() * DECODED;
        if takes > self.fetcher.memory.answers.all() {
            tracing::debug!(path = %self.key.path, "its footer is too large for --memory: its columns are not foreseen");
            let _ = self.shared.chunks.set(None);
            return Ok(());
        }
        let _share = self.fetcher.memory.answers.share(takes).await.map_err(Fetcher::ended)?;
        // A footer of many megabytes takes a while to read.
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(bytes) = content.look(metadata) {
                content.keep_chunks(&bytes);
            }
        })
        .await;
        Ok(())
    }

    fn keep_chunks(&self, metadata: &Bytes) {
        let chunks = ChunkMap::parse(metadata, self.key.size);
        if let Err(error) = &chunks {
            tracing::debug!(path = %self.key.path, %error, "its columns cannot be foreseen");
        }
        let kept = chunks.ok().and_then(|map| {
            let share = self.fetcher.share_for_footer(map.memory())?;
            Some(Kept { map, _share: share })
        });
        let _ = self.shared.chunks.set(kept);
    }
}
