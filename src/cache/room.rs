//! How much the cache takes on disk, known to every process that shares it without walking through it: one number in
//! a file, changed under its lock. It is never less than the truth but for files that were removed while the kernel
//! reads them: what is reserved counts before it is written, and a process that is killed leaves too much until the
//! next measurement.

use std::fs::{self, File, TryLockError};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::layout::{Layout, create_file};
use crate::disk::random_hex;

/// The unit in which file systems give out space.
const FS_BLOCK: u64 = 4096;
/// A reservation may need a directory, and a page of slots or two.
const BESIDE: u64 = 3 * FS_BLOCK;
const MAGIC: u64 = u64::from_le_bytes(*b"PQUSAGE3");
/// Another process holds the lock for microseconds; one that was stopped just then is not waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The room of one cache directory, as one process has it open.
#[derive(Debug)]
pub(super) struct Room {
    users: PathBuf,
    /// The shared number. Without it, as on a disk that is read-only, there is no room.
    file: Option<File>,
    own: Mutex<Own>,
}

/// What this process has reserved and not yet written.
#[derive(Debug)]
struct Own {
    unwritten: u64,
    /// Tells others; locked for as long as this process lives.
    file: Option<(PathBuf, File)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Total {
    /// What is taken and reserved.
    bytes: u64,
    /// All that was ever reserved.
    ever: u64,
    /// How often it was measured.
    measured: u64,
}

/// The answer to a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reserved {
    Yes,
    /// So many bytes more must go first.
    Lacking(u64),
    /// How much is taken is not known: it has to be measured.
    Unknown,
    /// Nothing can be reserved here.
    No,
}

/// A measurement that has begun.
#[derive(Debug, Clone, Copy)]
pub(super) struct Measuring {
    unwritten: u64,
    ever: u64,
}

/// Bytes on disk are about to be freed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Freeing {
    measured: Option<u64>,
}

impl Room {
    pub(super) fn open(layout: &Layout) -> Self {
        let options = || {
            let mut options = File::options();
            options.read(true).write(true).create(true).truncate(false).mode(0o600);
            options
        };
        let file = options().open(layout.root().join("usage"));
        let own = layout.users().join(random_hex::<16>());
        let announced = create_file(&own).and_then(|file| Ok(file.try_lock().map(|()| file)?));
        if let Err(error) = file.as_ref().and(announced.as_ref()) {
            tracing::warn!(%error, "nothing can be added to the cache");
        }
        let own = Own { unwritten: 0, file: announced.ok().map(|file| (own, file)) };
        let file = file.ok().filter(|_| own.file.is_some());
        Self { users: layout.users(), file, own: Mutex::new(own) }
    }

    /// Reserves room for `bytes` of blocks within `limit`. `lacking_on_disk` says how much must go for so many bytes
    /// to be written: with these, all that this process has reserved and not written yet.
    pub(super) fn reserve(
        &self,
        bytes: u64,
        limit: u64,
        lacking_on_disk: impl FnOnce(u64) -> u64,
    ) -> Reserved {
        let wanted = whole(bytes).saturating_add(BESIDE);
        let reserved = self.change(|own, total| {
            let Some(total) = total else { return Reserved::Unknown };
            let after = total.bytes.saturating_add(wanted);
            let lacking = after.saturating_sub(limit);
            let lacking = lacking.max(lacking_on_disk(own.unwritten.saturating_add(wanted)));
            if lacking > 0 {
                return Reserved::Lacking(lacking);
            }
            (total.bytes, total.ever) = (after, total.ever.wrapping_add(wanted));
            own.unwritten = own.unwritten.saturating_add(whole(bytes));
            Reserved::Yes
        });
        reserved.unwrap_or(Reserved::No)
    }

    /// Takes note that of `bytes` reserved, `kept` were written and the rest was not needed.
    pub(super) fn settle(&self, bytes: u64, kept: u64) {
        self.change(|own, total| {
            own.unwritten = own.unwritten.saturating_sub(whole(bytes));
            if let Some(total) = total {
                total.bytes = total.bytes.saturating_sub(whole(bytes).saturating_sub(whole(kept)));
            }
        });
    }

