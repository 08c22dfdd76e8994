//! Checking contents that are all here, beside those who read them: against their hash when the last block has come,
//! and against rot before the kernel is given them to read without checksums, unless that was done lately.

use std::io;
use std::sync::atomic::Ordering;

use super::fly::Flying;
use crate::cache::{ContentState, Soundness, Verification};

impl Flying {
    /// Checks a content that is all here. The end of the process ends it, too: the next who opens it does it again.
    pub(super) fn verify(self) {
        if self.needs_no_check() {
            return;
        }
        let runtime = self.fetcher.runtime.clone();
        runtime.spawn(async move {
            // Each reads a whole file: few at a time.
            let Ok(_turn) = self.fetcher.verifications.acquire().await else { return };
            if self.needs_no_check() {
                return;
            }
            let state = self.cached.state();
            let (cached, stop) = (self.cached.clone(), self.fetcher.stopping());
            let checked = tokio::task::spawn_blocking(move || match state {
                ContentState::Verified => cached.look_for_rot(&stop).map(Checked::ForRot),
                _ => cached.verify(&stop).map(Checked::ByHash),
            });
            self.take_note(checked.await.unwrap_or_else(|error| Err(io::Error::other(error))));
        });
    }

    /// What was checked, was evicted and has come again has to be checked again.
    fn needs_no_check(&self) -> bool {
        match self.cached.state() {
            ContentState::Partial => true,
            ContentState::Complete => false,
            ContentState::Verified => {
                self.shared.trusted.load(Ordering::Relaxed) || self.cached.was_checked()
            }
        }
    }

    fn take_note(&self, checked: io::Result<Checked>) {
        let path = &self.key.path;
        match checked {
            Ok(Checked::ByHash(Verification::Verified) | Checked::ForRot(Soundness::Sound)) => {
                self.shared.trusted.store(true, Ordering::Relaxed);
            }
            Ok(Checked::ByHash(Verification::Wrong)) => {
                self.cost.count(|counters| &counters.responses_refused, 1);
                self.shared.turned_out_wrong();
                tracing::warn!(
                    %path,
                    "the remote's bytes are not what their hash says: they are dropped, and for a minute nothing of it is read"
                );
            }
            Ok(Checked::ForRot(Soundness::Rotten(blocks))) => {
                self.cost.count(|counters| &counters.blocks_rotten, blocks);
                tracing::warn!(%path, blocks, "cached blocks have rotted: they will be fetched again");
            }
            Ok(outcome) => tracing::debug!(%path, ?outcome, "not trusted yet"),
            Err(error) => tracing::warn!(%path, %error, "a content could not be checked"),
        }
    }
}

/// What a check came to.
#[derive(Debug)]
enum Checked {
    ByHash(Verification),
    ForRot(Soundness),
}
