//! Where a mount's local state lies, and that one process has it: by origin, database and replica name, never by
//! mountpoint (rule 24).

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::FallocateFlags;
use serde::{Deserialize, Serialize};

use crate::disk::{Readers, make_private_dirs, replace_file, sync_dir};
use crate::model::{DbRef, Sha256};

/// The newest format this program writes and reads.
const FORMAT: u32 = 1;
/// Given up when the disk is full, so that what was acknowledged, deletions above all, can still be written down.
const RESERVE: u64 = 8 << 20;
/// What stands behind a process's number when it is mounted no more.
const ENDING: &str = "ending";

/// Which boot of the machine it is: what was not synced in an earlier one may be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Boot(String);

impl Boot {
    /// This one.
    pub fn current() -> io::Result<Self> {
        // A test whose power cut is another directory's only has to name another boot.
        let text = match std::env::var("PARQUEDB_TEST_BOOT") {
            Ok(name) => name,
            Err(_) => std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?,
        };
        Ok(Self::named(text.trim()))
    }

    /// A boot by its id, of which 48 bytes count.
    pub fn named(id: &str) -> Self {
        let end = (0..=id.len().min(48)).rev().find(|at| id.is_char_boundary(*at)).unwrap_or(0);
        Self(id[..end].to_owned())
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Its id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What one replica's state is known by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Place {
    format: u32,
    /// The remote's origin.
    pub origin: String,
    /// The database, as it was called.
    pub database: String,
    /// Its id.
    pub database_id: String,
    /// Which of this user's replicas of it.
    pub replica: String,
}

/// Why a replica's state cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    /// Another daemon has it.
    #[error(
        "{database} is mounted by process {pid} with this state ({dir}): unmount that one, or mount a replica of its own \
         with --replica NAME, or with --read-only"
    )]
    InUse {
        /// The database.
        database: String,
        /// The process, as it has written it down.
        pid: String,
        /// Where.
        dir: String,
    },
    /// A daemon that is mounted no more has it still.
    #[error(
        "process {pid}, the daemon of the last mount of {database}, is still publishing what was written: mount again when \
         it has ended"
    )]
    Ending {
        /// The database.
        database: String,
        /// The process.
        pid: String,
    },
    /// It was written by a later version.
    #[error(
        "the local state in {dir} has format {found}, and this version knows {FORMAT}: use a newer parquedb-mount"
    )]
    Newer {
        /// Its format.
        found: u32,
        /// Where.
        dir: String,
    },
    /// The disk failed.
    #[error("the local state in {dir}: {source}")]
    Disk {
        /// Where.
        dir: String,
        /// How.
        #[source]
        source: io::Error,
    },
}

/// A replica's directory, ours as long as this lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: File,
}

impl Place {
    /// The place of a replica.
    pub fn new(origin: &str, database: &DbRef, database_id: &str, replica: &str) -> Self {
        Self {
            format: FORMAT,
            origin: origin.to_owned(),
            database: database.to_string(),
            database_id: database_id.to_owned(),
            replica: replica.to_owned(),
        }
    }

    fn below(state_dir: &Path) -> PathBuf {
        state_dir.join("replicas-1")
    }

    /// The replica's directory below the user's state directory.
    pub fn dir(&self, state_dir: &Path) -> PathBuf {
        let key = format!("{}\n{}\n{}", self.origin, self.database_id, self.replica);
        let key = Sha256::of(key.as_bytes()).to_string();
        Self::below(state_dir).join(&key[..32])
    }

    /// All replicas that have state below `state_dir`, with their directories.
    pub fn all(state_dir: &Path) -> Vec<(Self, PathBuf)> {
        let Ok(dirs) = std::fs::read_dir(Self::below(state_dir)) else { return Vec::new() };
        let read = |dir: PathBuf| Some((Self::read(&dir).ok()??, dir));
        dirs.flatten().filter_map(|entry| read(entry.path())).collect()
    }

    /// Whether a daemon has this user's replica of a database, whatever its id.
    pub fn is_held(state_dir: &Path, origin: &str, database: &DbRef, replica: &str) -> bool {
        let database = database.to_string();
        Self::all(state_dir).iter().any(|(place, dir)| {
            (place.origin.as_str(), &place.database, place.replica.as_str()) == (origin, &database, replica)
                && StateDir::holder(dir).is_some()
        })
    }

