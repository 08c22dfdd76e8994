//! What every reader of a Parquet file reads first is its end: footer and indexes. It is sent for when the file is
//! opened, and what it says of the column chunks is kept with the content.

use std::sync::Arc;

use bytes::Bytes;

use super::OpenContent;
use super::open_content::WHOLE;
use crate::model::ByteRange;
use crate::rows::{ChunkMap, metadata_length};

/// The magic and the length in front of it.
const TRAILER: u64 = 8;
/// Requests that may come at once when the end is known: engines begin with as many row groups as they have threads.
const FIRST_REQUESTS: usize = 10;
/// The most that is fetched of a file's end before anything is known of it: footers are mostly smaller, and engines
/// read a quarter of a megabyte by themselves.
const MOST_END: u64 = 512 << 10;
/// The least.
const LEAST_END: u64 = 256 << 10;
/// Of a small file less is fetched: this part of it.
const PART: u64 = 256;

impl OpenContent {
    /// Sends for a Parquet file's end, or for all of a small file, and reads what the footer says once it is here.
    pub(super) fn look_at_the_end(self: &Arc<Self>) {
        if self.cached.is_none() || self.key.size == 0 || self.is_complete() {
            return;
        }
        if self.key.size > WHOLE && (!self.is_parquet() || self.shared.chunks.get().is_some()) {
            return;
        }
        self.fetcher.get_ready(FIRST_REQUESTS);
        // A file that is closed at once is still worth its end: it is about to be opened again.
        let content = self.clone();
        self.fetcher.runtime.spawn(async move {
            let end = content.key.size.saturating_sub((content.key.size / PART).clamp(LEAST_END, MOST_END));
            let end = ByteRange::new(end, content.key.size);
            if content.bring(end, end).await.is_ok() && content.key.size > WHOLE {
                content.read_footer(end).await;
            }
        });
    }

    fn is_parquet(&self) -> bool {
        let name = self.key.path.as_str();
        [".parquet", ".parq", ".pq"].iter().any(|ending| name.ends_with(ending))
    }

    async fn read_footer(self: &Arc<Self>, end: ByteRange) {
        let trailer = ByteRange::new(self.key.size.saturating_sub(TRAILER), self.key.size);
        let Some(trailer) = self.look(trailer).and_then(|bytes| <[u8; 8]>::try_from(&*bytes).ok()) else {
            return;
        };
        let Ok(length) = metadata_length(trailer) else {
            let _ = self.shared.chunks.set(None);
            return;
        };
        let metadata_end = self.key.size - TRAILER;
        let Some(start) = metadata_end.checked_sub(length) else { return };
        let metadata = ByteRange::new(start, metadata_end);
        if start < end.start {
            let missing = ByteRange::new(start, end.start);
            if self.bring(missing, missing).await.is_err() {
                return;
            }
        }
        let content = self.clone();
        // A footer of many megabytes takes a while to read.
        let _ = tokio::task::spawn_blocking(move || {
            if let Some(bytes) = content.look(metadata) {
                content.keep_chunks(&bytes);
            }
        })
        .await;
    }

    fn keep_chunks(&self, metadata: &Bytes) {
        let chunks = ChunkMap::parse(metadata, self.key.size);
        if let Err(error) = &chunks {
            tracing::debug!(path = %self.key.path, %error, "its columns cannot be foreseen");
        }
        let _ = self.shared.chunks.set(chunks.ok());
    }
}
