//! What all readers of one content share, whatever path and handle they came by: what is under way, where its column
//! chunks lie, what was fetched ahead and not read yet, and what it cost.

use std::collections::{HashMap, HashSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use lru::LruCache;
use serde_json::{Value, json};

use super::flight::Flights;
use super::memory::Share;
use crate::cache::BlockRange;
use crate::metrics::{Counter, MountCounters, ReadCounters};
use crate::model::ContentHash;
use crate::rows::ChunkMap;

/// Contents remembered after their last reader closed them: engines open a file again for each query.
const REMEMBERED: usize = 256;

/// Opens of one content whose cost is remembered.
const OPENS: usize = 8;

/// A content that turned out wrong when it was complete is not asked for again for so long: its readers would be shown
/// the same bytes once more.
const WRONG_FOR: Duration = Duration::from_secs(60);

/// A content by hash and size: two entries may claim one hash and different sizes, and one of them lies.
type ContentId = (ContentHash, u64);

/// What a footer says, and the memory for it.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) map: ChunkMap,
    pub(super) _share: Share,
}

/// One content's shared state.
#[derive(Debug, Default)]
pub(super) struct SharedContent {
    pub(super) flights: Arc<Flights>,
    /// Nothing inside: it has none we can read.
    pub(super) chunks: OnceLock<Option<Kept>>,
    /// Blocks fetched ahead that no reader came for yet.
    unread: Mutex<HashSet<u64>>,
    counters: ReadCounters,
    wrong_since: Mutex<Option<Instant>>,
    readers: AtomicUsize,
    /// All of it was read and found right since we started: the kernel may read it without checksums,
    /// as it may where the cache says so of another process.
    pub(super) trusted: AtomicBool,
    /// What each of the last opens has cost, the latest last.
    opens: Mutex<VecDeque<Arc<ReadCounters>>>,
}

impl SharedContent {
    /// The column chunks, once they are known.
    pub(super) fn chunk_map(&self) -> Option<&ChunkMap> {
        Some(&self.chunks.get()?.as_ref()?.map)
    }

    /// Notes that blocks are being fetched which nobody asked for.
    pub(super) fn fetched_ahead(&self, blocks: BlockRange) {
        self.unread.lock().unwrap_or_else(|e| e.into_inner()).extend(blocks.start..blocks.end);
    }

    /// Notes that a reader came for blocks, and says how many of them had been fetched ahead.
    pub(super) fn came_for(&self, blocks: BlockRange) -> u64 {
        let mut unread = self.unread.lock().unwrap_or_else(|e| e.into_inner());
        if unread.is_empty() {
            return 0;
        }
        (blocks.start..blocks.end).map(|block| u64::from(unread.remove(&block))).sum()
    }

    /// Notes that all of it came, and was not what its hash says.
    pub(super) fn turned_out_wrong(&self) {
        *self.wrong_since.lock().unwrap_or_else(|e| e.into_inner()) = Some(Instant::now());
    }

    /// Whether that was just now.
    pub(super) fn is_wrong(&self) -> bool {
        let since = *self.wrong_since.lock().unwrap_or_else(|e| e.into_inner());
        since.is_some_and(|since| since.elapsed() < WRONG_FOR)
    }

    /// One more handle; the counters are its own.
    fn opened(&self) -> Arc<ReadCounters> {
        self.readers.fetch_add(1, Ordering::Relaxed);
        let counters = Arc::<ReadCounters>::default();
        let mut opens = self.opens.lock().unwrap_or_else(|e| e.into_inner());
        if opens.len() == OPENS {
            opens.pop_front();
        }
        opens.push_back(counters.clone());
        counters
    }

    /// What reading it has cost: in all, and by the last opens, the latest first.
    pub(super) fn cost(&self) -> Value {
        let opens = self.opens.lock().unwrap_or_else(|e| e.into_inner());
        let opens: Vec<_> = opens.iter().rev().map(|counters| counters.to_map()).collect();
        json!({"all": self.counters.to_map(), "opens": opens})
    }

    pub(super) fn closed(&self) {
        if self.readers.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.flights.desert();
        }
    }
}

/// All contents that are open, or were lately.
#[derive(Debug)]
pub(super) struct SharedContents {
    all: HashMap<ContentId, Weak<SharedContent>>,
    recent: LruCache<ContentId, Arc<SharedContent>>,
}

impl SharedContents {
    pub(super) fn new() -> Self {
        let capacity = NonZeroUsize::new(REMEMBERED).unwrap_or(NonZeroUsize::MIN);
        Self { all: HashMap::new(), recent: LruCache::new(capacity) }
    }

    /// The state of a content, made if there is none.
    pub(super) fn get(&mut self, id: ContentId) -> Arc<SharedContent> {
        let content = self.peek(&id).unwrap_or_default();
        if self.all.len() > 4 * REMEMBERED {
            self.all.retain(|_, content| content.strong_count() > 0);
        }
        self.all.insert(id, Arc::downgrade(&content));
        self.recent.put(id, content.clone());
        content
    }

    /// Forgets the content opened the longest ago that nobody has open and of which something is kept in memory.
    pub(super) fn forget_one(&mut self) -> Option<Arc<SharedContent>> {
        let is_idle =
            |content: &Arc<SharedContent>| Arc::strong_count(content) == 1 && content.chunk_map().is_some();
        let (oldest, _) = self.recent.iter().rev().find(|(_, content)| is_idle(content))?;
        let oldest = *oldest;
        self.recent.pop(&oldest)
    }

    /// The state of a content, if there is one.
    pub(super) fn peek(&self, id: &ContentId) -> Option<Arc<SharedContent>> {
        self.all.get(id).and_then(Weak::upgrade)
    }
}

/// One of the counters of reading.
type Which = fn(&ReadCounters) -> &Counter;

/// Who one open of a content costs: itself, the content, and the mount.
#[derive(Debug, Clone)]
pub(super) struct Cost {
    open: Arc<ReadCounters>,
    content: Arc<SharedContent>,
    mount: Arc<MountCounters>,
}

impl Cost {
    /// Begins the account of one more open.
    pub(super) fn of_open(content: &Arc<SharedContent>, mount: &Arc<MountCounters>) -> Self {
        Self { open: content.opened(), content: content.clone(), mount: mount.clone() }
    }

    /// The account of what is sent for before anyone opens it: no open's.
    pub(super) fn before_opens(content: &Arc<SharedContent>, mount: &Arc<MountCounters>) -> Self {
        content.readers.fetch_add(1, Ordering::Relaxed);
        Self { open: Arc::default(), content: content.clone(), mount: mount.clone() }
    }

    /// Counts for all of them.
    pub(super) fn count(&self, which: Which, n: u64) {
        for counters in [&*self.open, &self.content.counters, &self.mount.reads] {
            which(counters).add(n);
        }
    }
}
