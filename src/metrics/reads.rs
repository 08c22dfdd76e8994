//! What reading has cost: kept for a mount as a whole and for each file.

use serde_json::{Map, Value};

use super::Counter;

/// Requests, bytes and waits of reading.
#[derive(Debug, Default)]
pub struct ReadCounters {
    /// HTTP requests sent, repeats included.
    pub requests: Counter,
    /// Content bytes received from the remote.
    pub bytes_fetched: Counter,
    /// Of these, bytes proven by block hashes before they were used.
    pub bytes_proven: Counter,
    /// Reads answered.
    pub reads: Counter,
    /// Bytes handed to readers; what the kernel reads by itself, from its pages or by passthrough, is not seen.
    pub bytes_read: Counter,
    /// Bytes handed to readers that were in the cache when asked for.
    pub bytes_from_cache: Counter,
    /// Bytes asked for ahead of readers.
    pub bytes_ahead: Counter,
    /// Of these, bytes that readers came for.
    pub bytes_ahead_read: Counter,
    /// Reads that had to wait for the remote.
    pub waits: Counter,
    /// How long they waited together, in microseconds.
    pub waited_micros: Counter,
    /// Cached blocks found rotten and dropped.
    pub blocks_rotten: Counter,
    /// Responses refused because they were not what was asked for.
    pub responses_refused: Counter,
}

impl ReadCounters {
    /// The counters by name.
    pub fn to_map(&self) -> Map<String, Value> {
        let all = [
            ("requests", &self.requests),
            ("bytesFetched", &self.bytes_fetched),
            ("bytesProven", &self.bytes_proven),
            ("reads", &self.reads),
            ("bytesRead", &self.bytes_read),
            ("bytesFromCache", &self.bytes_from_cache),
            ("bytesAhead", &self.bytes_ahead),
            ("bytesAheadRead", &self.bytes_ahead_read),
            ("waits", &self.waits),
            ("waitedMicros", &self.waited_micros),
            ("blocksRotten", &self.blocks_rotten),
            ("responsesRefused", &self.responses_refused),
        ];
        all.into_iter().map(|(name, counter)| (name.to_owned(), counter.get().into())).collect()
    }
}
