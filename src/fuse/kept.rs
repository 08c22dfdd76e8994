//! Giving the kernel the bytes of complete files before it asks, for the pages it keeps.
//!
//! Passthrough is as fast as the disk, but its pages belong to the cached file: an engine that asks which bytes of *this*
//! file are in memory (`cachestat`, as Polars does before each read) is told none, and takes the slower way. So a file
//! that is opened again and again is copied among the kernel's pages of the mount's own file, and its next first open is
//! not passthrough but *kept*. Should the kernel drop the pages again, we are asked for them, and it is passthrough
//! once more.
//!
//! Where there is no passthrough, a mount that has just begun has no pages. Programs that read little here and there would
//! ask us each time, which takes longer in the end than storing all of the file: many small reads have that done, too.
//!
//! An inode has one content for ever and its number is not given twice, so what is stored late is never wrong. The kernel
//! waits where it stores for a page that it is just asking us for; so it is done by a thread that answers nothing, like
//! every notification.

use std::collections::HashMap;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, Weak};

use super::invalidate::Invalidator;
use crate::fetch::OpenContent;
use crate::namespace::Ino;

/// A smaller file is read in a few reads, whichever way.
const SMALLEST: u64 = 8 << 20;
/// Opens by passthrough after which a file is taken to be opened again.
const OPENS: u32 = 2;
/// A read for which it does not pay that the kernel asks us, and after how many such it is taken to go on.
const SMALL: u64 = 64 << 10;
const SMALL_READS: u32 = 64;
/// And each time the kernel has dropped them, after twice as many: it has better use for its memory.
const MOST_DOUBLINGS: u32 = 16;
/// Of a file whose pages are kept, this part may be asked for before they count as dropped.
const DROPPED: u64 = 16;
/// The kernel's pages may take this part of the memory that is free for such.
const PART_OF_MEMORY: u64 = 4;
/// Bytes stored at a time.
const STEP: u64 = 1 << 20;

/// What the kernel has of a file's pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pages {
    /// Nothing that it was given; so often the file was opened by passthrough since, and so many small reads came to us.
    None { opens: u32, small: u32 },
    /// They are being stored.
    Coming,
    /// All; so many bytes it may still ask for again.
    All { left: u64 },
}

impl Pages {
    const NOTHING: Self = Self::None { opens: 0, small: 0 };
}

#[derive(Debug)]
struct Inode {
    pages: Pages,
    /// How often they were stored, or were to be.
    times: u32,
}

impl Inode {
    /// How much of something is taken for a sign, when so little is at first.
    fn patience(&self, at_first: u32) -> u32 {
        at_first << self.times.min(MOST_DOUBLINGS)
    }

    fn begin(&mut self) -> bool {
        self.times += 1;
        self.pages = Pages::Coming;
        true
    }
}

/// How a complete file was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    Passthrough,
    Kept,
}

/// The inodes that were opened complete, as long as the kernel knows them.
#[derive(Debug)]
pub(super) struct Kept {
    inodes: Mutex<HashMap<Ino, Inode>>,
    storing: Sender<Whole>,
}

/// A complete content whose bytes are to be stored.
pub(super) struct Whole {
    ino: Ino,
    content: Arc<OpenContent>,
}

impl Kept {
    /// None yet; what is to be stored is received by [`store`].
    pub(super) fn new() -> (Self, Receiver<Whole>) {
        let (storing, wanted) = channel();
        (Self { inodes: Mutex::default(), storing }, wanted)
    }

    fn with<T>(&self, act: impl FnOnce(&mut HashMap<Ino, Inode>) -> T) -> T {
        act(&mut self.inodes.lock().unwrap_or_else(|e| e.into_inner()))
    }

    fn pages(&self, ino: Ino) -> Option<Pages> {
        self.with(|inodes| inodes.get(&ino).map(|inode| inode.pages))
    }

    /// Whether the kernel has all pages of an inode, or is being given them: an open by passthrough would have it drop
    /// what it has.
    pub(super) fn is_stored(&self, ino: Ino) -> bool {
        matches!(self.pages(ino), Some(Pages::All { .. } | Pages::Coming))
    }

