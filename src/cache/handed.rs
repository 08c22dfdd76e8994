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

use super::content::{CachedContent, now};
use super::layout::BYTES;
use super::part::Part;
use super::slots::Word;

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

/// When a file was last written to, in milliseconds since 1970. Unlike the time of modification, this one cannot be
/// set.
pub(super) fn changed_at(file: &Metadata) -> u64 {
    let milliseconds = file.ctime().saturating_mul(1000).saturating_add(file.ctime_nsec() / 1_000_000);
    u64::try_from(milliseconds).unwrap_or(0)
}

impl CachedContent {
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
        if changed_at(&opened) > part.slots.header()?.number(Word::Checked) {
            return Ok(None);
        }
        seek(&file, SeekFrom::Start(0))?;
        part.slots.set_yes(Word::HandedOut)?;
        part.slots.set(Word::Opened, now())?;
        Ok(Some(HandedOut { file, part: part.clone() }))
    }
}
