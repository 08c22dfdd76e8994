//! Reading through the cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::flight::{Flights, Landing};
use super::{FetchError, Readahead};
use crate::cache::{BLOCK, BlockRange, Cache, CachedContent, Look, Scope};
use crate::metrics::MountCounters;
use crate::model::{ByteRange, ContentHash};
use crate::remote::{ContentKey, Remote, RemoteError};

/// A content up to this size is fetched whole at the first read: one request instead of several.
const WHOLE: u64 = 1 << 20;
/// Reads that someone waits for, under way at once.
const DEMANDS: usize = 32;
/// Reads ahead of anyone, under way at once: few, so that they never crowd out a reader.
const AHEAD: usize = 4;
/// How often a wrong answer is asked for again: it may be a proxy's passing fault.
const WRONG_ANSWERS: usize = 3;
/// What could not be had just before is not waited for once more: for what it reads through its own pages, the kernel
/// answers a failure by asking a second time at once.
const JUST_BEFORE: Duration = Duration::from_millis(300);
/// Blocks written to the cache at once.
const WRITE: usize = 8 * BLOCK as usize;

/// How patient reads are.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions {
    /// A read gives up after so long without what it needs.
    pub deadline: Duration,
}

/// Fetches the contents of one database.
pub struct Fetcher {
    remote: Remote,
    cache: Arc<Cache>,
    scope: Scope,
    options: FetchOptions,
    counters: Arc<MountCounters>,
    demands: Semaphore,
    ahead: Arc<Semaphore>,
    /// What is under way, one for all readers of a content.
    flights: Mutex<HashMap<(ContentHash, u64), Weak<Flights>>>,
    /// Where fetching happens; readers come from threads of their own.
    runtime: tokio::runtime::Handle,
}

