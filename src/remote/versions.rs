//! How a plain web server tells versions of a file apart. ParqueDB servers tag a file with its SHA-256; others have tags
//! of their own (nginx: time and size), or a date. Such a tag names no content, but that two answers bear the same one
//! says that they are of one version: the first one seen under a path and content stands for it from then on.

use std::num::NonZeroUsize;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use lru::LruCache;
use reqwest::header::{ETAG, HeaderMap, LAST_MODIFIED};

use crate::model::{ContentHash, DbPath};

/// Files whose tags are remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(100_000).unwrap();

/// What is known of a host's tags.
#[derive(Debug)]
pub(super) struct HostVersions {
    /// It has shown a tag that is the content's hash.
    hashes: AtomicBool,
    /// It has shown one that is none.
    own: AtomicBool,
    seen: Mutex<LruCache<(DbPath, ContentHash), String>>,
}

impl Default for HostVersions {
    fn default() -> Self {
        Self {
            hashes: AtomicBool::new(false),
            own: AtomicBool::new(false),
            seen: Mutex::new(LruCache::new(REMEMBERED)),
        }
    }
}

impl HostVersions {
    /// The host has shown the very hash that was asked for.
    pub(super) fn is_a_hash(&self) {
        self.hashes.store(true, Ordering::Relaxed);
    }

    /// Whether nobody knows yet what the host's tags are.
    pub(super) fn are_unknown(&self) -> bool {
        !self.are_own() && !self.hashes.load(Ordering::Relaxed)
    }

    /// Whether the host has shown a tag that is no hash.
    pub(super) fn are_own(&self) -> bool {
        self.own.load(Ordering::Relaxed)
    }

    /// The tag to ask for, if one that may be asked for is known.
    pub(super) fn condition(&self, path: &DbPath, hash: ContentHash) -> Option<String> {
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        // A weak tag, or a date, matches nothing that must be the same byte for byte (RFC 9110, 13.1.1).
        seen.get(&(path.clone(), hash)).filter(|tag| tag.starts_with('"')).cloned()
    }

    /// Whether an answer may be of the version that stands for this content: it is, if it is the first one.
    pub(super) fn agree(&self, path: &DbPath, hash: ContentHash, headers: &HeaderMap) -> bool {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let Some(tag) = text(ETAG).or_else(|| text(LAST_MODIFIED)) else { return true };
        // A hash, and not the one that was asked for.
        if is_hash(tag) {
            return false;
        }
        self.own.store(true, Ordering::Relaxed);
        let mut seen = self.seen.lock().unwrap_or_else(|e| e.into_inner());
        *seen.get_or_insert((path.clone(), hash), || tag.to_owned()) == *tag
    }
}

fn is_hash(tag: &str) -> bool {
    let digits = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
    digits.is_some_and(|digits| digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderValue;

    use super::*;
    use crate::model::Sha256;

    #[test]
    fn the_first_version_seen_of_a_content_stands_for_it() {
        let versions = HostVersions::default();
        let path = |name: &str| DbPath::parse(name).unwrap();
        let hash = |n| ContentHash::Sha256(Sha256([n; 32]));
        let with = |name, tag: &str| HeaderMap::from_iter([(name, HeaderValue::from_str(tag).unwrap())]);
        let sha = format!("\"{}\"", Sha256([9; 32]));
        assert!(!versions.agree(&path("a"), hash(1), &with(ETAG, &sha)), "another content");
        assert!(!versions.are_own());
        assert!(versions.agree(&path("a"), hash(1), &with(ETAG, "\"5f-3e8\"")));
        assert!(versions.are_own());
        assert!(!versions.agree(&path("a"), hash(1), &with(ETAG, "\"60-3e8\"")), "it was replaced");
        assert_eq!(versions.condition(&path("a"), hash(1)).as_deref(), Some("\"5f-3e8\""));
        assert!(
            versions.agree(&path("a"), hash(2), &with(ETAG, "\"60-3e8\"")),
            "by what the manifest now names"
        );
        assert!(versions.agree(&path("b"), hash(1), &with(LAST_MODIFIED, "a date")));
        assert!(!versions.agree(&path("b"), hash(1), &with(LAST_MODIFIED, "another date")));
        assert_eq!(versions.condition(&path("b"), hash(1)), None, "a date is no condition");
        assert!(versions.agree(&path("c"), hash(1), &HeaderMap::new()), "the size and the hash are left");
    }
}
