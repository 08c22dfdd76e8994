//! Changing one file of a directory: staged beside the others, then put in place by a rename that loses nothing
//! somebody else wrote meanwhile (rule 23).

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::Root;
use super::root::{CreateDirs, Stamp};
use crate::manifest::PRIVATE_DIR;
use crate::model::DbPath;

/// Contents not yet in place: nobody's but ours.
const STAGED_PREFIX: &str = "new-";
/// Files taken out of the tree for a moment: perhaps somebody's.
const ASIDE_PREFIX: &str = "aside-";

/// Bytes copied at a time.
const COPY_PIECE: usize = 1 << 20;

/// When a change reaches the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// Before the call returns: for a few files.
    Now,
    /// When [`Root::sync_everything`] is called: for many, where one wait is far cheaper than one for each.
    Later,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Applied {
    /// It is done, durably.
    Done,
    /// The file is not what the plan saw, or something else stands there: nothing was changed.
    Overtaken,
}

/// A new content for some path, written but not yet in place. Dropped, it is removed.
#[derive(Debug)]
pub struct Staged {
    dir: Arc<OwnedFd>,
    name: String,
    /// Open until it is sealed: many may wait to be placed.
    file: Option<File>,
    /// Which file it is.
    inode: u64,
    placed: bool,
}

impl Staged {
    /// Which file it is, before and after it is put in place.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the staged file is sealed")),
        }
    }

    /// Gives the bytes their time, and makes them durable.
    pub fn seal(&mut self, modified: Option<jiff::Timestamp>, durability: Durability) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        if let Some(time) = modified {
            let time =
                Timespec { tv_sec: time.as_second(), tv_nsec: i64::from(time.subsec_nanosecond().max(0)) };
            rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        }
        if durability == Durability::Now { file.sync_all() } else { Ok(()) }
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        if !self.placed {
            let _ = rustix::fs::unlinkat(&*self.dir, &self.name, AtFlags::empty());
        }
    }
}

