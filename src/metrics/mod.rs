//! What is counted, by name. Numbers only: no clock, no exporter.

mod reads;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

pub use reads::ReadCounters;

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

/// A number that grows and shrinks.
#[derive(Debug, Default)]
pub struct Gauge {
    now: AtomicU64,
    most: AtomicU64,
}

impl Gauge {
    /// Adds `n`.
    pub fn add(&self, n: u64) {
        let now = self.now.fetch_add(n, Ordering::Relaxed) + n;
        self.most.fetch_max(now, Ordering::Relaxed);
    }

    /// Takes off `n` that was added.
    pub fn take_off(&self, n: u64) {
        self.now.fetch_sub(n, Ordering::Relaxed);
    }

    /// The number now.
    pub fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// The most it ever was.
    pub fn most(&self) -> u64 {
        self.most.load(Ordering::Relaxed)
    }
}

/// What one mount has done since it started. Shown through the `user.parquedb.stats` attribute.
#[derive(Debug, Default)]
pub struct MountCounters {
    /// Reading, of all files; the request for the manifest is counted here too.
    pub reads: ReadCounters,
    /// Times the remote was asked for news; not among the requests.
    pub polls: Counter,
    /// Times the mount moved to another revision.
    pub flips: Counter,
    /// Bytes of its memory budget that are handed out.
    pub memory: Gauge,
    /// Times somebody had to wait for memory.
    pub memory_waits: Counter,
    /// Bytes that went from the cache to make room.
    pub bytes_evicted: Arc<Counter>,
}

impl MountCounters {
    /// The counters as one line of JSON.
    pub fn to_json(&self) -> String {
        let mut all = self.reads.to_map();
        all.insert("polls".into(), self.polls.get().into());
        all.insert("flips".into(), self.flips.get().into());
        all.insert("memoryInUse".into(), self.memory.now().into());
        all.insert("memoryMost".into(), self.memory.most().into());
        all.insert("memoryWaits".into(), self.memory_waits.get().into());
        all.insert("bytesEvicted".into(), self.bytes_evicted.get().into());
        serde_json::Value::Object(all).to_string()
    }
}