    /// Called before bytes on disk are freed.
    pub(super) fn begin_freeing(&self) -> Freeing {
        Freeing { measured: self.change(|_, total| total.map(|total| total.measured)).flatten() }
    }

    /// Takes note of bytes that were freed on disk. Who measured meanwhile may have met them gone: then they are not
    /// taken off a second time.
    pub(super) fn end_freeing(&self, began: Freeing, bytes: u64) {
        self.change(|_, total| {
            if let Some(total) = total.as_mut().filter(|total| Some(total.measured) == began.measured) {
                total.bytes = total.bytes.saturating_sub(bytes);
            }
        });
    }

    /// Takes note of bytes that were written without a reservation.
    pub(super) fn added(&self, bytes: u64) {
        self.change(|_, total| {
            if let Some(total) = total {
                (total.bytes, total.ever) = (total.bytes + bytes, total.ever.wrapping_add(bytes));
            }
        });
    }

    /// What is taken and reserved, if that is known.
    pub(super) fn taken(&self) -> Option<u64> {
        self.change(|_, total| total.as_ref().map(|total| total.bytes)).flatten()
    }

    /// Called before walking through the cache.
    pub(super) fn begin_measuring(&self) -> Measuring {
        let began = self.change(|_, total| {
            let ever = total.as_ref().map_or(0, |total| total.ever);
            Measuring { unwritten: self.unwritten_of_all(), ever }
        });
        began.unwrap_or(Measuring { unwritten: 0, ever: 0 })
    }

    /// Takes over what the walk found. What was reserved before it and unwritten, and what was reserved during it,
    /// may have been met or not: it counts.
    pub(super) fn end_measuring(&self, began: Measuring, found: u64) {
        self.change(|_, total| {
            let (ever, measured) = total.map_or((began.ever, 0), |total| (total.ever, total.measured));
            let bytes = found + began.unwritten + ever.wrapping_sub(began.ever);
            *total = Some(Total { bytes, ever, measured: measured.wrapping_add(1) });
        });
    }

    /// Under the lock. Whoever does not hold its file's lock lives no more.
    fn unwritten_of_all(&self) -> u64 {
        let mut sum = 0;
        for entry in fs::read_dir(&self.users).into_iter().flatten().flatten() {
            let Ok(file) = File::open(entry.path()) else { continue };
            match file.try_lock_shared() {
                Err(TryLockError::WouldBlock) => sum += number(&file, 0).unwrap_or(0),
                Ok(()) if !is_new(&file) => drop(fs::remove_file(entry.path())),
                _ => {}
            }
        }
        sum
    }

