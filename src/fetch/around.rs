//! Reading past a cache that has no room, or no place, for the bytes.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::{FetchError, OpenContent};
use crate::model::{ByteRange, Sha256};
use crate::remote::RemoteError;

impl OpenContent {
    /// Reads straight from the remote, keeping nothing.
    pub(super) async fn read_around_the_cache(&self, range: ByteRange) -> Result<Bytes, FetchError> {
        let mut wait = Duration::from_millis(50);
        loop {
            self.count(|counters| &counters.requests, 1);
            match self.read_directly(range).await {
                Ok(bytes) => return Ok(bytes),
                // The caller's deadline ends this.
                Err(error) if error.is_transient() => tokio::time::sleep(wait).await,
                Err(error) => return Err(error.into()),
            }
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    async fn read_directly(&self, range: ByteRange) -> Result<Bytes, RemoteError> {
        let mut body = self.fetcher.remote.open_range(&self.key, range).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(range.len()).unwrap_or(0));
        while let Some(piece) = body.next().await? {
            self.count(|counters| &counters.bytes_fetched, piece.len() as u64);
            bytes.extend_from_slice(&piece);
        }
        let whole_content = range == ByteRange::new(0, self.key.size);
        if whole_content && self.key.hash.sha256().is_some_and(|expected| expected != Sha256::of(&bytes)) {
            return Err(self.fetcher.remote.altered(&self.key));
        }
        Ok(bytes.freeze())
    }
}
