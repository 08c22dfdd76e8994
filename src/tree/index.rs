//! What files hold, known without reading them: the hash each had when it was read last, as long as its size, its times and
//! its inode are what they were then. An accelerator: whatever is wrong with it, files are read again.

use std::collections::HashMap;
use std::io;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::{Durability, Root, Stamp};
use crate::manifest::PRIVATE_DIR;
use crate::model::{ContentHash, DbPath, Sha256};

const INDEX_FILE: &str = "hashes";
const MAGIC: &[u8; 8] = b"PQHASH01";
/// A file whose status changed so shortly before it was read may change again within one tick of its file system's clock,
/// and look the same. Coarse clocks tick once in two seconds.
const TOO_RECENT: SignedDuration = SignedDuration::from_secs(2);

/// Hashes by path.
#[derive(Debug, Default)]
pub struct HashIndex {
    known: HashMap<DbPath, Known>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Known {
    stamp: Stamp,
    hash: StoredHash,
}

/// A content's hash, on the disk.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum StoredHash {
    Sha256([u8; 32]),
    Md5([u8; 16]),
}

impl From<ContentHash> for StoredHash {
    fn from(hash: ContentHash) -> Self {
        match hash {
            ContentHash::Sha256(hash) => Self::Sha256(hash.0),
            ContentHash::Md5(hash) => Self::Md5(hash),
        }
    }
}

impl From<StoredHash> for ContentHash {
    fn from(hash: StoredHash) -> Self {
        match hash {
            StoredHash::Sha256(hash) => Self::Sha256(Sha256(hash)),
            StoredHash::Md5(hash) => Self::Md5(hash),
        }
    }
}

impl HashIndex {
    /// Reads a directory's index; an empty one, where there is none or it is not sound.
    pub fn load(root: &Root) -> Self {
        Self::read(root).unwrap_or_default()
    }

    fn path() -> io::Result<DbPath> {
        DbPath::parse(&format!("{PRIVATE_DIR}/{INDEX_FILE}")).map_err(io::Error::other)
    }

    fn read(root: &Root) -> Option<Self> {
        let (bytes, _) = root.read_own(&Self::path().ok()?).ok()??;
        let (sum, rest) = bytes.strip_prefix(MAGIC)?.split_first_chunk()?;
        if crc32c::crc32c(rest) != u32::from_le_bytes(*sum) {
            return None;
        }
        let (mut count, mut rest): (u64, _) = postcard::take_from_bytes(rest).ok()?;
        let mut known = HashMap::new();
        while count > 0 {
            let (path, entry): (&str, Known);
            ((path, entry), rest) = postcard::take_from_bytes(rest).ok()?;
            known.insert(DbPath::parse(path).ok()?, entry);
            count -= 1;
        }
        Some(Self { known })
    }

    /// The hash of the file at `path`, if it still is the file that was read.
    pub fn get(&self, path: &DbPath, stamp: &Stamp) -> Option<ContentHash> {
        let known = self.known.get(path).filter(|known| known.stamp == *stamp)?;
        Some(known.hash.into())
    }

    /// Remembers what was read.
    pub fn insert(&mut self, path: DbPath, stamp: Stamp, hash: ContentHash) {
        self.known.insert(path, Known { stamp, hash: hash.into() });
    }

    /// Forgets the files that `is_there` does not know.
    pub fn retain(&mut self, is_there: impl Fn(&DbPath) -> bool) {
        self.known.retain(|path, _| is_there(path));
    }

    /// Forgets a file. Says whether it was known.
    pub fn remove(&mut self, path: &DbPath) -> bool {
        self.known.remove(path).is_some()
    }

    /// Writes the index. It need not be durable: an earlier one says nothing wrong of a later file.
    pub fn save(&self, root: &Root) -> io::Result<()> {
        let mut body = postcard::to_stdvec(&(self.known.len() as u64)).map_err(io::Error::other)?;
        for (path, known) in &self.known {
            body = postcard::to_extend(&(path.as_str(), known), body).map_err(io::Error::other)?;
        }
        let sum = crc32c::crc32c(&body).to_le_bytes();
        root.replace_own(&Self::path()?, &[MAGIC, &sum, &body], Durability::Later)
    }
}

/// A moment by the clock of a directory's file system. What was looked at after it can be told from what it becomes later.
#[derive(Debug, Clone, Copy)]
pub struct Moment(Timestamp);

impl Moment {
    pub(super) fn new(time: Timestamp) -> Self {
        Self(time)
    }

    /// Whether a file that was looked at after this moment had been left alone for long enough, so that a later change will
    /// show in its stamp.
    pub fn trusts(&self, stamp: &Stamp) -> bool {
        self.is_long_after(stamp.changed())
    }

    /// Whether that was so long before that no coarse clock takes both for one.
    pub fn is_long_after(&self, earlier: Timestamp) -> bool {
        self.0.duration_since(earlier) > TOO_RECENT
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn path(text: &str) -> DbPath {
        DbPath::parse(text).unwrap()
    }

    #[test]
    fn what_is_saved_is_known_again_as_long_as_the_file_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::write(dir.path().join("f"), "one").unwrap();
        let stamp = Stamp::of_file(fs::File::open(dir.path().join("f")).unwrap()).unwrap();
        let (sha, md5) = (ContentHash::Sha256(Sha256([7; 32])), ContentHash::Md5([9; 16]));
        let mut index = HashIndex::load(&root);
        assert_eq!(index.get(&path("f"), &stamp), None);
        index.insert(path("f"), stamp, sha);
        index.insert(path("d/g"), stamp, md5);
        index.save(&root).unwrap();
        let mut loaded = HashIndex::load(&root);
        assert_eq!(loaded.get(&path("f"), &stamp), Some(sha));
        assert_eq!(loaded.get(&path("d/g"), &stamp), Some(md5));
        fs::write(dir.path().join("f"), "two").unwrap();
        let later = Stamp::of_file(fs::File::open(dir.path().join("f")).unwrap()).unwrap();
        assert!(later == stamp || loaded.get(&path("f"), &later).is_none());
        loaded.remove(&path("f"));
        assert_eq!(loaded.get(&path("f"), &stamp), None);
    }

    #[test]
    fn a_damaged_index_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::write(dir.path().join("f"), "one").unwrap();
        let stamp = Stamp::of_file(fs::File::open(dir.path().join("f")).unwrap()).unwrap();
        let mut index = HashIndex::default();
        index.insert(path("f"), stamp, ContentHash::Sha256(Sha256([7; 32])));
        index.save(&root).unwrap();
        let file = dir.path().join(".parquedb/hashes");
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&file, damaged).unwrap();
            assert!(HashIndex::load(&root).known.is_empty(), "byte {at}");
            fs::write(&file, &whole[..at]).unwrap();
            assert!(HashIndex::load(&root).known.is_empty(), "cut at {at}");
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(HashIndex::load(&root).known.len(), 1);
    }

    #[test]
    fn rule_23_what_was_changed_just_now_is_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let lock = root.open_private("lock").unwrap();
        fs::write(dir.path().join("f"), "one").unwrap();
        let file = fs::File::open(dir.path().join("f")).unwrap();
        // Its own date may say what it likes.
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let stamp = Stamp::of_file(&file).unwrap();
        assert!(!Root::moment(&lock).unwrap().trusts(&stamp));
        let later = Moment::new(stamp.changed() + TOO_RECENT + TOO_RECENT);
        assert!(later.trusts(&stamp));
    }
}
