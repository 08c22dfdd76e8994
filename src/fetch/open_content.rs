//! Reading one content: from the cache at once, or by joining and starting flights that bring what is missing.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::flight::Flights;
use super::{FetchError, Fetcher, Readahead};
use crate::cache::{BlockRange, CachedContent, Look};
use crate::model::ByteRange;
use crate::remote::ContentKey;

/// A content up to this size is fetched whole at the first read: one request instead of several.
pub(super) const WHOLE: u64 = 1 << 20;
/// What could not be had just before is not waited for once more: for what it reads through its own pages, the kernel
/// answers a failure by asking a second time at once.
const JUST_BEFORE: Duration = Duration::from_millis(300);

/// A content that is being read by one of its paths. Whatever path they came by, all its readers share what is
/// cached and under way; the path counts, for another one may name something else by now.
pub struct OpenContent {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) key: ContentKey,
    /// Nothing where the cache has no place for it: then every read goes around the cache.
    pub(super) cached: Option<Arc<CachedContent>>,
    flights: Arc<Flights>,
    unanswered: Mutex<Vec<Unanswered>>,
}

/// A read that waited in vain.
struct Unanswered {
    range: ByteRange,
    ended: Instant,
    error: FetchError,
}

/// Whether somebody waits for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Demand,
    Ahead,
}

