//! The directory, held open. Everything below is reached from this descriptor, by names that the kernel itself
//! keeps beneath it.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use crate::model::DbPath;

/// A directory whose files are a database's.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    dir: OwnedFd,
    /// Opened when the first content is staged.
    pub(super) incoming: OnceLock<Arc<OwnedFd>>,
}

/// What tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
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

    /// The stamp of an open file.
    pub fn of_file(file: impl AsFd) -> io::Result<Self> {
        Ok(Self::of(&rustix::fs::fstat(file)?))
    }

    /// Whether both are the same file with the same bytes, although a rename may have touched it (which moves
    /// the change time).
    pub fn same_bytes(&self, other: &Self) -> bool {
        (self.inode, self.size, self.modified) == (other.inode, other.size, other.modified)
    }

    /// When the bytes last changed, for a manifest.
    pub fn modified(&self) -> jiff::Timestamp {
        let (seconds, nanoseconds) = self.modified;
        let nanoseconds = i32::try_from(nanoseconds).unwrap_or(0);
        jiff::Timestamp::new(seconds, nanoseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
    }

    /// Size in bytes.
    pub fn size(&self) -> u64 {
        u64::try_from(self.size).unwrap_or(0)
    }
}

const RESOLVE: ResolveFlags =
    ResolveFlags::BENEATH.union(ResolveFlags::NO_SYMLINKS).union(ResolveFlags::NO_MAGICLINKS);

impl Root {
    /// Opens a directory that exists.
    pub fn open(path: &Path) -> io::Result<Self> {
        let dir = File::open(path)?;
        if !dir.metadata()?.is_dir() {
            return Err(io::Error::from(io::ErrorKind::NotADirectory));
        }
        Ok(Self { path: path.to_owned(), dir: dir.into(), incoming: OnceLock::new() })
    }

    /// Where it is, for messages and for files of our own.
    pub fn path(&self) -> &Path {
        &self.path
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
            return Ok(self.dir.try_clone()?);
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

    /// Whether something other than a directory stands at `path`, or a link on the way to it.
    pub fn is_obstructed(&self, path: &DbPath) -> io::Result<bool> {
        let parent = match self.parent(path, CreateDirs::No) {
            Ok(parent) => parent,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(true),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        match rustix::fs::statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(!rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir()),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// The stamp of the regular file at `path`; nothing where there is none.
    pub fn stamp(&self, path: &DbPath) -> io::Result<Option<Stamp>> {
        let parent = match self.parent(path, CreateDirs::No) {
            Ok(parent) => parent,
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        match rustix::fs::statat(&parent, path.name(), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(Stamp::of(&stat))),
            Err(Errno::NOENT) => Ok(None),
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
