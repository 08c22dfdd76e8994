//! Contents on their way into the tree: written beside it, whole and checked before anybody sees them.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use super::root::{CreateDirs, Stamp};
use super::{Root, hash_file};
use crate::disk::{point, random_hex};
use crate::manifest::PRIVATE_DIR;
use crate::model::ContentHash;

/// Contents not yet whole.
const STAGED_PREFIX: &str = "new-";
/// Contents that were received and checked: `got-HASH-RANDOM`. A run that fails leaves them to the next.
const RECEIVED_PREFIX: &str = "got-";

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

/// A new content for some path, written but not yet in place.
#[derive(Debug)]
pub struct Staged {
    pub(super) dir: Arc<OwnedFd>,
    pub(super) name: String,
    /// Open until it is sealed: many may wait to be placed.
    file: Option<File>,
    /// Which file it is.
    inode: u64,
    /// What it was when it was sealed.
    sealed: Option<Stamp>,
    /// What becomes of it when it is dropped.
    pub(super) fate: Fate,
    pool: Arc<Pool>,
}

/// What becomes of a staged content that nobody needs any more.
#[derive(Debug)]
pub(super) enum Fate {
    /// It is removed.
    Removed,
    /// It was received and checked, and is there for whoever needs that hash next.
    Received(String),
    /// It is in place, or is somebody else's by now.
    Stays,
}

/// Names of received contents that nobody has taken, by their hash.
pub(super) type Pool = Mutex<HashMap<String, Vec<String>>>;

impl Staged {
    /// Which file it is, before and after it is put in place.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// What it is, once it is sealed: renames change nothing but when it was last changed.
    pub fn sealed(&self) -> Option<Stamp> {
        self.sealed
    }

    /// Adds bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Err(io::Error::new(io::ErrorKind::InvalidInput, "the staged file is sealed")),
        }
    }

    /// Gives the bytes their time, and makes them durable.
    pub fn seal(&mut self, modified: Option<Timestamp>, durability: Durability) -> io::Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        if let Some(time) = modified {
            let time =
                Timespec { tv_sec: time.as_second(), tv_nsec: i64::from(time.subsec_nanosecond().max(0)) };
            rustix::fs::futimens(&file, &Timestamps { last_access: time, last_modification: time })?;
        }
        self.sealed = Some(Stamp::of_file(&file)?);
        if durability == Durability::Now { file.sync_all() } else { Ok(()) }
    }

    /// Keeps a content that was checked, should this run not come to put it in place.
    pub fn keep_as(&mut self, hash: &ContentHash) -> io::Result<()> {
        let name = random_name(&format!("{RECEIVED_PREFIX}{hash}-"));
        rustix::fs::renameat(&*self.dir, &self.name, &*self.dir, &name)?;
        (self.name, self.fate) = (name, Fate::Received(hash.to_string()));
        Ok(())
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        match std::mem::replace(&mut self.fate, Fate::Stays) {
            Fate::Removed if point().is_ok() => {
                let _ = rustix::fs::unlinkat(&*self.dir, &self.name, AtFlags::empty());
            }
            Fate::Received(hash) => {
                let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
                pool.entry(hash).or_default().push(std::mem::take(&mut self.name));
            }
            Fate::Removed | Fate::Stays => {}
        }
    }
}