    /// Whether the kernel is being given pages of an inode: what is written to it meanwhile they would undo.
    pub(super) fn is_being_stored(&self, ino: Ino) -> bool {
        self.pages(ino) == Some(Pages::Coming)
    }

    /// Notes an open of a complete file.
    pub(super) fn opened(&self, ino: Ino, by: By) {
        self.with(|inodes| {
            let inode = inodes.entry(ino).or_insert(Inode { pages: Pages::NOTHING, times: 0 });
            if let Pages::None { opens, .. } = &mut inode.pages
                && by == By::Passthrough
            {
                *opens += 1;
            }
        });
    }

    /// Notes that nobody has the file open any more, and has its pages stored if it is opened again and again. Only
    /// then: those who read have better use for the processor, and the next open may be of another mode.
    pub(super) fn closed(&self, ino: Ino, content: impl FnOnce() -> Option<Arc<OpenContent>>) {
        let begins = self.with(|inodes| {
            inodes.get_mut(&ino).is_some_and(|inode| match inode.pages {
                Pages::None { opens, .. } if opens >= inode.patience(OPENS) => inode.begin(),
                _ => false,
            })
        });
        if begins {
            self.send(ino, content());
        }
    }

    /// Notes that the kernel asked for bytes, as it does unless it reads by passthrough or keeps them; has all pages
    /// stored where it is asked for little again and again.
    pub(super) fn asked(&self, ino: Ino, bytes: u64, content: impl FnOnce() -> Option<Arc<OpenContent>>) {
        let begins = self.with(|inodes| {
            let Some(inode) = inodes.get_mut(&ino) else { return false };
            let patience = inode.patience(SMALL_READS);
            match &mut inode.pages {
                Pages::None { small, .. } if bytes <= SMALL => {
                    *small += 1;
                    return *small >= patience && inode.begin();
                }
                Pages::All { left } => match left.checked_sub(bytes) {
                    Some(fewer) => *left = fewer,
                    None => inode.pages = Pages::NOTHING,
                },
                _ => {}
            }
            false
        });
        if begins {
            self.send(ino, content());
        }
    }

    fn send(&self, ino: Ino, content: Option<Arc<OpenContent>>) {
        let content = content.filter(|content| content.size() >= SMALLEST);
        if content.is_none_or(|content| self.storing.send(Whole { ino, content }).is_err()) {
            self.came(ino, Came::Not);
        }
    }

    fn came(&self, ino: Ino, came: Came) {
        self.with(|inodes| {
            if let Some(inode) = inodes.get_mut(&ino)
                && inode.pages == Pages::Coming
            {
                inode.pages = match came {
                    Came::All(bytes) => Pages::All { left: bytes / DROPPED },
                    Came::Not => Pages::NOTHING,
                };
            }
        });
    }

    /// The kernel has forgotten an inode, and its pages.
    pub(super) fn forget(&self, ino: Ino) {
        self.with(|inodes| inodes.remove(&ino));
    }
}

/// How storing a file's bytes ended.
#[derive(Debug, Clone, Copy)]
enum Came {
    /// So many bytes are with the kernel.
    All(u64),
    /// Not all are.
    Not,
}

/// Stores what is wanted, one file after the other, until the mount ends.
pub(super) fn store(wanted: &Receiver<Whole>, kept: &Weak<Kept>, kernel: &Invalidator) {
    while let Ok(Whole { ino, content }) = wanted.recv() {
        let Some(kept) = kept.upgrade() else { return };
        let all = is_room(content.size()) && store_one(ino, &content, &kept, kernel);
        kept.came(ino, if all { Came::All(content.size()) } else { Came::Not });
        tracing::debug!(ino = ino.0, bytes = content.size(), all, "stored among the kernel's pages");
    }
}

fn store_one(ino: Ino, content: &OpenContent, kept: &Kept, kernel: &Invalidator) -> bool {
    (0..content.size()).step_by(STEP as usize).all(|offset| {
        kept.pages(ino) == Some(Pages::Coming)
            && content.peek(offset, STEP).is_some_and(|bytes| kernel.store(ino, offset, &bytes))
    })
}

