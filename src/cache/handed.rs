//! Contents handed to the kernel (rule 20): it reads and maps their file without asking anyone.
//!
//! A hole punched into such a file would show as zeros. So it carries a mark, in its slots, for as long as it exists,
//! and whoever sees the mark evicts it by removing its name only. And it is not evicted at all while it is read: the
//! file that is handed out holds a shared lock, which the kernel keeps as long as it keeps the file, whatever becomes
//! of this process.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{SeekFrom, seek};
use rustix::time::{ClockId, clock_gettime};

use super::content::{CachedContent, now};
use super::layout::BYTES;
use super::part::Part;
use super::slots::{Header, Word};

/// What was checked is trusted for so long, and then checked again.
pub const CHECKED_FOR: Duration = Duration::from_secs(7 * 24 * 3600);
/// How long it waits for others who are just looking at this content.
const PATIENCE: Duration = Duration::from_millis(50);

/// A verified content's file. While this lives, or the kernel holds the file, the content is not evicted.
#[derive(Debug)]
pub struct HandedOut {
    file: File,
    part: Arc<Part>,
}

impl HandedOut {
    /// The content's bytes, for reading.
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for HandedOut {
    fn drop(&mut self) {
        // The kernel's reads are not seen here: it was in use until now.
        let _ = self.part.slots.set(Word::Opened, now());
    }
}

/// When a file was last written to, in nanoseconds since 1970. Unlike the time of modification, this one cannot be set.
/// To be compared with an earlier answer only: file systems' clocks go in steps, so that what is written just after a
/// moment may bear a time before it. But once a time was asked for, what is written later gets another one (Linux 6.13;
/// before, unless it is written within the same few milliseconds).
pub(super) fn changed_at(file: &Metadata) -> u64 {
    let nanoseconds = file.ctime().saturating_mul(1_000_000_000).saturating_add(file.ctime_nsec());
    u64::try_from(nanoseconds).unwrap_or(0)
}

impl Part {
    /// Says that all of it was checked now, while its bytes had last been written to at `changed`.
    pub(super) fn was_found_right(&self, changed: u64) -> io::Result<()> {
        self.slots.set(Word::CheckedAsOf, changed)?;
        self.slots.set(Word::Checked, now())
    }
}

/// Whether the bytes are as they were when they were checked, whenever that was.
fn is_unchanged(header: &Header, bytes: &Metadata) -> bool {
    header.number(Word::CheckedAsOf) == changed_at(bytes)
}

/// Whether a check of `checked` still counts, all in milliseconds since 1970. One from before the machine started says
/// nothing of what a power cut did; one from the future was made by another clock.
fn counts(checked: u64, started: u64, now: u64) -> bool {
    let for_so_long = u64::try_from(CHECKED_FOR.as_millis()).unwrap_or(u64::MAX);
    started < checked && checked <= now && now - checked < for_so_long
}

/// When this machine started, in milliseconds since 1970.
fn machine_started() -> u64 {
    let since = clock_gettime(ClockId::Boottime);
    let since = u64::try_from(since.tv_sec).unwrap_or(0).saturating_mul(1000);
    now().saturating_sub(since)
}

impl CachedContent {
    /// Whether all of it was checked lately, by this process or another: then nothing is gained by reading it again
    /// before the kernel gets it.
    pub fn was_checked(&self) -> bool {
        let counts = |part: &Arc<Part>| -> io::Result<bool> {
            let header = part.slots.header()?;
            let unchanged = is_unchanged(&header, &part.bytes.metadata()?);
            Ok(unchanged && counts(header.number(Word::Checked), machine_started(), now()))
        };
        self.parts().shared.as_ref().is_some_and(|part| counts(part).unwrap_or(false))
    }

    /// The content as a file for the kernel, if all of it is here and verified.
    pub fn hand_out(&self) -> io::Result<Option<HandedOut>> {
        let verified = |part: &Part| {
            let header = part.slots.header();
            header.is_ok_and(|header| header.is(Word::Verified)) && !part.slots.is_removed().unwrap_or(true)
        };
        if !self.parts().shared.as_deref().is_some_and(verified) && !self.refresh() {
            return Ok(None);
        }
        let Some(part) = self.parts().shared.clone() else { return Ok(None) };
        let file = match File::open(self.layout.shared(&self.key).join(BYTES)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let (opened, known) = (file.metadata()?, part.bytes.metadata()?);
        let same = (opened.dev(), opened.ino()) == (known.dev(), known.ino());
        if !same || file.try_lock_shared().is_err() {
            return Ok(None);
        }
        let Some(_lock) = part.slots.lock(PATIENCE)? else { return Ok(None) };
        // A file with holes, whatever made them, would show zeros.
        let whole = self.key.size == 0 || seek(&file, SeekFrom::Hole(0))? == self.key.size;
        if !verified(&part) || !whole || opened.len() != self.key.size {
            return Ok(None);
        }
        // Somebody has written to it since it was checked: its blocks' checksums tell us, and nobody tells the kernel.
        if !is_unchanged(&part.slots.header()?, &opened) {
            return Ok(None);
        }
        seek(&file, SeekFrom::Start(0))?;
        part.slots.set_yes(Word::HandedOut)?;
        part.slots.set(Word::Opened, now())?;
        Ok(Some(HandedOut { file, part: part.clone() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_counts_for_a_week_and_not_past_a_start_of_the_machine() {
        let week = CHECKED_FOR.as_millis() as u64;
        let (started, now) = (week * 10, week * 20);
        for (checked, expected) in [
            (now, true),
            (now - week + 1, true),
            (now - week, false),
            (now + 1, false),
            (started, false),
            (0, false),
        ] {
            assert_eq!(counts(checked, started, now), expected, "{checked}");
        }
        assert!(counts(started + 1, started, started + 2) && !counts(started - 1, started, started + 2));
        assert!(machine_started() > 0 && machine_started() < super::now());
    }
}