/// A content that is being read by one of its paths. Whatever path they came by, all its readers share what is
/// cached and under way; the path counts, for another one may name something else by now.
pub struct OpenContent {
    fetcher: Arc<Fetcher>,
    key: ContentKey,
    /// Nothing where the cache has no place for it: then every read goes around the cache.
    cached: Option<Arc<CachedContent>>,
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
enum Need {
    Demand,
    Ahead,
}

impl Fetcher {
    /// A fetcher for the database that `scope` names in the cache. Called inside the runtime that will do the
    /// fetching.
    pub fn new(
        remote: Remote,
        cache: Arc<Cache>,
        scope: Scope,
        options: FetchOptions,
        counters: Arc<MountCounters>,
    ) -> Arc<Self> {
        Arc::new(Self {
            remote,
            cache,
            scope,
            options,
            counters,
            demands: Semaphore::new(DEMANDS),
            ahead: Arc::new(Semaphore::new(AHEAD)),
            flights: Mutex::default(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Opens a content, pinned to the version its key names.
    pub fn open(self: &Arc<Self>, key: &ContentKey) -> Arc<OpenContent> {
        let cached = self.cache.content(&self.scope, &key.hash, key.size);
        let cached = cached.map_err(|error| {
            tracing::warn!(path = %key.path, %error, "the cache has no place for this file: reading around it");
        });
        let mut all = self.flights.lock().unwrap_or_else(|e| e.into_inner());
        let flights = all.get(&(key.hash, key.size)).and_then(Weak::upgrade).unwrap_or_else(|| {
            let flights = Arc::default();
            all.retain(|_, flights| flights.strong_count() > 0);
            all.insert((key.hash, key.size), Arc::downgrade(&flights));
            flights
        });
        Arc::new(OpenContent {
            fetcher: self.clone(),
            key: key.clone(),
            cached: cached.ok(),
            flights,
            unanswered: Mutex::default(),
        })
    }
}

impl OpenContent {
    /// The content's size in bytes.
    pub fn size(&self) -> u64 {
        self.key.size
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

    /// Fetches one run of blocks into the cache, going on after passing faults from where they struck.
    async fn fly(&self, cached: &CachedContent, landing: &Landing, need: Need) -> Result<(), FetchError> {
        let fetcher = &self.fetcher;
        let stopping = |_| FetchError::Unreachable("the mount is stopping".into());
        // A flight ahead of its readers has its turn already.
        let _turn = match need {
            Need::Demand => Some(fetcher.demands.acquire().await.map_err(stopping)?),
            Need::Ahead => None,
        };
        let flight = &landing.flight;
        let room = flight.blocks.bytes(self.key.size).len();
        let cache = fetcher.cache.clone();
        let reserved = tokio::task::spawn_blocking(move || cache.reserve(room)).await.unwrap_or(false);
        if !reserved {
            // No room: the readers go around the cache.
            return Ok(());
        }
        let mut next = flight.blocks.start;
        let result = self.fly_from(cached, &mut next, landing).await;
        let unused = BlockRange { start: next, end: flight.blocks.end }.bytes(self.key.size).len();
        if unused > 0 {
            fetcher.cache.release(unused);
        }
        result
    }

    async fn fly_from(
        &self,
        cached: &CachedContent,
        next: &mut u64,
        landing: &Landing,
    ) -> Result<(), FetchError> {
        let (fetcher, flight) = (&self.fetcher, &landing.flight);
        let mut since = Instant::now();
        let (mut wait, mut wrong) = (Duration::from_millis(50), 0);
        loop {
            let before = *next;
            let error = match self
                .fetch_blocks(cached, next, flight.blocks.end, |block| flight.stored(block))
                .await
            {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if *next > before {
                (since, wait) = (Instant::now(), Duration::from_millis(50));
            }
            match &error {
                BlockError::Remote(RemoteError::WrongAnswer { .. }) => {
                    fetcher.counters.responses_refused.add(1);
                    wrong += 1;
                    if wrong >= WRONG_ANSWERS {
                        return Err(error.into());
                    }
                }
                BlockError::Remote(remote) if remote.is_transient() => {}
                // The cache cannot be written: the readers go around it.
                BlockError::Cache(error) => {
                    tracing::warn!(%error, "the cache cannot be written");
                    return Ok(());
                }
                BlockError::Remote(_) => return Err(error.into()),
            }
            if since.elapsed() + wait >= fetcher.options.deadline {
                return Err(error.into());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// One request for blocks `next..end`; `next` moves on as blocks are stored.
    async fn fetch_blocks(
        &self,
        cached: &CachedContent,
        next: &mut u64,
        end: u64,
        stored: impl Fn(u64),
    ) -> Result<(), BlockError> {
        let range = BlockRange { start: *next, end }.bytes(self.key.size);
        self.fetcher.counters.requests.add(1);
        let mut body = self.fetcher.remote.open_range(&self.key, range).await?;
        let mut pending = BytesMut::new();
        let mut left = range.len();
        loop {
            let piece = body.next().await?;
            if let Some(piece) = &piece {
                self.fetcher.counters.bytes_fetched.add(piece.len() as u64);
                left -= piece.len() as u64;
                pending.extend_from_slice(piece);
            }
            // Only whole blocks are stored, and the last ones once the answer has ended as it should: until then
            // there is something left to ask for again.
            let whole = match (&piece, left) {
                (None, _) => pending.len(),
                (Some(_), 0) => 0,
                (Some(_), _) => pending.len() - pending.len() % BLOCK as usize,
            };
            if whole >= WRITE || (piece.is_none() && whole > 0) {
                let bytes = pending.split_to(whole);
                cached.write(*next, &bytes).map_err(|error| BlockError::Cache(error.to_string()))?;
                *next += (whole as u64).div_ceil(BLOCK);
                stored(*next);
            }
            if piece.is_none() {
                return Ok(());
            }
        }
    }

    /// Reads straight from the remote, keeping nothing.
    async fn read_around_the_cache(&self, range: ByteRange) -> Result<Bytes, FetchError> {
        let mut wait = Duration::from_millis(50);
        loop {
            self.fetcher.counters.requests.add(1);
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
            self.fetcher.counters.bytes_fetched.add(piece.len() as u64);
            bytes.extend_from_slice(&piece);
        }
        Ok(bytes.freeze())
    }
}

enum BlockError {
    Remote(RemoteError),
    Cache(String),
}

impl From<RemoteError> for BlockError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl From<BlockError> for FetchError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Remote(error) => error.into(),
            BlockError::Cache(text) => Self::Cache(text),
        }
    }
}