fn is_room(bytes: u64) -> bool {
    // Where it is not told, nothing is known of other needs.
    let free = std::fs::read_to_string("/proc/meminfo").ok().and_then(|told| available(&told));
    free.is_some_and(|free| bytes <= free / PART_OF_MEMORY)
}

/// The bytes that could be had without anybody noticing, as `/proc/meminfo` tells it.
fn available(meminfo: &str) -> Option<u64> {
    let told = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    told.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino(7);

    fn is_coming(kept: &Kept) -> bool {
        kept.pages(FILE) == Some(Pages::Coming)
    }

    /// Opens until storing begins, unless it cannot, for nobody has a content.
    fn opens_until_wanted(kept: &Kept) -> u32 {
        let begins = || {
            let before = kept.with(|inodes| inodes.get(&FILE).map_or(0, |inode| inode.times));
            kept.opened(FILE, By::Passthrough);
            kept.closed(FILE, || None);
            kept.with(|inodes| inodes[&FILE].times) > before
        };
        (1..100).find(|_| begins()).unwrap()
    }

    /// As if all had been stored.
    fn stored(kept: &Kept, bytes: u64) {
        kept.with(|inodes| inodes.get_mut(&FILE).unwrap().pages = Pages::Coming);
        kept.came(FILE, Came::All(bytes));
        assert!(kept.is_stored(FILE));
    }

    #[test]
    fn what_is_opened_again_is_stored_and_what_the_kernel_drops_less_and_less_often() {
        let (kept, _wanted) = Kept::new();
        assert_eq!(opens_until_wanted(&kept), 2);
        stored(&kept, 1600);
        for bytes in [60, 40] {
            kept.asked(FILE, bytes, || None);
        }
        assert!(kept.is_stored(FILE), "a sixteenth");
        kept.asked(FILE, 1, || None);
        assert!(!kept.is_stored(FILE));
        assert_eq!(opens_until_wanted(&kept), 4);
        assert_eq!(opens_until_wanted(&kept), 8);
        kept.opened(FILE, By::Kept);
        for _ in 0..100 {
            kept.opened(FILE, By::Kept);
            kept.closed(FILE, || panic!("what is kept is not stored for being opened"));
        }
    }

    #[test]
    fn many_small_reads_begin_it_and_large_ones_do_not() {
        let (kept, _wanted) = Kept::new();
        kept.asked(FILE, 1, || panic!("it is not complete"));
        kept.opened(FILE, By::Kept);
        for _ in 0..1000 {
            kept.asked(FILE, SMALL + 1, || panic!("large reads are well as they are"));
        }
        for _ in 1..SMALL_READS {
            kept.asked(FILE, 4096, || panic!("few so far"));
        }
        let began = std::cell::Cell::new(0);
        let ask = || {
            kept.asked(FILE, SMALL, || {
                began.set(began.get() + 1);
                None
            })
        };
        ask();
        assert_eq!(began.get(), 1);
        for _ in 0..2 * SMALL_READS {
            ask();
        }
        assert_eq!(began.get(), 2, "after twice as many");
    }

    #[test]
    fn what_the_kernel_has_forgotten_is_not_kept_whatever_comes_late() {
        let (kept, _wanted) = Kept::new();
        kept.opened(FILE, By::Passthrough);
        kept.with(|inodes| inodes.get_mut(&FILE).unwrap().begin());
        assert!(is_coming(&kept));
        kept.forget(FILE);
        kept.came(FILE, Came::All(1600));
        assert!(!kept.is_stored(FILE) && !is_coming(&kept));
        assert_eq!(opens_until_wanted(&kept), 2, "it starts anew");
    }

    #[test]
    fn free_memory_is_read_as_linux_tells_it() {
        let told = "MemTotal:       24000000 kB\nMemFree:         100 kB\nMemAvailable:   20000000 kB\n";
        assert_eq!(available(told), Some(20_000_000 << 10));
        assert_eq!(available("MemFree: 5 kB\n"), None);
    }
}
