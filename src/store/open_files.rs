//! Contents of a store in a directory that were read a moment ago, still open: readers come with one range after the
//! other, and finding a file by its path costs as much as reading a small range of it.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use lru::LruCache;

use super::condemned::StoredContent;

/// Files kept open for each database.
const OPEN: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// After so long a file is opened anew: it may have been removed, or mended.
const OPEN_FOR: Duration = Duration::from_secs(2);

/// The files that were opened last.
pub(super) struct OpenFiles(Mutex<LruCache<StoredContent, (Arc<File>, Instant)>>);

impl Default for OpenFiles {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(OPEN)))
    }
}

impl OpenFiles {
    /// The file of a content, which lies at `path`.
    pub(super) fn open(&self, content: &StoredContent, path: impl AsRef<Path>) -> io::Result<Arc<File>> {
        let lock = || self.0.lock().unwrap_or_else(|e| e.into_inner());
        if let Some((file, opened)) = lock().get(content)
            && opened.elapsed() < OPEN_FOR
        {
            return Ok(file.clone());
        }
        let file = Arc::new(File::open(path)?);
        lock().put(*content, (file.clone(), Instant::now()));
        Ok(file)
    }

    /// Lets go of what was not asked for lately, so that removed files give their room back.
    pub(super) fn close_old(&self) {
        let mut open = self.0.lock().unwrap_or_else(|e| e.into_inner());
        while open.peek_lru().is_some_and(|(_, (_, opened))| opened.elapsed() >= OPEN_FOR) {
            open.pop_lru();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sha256;

    #[test]
    fn a_file_is_opened_once_for_a_while() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("content");
        std::fs::write(&path, "bytes").unwrap();
        let content = StoredContent { hash: Sha256([1; 32]), generation: 0 };
        let files = OpenFiles::default();
        let first = files.open(&content, &path).unwrap();
        assert!(Arc::ptr_eq(&first, &files.open(&content, &path).unwrap()));
        let other = StoredContent { generation: 1, ..content };
        assert!(files.open(&other, dir.path().join("nothing")).is_err());
        files.close_old();
        assert!(Arc::ptr_eq(&first, &files.open(&content, &path).unwrap()), "it is not old yet");
        std::thread::sleep(OPEN_FOR);
        assert!(!Arc::ptr_eq(&first, &files.open(&content, &path).unwrap()));
    }
}