impl OpenContent {
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        key: ContentKey,
        cached: Option<Arc<CachedContent>>,
        flights: Arc<Flights>,
    ) -> Self {
        Self { fetcher, key, cached, flights, unanswered: Mutex::default() }
    }

    /// The part of `offset..offset + length` that lies inside the content.
    fn clamp(&self, offset: u64, length: u64) -> ByteRange {
        ByteRange::new(offset.min(self.key.size), offset.saturating_add(length).min(self.key.size))
    }

    /// What the cache has, without waiting for anything but the disk; `None` where something is missing.
    pub fn read_cached(&self, offset: u64, length: u64) -> Option<Bytes> {
        let range = self.clamp(offset, length);
        if range.is_empty() {
            return Some(Bytes::new());
        }
        let bytes = self.look(range)?;
        self.fetcher.counters.bytes_read.add(range.len());
        self.fetcher.counters.bytes_from_cache.add(range.len());
        Some(bytes)
    }

    fn look(&self, range: ByteRange) -> Option<Bytes> {
        match self.cached.as_ref()?.read(range) {
            Ok(Look::Hit(bytes)) => Some(bytes),
            Ok(Look::Miss) => None,
            Ok(Look::Rotten(blocks)) => {
                tracing::warn!(path = %self.key.path, blocks, "cached blocks have rotted: fetching them again");
                self.fetcher.counters.blocks_rotten.add(blocks);
                None
            }
            Err(error) => {
                tracing::warn!(path = %self.key.path, %error, "the cache cannot be read: fetching again");
                None
            }
        }
    }

    /// Reads bytes that lie inside the content, from the cache or the remote, all of them or an error, within the
    /// deadline. Past the end there are none.
    pub async fn read(self: &Arc<Self>, offset: u64, length: u64) -> Result<Bytes, FetchError> {
        let range = self.clamp(offset, length);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if let Some(error) = self.failed_just_before(range) {
            return Err(error);
        }
        let deadline = self.fetcher.options.deadline;
        let late = |_| FetchError::Unreachable(format!("no bytes came for {} s", deadline.as_secs_f32()));
        let read = tokio::time::timeout(deadline, self.read_patiently(range)).await.map_err(late);
        match read.and_then(|read| read) {
            Ok(bytes) => {
                self.fetcher.counters.bytes_read.add(range.len());
                Ok(bytes)
            }
            Err(error) => {
                if matches!(error, FetchError::Unreachable(_)) {
                    let failure = Unanswered { range, ended: Instant::now(), error: error.clone() };
                    self.unanswered.lock().unwrap_or_else(|e| e.into_inner()).push(failure);
                }
                Err(error)
            }
        }
    }

    /// The failure of a read that waited for the first of these bytes and ended just now. Told once: whoever asks
    /// again is served anew.
    fn failed_just_before(&self, range: ByteRange) -> Option<FetchError> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(|e| e.into_inner());
        unanswered.retain(|failure| failure.ended.elapsed() < JUST_BEFORE);
        let again = |failure: &Unanswered| (failure.range.start..failure.range.end).contains(&range.start);
        let at = unanswered.iter().position(again)?;
        Some(unanswered.swap_remove(at).error)
    }

    async fn read_patiently(self: &Arc<Self>, range: ByteRange) -> Result<Bytes, FetchError> {
        // A second round finds what rotted between storing and reading; after that the cache is not trusted.
        let rounds = if self.cached.is_some() { 2 } else { 0 };
        for _ in 0..rounds {
            self.bring(range, Need::Demand).await?;
            if let Some(bytes) = self.look(range) {
                return Ok(bytes);
            }
        }
        self.read_around_the_cache(range).await
    }

    /// Fetches ahead of a reader what `readahead` suggests after a read. Nobody waits for it.
    pub fn read_ahead(self: &Arc<Self>, readahead: &mut Readahead, offset: u64, length: u64) {
        let range = self.clamp(offset, length);
        let Some(ahead) = readahead.after(range, self.key.size).filter(|_| self.cached.is_some()) else {
            return;
        };
        // Without a turn at once it is left: a reader would wait for a flight that has not begun.
        let Ok(turn) = self.fetcher.ahead.clone().try_acquire_owned() else { return };
        let content = self.clone();
        self.fetcher.runtime.spawn(async move {
            let _turn = turn;
            if let Err(error) = content.bring(ahead, Need::Ahead).await {
                tracing::debug!(path = %content.key.path, %error, "nothing was read ahead");
            }
        });
    }

    /// Makes sure the blocks of `range` are cached, or were tried.
    async fn bring(self: &Arc<Self>, range: ByteRange, need: Need) -> Result<(), FetchError> {
        let Some(cached) = &self.cached else { return Ok(()) };
        let range = if self.key.size <= WHOLE { ByteRange::new(0, self.key.size) } else { range };
        let wanted = BlockRange::covering(range);
        let mut others_failed = self.join_flights(cached, wanted, need).await?;
        if others_failed {
            // Flights by another path with the same content, which was replaced: now there are our own.
            others_failed = self.join_flights(cached, wanted, need).await?;
        }
        if others_failed { Err(FetchError::Stale) } else { Ok(()) }
    }

    /// Joins what is under way for `wanted` and starts the rest. `true`: somebody else's flight found its version
    /// gone.
    async fn join_flights(
        self: &Arc<Self>,
        cached: &Arc<CachedContent>,
        wanted: BlockRange,
        need: Need,
    ) -> Result<bool, FetchError> {
        let (under_way, started) = self.flights.join(wanted, |block| cached.has(block));
        let own: Vec<_> = started.iter().map(|landing| landing.flight.clone()).collect();
        for landing in started {
            let (content, cached) = (self.clone(), cached.clone());
            // A task of its own: a reader that goes away does not take the bytes from others who joined.
            self.fetcher.runtime.spawn(async move {
                let result = content.fly(&cached, &landing, need).await;
                if let Err(error) = &result {
                    tracing::warn!(path = %content.key.path, %error, "bytes could not be fetched");
                }
                landing.land(result);
            });
        }
        for flight in own {
            flight.reaches(wanted.end.min(flight.blocks.end)).await?;
        }
        let mut others_failed = false;
        for flight in under_way {
            match flight.reaches(wanted.end.min(flight.blocks.end)).await {
                Err(FetchError::Stale) => others_failed = true,
                reached => reached?,
            }
        }
        Ok(others_failed)
    }
}