impl Root {
    /// Makes every change so far durable, with one wait for the whole file system.
    pub fn sync_everything(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(self.incoming()?)?)
    }

    /// The directory for contents that are not yet, or no longer, in place.
    pub(super) fn incoming(&self) -> io::Result<Arc<OwnedFd>> {
        if let Some(dir) = self.incoming.get() {
            return Ok(dir.clone());
        }
        let dir = Arc::new(self.directory(&[PRIVATE_DIR, "incoming"], CreateDirs::Yes)?);
        Ok(self.incoming.get_or_init(|| dir).clone())
    }

    /// Removes what a killed run had staged, and finds what it had received. Files it had taken out of the tree stay: they may
    /// be somebody's. The caller holds the directory's lock.
    pub fn sweep_staged(&self) -> io::Result<()> {
        let mut received: HashMap<String, Vec<String>> = HashMap::new();
        self.each_incoming(|dir, name| {
            if name.starts_with(STAGED_PREFIX) {
                rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
            } else if let Some((hash, _)) =
                name.strip_prefix(RECEIVED_PREFIX).and_then(|rest| rest.split_once('-'))
            {
                received.entry(hash.to_owned()).or_default().push(name.to_owned());
            }
            Ok(())
        })?;
        *self.pool.lock().unwrap_or_else(PoisonError::into_inner) = received;
        Ok(())
    }

    /// Removes what was received and is in no place: nobody needs it any more.
    pub fn sweep_received(&self) -> io::Result<()> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.each_incoming(|dir, name| match name.starts_with(RECEIVED_PREFIX) {
            true => Ok(rustix::fs::unlinkat(dir, name, AtFlags::empty())?),
            false => Ok(()),
        })
    }

    fn each_incoming(&self, mut act: impl FnMut(&OwnedFd, &str) -> io::Result<()>) -> io::Result<()> {
        let dir = match self.directory(&[PRIVATE_DIR, "incoming"], CreateDirs::No) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        for entry in rustix::fs::Dir::read_from(&dir)? {
            if let Ok(name) = entry?.file_name().to_str() {
                act(&dir, name)?;
            }
        }
        Ok(())
    }

    /// A content that was received before and is in no place, unsealed. It is read again: a power cut may have taken its bytes.
    pub fn take_received(&self, hash: &ContentHash) -> io::Result<Option<Staged>> {
        let name = {
            let mut pool = self.pool.lock().unwrap_or_else(PoisonError::into_inner);
            pool.get_mut(&hash.to_string()).and_then(Vec::pop)
        };
        let Some(name) = name else { return Ok(None) };
        let dir = self.incoming()?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&*dir, &name, flags, Mode::empty())?);
        let inode = Stamp::of_file(&file)?.inode();
        let whole = file.metadata()?.is_file() && hash_file(&file, Some(hash))?.0 == *hash;
        let fate = if whole { Fate::Received(hash.to_string()) } else { Fate::Removed };
        let staged =
            Staged { dir, name, file: Some(file), inode, sealed: None, fate, pool: self.pool.clone() };
        Ok(whole.then_some(staged))
    }

    /// Begins a new content, in the tools' own directory of the same file system.
    pub fn stage(&self) -> io::Result<Staged> {
        let dir = self.incoming()?;
        let name = random_name(STAGED_PREFIX);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&*dir, &name, flags, Mode::from_raw_mode(0o666))?);
        let inode = Stamp::of_file(&file)?.inode();
        Ok(Staged {
            dir,
            name,
            file: Some(file),
            inode,
            sealed: None,
            fate: Fate::Removed,
            pool: self.pool.clone(),
        })
    }

    /// Begins and ends a content: what a file holds from its beginning, durably.
    pub fn stage_copy(&self, mut from: &File, modified: Option<Timestamp>) -> io::Result<Staged> {
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
}

/// A name nobody else uses.
pub(super) fn random_name(prefix: &str) -> String {
    format!("{prefix}{}", random_hex::<12>())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Sha256;

    #[test]
    fn what_was_received_is_there_for_the_next_run_if_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let root = Root::open(dir.path()).unwrap();
        let names = || fs::read_dir(dir.path().join(".parquedb/incoming")).unwrap().count();
        let hash = ContentHash::Sha256(Sha256::of(b"content"));
        for _ in 0..2 {
            let mut staged = root.stage().unwrap();
            staged.write(b"content").unwrap();
            staged.seal(None, Durability::Later).unwrap();
            staged.keep_as(&hash).unwrap();
        }
        drop(root.stage().unwrap());
        assert_eq!(names(), 2);
        let root = Root::open(dir.path()).unwrap();
        assert!(root.take_received(&hash).unwrap().is_none(), "nobody has looked");
        root.sweep_staged().unwrap();
        let first = root.take_received(&hash).unwrap().unwrap();
        // A power cut has taken the other one's bytes.
        let other = root.pool.lock().unwrap()[&hash.to_string()][0].clone();
        fs::write(dir.path().join(".parquedb/incoming").join(other), "co\0tent").unwrap();
        assert!(root.take_received(&hash).unwrap().is_none());
        assert_eq!(names(), 1, "what is damaged goes");
        drop(first);
        assert_eq!(names(), 1, "what is whole stays for the next run");
        root.sweep_received().unwrap();
        assert_eq!(names(), 0);
    }
}