    /// Does something with the numbers while nobody else does. `None`: they cannot be had.
    fn change<T>(&self, change: impl FnOnce(&mut Own, &mut Option<Total>) -> T) -> Option<T> {
        let file = self.file.as_ref()?;
        let mut own = self.own.lock().unwrap_or_else(|e| e.into_inner());
        let until = Instant::now() + PATIENCE;
        while let Err(error) = file.try_lock() {
            if matches!(error, TryLockError::Error(_)) || Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        let mut total = read_total(file);
        let before = (total, own.unwritten);
        let result = change(&mut own, &mut total);
        let mut written = Ok(());
        if let Some(total) = total.filter(|total| before.0 != Some(*total)) {
            let words = [MAGIC, total.bytes, total.ever, total.measured];
            written = file.write_all_at(&words.map(u64::to_le_bytes).concat(), 0);
        }
        if let Some((_, own_file)) = own.file.as_ref().filter(|_| before.1 != own.unwritten) {
            written = written.and(own_file.write_all_at(&own.unwritten.to_le_bytes(), 0));
        }
        let _ = file.unlock();
        match written {
            Ok(()) => Some(result),
            Err(error) => {
                tracing::debug!(%error, "the cache's usage cannot be written down");
                None
            }
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let own = self.own.get_mut().unwrap_or_else(|e| e.into_inner());
        if let Some((path, _)) = &own.file {
            let _ = fs::remove_file(path);
        }
    }
}

fn read_total(file: &File) -> Option<Total> {
    let total = Total { bytes: number(file, 8)?, ever: number(file, 16)?, measured: number(file, 24)? };
    (number(file, 0) == Some(MAGIC) && total.bytes < 1 << 62).then_some(total)
}

fn number(file: &File, at: u64) -> Option<u64> {
    let mut word = [0; 8];
    file.read_exact_at(&mut word, at).ok().map(|()| u64::from_le_bytes(word))
}

/// A process that is just starting has made its file and not locked it yet.
fn is_new(file: &File) -> bool {
    let made = file.metadata().and_then(|metadata| metadata.modified());
    made.ok().and_then(|made| made.elapsed().ok()).is_none_or(|age| age < Duration::from_secs(60))
}

/// Whole pages of the file system.
fn whole(bytes: u64) -> u64 {
    bytes.div_ceil(FS_BLOCK).saturating_mul(FS_BLOCK)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enough(_: u64) -> u64 {
        0
    }

    fn measure(room: &Room, found: u64) {
        let began = room.begin_measuring();
        room.end_measuring(began, found);
    }

    #[test]
    fn two_who_share_the_cache_share_the_room() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let (one, two) = (Room::open(&layout), Room::open(&layout));
        assert_eq!(one.reserve(1, 1 << 30, enough), Reserved::Unknown);
        measure(&one, 0);
        let limit = 10 * FS_BLOCK;
        assert_eq!(one.reserve(4 * FS_BLOCK, limit, enough), Reserved::Yes);
        assert_eq!(two.reserve(1, limit, enough), Reserved::Lacking(FS_BLOCK), "3 + 4 + 3 + 1 pages");
        // Another measures meanwhile: what is reserved and not written is not forgotten.
        measure(&two, 0);
        assert_eq!(two.taken(), Some(4 * FS_BLOCK));
        one.settle(4 * FS_BLOCK, FS_BLOCK);
        assert_eq!(two.taken(), Some(FS_BLOCK));
        measure(&two, 5);
        assert_eq!(one.taken(), Some(5), "all is written");
    }

    #[test]
    fn what_is_freed_while_another_measures_is_not_taken_off_twice() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let (one, two) = (Room::open(&layout), Room::open(&layout));
        measure(&one, 10);
        let freeing = one.begin_freeing();
        measure(&two, 7);
        one.end_freeing(freeing, 3);
        assert_eq!(one.taken(), Some(7), "they were gone by then");
        let measuring = two.begin_measuring();
        one.end_freeing(one.begin_freeing(), 3);
        assert_eq!(one.taken(), Some(4));
        two.end_measuring(measuring, 7);
        assert_eq!(one.taken(), Some(7), "it may be too much, and never too little");
    }

    #[test]
    fn what_is_reserved_and_not_written_yet_is_not_free_on_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let room = Room::open(&Layout::open(dir.path()).unwrap());
        measure(&room, 0);
        let disk = |bytes: u64| bytes.saturating_sub(10 * FS_BLOCK);
        assert_eq!(room.reserve(4 * FS_BLOCK, 1 << 30, disk), Reserved::Yes);
        assert_eq!(room.reserve(4 * FS_BLOCK, 1 << 30, disk), Reserved::Lacking(FS_BLOCK), "4 + 4 + 3 pages");
        room.settle(4 * FS_BLOCK, 4 * FS_BLOCK);
        assert_eq!(room.reserve(4 * FS_BLOCK, 1 << 30, disk), Reserved::Yes, "it is written");
    }

    #[test]
    fn what_a_dead_process_reserved_is_forgotten_by_measuring() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path()).unwrap();
        let room = Room::open(&layout);
        measure(&room, 0);
        // Killed: its file stays and nobody holds the lock.
        let left = create_file(&layout.users().join("dead")).unwrap();
        left.write_all_at(&77_u64.to_le_bytes(), 0).unwrap();
        left.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
        let alive = create_file(&layout.users().join("alive")).unwrap();
        alive.write_all_at(&5_u64.to_le_bytes(), 0).unwrap();
        alive.try_lock().unwrap();
        measure(&room, 100);
        assert_eq!(room.taken(), Some(105));
        assert!(!layout.users().join("dead").exists());
    }
}
