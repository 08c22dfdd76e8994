//! What files a directory has. Several directories are read at a time: on a warm cache most of the time goes into the
//! kernel's looking up each file, and it has as many hands as there are processors.

use std::ffi::{CStr, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use rustix::io::Errno;

use super::root::RESOLVE;
use super::{Root, Stamp};
use crate::manifest::{is_protected, stays_put};
use crate::model::DbPath;

/// More threads wait for each other.
const MOST_THREADS: usize = 8;

/// Something that is not published.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Skipped {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

/// Why something is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// Looks like a secret or another tool's own (rule 11).
    Protected,
    /// A symbolic link.
    SymbolicLink,
    /// A device, socket or fifo.
    NotAFile,
    /// The name is not UTF-8, or too long for a manifest.
    Name,
}

impl SkipReason {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protected => "protected name",
            Self::SymbolicLink => "symbolic link",
            Self::NotAFile => "not a regular file",
            Self::Name => "name cannot be published",
        }
    }
}

/// The result of a scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// Regular files that were found, by path, and what they were then. They have not been read.
    pub files: Vec<(DbPath, Stamp)>,
    /// What was left out and is worth telling; the tools' own files are not.
    pub skipped: Vec<Skipped>,
}

/// Directories that are still to be read.
#[derive(Default)]
struct Waiting {
    directories: Vec<Below>,
    /// How many are being read: each may bring more.
    under_way: usize,
    failed: Option<io::Error>,
}

/// A directory, told by its name below the root, which need not be UTF-8.
type Below = PathBuf;

/// Lists the directory's files. An unreadable directory is an error: its files must not pass for deleted
/// (rule 15).
pub fn scan(root: &Root) -> io::Result<Scan> {
    let first = Waiting { directories: vec![Below::new()], ..Waiting::default() };
    let (waiting, changed) = (Mutex::new(first), Condvar::new());
    let work = || {
        let mut parts = Vec::new();
        while let Some(directory) = next(&waiting, &changed) {
            let mut scan = Scan::default();
            let read = read_directory(root, &directory, &mut scan);
            let mut waiting = locked(&waiting);
            waiting.under_way -= 1;
            match read {
                Ok(below) => waiting.directories.extend(below),
                Err(error) => drop(waiting.failed.get_or_insert(error)),
            }
            changed.notify_all();
            drop(waiting);
            parts.push((directory, scan));
        }
        parts
    };
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).min(MOST_THREADS);
    let mut parts = std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut parts = work();
        for other in others {
            // A thread that panicked has read what nobody knows.
            parts.extend(other.join().map_err(|_| io::Error::other("a scan did not come to its end"))?);
        }
        Ok::<_, io::Error>(parts)
    })?;
    if let Some(error) = waiting.into_inner().unwrap_or_else(PoisonError::into_inner).failed {
        return Err(error);
    }
    // What was removed lists nothing, and is not empty for that.
    if !root.is_in_place()? {
        let text = format!("{}: it was moved or removed meanwhile", root.path().display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    let mut whole = Scan::default();
    parts.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    for (_, part) in parts {
        whole.files.extend(part.files);
        whole.skipped.extend(part.skipped);
    }
    // Mostly in order by now, which this kind of sorting makes use of.
    whole.files.sort_by(|(a, _), (b, _)| a.cmp(b));
    whole.skipped.sort();
    Ok(whole)
}

fn locked(waiting: &Mutex<Waiting>) -> MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next directory to read; none when all are read, or one could not be.
fn next(waiting: &Mutex<Waiting>, changed: &Condvar) -> Option<Below> {
    let mut waiting = locked(waiting);
    loop {
        if waiting.failed.is_some() {
            return None;
        }
        if let Some(directory) = waiting.directories.pop() {
            waiting.under_way += 1;
            return Some(directory);
        }
        if waiting.under_way == 0 {
            return None;
        }
        waiting = changed.wait(waiting).unwrap_or_else(PoisonError::into_inner);
    }
}

/// Reads one directory, and says which are below it.
fn read_directory(root: &Root, below: &Below, scan: &mut Scan) -> io::Result<Vec<Below>> {
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("{}: {error}", root.path().join(below).display()))
    };
    let dir = match open(root, below) {
        Ok(dir) => dir,
        // What goes, or becomes something else, while it is looked at is absent.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) if !below.as_os_str().is_empty() => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(failed(error.into())),
    };
    let mut directories = Vec::new();
    for entry in Dir::read_from(&dir).map_err(|error| failed(error.into()))? {
        let entry = entry.map_err(|error| failed(error.into()))?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let (mut kind, mut stat) = (entry.file_type(), None);
        if matches!(kind, FileType::RegularFile | FileType::Unknown) {
            match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
                Ok(found) => {
                    kind = FileType::from_raw_mode(found.st_mode);
                    stat = Some(found);
                }
                Err(Errno::NOENT) => continue,
                Err(error) => return Err(failed(error.into())),
            }
        }
        let relative = || below.join(OsStr::from_bytes(name.to_bytes()));
        let mut skip = |reason| scan.skipped.push(Skipped { path: relative(), reason });
        if name.to_str().is_ok_and(is_protected) {
            if kind != FileType::Directory {
                skip(SkipReason::Protected);
            }
            continue;
        }
        let stat = match (kind, stat) {
            (FileType::Directory, _) => {
                directories.push(relative());
                continue;
            }
            (FileType::RegularFile, Some(stat)) => stat,
            (FileType::Symlink, _) => {
                skip(SkipReason::SymbolicLink);
                continue;
            }
            _ => {
                skip(SkipReason::NotAFile);
                continue;
            }
        };
        let Some(path) = path_of(below, name) else {
            skip(SkipReason::Name);
            continue;
        };
        if !stays_put(&path) {
            scan.files.push((path, Stamp::of(&stat)));
        }
    }
    scan.files.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
    Ok(directories)
}

