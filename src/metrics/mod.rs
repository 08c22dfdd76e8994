//! What is counted, by name. Counters only: no clock, no exporter.

use std::sync::atomic::{AtomicU64, Ordering};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What one mount has done since it started. Shown through the `user.parquedb.stats` attribute.
#[derive(Debug, Default)]
pub struct MountCounters {
    /// HTTP requests sent, repeats and the manifest's included.
    pub requests: Counter,
    /// Times the remote was asked for news; not among the requests.
    pub polls: Counter,
    /// Times the mount moved to another revision.
    pub flips: Counter,
    /// Content bytes received from the remote.
    pub bytes_fetched: Counter,
    /// Bytes handed to readers.
    pub bytes_read: Counter,
    /// Bytes handed to readers that were in the cache when asked for.
    pub bytes_from_cache: Counter,
    /// Cached blocks found rotten and dropped.
    pub blocks_rotten: Counter,
    /// Responses refused because they were not what was asked for.
    pub responses_refused: Counter,
}

impl MountCounters {
    /// The counters as one line of JSON.
    pub fn to_json(&self) -> String {
        serde_json::json!({
            "requests": self.requests.get(),
            "polls": self.polls.get(),
            "flips": self.flips.get(),
            "bytesFetched": self.bytes_fetched.get(),
            "bytesRead": self.bytes_read.get(),
            "bytesFromCache": self.bytes_from_cache.get(),
            "blocksRotten": self.blocks_rotten.get(),
            "responsesRefused": self.responses_refused.get(),
        })
        .to_string()
    }
}
