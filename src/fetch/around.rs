//! Reading past a cache that has no room, or no place, for the bytes. They are checked as they would be on their way
//! into it: by block where there are block hashes, and as a whole where the content is small.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};

use super::fly::WRONG_ANSWERS;
use super::memory::of_answer;
use super::{FetchError, Fetcher, OpenContent};
use crate::model::{ByteRange, LeafRange, Sha256};
use crate::remote::RemoteError;

impl OpenContent {
    /// Reads straight from the remote, keeping nothing.
    pub(super) async fn read_around_the_cache(
        &self,
        range: ByteRange,
        in_line: &AtomicBool,
    ) -> Result<Bytes, FetchError> {
        let asked = self.asked_around_the_cache(range).len();
        in_line.store(true, Ordering::Relaxed);
        let turn = self.fetcher.traffic.turn(of_answer(asked, asked)).await.map_err(Fetcher::ended)?;
        in_line.store(false, Ordering::Relaxed);
        let (mut wait, mut wrong) = (Duration::from_millis(50), 0);
        loop {
            self.cost.count(|counters| &counters.requests, 1);
            match self.read_directly(range).await {
                Ok(bytes) => return Ok(turn.brought(bytes)),
                Err(error @ RemoteError::WrongAnswer { .. }) => {
                    self.cost.count(|counters| &counters.responses_refused, 1);
                    wrong += 1;
                    if wrong >= WRONG_ANSWERS {
                        return Err(error.into());
                    }
                }
                Err(error) if error.is_transient() => {}
                Err(error) => return Err(error.into()),
            }
            // The caller's deadline ends this.
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// The hash of a content that is small enough to be checked whole.
    fn expected(&self) -> Option<Sha256> {
        self.key.hash.sha256().filter(|_| self.is_small())
    }

    /// What has to be asked for to check what comes.
    fn asked_around_the_cache(&self, range: ByteRange) -> ByteRange {
        match (self.expected(), &self.key.blocks) {
            (Some(_), _) => ByteRange::new(0, self.key.size),
            (None, Some(_)) => LeafRange::covering(range).bytes(self.key.size),
            (None, None) => range,
        }
    }

    async fn read_directly(&self, range: ByteRange) -> Result<Bytes, RemoteError> {
        let remote = &self.fetcher.remote;
        let expected = self.expected();
        let checked = self.asked_around_the_cache(range);
        let mut body = remote.open_range(&self.key, checked).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(checked.len()).unwrap_or(0));
        while let Some(piece) = body.next().await? {
            self.cost.count(|counters| &counters.bytes_fetched, piece.len() as u64);
            if body.is_proven() {
                self.cost.count(|counters| &counters.bytes_proven, piece.len() as u64);
            }
            bytes.extend_from_slice(&piece);
        }
        if expected.is_some_and(|expected| expected != Sha256::of(&bytes)) {
            return Err(remote.altered(&self.key.path));
        }
        let at = |place: u64| usize::try_from(place - checked.start).unwrap_or(usize::MAX);
        Ok(bytes.freeze().slice(at(range.start)..at(range.end)))
    }
}