fn open(root: &Root, below: &Below) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let at = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    rustix::fs::openat2(root, at, flags, Mode::empty(), RESOLVE)
}

fn path_of(below: &Below, name: &CStr) -> Option<DbPath> {
    let (below, name) = (below.to_str()?, name.to_str().ok()?);
    match below {
        "" => DbPath::parse(name).ok(),
        below => DbPath::parse(&format!("{below}/{name}")).ok(),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_file_is_found_once_and_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let mut expected = Vec::new();
        for (n, below) in ["", "a", "a/b", "a.b", "a/b/c", "z"].into_iter().enumerate() {
            fs::create_dir_all(dir.path().join(below)).unwrap();
            for m in 0..50 {
                let name = format!("{below}/f{}", m * 7 % 50 + n);
                fs::write(dir.path().join(name.trim_start_matches('/')), vec![0; m]).unwrap();
                expected.push(name.trim_start_matches('/').to_owned());
            }
        }
        std::os::unix::fs::symlink("a", dir.path().join("link")).unwrap();
        fs::write(dir.path().join(OsStr::from_bytes(b"z/\xff")), "").unwrap();
        fs::write(dir.path().join("a/.env"), "").unwrap();
        fs::create_dir(dir.path().join(".git")).unwrap();
        fs::write(dir.path().join(".git/config"), "").unwrap();
        let scan = scan(&Root::open(dir.path()).unwrap()).unwrap();
        expected.sort();
        let found: Vec<_> = scan.files.iter().map(|(path, _)| path.as_str().to_owned()).collect();
        assert_eq!(found, expected);
        let reasons: Vec<_> = scan.skipped.iter().map(|skipped| skipped.reason).collect();
        assert_eq!(reasons, [SkipReason::Protected, SkipReason::SymbolicLink, SkipReason::Name]);
    }

    #[test]
    fn rule_15_a_root_that_is_gone_is_no_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let (gone, moved) = (dir.path().join("gone"), dir.path().join("moved"));
        fs::create_dir(&gone).unwrap();
        let root = Root::open(&gone).unwrap();
        fs::rename(&gone, moved).unwrap();
        assert!(scan(&root).is_err());
        fs::create_dir(&gone).unwrap();
        assert!(scan(&root).is_err(), "another one stands in its place");
        assert!(scan(&Root::open(&gone).unwrap()).is_ok());
    }
}
