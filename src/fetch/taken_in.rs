//! Content that did not come from the remote: what was written here and is published by now goes into the cache, so that it is
//! read on as before, with the remote or without it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use super::fetcher::Fetcher;
use crate::cache::{BLOCK, ContentState, Verification, Written};
use crate::remote::ContentKey;

/// Bytes at a time: whole blocks.
const STEP: usize = 1 << 20;

impl Fetcher {
    /// Copies the bytes of a file into the cache, if it has room for them without their taking most of it, and checks them against
    /// the key's hash. `true`: all of it is there. Takes as long as reading the file twice.
    pub fn take_in(&self, key: &ContentKey, file: &File) -> io::Result<bool> {
        let (Some(cached), shared) = self.places(key) else { return Ok(false) };
        if key.size == 0 || key.size > self.cache.limit() / 4 {
            return Ok(false);
        }
        cached.called(key.path.as_str());
        let mut bytes = vec![0; STEP];
        let mut at = 0;
        while at < key.size && cached.state() == ContentState::Partial {
            let length = usize::try_from((key.size - at).min(STEP as u64)).unwrap_or(STEP);
            file.read_exact_at(&mut bytes[..length], at)?;
            if !self.cache.reserve(length as u64) {
                return Ok(false);
            }
            if cached.write(at / BLOCK, &bytes[..length])? == Written::NotKept {
                self.cache.release(length as u64);
                return Ok(false);
            }
            at += length as u64;
        }
        if cached.state() == ContentState::Verified {
            return Ok(true);
        }
        let right = cached.verify(&self.stopped)? == Verification::Verified;
        if right {
            shared.trusted.store(true, Ordering::Relaxed);
        }
        Ok(right)
    }
}
