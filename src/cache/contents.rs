//! The cache's directory: finding a content's files, and keeping the whole within its limit.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};
use std::time::SystemTime;

use lru::LruCache;

use super::CachedContent;
use crate::model::{ContentHash, Sha256};

/// Contents kept open although nobody reads them now: each holds two descriptors.
const KEPT_OPEN: usize = 256;
/// Larger contents are not cached: the table of their blocks stays in memory, and a manifest may claim any size.
const LARGEST: u64 = 1 << 40;
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

type Key = (Scope, ContentHash);

/// A cache directory.
pub struct Cache {
    root: PathBuf,
    limit: u64,
    open: Mutex<Open>,
    used: Mutex<u64>,
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
            used: Mutex::new(used),
        })
    }

    /// The cached part of a content of `size` bytes, made empty if there is none. Fails where its files cannot be
    /// opened or it is larger than what is cached at all.
    pub fn content(&self, scope: &Scope, hash: &ContentHash, size: u64) -> io::Result<Arc<CachedContent>> {
        if size > LARGEST {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let key = (scope.clone(), *hash);
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        if let Some(content) = open.all.get(&key).and_then(Weak::upgrade) {
            open.recent.put(key, content.clone());
            return Ok(content);
        }
        let path = self.path(scope, hash);
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
    /// then read without being kept.
    pub fn reserve(&self, bytes: u64) -> bool {
        let mut used = self.used.lock().unwrap_or_else(|e| e.into_inner());
        if *used + bytes > self.limit {
            let freed =
                self.evict((*used + bytes - self.limit).saturating_add(FREE_AHEAD.min(self.limit / 8)));
            *used = used.saturating_sub(freed);
        }
        if *used + bytes > self.limit {
            return false;
        }
        *used += bytes;
        true
    }

    /// Removes contents nobody here reads, least recently used first, until `wanted` bytes are free. Another
    /// process that has one open goes on reading it: removing a name takes nothing from who holds the file.
    fn evict(&self, wanted: u64) -> u64 {
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        open.recent.clear();
        let in_use: Vec<PathBuf> = open
            .all
            .iter()
            .filter(|(_, content)| content.strong_count() > 0)
            .map(|((scope, hash), _)| self.path(scope, hash))
            .collect();
        let mut contents: HashMap<PathBuf, (u64, SystemTime)> = HashMap::new();
        for file in stored_files(&self.root) {
            let content = contents.entry(file.path.with_extension("")).or_insert((0, SystemTime::UNIX_EPOCH));
            content.0 += file.bytes;
            if file.path.extension().is_some_and(|extension| extension == "slots") {
                content.1 = file.used;
            }
        }
        let mut oldest: Vec<_> = contents.into_iter().filter(|(path, _)| !in_use.contains(path)).collect();
        oldest.sort_by_key(|(_, (_, used))| *used);
        let mut freed = 0;
        for (path, (bytes, _)) in oldest {
            if freed >= wanted {
                break;
            }
            // Slots first: bytes without slots are nothing, slots without bytes would be a lie.
            let removed = ["slots", "data"].map(|extension| fs::remove_file(path.with_extension(extension)));
            if removed.iter().any(Result::is_ok) {
                freed += bytes;
            }
        }
        freed
    }

    fn path(&self, scope: &Scope, hash: &ContentHash) -> PathBuf {
        let digits = hash.to_string();
        self.root.join(&scope.0).join(&digits[..2]).join(digits)
    }
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
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert!(cache.reserve(4 * BLOCK), "room is made");
        assert!(cache.content(&scope, &hash(0), 2 * BLOCK).unwrap().has(0), "the open one stays");
        assert!(!cache.content(&scope, &hash(1), 2 * BLOCK).unwrap().has(0), "the oldest unused went");
        assert!(!cache.reserve(100 * BLOCK), "more than the limit never fits");
        let range = ByteRange::new(0, 2 * BLOCK);
        assert!(matches!(held.unwrap().read(range).unwrap(), crate::cache::Look::Hit(_)));
    }
}
