//! Pins: contents that eviction leaves alone, in every process and after every restart. A pin is a file with the
//! content's name.

use std::fs::{self, File};
use std::io;

use super::layout::{Key, Layout, create_file};

/// Why a content was not pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// All that is pinned would not fit: it is refused now rather than dropped later (rule 25).
    #[error("pinning {asked} more bytes exceeds the cache's limit: {pinned} of {limit} bytes are pinned")]
    TooMuch {
        /// What was to be pinned.
        asked: u64,
        /// What is pinned already.
        pinned: u64,
        /// The most bytes the cache may take.
        limit: u64,
    },
    /// It cannot be written down.
    #[error("the pin cannot be written down")]
    Disk(#[from] io::Error),
}

/// Pins a content, unless with it more would be pinned than `limit`. `false`: it was pinned already.
pub(super) fn pin(layout: &Layout, key: &Key, limit: u64) -> Result<bool, PinError> {
    let all = File::open(layout.pins())?;
    // Two who pin at once would both find room. It is given back when `all` is closed.
    all.lock()?;
    if layout.pin(key).exists() {
        return Ok(false);
    }
    let pinned = pinned(layout)?.iter().map(|key| key.size).fold(0, u64::saturating_add);
    if pinned.saturating_add(key.size) > limit {
        return Err(PinError::TooMuch { asked: key.size, pinned, limit });
    }
    create_file(&layout.pin(key))?;
    all.sync_all()?;
    Ok(true)
}

/// Lets go of a content.
pub(super) fn unpin(layout: &Layout, key: &Key) -> io::Result<()> {
    match fs::remove_file(layout.pin(key)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// All that is pinned.
pub(super) fn pinned(layout: &Layout) -> io::Result<Vec<Key>> {
    let mut keys = Vec::new();
    for entry in fs::read_dir(layout.pins())? {
        keys.extend(entry?.file_name().to_str().and_then(Key::parse));
    }
    Ok(keys)
}
