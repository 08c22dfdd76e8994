//! The tools' own files in a directory: below `.parquedb` and `_meta`, never published. A link in the place of one is refused: the
//! directory may come from someone else.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::sync::mpsc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::index::Moment;
use super::root::{CreateDirs, RESOLVE};
use super::{Applied, Durability, Root, Stamp};
use crate::disk::STAGED_SUFFIX;
use crate::manifest::PRIVATE_DIR;
use crate::model::DbPath;

impl Root {
    /// Opens or makes a file of the tools' own, below the directory of their own. A link in its place is refused:
    /// the directory may come from someone else.
    pub fn open_private(&self, name: &str) -> io::Result<File> {
        let dir = self.directory(&[PRIVATE_DIR], CreateDirs::Yes)?;
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::openat2(&dir, name, flags, Mode::from_raw_mode(0o644), RESOLVE)?))
    }

    /// What time it is, by the clock that gives the directory's files their times. The caller holds the lock, on `file`.
    pub fn moment(file: impl AsFd) -> io::Result<Moment> {
        let now = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::futimens(&file, &times)?;
        Ok(Moment::new(Stamp::of_file(&file)?.changed()))
    }

    /// Reads one of the tools' own files, and tells which it was; nothing where there is none.
    pub fn read_own(&self, path: &DbPath) -> io::Result<Option<(Vec<u8>, Stamp)>> {
        match self.open_file(path) {
            Ok(mut file) => {
                let (stamp, mut bytes) = (Stamp::of_file(&file)?, Vec::new());
                file.read_to_end(&mut bytes)?;
                Ok(Some((bytes, stamp)))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Replaces one of the tools' own files with `parts`, whole or not at all. Where it is to be durable now, the new bytes are
    /// on the disk before they have the name; else nobody says when.
    pub fn replace_own(&self, path: &DbPath, parts: &[&[u8]], durability: Durability) -> io::Result<()> {
        self.replace_own_by(path, durability, |mut to| parts.iter().try_for_each(|part| to.write_all(part)))
    }

    /// Replaces one of the tools' own files in a form of its own, told by `magic`, whose damage [`checked`] tells.
    pub(super) fn replace_checked(
        &self,
        path: &DbPath,
        magic: &[u8; 8],
        [head, rest]: [&[u8]; 2],
        durability: Durability,
    ) -> io::Result<()> {
        let sum = crc32c::crc32c_append(crc32c::crc32c(head), rest).to_le_bytes();
        self.replace_own(path, &[magic, &sum, head, rest], durability)
    }

    /// Replaces one of the tools' own files with what `make` makes, of any size: it is on its way to the disk while more is being made.
    pub fn replace_own_large(
        &self,
        path: &DbPath,
        durability: Durability,
        make: impl FnOnce(&mut Pieces) -> io::Result<()>,
    ) -> io::Result<()> {
        self.replace_own_by(path, durability, |to| write_beside(to, make))
    }

    fn replace_own_by(
        &self,
        path: &DbPath,
        durability: Durability,
        write: impl FnOnce(&File) -> io::Result<()>,
    ) -> io::Result<()> {
        let dir = self.parent(path, CreateDirs::Yes)?;
        let staged = format!("{}{STAGED_SUFFIX}", path.name());
        // What a killed process left there goes: never written to, it may be another file's second name.
        match rustix::fs::unlinkat(&dir, &staged, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&dir, &staged, flags, Mode::from_raw_mode(0o644))?);
        write(&file)?;
        if durability == Durability::Now {
            file.sync_all()?;
        }
        rustix::fs::renameat(&dir, &staged, &dir, path.name())?;
        if durability == Durability::Now {
            rustix::fs::fsync(&dir)?;
        }
        Ok(())
    }

    /// The names in a directory below `.parquedb`; none where there is no such directory.
    pub fn list_private(&self, name: &str) -> io::Result<Vec<String>> {
        let dir = match self.directory(&[PRIVATE_DIR, name], CreateDirs::No) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut names = Vec::new();
        for entry in Dir::read_from(&dir)? {
            if let Ok(name) = entry?.file_name().to_str()
                && name != "."
                && name != ".."
            {
                names.push(name.to_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    /// How many bytes the files below one of the tools' own directories have whose names end so.
    pub fn bytes_below(&self, components: &[&str], suffix: &str) -> io::Result<u64> {
        let dir = match self.directory(components, CreateDirs::No) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let mut bytes = 0;
        for entry in Dir::read_from(&dir)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if name == "." || name == ".." {
                continue;
            }
            let stat = rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
            bytes += match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => self.bytes_below(&[components, &[name]].concat(), suffix)?,
                _ if name.ends_with(suffix) => u64::try_from(stat.st_size).unwrap_or(0),
                _ => 0,
            };
        }
        Ok(bytes)
    }

    /// Keeps the file at `path` under the name `to` of the tools' own: the same file, where the file system has links; else a
    /// copy. Returns its size.
    pub fn keep(&self, path: &DbPath, to: &DbPath) -> io::Result<u64> {
        let file = self.open_file(path)?;
        let size = Stamp::of_file(&file)?.size();
        let (from, dir) = (self.parent(path, CreateDirs::No)?, self.parent(to, CreateDirs::Yes)?);
        match rustix::fs::linkat(&from, path.name(), &dir, to.name(), AtFlags::empty()) {
            Ok(()) => {
                file.sync_all()?;
                rustix::fs::fsync(&dir)?;
                return Ok(size);
            }
            // Kept by a run that did not come to its end.
            Err(Errno::EXIST) if self.is_same_file(&file, to)? => return Ok(0),
            Err(Errno::PERM | Errno::XDEV | Errno::MLINK | Errno::OPNOTSUPP | Errno::NOSYS) => {}
            Err(error) => return Err(error.into()),
        }
        let staged = self.stage_copy(&file, Some(Stamp::of_file(&file)?.modified()))?;
        match self.place(staged, to, Durability::Now)? {
            Applied::Done => Ok(size),
            Applied::Overtaken => Err(io::Error::from(io::ErrorKind::AlreadyExists)),
        }
    }

    fn is_same_file(&self, file: &File, other: &DbPath) -> io::Result<bool> {
        let other = Stamp::of_file(self.open_file(other)?)?;
        Ok(Stamp::of_file(file)?.inode() == other.inode())
    }

    /// Removes one of the tools' own files, if it is there, and directories that become empty by it.
    pub fn remove_own(&self, path: &DbPath) -> io::Result<()> {
        let dir = match self.parent(path, CreateDirs::No) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match rustix::fs::unlinkat(&dir, path.name(), AtFlags::empty()) {
            Ok(()) => self.remove_empty_above(path),
            Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// What follows `magic` and a checksum, if that is right.
pub(super) fn checked<'a>(bytes: &'a [u8], magic: &[u8; 8]) -> Option<&'a [u8]> {
    let (sum, body) = bytes.strip_prefix(magic)?.split_first_chunk()?;
    (crc32c::crc32c(body) == u32::from_le_bytes(*sum)).then_some(body)
}

/// Bytes handed over at a time.
const PIECE: usize = 1 << 20;
/// How many pieces may wait for the disk.
const WAITING: usize = 4;

/// Writes to a file what `make` makes, both at the same time.
fn write_beside(mut file: &File, make: impl FnOnce(&mut Pieces) -> io::Result<()>) -> io::Result<()> {
    std::thread::scope(|scope| {
        let (to, from) = mpsc::sync_channel::<Vec<u8>>(WAITING);
        let writer = scope.spawn(move || from.into_iter().try_for_each(|piece| file.write_all(&piece)));
        let mut pieces = Pieces { piece: Vec::with_capacity(PIECE), to };
        let made = make(&mut pieces).and_then(|()| pieces.flush());
        drop(pieces);
        let failed = |_| Err(io::Error::other("the writer did not come to its end"));
        let written = writer.join().unwrap_or_else(failed);
        // Where the disk failed, that is what whoever made more was told of, too.
        written.and(made)
    })
}

/// What is being made of a file, on its way to whoever writes it.
pub struct Pieces {
    piece: Vec<u8>,
    to: mpsc::SyncSender<Vec<u8>>,
}

impl Write for Pieces {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.piece.extend_from_slice(bytes);
        if self.piece.len() >= PIECE { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::replace(&mut self.piece, Vec::with_capacity(PIECE));
        self.to.send(piece).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
    }
}
