//! The cache's directory: finding a content's files, and keeping the whole within its limit.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant, SystemTime};

use lru::LruCache;

use super::CachedContent;
use crate::model::{ContentHash, Sha256};

/// Contents kept open although nobody reads them now: each holds two descriptors.
const KEPT_OPEN: usize = 256;
/// The largest content that is cached: sizes come from manifests, and a table of slots follows from them.
const MAX_SIZE: u64 = 1 << 43;
/// The unit in which file systems give out space.
const FS_BLOCK: u64 = 4096;
/// How long a cache full of open contents is left alone.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// When the limit is reached, so much is freed beyond what is needed, so that the next write does not search
/// again.
const FREE_AHEAD: u64 = 64 << 20;

/// The cache could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot use '{path}' as a cache: {source}")]
pub struct CacheError {
    path: String,
    #[source]
    source: io::Error,
}

/// How a cache is kept.
#[derive(Debug, Clone, Copy)]
pub struct CacheOptions {
    /// The most bytes it may take on disk.
    pub limit: u64,
}

/// Whose bytes: one database of one origin.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Scope(String);

impl Scope {
    /// The scope of a database at an origin, for example `https://api.parque.db`.
    pub fn new(origin: &str, database_id: &str) -> Self {
        let digits = Sha256::of(format!("{origin}\n{database_id}").as_bytes()).to_string();
        Self(digits[..32].to_owned())
    }
}

/// The size belongs to it: two entries may claim one hash and different sizes, and one of them lies.
type Key = (Scope, ContentHash, u64);

/// A cache directory.
pub struct Cache {
    root: PathBuf,
    limit: u64,
    open: Mutex<Open>,
    usage: Mutex<Usage>,
}

struct Usage {
    /// Reserved since the last measurement, and what that measured.
    bytes: u64,
    /// Nothing could be evicted: until then it is not tried again.
    full_until: Option<Instant>,
}

struct Open {
    all: HashMap<Key, Weak<CachedContent>>,
    recent: LruCache<Key, Arc<CachedContent>>,
}

impl Cache {
    /// Opens or makes the cache in `root`, for the owner alone.
    pub fn open(root: &Path, options: CacheOptions) -> Result<Self, CacheError> {
        let failed = |source| CacheError { path: root.display().to_string(), source };
        let root_dir = root.join("blocks-1");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&root_dir).map_err(failed)?;
        let used = stored_files(&root_dir).iter().map(|file| file.bytes).sum();
        let capacity = NonZeroUsize::new(KEPT_OPEN).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            root: root_dir,
            limit: options.limit,
            open: Mutex::new(Open { all: HashMap::new(), recent: LruCache::new(capacity) }),
            usage: Mutex::new(Usage { bytes: used, full_until: None }),
        })
    }

    /// The cached part of a content of `size` bytes, made empty if there is none.
    pub fn content(&self, scope: &Scope, hash: &ContentHash, size: u64) -> io::Result<Arc<CachedContent>> {
        if size > MAX_SIZE {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        let key = (scope.clone(), *hash, size);
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(content) = open.all.get(&key).and_then(Weak::upgrade) {
            open.recent.put(key, content.clone());
            return Ok(content);
        }
        let path = self.path(&key);
        if let Some(dir) = path.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        }
        let file = |path: PathBuf| {
            File::options().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
        };
        let slots = file(path.with_extension("slots"))?;
        // The slot file's time is the content's last use: eviction goes by it.
        slots.set_modified(SystemTime::now())?;
        let content = Arc::new(CachedContent::open(file(path.with_extension("data"))?, slots, size)?);
        open.all.insert(key.clone(), Arc::downgrade(&content));
        open.recent.put(key, content.clone());
        if open.all.len() > 4 * KEPT_OPEN {
            open.all.retain(|_, content| content.strong_count() > 0);
        }
        Ok(content)
    }

    /// Asks for room for `bytes` more. `false` means there is none and nothing that may be evicted: the bytes are
    /// then read without being kept. It may have to look through the whole cache, so it is not called where that
    /// would hold others up.
    pub fn reserve(&self, bytes: u64) -> bool {
        let bytes = on_disk(bytes);
        let mut usage = self.usage.lock().unwrap_or_else(|e| e.into_inner());
        if usage.bytes + bytes > self.limit {
            if usage.full_until.is_some_and(|until| Instant::now() < until) {
                return false;
            }
            let ahead = FREE_AHEAD.min(self.limit / 8);
            usage.bytes = self.evict_to(self.limit.saturating_sub(bytes.saturating_add(ahead)));
            usage.full_until = None;
        }
        if usage.bytes + bytes > self.limit {
            usage.full_until = Some(Instant::now() + LOOK_AGAIN);
            return false;
        }
        usage.bytes += bytes;
        true
    }

    /// Gives back room that was reserved and not used.
    pub fn release(&self, bytes: u64) {
        let mut usage = self.usage.lock().unwrap_or_else(|e| e.into_inner());
        usage.bytes = usage.bytes.saturating_sub(on_disk(bytes));
    }

    /// Removes contents nobody here reads, least recently used first, until all take no more than `target`
    /// bytes, and returns what they take then, measured. Another process that has one open goes on reading it:
    /// removing a name takes nothing from who holds the file.
    fn evict_to(&self, target: u64) -> u64 {
        let in_use: HashSet<PathBuf> = {
            let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
            open.recent.clear();
            open.all
                .iter()
                .filter(|(_, content)| content.strong_count() > 0)
                .map(|(key, _)| self.path(key))
                .collect()
        };
        let mut contents: HashMap<PathBuf, (u64, SystemTime)> = HashMap::new();
        let mut taken = 0;
        for file in stored_files(&self.root) {
            taken += file.bytes;
            let content = contents.entry(file.path.with_extension("")).or_insert((0, SystemTime::UNIX_EPOCH));
            content.0 += file.bytes;
            if file.path.extension().is_some_and(|extension| extension == "slots") {
                content.1 = file.used;
            }
        }
        let mut oldest: Vec<_> = contents.into_iter().filter(|(path, _)| !in_use.contains(path)).collect();
        oldest.sort_by_key(|(_, (_, used))| *used);
        for (path, (bytes, _)) in oldest {
            if taken <= target {
                break;
            }
            // Held while removing, so that nobody opens it meanwhile and writes into files without a name.
            let open = self.open.lock().unwrap_or_else(|e| e.into_inner());
            let opened = open.all.iter().any(|(key, c)| c.strong_count() > 0 && self.path(key) == path);
            if opened {
                continue;
            }
            // Slots first: bytes without slots are nothing, slots without bytes would be a lie.
            let removed = ["slots", "data"].map(|extension| fs::remove_file(path.with_extension(extension)));
            if removed.iter().any(Result::is_ok) {
                taken = taken.saturating_sub(bytes);
            }
        }
        taken
    }

    fn path(&self, (scope, hash, size): &Key) -> PathBuf {
        let digits = hash.to_string();
        self.root.join(&scope.0).join(&digits[..2]).join(format!("{digits}-{size}"))
    }
}

