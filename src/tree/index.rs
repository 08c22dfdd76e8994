//! What files hold, known without reading them: the hash each had when it was read last, as long as its size, its times and
//! its inode are what they were then. An accelerator: whatever is wrong with it, files are read again.

use std::io;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::own::checked;
use super::{Durability, Root, Stamp};
use crate::manifest::PRIVATE_DIR;
use crate::model::{ContentHash, DbPath, Sha256};

const INDEX_FILE: &str = "hashes";
const MAGIC: &[u8; 8] = b"PQHASH02";
/// A file whose status changed so shortly before it was read may change again within one tick of its file system's clock,
/// and look the same. Coarse clocks tick once in two seconds.
const TOO_RECENT: SignedDuration = SignedDuration::from_secs(2);

/// What is known of files, as it lies on the disk: read on the way, for a million of them need not be in memory twice.
#[derive(Debug, Default)]
pub struct HashIndex {
    bytes: Vec<u8>,
    /// Where the list of files begins.
    list: usize,
    count: u64,
    all_of: Option<Stamp>,
}

/// A file whose content is known.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct KnownFile<'a> {
    /// Where it is.
    pub path: &'a str,
    /// What it was when it was read.
    pub stamp: Stamp,
    /// What it held.
    pub hash: ContentHash,
}

/// One of them, on the disk.
#[derive(Serialize, Deserialize)]
struct Stored<'a> {
    path: &'a str,
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
        let ((all_of, count), rest) = postcard::take_from_bytes(checked(&bytes, MAGIC)?).ok()?;
        let list = bytes.len() - rest.len();
        Some(Self { bytes, list, count, all_of })
    }

    /// How many files are known.
    pub fn len(&self) -> u64 {
        self.count
    }

    /// Whether no file is known.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The manifest, told by what it was on the disk, that lists the known files with the known hashes, and no others.
    pub fn all_of(&self) -> Option<Stamp> {
        self.all_of
    }

    /// The known files, by path.
    pub fn files(&self) -> impl Iterator<Item = KnownFile<'_>> {
        let (mut rest, mut left) = (&self.bytes[self.list..], self.count);
        std::iter::from_fn(move || {
            left = left.checked_sub(1)?;
            let stored: Stored<'_>;
            (stored, rest) = postcard::take_from_bytes(rest).ok()?;
            Some(KnownFile { path: stored.path, stamp: stored.stamp, hash: stored.hash.into() })
        })
    }

    /// Tells of each file that was found, in the order of their paths, what it holds, if it still is the file that was read.
    pub fn known<'a>(
        &'a self,
        found: impl Iterator<Item = (&'a DbPath, &'a Stamp)>,
    ) -> impl Iterator<Item = Option<ContentHash>> {
        let mut files = self.files().peekable();
        found.map(move |(path, stamp)| {
            while files.next_if(|known| known.path < path.as_str()).is_some() {}
            let known = files.next_if(|known| known.path == path.as_str())?;
            (known.stamp == *stamp).then_some(known.hash)
        })
    }

    /// Writes what is known of `files`, which come in the order of their paths. It need not be durable: an earlier one says
    /// nothing wrong of a later file.
    pub fn save<'a>(
        root: &Root,
        all_of: Option<Stamp>,
        files: impl Iterator<Item = KnownFile<'a>>,
    ) -> io::Result<()> {
        let (mut list, mut count) = (Vec::new(), 0_u64);
        for KnownFile { path, stamp, hash } in files {
            list = postcard::to_extend(&Stored { path, stamp, hash: hash.into() }, list)
                .map_err(io::Error::other)?;
            count += 1;
        }
        let head = postcard::to_stdvec(&(all_of, count)).map_err(io::Error::other)?;
        root.replace_checked(&Self::path()?, MAGIC, [&head, &list], Durability::Later)
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

    fn hash(byte: u8) -> ContentHash {
        ContentHash::Sha256(Sha256([byte; 32]))
    }

    fn known(index: &HashIndex, found: &[(DbPath, Stamp)]) -> Vec<Option<ContentHash>> {
        index.known(found.iter().map(|(path, stamp)| (path, stamp))).collect()
    }

    #[test]
    fn what_is_saved_is_known_again_as_long_as_the_file_is_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        for name in ["f", "g", "other"] {
            fs::write(dir.path().join(name), name).unwrap();
        }
        let stamp = |name: &str| Stamp::of_file(fs::File::open(dir.path().join(name)).unwrap()).unwrap();
        let [f, g, other] = ["f", "g", "other"].map(|name| (path(name), stamp(name)));
        assert!(HashIndex::load(&root).is_empty());
        let known_file = |path: &'static str, stamp, hash| KnownFile { path, stamp, hash };
        let md5 = ContentHash::Md5([9; 16]);
        let files =
            [known_file("e", f.1, hash(1)), known_file("f", f.1, hash(7)), known_file("g", other.1, md5)];
        HashIndex::save(&root, Some(g.1), files.into_iter()).unwrap();
        let index = HashIndex::load(&root);
        assert_eq!((index.len(), index.all_of()), (3, Some(g.1)));
        assert_eq!(index.files().collect::<Vec<_>>(), files);
        let found = [f.clone(), g.clone(), (path("h"), other.1)];
        assert_eq!(known(&index, &found), [Some(hash(7)), None, None]);
        assert_eq!(known(&index, &[(path("a"), f.1), (path("g"), other.1)]), [None, Some(md5)]);
    }

    #[test]
    fn a_damaged_index_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        fs::write(dir.path().join("f"), "one").unwrap();
        let stamp = Stamp::of_file(fs::File::open(dir.path().join("f")).unwrap()).unwrap();
        let one = KnownFile { path: "f", stamp, hash: hash(7) };
        HashIndex::save(&root, None, std::iter::once(one)).unwrap();
        let file = dir.path().join(".parquedb/hashes");
        let whole = fs::read(&file).unwrap();
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            fs::write(&file, damaged).unwrap();
            assert!(HashIndex::load(&root).is_empty(), "byte {at}");
            fs::write(&file, &whole[..at]).unwrap();
            assert!(HashIndex::load(&root).is_empty(), "cut at {at}");
        }
        fs::write(&file, &whole).unwrap();
        assert_eq!(HashIndex::load(&root).len(), 1);
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
