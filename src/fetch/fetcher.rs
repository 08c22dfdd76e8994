//! What fetches the contents of one database, for all who read them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::memory::{Memory, MemoryBudget, Share};
use super::shared::{Cost, SharedContent, SharedContents};
use super::traffic::Traffic;
use super::{FetchError, OpenContent};
use crate::cache::{Cache, CachedContent, Scope};
use crate::metrics::MountCounters;
use crate::model::ContentHash;
use crate::remote::{ContentKey, Remote};

/// Connections wanted before anything was opened: a file's end comes over as many.
const FIRST_OPEN: usize = 2;
/// A remote that gave no proof is taken to give none for so long.
const UNPROVEN_FOR: Duration = Duration::from_secs(30);
/// Whole contents checked against their hash at once.
const VERIFICATIONS: usize = 2;

/// How patient reads are, and how much memory they may take.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions {
    /// A read gives up after so long without what it needs.
    pub deadline: Duration,
    /// What all of them together may take.
    pub memory: MemoryBudget,
}

/// Fetches the contents of one database.
pub struct Fetcher {
    pub(super) remote: Remote,
    pub(super) cache: Arc<Cache>,
    scope: Scope,
    pub(super) options: FetchOptions,
    pub(super) counters: Arc<MountCounters>,
    pub(super) memory: Arc<Memory>,
    pub(super) traffic: Traffic,
    contents: Mutex<SharedContents>,
    /// Those who may want something fetched ahead, in turn.
    pub(super) hungry: Mutex<Vec<Weak<OpenContent>>>,
    /// Checks of whole contents under way.
    pub(super) verifications: Semaphore,
    /// When an answer that could have come with a proof came without, if that was the last such answer.
    unproven: Mutex<Option<Instant>>,
    /// Set at the end: checks stop, and are done again after the next start.
    pub(super) stopped: Arc<AtomicBool>,
    /// Where fetching happens; readers come from threads of their own.
    pub(super) runtime: tokio::runtime::Handle,
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
        let memory = Arc::new(Memory::new(options.memory, &counters));
        let traffic = Traffic::new(memory.clone());
        // A first answer took one round trip for its connection and one for itself.
        if let Some(quickest) = remote.quickest() {
            traffic.answered(quickest / 2);
        }
        Arc::new(Self {
            remote,
            cache,
            scope,
            options,
            counters,
            traffic,
            memory,
            contents: Mutex::new(SharedContents::new()),
            hungry: Mutex::default(),
            verifications: Semaphore::new(VERIFICATIONS),
            unproven: Mutex::default(),
            stopped: Arc::default(),
            runtime: tokio::runtime::Handle::current(),
        })
    }

    /// Makes connections for what is about to begin: the first file that is opened need not wait for them.
    pub fn make_ready(&self) {
        self.get_ready(FIRST_OPEN);
    }

    /// Opens a content, pinned to the version its key names, and sends for what every reader of it will need first.
    pub fn open(self: &Arc<Self>, key: &ContentKey) -> Arc<OpenContent> {
        let (cached, shared) = self.places(key);
        let cost = Cost::of_open(&shared, &self.counters);
        let content = Arc::new(OpenContent::new(self.clone(), key.clone(), cached, shared, cost));
        if let Some(cached) = &content.cached {
            cached.called(key.path.as_str());
            content.flying(cached).verify();
        }
        content.look_at_the_end();
        content
    }

    /// Notes whether an answer that could have come with a proof did.
    pub(super) fn was_answered(&self, proven: bool) {
        *self.unproven.lock().unwrap_or_else(|e| e.into_inner()) = (!proven).then(Instant::now);
    }

    /// Whether the remote proves what it can. Where it does not there is no use in asking for all that a proof would be
    /// for; but now and then it is tried again.
    pub(super) fn proves(&self) -> bool {
        let since = *self.unproven.lock().unwrap_or_else(|e| e.into_inner());
        since.is_none_or(|since| since.elapsed() > UNPROVEN_FOR)
    }

    /// Where a content is cached, if the cache has a place for it, and what its readers share.
    pub(super) fn places(&self, key: &ContentKey) -> (Option<Arc<CachedContent>>, Arc<SharedContent>) {
        let cached = self.cache.content(&self.scope, &key.hash, key.size);
        let cached = cached.map_err(|error| {
            tracing::warn!(path = %key.path, %error, "the cache has no place for this file: reading around it");
        });
        let shared = self.contents.lock().unwrap_or_else(|e| e.into_inner()).get((key.hash, key.size));
        (cached.ok(), shared)
    }

    /// Has connections ready for `wanted` requests at once.
    pub(super) fn get_ready(&self, wanted: usize) {
        let missing = self.traffic.missing(wanted);
        tracing::trace!(wanted, missing, "connections");
        if missing == 0 {
            return;
        }
        let remote = self.remote.clone();
        self.runtime.spawn(async move {
            for _ in 0..missing {
                let remote = remote.clone();
                tokio::spawn(async move { remote.dial().await });
                // Dozens of them take a while, and what is asked for now does not wait for them.
                tokio::task::yield_now().await;
            }
        });
    }

    /// Memory for what a footer says. Contents that nobody has open are forgotten for it, the ones opened the longest
    /// ago first.
    pub(super) fn share_for_footer(&self, bytes: u64) -> Option<Share> {
        loop {
            if let Some(share) = self.memory.footers.share_now(bytes) {
                return Some(share);
            }
            if bytes > self.memory.footers.all() {
                return None;
            }
            let forgotten = self.contents.lock().unwrap_or_else(|e| e.into_inner()).forget_one();
            forgotten?;
        }
    }

    /// What reading a content has cost so far, in all and by the last times it was opened, as one line of JSON; nothing
    /// if it was not opened lately.
    pub fn cost(&self, hash: &ContentHash, size: u64) -> Option<String> {
        let shared = self.contents.lock().unwrap_or_else(|e| e.into_inner()).peek(&(*hash, size))?;
        Some(shared.cost().to_string())
    }

    /// The mount ends: what only the next start would profit from is given up.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// What [`stop`](Self::stop) sets.
    pub fn stopping(&self) -> Arc<AtomicBool> {
        self.stopped.clone()
    }

    pub(super) fn ended<E>(_: E) -> FetchError {
        FetchError::Unreachable("the mount is stopping".into())
    }
}
