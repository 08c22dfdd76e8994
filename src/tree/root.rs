//! The directory, held open. Everything below is reached from this descriptor, by names that the kernel itself
//! keeps beneath it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::staged::Pool;
use crate::model::DbPath;

/// A directory whose files are a database's.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    dir: OwnedFd,
    /// Opened when the first content is staged.
    pub(super) incoming: OnceLock<Arc<OwnedFd>>,
    /// What was received and is in no place.
    pub(super) pool: Arc<Pool>,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occupant {
    /// Nothing: a file can be put there.
    Nothing,
    /// A regular file.
    File(Stamp),
    /// A directory: no obstacle if it is empty by the time a file is put there.
    Directory,
    /// Something else, there or in place of one of its directories: it is somebody's, and stays.
    Obstacle,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    inode: u64,
    size: i64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        Self {
            inode: stat.st_ino,
            size: stat.st_size,
            modified: (stat.st_mtime, i64::from(stat.st_mtime_nsec as i32)),
            changed: (stat.st_ctime, i64::from(stat.st_ctime_nsec as i32)),
        }
    }

    /// When the file's status last changed: nobody can set it.
    pub(super) fn changed(&self) -> jiff::Timestamp {
        timestamp(self.changed)
    }

    /// The stamp of an open file.
    pub fn of_file(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(file)?))
    }

    /// Whether both are the same file with the same bytes, although a rename may have touched it (which moves
    /// the change time).
    pub fn same_bytes(&self, other: &Self) -> bool {
        (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)
    }

    /// Which file it is, of those of its file system.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// When the bytes last changed, for a manifest.
    pub fn modified(&self) -> jiff::Timestamp {
        timestamp(self.modified)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        u64::try_from(self.size).unwrap_or(0)
    }
}

/// A file system's seconds and nanoseconds.
fn timestamp((seconds, nanoseconds): (i64, i64)) -> jiff::Timestamp {
    let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
    jiff::Timestamp::new(seconds, nanoseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// The stamp of what stands in a directory, a link for itself; none where there is nothing.
pub(super) fn stamp_at(dir: impl AsFd, name: &str) -> io::Result<Option<Stamp>> {
    match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(Stamp::of(&stat))),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

pub(super) const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl Root {
    /// Opens a directory that exists.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = File::open(path)?;
        if !dir.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { path: path.to_owned(), dir: dir.into(), incoming: OnceLock::new(), pool: Arc::default() })
    }

    /// Where it is, for messages and for files of our own.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it still is what its name leads to.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        let here = rustix::fs::fstat(&self.dir)?;
        match rustix::fs::stat(&self.path) {
            Ok(there) => Ok((here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens a regular file for reading.
    pub fn open_file(&self, path: &DbPath) -> io::Result<File> {
        // Not blocking: a name that became a fifo must not hang us.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = File::from(rustix::fs::openat2(&self.dir, path.as_str(), flags, Mode::empty(), RESOLVE)?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// Opens the directory that holds `path`, making it if `create` is given.
    pub(super) fn parent(&self, path: &DbPath, create: CreateDirs) -> io::Result<OwnedFd> {
        let components: Vec<&str> = path.components().collect();
        let (_, dirs) = components.split_last().unwrap_or((&"", &[]));
        self.directory(dirs, create)
    }

    pub(super) fn directory(&self, components: &[&str], create: CreateDirs) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        if components.is_empty() {
            return self.dir.try_clone();
        }
        match rustix::fs::openat2(&self.dir, components.join("/"), flags, Mode::empty(), RESOLVE) {
            Err(Errno::NOENT) if create == CreateDirs::Yes => {}
            opened => return Ok(opened?),
        }
        let mut dir = self.dir.try_clone()?;
        for name in components {
            match rustix::fs::mkdirat(&dir, *name, Mode::from_raw_mode(0o777)) {
                Ok(()) => rustix::fs::fsync(&dir)?,
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
            dir = rustix::fs::openat2(&dir, *name, flags, Mode::empty(), RESOLVE)?;
        }
        Ok(dir)
    }

    /// What stands at `path`.
    pub fn occupant(&self, path: &DbPath) -> io::Result<Occupant> {
        let parent = match self.parent(path, CreateDirs::No) {
            Ok(parent) => parent,
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Occupant::Nothing),
            // A file stands where one of its directories would be; it may be about to go.
            Err(error) if error.raw_os_error() == Some(libc::ENOTDIR) => return Ok(Occupant::Nothing),
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(Occupant::Obstacle),
            Err(error) => return Err(error),
        };
        match rustix::fs::statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Occupant::File(Stamp::of(&stat)),
                FileType::Directory => Occupant::Directory,
                _ => Occupant::Obstacle,
            }),
            Err(Errno::NOENT) => Ok(Occupant::Nothing),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether missing directories are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CreateDirs {
    Yes,
    No,
}
