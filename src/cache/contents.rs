//! The cache of one directory: its contents, opened once each, and room for more.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use super::evict::Eviction;
use super::layout::{Key, Layout};
use super::limits::{CacheOptions, Limits};
use super::pins::{self, PinError};
use super::room::{Reserved, Room};
use super::{CachedContent, Scope};
use crate::metrics::Counter;
use crate::model::ContentHash;

/// The largest content that is cached: sizes come from manifests, and a table of slots follows from them.
const MAX_SIZE: u64 = 1 << 43;
/// How long a cache in which nothing may go is left alone: in a small one, something may go soon.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// When the limit is reached, so much is freed beyond what is needed, so that the next write finds room: a part of
/// the limit, and no more than so many bytes.
const FREE_AHEAD: (u64, u64) = (32, 256 << 20);
/// How often room is made for one reservation: others may take it.
const ATTEMPTS: usize = 16;
/// Values of contents remembered before those that nobody uses are forgotten.
const REMEMBERED: usize = 1024;

/// The cache could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use '{path}' as a cache: {source}")]
pub struct CacheError {
    path: String,
    #[source]
    source: io::Error,
}

/// A cache directory. Any number of processes may have it open.
pub struct Cache {
    pub(super) layout: Arc<Layout>,
    pub(super) room: Arc<Room>,
    pub(super) limits: Limits,
    pub(super) eviction: Eviction,
    open: Mutex<HashMap<(Scope, Key), Weak<CachedContent>>>,
    /// Nothing could be evicted: until then it is not tried again.
    full_until: Mutex<Option<Instant>>,
}

impl Cache {
    /// Opens or makes the cache in `root`, for the owner alone. What caches of earlier formats left there is removed.
    pub fn open(root: &Path, options: CacheOptions) -> Result<Self, CacheError> {
        let failed = |source| CacheError { path: root.display().to_string(), source };
        let layout = Arc::new(Layout::open(root).map_err(failed)?);
        let room = Arc::new(Room::open(&layout));
        let limits = Limits::new(layout.root(), options, room.taken().unwrap_or(0));
        let sweeping = layout.clone();
        // If there is no thread to be had, the next who opens it sweeps.
        let _ = std::thread::Builder::new().name("cache-sweep".into()).spawn(move || sweeping.sweep());
        Ok(Self {
            layout,
            room,
            limits,
            eviction: Eviction::default(),
            open: Mutex::default(),
            full_until: Mutex::default(),
        })
    }

    /// The cached part of a content of `size` bytes. Blocks that are written belong to `scope` until the whole is
    /// verified.
    pub fn content(&self, scope: &Scope, hash: &ContentHash, size: u64) -> io::Result<Arc<CachedContent>> {
        if size > MAX_SIZE {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let key = Key { hash: *hash, size };
        let name = (scope.clone(), key);
        let known = |open: &HashMap<_, Weak<CachedContent>>| open.get(&name).and_then(Weak::upgrade);
        let lock = || self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(content) = known(&lock()) {
            return Ok(content);
        }
        // Files are opened without the lock: the disk may be slow.
        let opened =
            Arc::new(CachedContent::open(key, scope.clone(), self.layout.clone(), self.room.clone()));
        let mut open = lock();
        if let Some(content) = known(&open) {
            return Ok(content);
        }
        if open.len() >= REMEMBERED {
            open.retain(|_, content| content.strong_count() > 0);
        }
        open.insert(name, Arc::downgrade(&opened));
        Ok(opened)
    }

    /// Counts the bytes that this process has evicted to make room.
    pub fn evicted(&self) -> Arc<Counter> {
        self.eviction.evicted.clone()
    }

    /// Asks for room for `bytes` more. `false` means there is none and nothing that may be evicted: the bytes are
    /// then read without being kept. It may have to look through the whole cache, so it is not called where that
    /// would hold others up.
    pub fn reserve(&self, bytes: u64) -> bool {
        let full = || self.full_until.lock().unwrap_or_else(|e| e.into_inner());
        let is_full = full().is_some_and(|until| Instant::now() < until);
        for _ in 0..ATTEMPTS {
            let limit = self.limits.bytes();
            let on_disk = |bytes| self.limits.lacking_on_disk(bytes);
            let lacking = match self.room.reserve(bytes, limit, on_disk) {
                Reserved::Yes => return true,
                Reserved::No => return false,
                Reserved::Unknown => {
                    // Of several who learn this at once, one measures; the others find it done, and nothing evicted.
                    self.eviction.make_room(&self.layout, &self.room, 0);
                    continue;
                }
                Reserved::Lacking(lacking) => lacking,
            };
            if bytes > limit || is_full {
                return false;
            }
            let ahead = (limit / FREE_AHEAD.0).min(FREE_AHEAD.1);
            if !self.eviction.make_room(&self.layout, &self.room, lacking.saturating_add(ahead)) {
                break;
            }
        }
        *full() = Some(Instant::now() + LOOK_AGAIN);
        false
    }

    /// Gives back room that was reserved and not used.
    pub fn release(&self, bytes: u64) {
        self.room.settle(bytes, 0);
    }

    /// Keeps eviction from a content, also while it is not here, until it is unpinned. Refused if everything pinned
    /// would not fit. `false`: it was pinned already.
    pub fn pin(&self, hash: &ContentHash, size: u64) -> Result<bool, PinError> {
        pins::pin(&self.layout, &Key { hash: *hash, size }, self.limits.bytes())
    }

    /// Lets a content be evicted again.
    pub fn unpin(&self, hash: &ContentHash, size: u64) -> io::Result<()> {
        pins::unpin(&self.layout, &Key { hash: *hash, size })
    }

    /// Unpins everything, and says how many contents that were.
    pub fn unpin_all(&self) -> io::Result<usize> {
        let pinned = pins::pinned(&self.layout)?;
        pinned.iter().try_for_each(|key| pins::unpin(&self.layout, key))?;
        Ok(pinned.len())
    }

    /// The most bytes the cache may take.
    pub fn limit(&self) -> u64 {
        self.limits.bytes()
    }

    /// Sets the limit for all who were not given one; those who run take it up within a second or two.
    pub fn set_limit(&self, bytes: u64) -> io::Result<()> {
        self.limits.set(bytes)
    }
}