/// What bytes take on disk: whole pages, with a page for the slots.
fn on_disk(bytes: u64) -> u64 {
    bytes.div_ceil(FS_BLOCK).saturating_add(1).saturating_mul(FS_BLOCK)
}

struct StoredFile {
    path: PathBuf,
    bytes: u64,
    used: SystemTime,
}

fn stored_files(root: &Path) -> Vec<StoredFile> {
    let files = walkdir::WalkDir::new(root).into_iter().filter_map(Result::ok);
    files
        .filter_map(|entry| {
            let metadata = entry.metadata().ok().filter(fs::Metadata::is_file)?;
            let used = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            // Blocks of the file system, not the size: the files are sparse.
            Some(StoredFile { path: entry.into_path(), bytes: metadata.blocks() * 512, used })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::BLOCK;
    use crate::model::ByteRange;

    fn hash(n: u8) -> ContentHash {
        ContentHash::Sha256(Sha256([n; 32]))
    }

    #[test]
    fn rule_26_scopes_do_not_share_and_equal_contents_of_one_do() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::open(dir.path(), CacheOptions { limit: 1 << 30 }).unwrap();
        let (here, there) = (Scope::new("https://a", "db_1"), Scope::new("https://b", "db_1"));
        let one = cache.content(&here, &hash(1), 10).unwrap();
        one.write(0, &[7; 10]).unwrap();
        assert!(cache.content(&here, &hash(1), 10).unwrap().has(0));
        assert!(!cache.content(&there, &hash(1), 10).unwrap().has(0));
    }

    #[test]
    fn the_oldest_unused_content_makes_room_and_open_ones_stay() {
        let dir = tempfile::tempdir().unwrap();
        // Room for four contents of two blocks and what belongs to them, and a little more.
        let limit = 10 * BLOCK;
        let cache = Cache::open(dir.path(), CacheOptions { limit }).unwrap();
        let scope = Scope::new("https://a", "db_1");
        let mut held = None;
        for n in 0..4 {
            let content = cache.content(&scope, &hash(n), 2 * BLOCK).unwrap();
            assert!(cache.reserve(2 * BLOCK));
            content.write(0, &vec![n; 2 * BLOCK as usize]).unwrap();
            if n == 0 {
                held = Some(content);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(cache.reserve(4 * BLOCK), "room is made");
        assert!(cache.content(&scope, &hash(0), 2 * BLOCK).unwrap().has(0), "the open one stays");
        assert!(!cache.content(&scope, &hash(1), 2 * BLOCK).unwrap().has(0), "the oldest unused went");
        assert!(!cache.reserve(100 * BLOCK), "more than the limit never fits");
        let range = ByteRange::new(0, 2 * BLOCK);
        assert!(matches!(held.unwrap().read(range).unwrap(), crate::cache::Look::Hit(_)));
    }
}
