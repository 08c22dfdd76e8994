//! Where what lies in the cache's directory. Directories get and lose their names by renaming, so that nobody meets
//! half of one.

use std::fs::{self, File};
use std::io;
use std::iter;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::scope::Scope;
use crate::disk::random_hex;
use crate::model::{ContentHash, Sha256};

/// The bytes of a content.
pub(super) const BYTES: &str = "bytes";
/// Its slots.
pub(super) const SLOTS: &str = "slots";
/// What names the scope of a private area.
const SCOPE: &str = "scope.json";
/// What is being made or removed for longer was left behind by a process that is no more.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// A content by hash and size: two entries may claim one hash and different sizes, and one of them lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) hash: ContentHash,
    pub(super) size: u64,
}

impl Key {
    pub(super) fn name(&self) -> String {
        format!("{}-{}", self.hash, self.size)
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        let (digits, size) = name.split_once('-')?;
        let hash = match digits.len() {
            64 => ContentHash::Sha256(Sha256::parse(digits).ok()?),
            _ => ContentHash::parse("md5", digits).ok()?,
        };
        let key = Self { hash, size: size.parse().ok()? };
        (key.name() == name).then_some(key)
    }
}

/// Whose a content's directory is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Area {
    /// One scope's, by its digits.
    Private(String),
    /// Everyone's on this machine.
    Shared,
}

/// A content's directory that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) key: Key,
    pub(super) area: Area,
    pub(super) dir: PathBuf,
}