impl Root {
    /// Makes every change so far durable, with one wait for the whole file system.
    pub fn sync_everything(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self.incoming()?)?)
    }

    /// The directory for contents that are not yet, or no longer, in place.
    fn incoming(&self) -> io::Result<Arc<OwnedFd>> {
        if let Some(dir) = self.incoming.get() {
            return Ok(dir.clone());
        }
        let dir = Arc::new(self.directory(&[PRIVATE_DIR, "incoming"], CreateDirs::Yes)?);
        Ok(self.incoming.get_or_init(|| dir).clone())
    }

    /// Removes what a killed run had staged. Files it had taken out of the tree stay: they may be somebody's. The
    /// caller holds the directory's lock.
    pub fn sweep_staged(&self) -> io::Result<()> {
        let dir = match self.directory(&[PRIVATE_DIR, "incoming"], CreateDirs::No) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in rustix::fs::Dir::read_from(&dir)? {
            let entry = entry?;
            if entry.file_name().to_bytes().starts_with(STAGED_PREFIX.as_bytes()) {
                rustix::fs::unlinkat(&dir, entry.file_name(), AtFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Begins a new content, in the tools' own directory of the same file system.
    pub fn stage(&self) -> io::Result<Staged> {
        let dir = self.incoming()?;
        let name = random_name(STAGED_PREFIX);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&*dir, &name, flags, Mode::from_raw_mode(0o666))?);
        let inode = Stamp::of_file(&file)?.inode();
        Ok(Staged { dir, name, file: Some(file), inode, placed: false })
    }

    /// Begins and ends a content: what a file holds from its beginning, durably.
    pub fn stage_copy(&self, mut from: &File, modified: Option<jiff::Timestamp>) -> io::Result<Staged> {
        io::Seek::rewind(&mut from)?;
        let (mut staged, mut piece) = (self.stage()?, vec![0; COPY_PIECE]);
        loop {
            match io::Read::read(&mut from, &mut piece)? {
                0 => break,
                length => staged.write(&piece[..length])?,
            }
        }
        staged.seal(modified, Durability::Now)?;
        Ok(staged)
    }

    /// Puts a sealed content, durable by now, at `path`, where `expected` stands now (or nothing).
    pub fn place(
        &self,
        mut staged: Staged,
        path: &DbPath,
        expected: Option<Stamp>,
        durability: Durability,
    ) -> io::Result<Applied> {
        let parent = match self.parent(path, CreateDirs::Yes) {
            Ok(parent) => parent,
            // A file, or a link, stands where a directory would have to be.
            Err(error) if is_obstacle(&error) => return Ok(Applied::Overtaken),
            Err(error) => return Err(error),
        };
        let name = path.name();
        match expected {
            None => match rustix::fs::renameat_with(
                &staged.dir,
                &staged.name,
                &parent,
                name,
                RenameFlags::NOREPLACE,
            ) {
                Ok(()) => staged.placed = true,
                Err(Errno::EXIST) => return Ok(Applied::Overtaken),
                Err(error) => return Err(error.into()),
            },
            Some(expected) => {
                // From here on the staged name may hold somebody's version: it gets a name that is never swept.
                let swap = staged.name.replacen(STAGED_PREFIX, ASIDE_PREFIX, 1);
                rustix::fs::renameat(&*staged.dir, &staged.name, &*staged.dir, &swap)?;
                staged.name = swap;
                let exchange = || {
                    rustix::fs::renameat_with(
                        &*staged.dir,
                        &staged.name,
                        &parent,
                        name,
                        RenameFlags::EXCHANGE,
                    )
                };
                match exchange() {
                    Ok(()) => {}
                    Err(Errno::NOENT) => return Ok(Applied::Overtaken),
                    Err(error) => return Err(error.into()),
                }
                // Whatever stood there is in our hands now: if it is not what the plan saw, it goes back.
                let stamp = || {
                    let stat = rustix::fs::statat(&*staged.dir, &staged.name, AtFlags::SYMLINK_NOFOLLOW)?;
                    Ok::<_, Errno>(Stamp::of(&stat))
                };
                let back = stamp().and_then(|displaced| match displaced.same_bytes(&expected) {
                    true => Ok(None),
                    false => exchange().and_then(|()| stamp()).map(Some),
                });
                match back {
                    // Dropping `staged` removes the displaced version, which the base revision still has.
                    Ok(None) => {}
                    Ok(Some(ours)) => {
                        // What came out must be ours again: somebody may have put another file there in between, whose
                        // only name this is now.
                        staged.placed = ours.inode() != staged.inode;
                        return Ok(Applied::Overtaken);
                    }
                    Err(error) => {
                        // It may be somebody's edit that lies there: leave it.
                        staged.placed = true;
                        return Err(error.into());
                    }
                }
            }
        }
        if durability == Durability::Now {
            rustix::fs::fsync(&parent)?;
        }
        Ok(Applied::Done)
    }

    /// Removes the file at `path` if it is still `expected`, and directories that become empty.
    pub fn remove(&self, path: &DbPath, expected: Stamp, durability: Durability) -> io::Result<Applied> {
        let parent = self.parent(path, CreateDirs::No)?;
        let keep = self.incoming()?;
        let aside = random_name(ASIDE_PREFIX);
        // Moved aside first, so that what is deleted is what was looked at.
        match rustix::fs::renameat_with(&parent, path.name(), &*keep, &aside, RenameFlags::NOREPLACE) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(Applied::Overtaken),
            Err(error) => return Err(error.into()),
        }
        let moved = rustix::fs::statat(&*keep, &aside, AtFlags::SYMLINK_NOFOLLOW)?;
        if !Stamp::of(&moved).same_bytes(&expected) {
            rustix::fs::renameat_with(&*keep, &aside, &parent, path.name(), RenameFlags::NOREPLACE)?;
            return Ok(Applied::Overtaken);
        }
        rustix::fs::unlinkat(&*keep, &aside, AtFlags::empty())?;
        if durability == Durability::Now {
            rustix::fs::fsync(&parent)?;
        }
        self.remove_empty_above(path)?;
        Ok(Applied::Done)
    }

    /// Removes the directories above `path` that have nothing in them.
    pub(super) fn remove_empty_above(&self, path: &DbPath) -> io::Result<()> {
        let components: Vec<&str> = path.components().collect();
        for depth in (1..components.len()).rev() {
            let above = self.directory(&components[..depth - 1], CreateDirs::No)?;
            if rustix::fs::unlinkat(&above, components[depth - 1], AtFlags::REMOVEDIR).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// A name nobody else uses.
fn random_name(prefix: &str) -> String {
    format!("{prefix}{}", crate::disk::random_hex::<12>())
}

fn is_obstacle(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTDIR | libc::EEXIST | libc::ELOOP | libc::EXDEV))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn staged(root: &Root, text: &str) -> Staged {
        let mut staged = root.stage().unwrap();
        staged.write(text.as_bytes()).unwrap();
        staged.seal(Some("2020-01-01T00:00:00.5Z".parse().unwrap()), Durability::Now).unwrap();
        staged
    }

    fn stamp(root: &Root, path: &DbPath) -> Stamp {
        match root.occupant(path).unwrap() {
            crate::tree::Occupant::File(stamp) => stamp,
            other => panic!("{other:?}"),
        }
    }

    fn path(text: &str) -> DbPath {
        DbPath::parse(text).unwrap()
    }

    #[test]
    fn rule_23_an_edit_made_meanwhile_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let at = dir.path().join("d/f");
        let f = path("d/f");
        assert_eq!(root.place(staged(&root, "one"), &f, None, Durability::Now).unwrap(), Applied::Done);
        assert_eq!(stamp(&root, &f).modified().to_string(), "2020-01-01T00:00:00.5Z");
        assert_eq!(
            root.place(staged(&root, "two"), &f, None, Durability::Now).unwrap(),
            Applied::Overtaken,
            "something is there"
        );
        let seen = stamp(&root, &f);
        fs::write(&at, "mine").unwrap();
        assert_eq!(
            root.place(staged(&root, "two"), &f, Some(seen), Durability::Now).unwrap(),
            Applied::Overtaken
        );
        assert_eq!(root.remove(&f, seen, Durability::Later).unwrap(), Applied::Overtaken);
        assert_eq!(fs::read_to_string(&at).unwrap(), "mine");
        let seen = stamp(&root, &f);
        assert_eq!(root.place(staged(&root, "two"), &f, Some(seen), Durability::Now).unwrap(), Applied::Done);
        assert_eq!(fs::read_to_string(&at).unwrap(), "two");
        let seen = stamp(&root, &f);
        assert_eq!(root.remove(&f, seen, Durability::Later).unwrap(), Applied::Done);
        assert!(!dir.path().join("d").exists(), "an empty directory goes with its last file");
        assert_eq!(
            fs::read_dir(dir.path().join(".parquedb/incoming")).unwrap().count(),
            0,
            "nothing staged stays"
        );
    }

    #[test]
    fn no_link_leads_out_of_the_root() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = Root::open(dir.path()).unwrap();
        std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
        assert_eq!(
            root.place(staged(&root, "x"), &path("link/f"), None, Durability::Now).unwrap(),
            Applied::Overtaken
        );
        fs::write(outside.path().join("secret"), "s").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("s")).unwrap();
        assert!(root.open_file(&path("s")).is_err());
        assert!(root.open_file(&path("link/secret")).is_err());
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 1);
    }
}
