//! What fetches the contents of one database, for all who read them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::Semaphore;

use super::OpenContent;
use super::flight::Flights;
use crate::cache::{Cache, Scope};
use crate::metrics::MountCounters;
use crate::model::ContentHash;
use crate::remote::{ContentKey, Remote};

/// Reads that someone waits for, under way at once.
const DEMANDS: usize = 32;
/// Reads ahead of anyone, under way at once: few, so that they never crowd out a reader.
const AHEAD: usize = 4;

/// How patient reads are.
#[derive(Debug, Clone, Copy)]
pub struct FetchOptions {
    /// A read gives up after so long without what it needs.
    pub deadline: Duration,
}

/// Fetches the contents of one database.
pub struct Fetcher {
    pub(super) remote: Remote,
    pub(super) cache: Arc<Cache>,
    scope: Scope,
    pub(super) options: FetchOptions,
    pub(super) counters: Arc<MountCounters>,
    pub(super) demands: Semaphore,
    pub(super) ahead: Arc<Semaphore>,
    /// What is under way, one for all readers of a content.
    flights: Mutex<HashMap<(ContentHash, u64), Weak<Flights>>>,
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
        let content = OpenContent::new(self.clone(), key.clone(), cached.ok(), flights);
        if let Some(cached) = &content.cached {
            cached.called(key.path.as_str());
            content.verify(cached);
        }
        Arc::new(content)
    }
}
