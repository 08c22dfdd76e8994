//! How large the cache may become: bytes, and what stays free on its disk.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::disk::{Readers, replace_file, room};

/// The most bytes the cache takes where nobody says otherwise.
pub const DEFAULT_LIMIT: u64 = 10_000_000_000;
/// How long a limit that was read is believed.
const BELIEVED: Duration = Duration::from_secs(1);

/// How a cache is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct CacheOptions {
    /// The most bytes it may take on disk; without it what `parquedb cache limit` has set, or [`DEFAULT_LIMIT`].
    pub limit: Option<u64>,
    /// What stays free on its disk; without it the larger of 5 % of the disk and 1 GiB, but never more than half of
    /// what is free, or would be with an empty cache, when the cache is opened.
    pub min_free: Option<u64>,
}

/// The limits of one cache directory in one process.
#[derive(Debug)]
pub(super) struct Limits {
    root: PathBuf,
    flag: Option<u64>,
    min_free: u64,
    set: Mutex<Option<(Instant, u64)>>,
}

impl Limits {
    /// `taken` is what the cache takes now.
    pub(super) fn new(root: &Path, options: CacheOptions, taken: u64) -> Self {
        let (free, size) = room(root).unwrap_or_default();
        let usual = (size / 20).max(1 << 30).min(free.saturating_add(taken) / 2);
        let min_free = options.min_free.unwrap_or(usual);
        Self { root: root.to_owned(), flag: options.limit, min_free, set: Mutex::default() }
    }

    /// The most bytes the cache may take now.
    pub(super) fn bytes(&self) -> u64 {
        self.flag.unwrap_or_else(|| {
            let mut set = self.set.lock().unwrap_or_else(|e| e.into_inner());
            match *set {
                Some((read, limit)) if read.elapsed() < BELIEVED => limit,
                _ => {
                    let limit = read_limit(&self.root).unwrap_or(DEFAULT_LIMIT);
                    *set = Some((Instant::now(), limit));
                    limit
                }
            }
        })
    }

    /// How much more must go for `bytes` to leave free what has to stay free.
    pub(super) fn lacking_on_disk(&self, bytes: u64) -> u64 {
        match room(&self.root) {
            Ok((free, _)) => bytes.saturating_add(self.min_free).saturating_sub(free),
            // The write will tell.
            Err(_) => 0,
        }
    }

    /// Sets the limit for all who were not given one.
    pub(super) fn set(&self, limit: u64) -> std::io::Result<()> {
        replace_file(&self.root.join("limit"), limit.to_string().as_bytes(), Readers::OwnerOnly)?;
        *self.set.lock().unwrap_or_else(|e| e.into_inner()) = None;
        Ok(())
    }
}

fn read_limit(root: &Path) -> Option<u64> {
    fs::read_to_string(root.join("limit")).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_comes_before_what_was_set_and_that_before_the_default() {
        let dir = tempfile::tempdir().unwrap();
        let limits = |limit| Limits::new(dir.path(), CacheOptions { limit, min_free: None }, 0);
        let unset = limits(None);
        assert_eq!(unset.bytes(), DEFAULT_LIMIT);
        unset.set(77).unwrap();
        assert_eq!((unset.bytes(), limits(None).bytes(), limits(Some(5)).bytes()), (77, 77, 5));
    }

    #[test]
    fn half_of_what_is_free_may_always_be_used() {
        let dir = tempfile::tempdir().unwrap();
        let (free, size) = room(dir.path()).unwrap();
        let limits = |min_free, taken| Limits::new(dir.path(), CacheOptions { limit: None, min_free }, taken);
        assert!(limits(None, 0).min_free <= free / 2 + (1 << 30));
        assert!(limits(None, u64::MAX).min_free >= size / 20);
        assert_eq!(limits(Some(3), 0).min_free, 3);
        assert_eq!(limits(Some(0), 0).lacking_on_disk(1), 0);
        assert!(limits(Some(u64::MAX), 0).lacking_on_disk(1) > 0);
    }
}