/// The cache's directory of this format.
#[derive(Debug)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the directories that are missing.
    pub(super) fn open(cache: &Path) -> io::Result<Self> {
        let layout = Self { root: cache.join("blocks-3") };
        for dir in ["private", "shared", "moving", "users", "pins"] {
            make_dir(&layout.root.join(dir))?;
        }
        Ok(layout)
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn users(&self) -> PathBuf {
        self.root.join("users")
    }

    pub(super) fn pins(&self) -> PathBuf {
        self.root.join("pins")
    }

    pub(super) fn pin(&self, key: &Key) -> PathBuf {
        self.pins().join(key.name())
    }

    pub(super) fn shared(&self, key: &Key) -> PathBuf {
        let name = key.name();
        self.root.join("shared").join(&name[..2]).join(name)
    }

    pub(super) fn private(&self, scope: &str, key: &Key) -> PathBuf {
        let name = key.name();
        self.root.join("private").join(scope).join(&name[..2]).join(name)
    }

    /// Whose a private area is, where that was written down.
    pub(super) fn scope(&self, digits: &str) -> Option<Scope> {
        let bytes = fs::read(self.root.join("private").join(digits).join(SCOPE)).ok()?;
        serde_json::from_slice(&bytes).ok()
    }

    /// Makes a content's private directory by `fill`ing one beside and giving it the name. If somebody else was
    /// faster, theirs is there.
    pub(super) fn create_private(
        &self,
        scope: &Scope,
        key: &Key,
        fill: impl FnOnce(&Path) -> io::Result<()>,
    ) -> io::Result<()> {
        let to = self.private(scope.digits(), key);
        let area = self.root.join("private").join(scope.digits());
        if !area.exists() {
            make_dir(&area)?;
            let text = serde_json::to_vec(scope).map_err(io::Error::other)?;
            io::Write::write_all(&mut create_file(&area.join(SCOPE))?, &text)?;
        }
        let from = self.moving();
        make_dir(&from)?;
        let made = fill(&from).and_then(|()| move_dir(&from, &to));
        if made.is_err() {
            let _ = fs::remove_dir_all(&from);
        }
        match made {
            Err(error) if is_taken(&error) => Ok(()),
            made => made,
        }
    }

    /// Moves a private directory to the shared area. `false`: there is one already.
    pub(super) fn share(&self, scope: &str, key: &Key) -> io::Result<bool> {
        match move_dir(&self.private(scope, key), &self.shared(key)) {
            Ok(()) => Ok(true),
            Err(error) if is_taken(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes a content's directory: first its name, then what is in it.
    pub(super) fn remove(&self, dir: &Path) -> io::Result<()> {
        let away = self.moving();
        fs::rename(dir, &away)?;
        fs::remove_dir_all(&away)
    }

    fn moving(&self) -> PathBuf {
        self.root.join("moving").join(random_hex::<16>())
    }

    /// Removes what processes that are no more left half made or half removed, and caches of earlier formats.
    pub(super) fn sweep(&self) {
        for old in ["blocks-1", "blocks-2"] {
            let away = self.moving();
            if fs::rename(self.root.with_file_name(old), &away).is_ok() {
                let _ = fs::remove_dir_all(&away);
            }
        }
        for entry in fs::read_dir(self.root.join("moving")).into_iter().flatten().flatten() {
            let made = entry.metadata().and_then(|metadata| metadata.modified());
            let age = made.ok().and_then(|made| SystemTime::now().duration_since(made).ok());
            if age.is_some_and(|age| age > LEFT_BEHIND) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }

    /// Every content's directory. The shared area is looked through last, and when all others were taken: what moves
    /// there meanwhile may be met twice, and is not missed.
    pub(super) fn contents(&self) -> impl Iterator<Item = Found> {
        let private = entries(&self.root.join("private")).into_iter().flat_map(|(name, dir)| {
            let mut found = Vec::new();
            contents_below(&dir, &Area::Private(name), &mut found);
            found
        });
        let shared = iter::once_with(|| {
            let mut found = Vec::new();
            contents_below(&self.root.join("shared"), &Area::Shared, &mut found);
            found
        });
        private.chain(shared.flatten())
    }
}

fn contents_below(area: &Path, whose: &Area, found: &mut Vec<Found>) {
    for (_, half) in entries(area) {
        let contents = entries(&half).into_iter();
        found.extend(
            contents
                .filter_map(|(name, dir)| Some(Found { key: Key::parse(&name)?, area: whose.clone(), dir })),
        );
    }
}

fn entries(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect()
}

/// A directory for the owner alone.
fn make_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// A file for the owner alone, emptied if it is there.
pub(super) fn create_file(path: &Path) -> io::Result<File> {
    File::options().read(true).write(true).create(true).truncate(true).mode(0o600).open(path)
}

fn move_dir(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(above) = to.parent() {
        make_dir(above)?;
    }
    fs::rename(from, to)
}

/// A directory is not renamed over one that holds something.
fn is_taken(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_contents_are_read_back_and_others_are_not_taken_for_them() {
        let sha = Key { hash: ContentHash::Sha256(Sha256::of(b"x")), size: 7 };
        let md5 = Key { hash: ContentHash::Md5([9; 16]), size: 0 };
        for key in [sha, md5] {
            assert_eq!(Key::parse(&key.name()), Some(key));
        }
        for name in ["", "x-5", &sha.name().to_uppercase(), &format!("{}-07", sha.hash), "0-0"] {
            assert_eq!(Key::parse(name), None, "{name}");
        }
    }

    #[test]
    fn directories_come_and_go_whole_and_the_first_of_two_stays() {
        let dir = tempfile::tempdir().unwrap();
        let olds = ["blocks-1", "blocks-2"].map(|old| dir.path().join(old));
        olds.iter().for_each(|old| fs::create_dir_all(old.join("x")).unwrap());
        let layout = Layout::open(dir.path()).unwrap();
        layout.sweep();
        assert!(olds.iter().all(|old| !old.exists()));
        let (scope, key) = (Scope::new("https://a", "db"), Key { hash: ContentHash::Md5([1; 16]), size: 5 });
        for text in ["first", "second"] {
            layout.create_private(&scope, &key, |dir| fs::write(dir.join("bytes"), text)).unwrap();
        }
        let there = layout.private(scope.digits(), &key);
        assert_eq!(fs::read_to_string(there.join("bytes")).unwrap(), "first");
        assert_eq!(layout.scope(scope.digits()), Some(scope.clone()));
        assert_eq!(layout.contents().count(), 1);
        assert!(layout.share(scope.digits(), &key).unwrap());
        layout.create_private(&scope, &key, |dir| fs::write(dir.join("bytes"), "third")).unwrap();
        assert!(!layout.share(scope.digits(), &key).unwrap(), "there is one already");
        layout.remove(&layout.shared(&key)).unwrap();
        let left: Vec<_> = layout.contents().collect();
        assert!(left.len() == 1 && left[0].area == Area::Private(scope.digits().into()));
        assert_eq!(fs::read_dir(layout.root().join("moving")).unwrap().count(), 0);
    }
}
