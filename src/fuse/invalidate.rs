//! Making the kernel forget what a flip changed; and keep, unasked, what a file holds.
//!
//! A notification may wait, inside the kernel, for a lookup in the same directory that is on its way to us. So it is
//! never sent from a thread that answers requests, and none is sent any more once unmounting begins: one that waits
//! for an answer nobody gives would keep the process.

use std::ffi::OsStr;
use std::io;
use std::sync::{Arc, Mutex};

use fuser::{INodeNo, Notifier};

use crate::namespace::{Ino, Outdated};

/// Tells the kernel of one mount what to forget.
#[derive(Clone)]
pub struct Invalidator {
    /// None where no kernel is behind the mount.
    notifier: Option<Notifier>,
    armed: Arc<Mutex<bool>>,
}

impl Invalidator {
    pub(super) fn new(notifier: Notifier) -> Self {
        Self { notifier: Some(notifier), armed: Arc::new(Mutex::new(true)) }
    }

    /// For a mount that no kernel knows of, or not yet.
    pub fn nobody() -> Self {
        Self { notifier: None, armed: Arc::default() }
    }

    /// Makes the kernel forget. Blocks until it has; nothing is sent when it is disarmed. Not for threads that answer
    /// the kernel's requests.
    pub fn forget(&self, outdated: &Outdated) {
        let number = |ino: &Ino| INodeNo(ino.0);
        for (directory, name) in &outdated.names {
            let sent = self.send(|notifier| notifier.inval_entry(number(directory), OsStr::new(&**name)));
            if !sent {
                return;
            }
        }
        // A directory's data is what the kernel remembers of its listing.
        let directories = outdated.directories.iter().map(|ino| (ino, 0));
        // Of a file, attributes only: its content is the same.
        let attributes = outdated.attributes.iter().map(|ino| (ino, -1));
        for (ino, offset) in directories.chain(attributes) {
            if !self.send(|notifier| notifier.inval_inode(number(ino), offset, 0)) {
                return;
            }
        }
    }

    /// Puts bytes of a file among the pages that the kernel keeps of it, if it knows the inode; whether it took them.
    /// All of a page or, at the file's end, all there is of it. Waits as [`forget`](Self::forget) does.
    pub(super) fn store(&self, ino: Ino, offset: u64, bytes: &[u8]) -> bool {
        let mut taken = false;
        self.send(|notifier| {
            let sent = notifier.store(INodeNo(ino.0), offset, bytes);
            taken = sent.is_ok();
            sent
        });
        taken
    }

    fn send(&self, notify: impl FnOnce(&Notifier) -> io::Result<()>) -> bool {
        let armed = self.armed.lock().unwrap_or_else(|e| e.into_inner());
        if *armed
            && let Some(notifier) = &self.notifier
            && let Err(error) = notify(notifier)
        {
            tracing::debug!(%error, "the kernel did not take a notification");
        }
        *armed
    }

    /// Sends nothing more; when this returns, nothing is being sent.
    pub fn disarm(&self) {
        *self.armed.lock().unwrap_or_else(|e| e.into_inner()) = false;
    }
}