    /// What the replica of a directory is known by.
    pub fn of(dir: &Path) -> io::Result<Self> {
        Self::read(dir)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn read(dir: &Path) -> io::Result<Option<Self>> {
        match std::fs::read(dir.join("replica.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the replica's directory, made if it is not there.
    pub fn take(&self, state_dir: &Path) -> Result<StateDir, PlaceError> {
        self.take_at(self.dir(state_dir))
    }

    /// Takes a directory of any name as this replica's.
    pub fn take_at(&self, path: PathBuf) -> Result<StateDir, PlaceError> {
        let shown = || path.display().to_string();
        let disk = |source| PlaceError::Disk { dir: shown(), source };
        make_private_dirs(&path).map_err(disk)?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let mut lock = options.open(path.join("lock")).map_err(disk)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let _ = lock.read_to_string(&mut text);
                let mut words = text.split_whitespace();
                let pid = words.next().unwrap_or("that does not say its number").to_owned();
                let database = self.database.clone();
                return Err(match words.next() {
                    Some(ENDING) => PlaceError::Ending { database, pid },
                    _ => PlaceError::InUse { database, pid, dir: shown() },
                });
            }
            Err(TryLockError::Error(error)) => return Err(disk(error)),
        }
        // Also those that somebody else has made, or we ourselves just before the power failed. What we may not read is not ours.
        path.ancestors().skip(1).take(3).for_each(|above| drop(sync_dir(above)));
        let written = lock.set_len(0).and_then(|()| lock.rewind());
        written.and_then(|()| writeln!(lock, "{}", std::process::id())).map_err(disk)?;
        match Self::read(&path).map_err(disk)? {
            Some(found) if found.format > FORMAT => {
                return Err(PlaceError::Newer { found: found.format, dir: shown() });
            }
            Some(found) if found == *self => {}
            _ => {
                let text = serde_json::to_vec_pretty(self).map_err(|error| disk(error.into()))?;
                replace_file(&path.join("replica.json"), &text, Readers::OwnerOnly).map_err(disk)?;
            }
        }
        Ok(StateDir { path, lock })
    }
}

impl StateDir {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether a directory is a replica's that nobody has.
    pub fn is_left(path: &Path) -> bool {
        let lock = File::open(path.join("lock"));
        lock.is_ok_and(|lock| lock.try_lock().is_ok())
    }

    /// The process that has the replica of a directory, as it has written it down.
    pub fn holder(path: &Path) -> Option<String> {
        let mut lock = File::open(path.join("lock")).ok()?;
        if !matches!(lock.try_lock_shared(), Err(TryLockError::WouldBlock)) {
            return None;
        }
        let mut pid = String::new();
        lock.read_to_string(&mut pid).ok()?;
        Some(pid.split_whitespace().next().unwrap_or_default().to_owned())
    }

    /// Says that what was mounted is so no more: who wants to have the directory next need only wait.
    pub fn is_ending(&self) {
        // Only for what others are told.
        let text = format!("{} {ENDING}\n", std::process::id());
        let _ = self.lock.write_all_at(text.as_bytes(), 0);
    }

    fn reserve(&self) -> PathBuf {
        self.path.join("reserve")
    }

    /// Sets room aside for when there is none (rule 25). Where there is none now, it is tried again later.
    pub fn set_room_aside(&self) {
        let kept = OpenOptions::new().write(true).create(true).truncate(false).open(self.reserve());
        let kept = kept.and_then(|file| {
            rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE).map_err(io::Error::from)
        });
        if let Err(error) = kept {
            tracing::debug!(%error, "no room can be set aside");
            let _ = std::fs::remove_file(self.reserve());
        }
    }

    /// Gives up the room that was set aside. `false`: there was none.
    pub fn give_room_up(&self) -> bool {
        std::fs::remove_file(self.reserve()).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(replica: &str) -> Place {
        Place::new("http://127.0.0.1:3000", &"alice/data".parse().unwrap(), "id", replica)
    }

    #[test]
    fn one_daemon_has_a_replica_and_the_next_is_told_who() {
        let dir = tempfile::tempdir().unwrap();
        let taken = place("main").take(dir.path()).unwrap();
        let refused = place("main").take(dir.path()).unwrap_err();
        let pid = std::process::id().to_string();
        assert!(matches!(&refused, PlaceError::InUse { pid: told, .. } if *told == pid), "{refused}");
        assert_eq!(StateDir::holder(taken.path()).as_ref(), Some(&pid));
        taken.is_ending();
        assert_eq!(StateDir::holder(taken.path()).as_ref(), Some(&pid));
        assert!(
            matches!(place("main").take(dir.path()), Err(PlaceError::Ending { pid: told, .. }) if told == pid)
        );
        place("other").take(dir.path()).unwrap();
        let path = taken.path().to_owned();
        drop(taken);
        assert_eq!(StateDir::holder(&path), None);
        let again = place("main").take(dir.path()).unwrap();
        assert_eq!(Place::all(dir.path()).len(), 2);
        std::fs::write(
            again.path().join("replica.json"),
            "{\"format\":2,\"origin\":\"\",\"database\":\"\",\"databaseId\":\"\",\"replica\":\"\"}",
        )
        .unwrap();
        drop(again);
        assert!(matches!(place("main").take(dir.path()), Err(PlaceError::Newer { found: 2, .. })));
    }
}
