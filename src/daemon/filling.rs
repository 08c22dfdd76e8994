//! Files that were written to become independent of the remote: what shows through of theirs is copied beside what was
//! written, in the background (rule 19).

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::room;
use crate::fetch::ReaderThread;
use crate::overlay::{LocalFile, Overlay};
use crate::state::NodeId;
use crate::vfs::Vfs;

/// Whoever has just begun to write may be about to write all of it.
const PAUSE: Duration = Duration::from_secs(2);
/// What could not be had is tried again after so long.
const AGAIN: Duration = Duration::from_secs(30);
/// Bytes at a time.
const STEP: u64 = 1 << 20;
/// So much of a disk stays free, or a tenth of a small one: for those who write.
const LEFT_FREE: u64 = 1 << 30;

/// Fills what needs to be filled, for as long as the mount is there.
pub(super) async fn fill(vfs: Arc<Vfs>, overlay: Arc<Overlay>) {
    let mut left: BTreeSet<NodeId> = BTreeSet::new();
    let mut next_try = tokio::time::Instant::now();
    loop {
        tokio::time::sleep(PAUSE).await;
        let fresh = overlay.take_dependent();
        if fresh.is_empty() && tokio::time::Instant::now() < next_try {
            continue;
        }
        left.extend(fresh);
        let mut failed = BTreeSet::new();
        for id in std::mem::take(&mut left) {
            // One that is gone needs nothing.
            let Some(file) = vfs.local_file(id) else { continue };
            if fill_one(&vfs, &overlay, &file).await {
                // It can be published by now.
                overlay.stirred();
            } else {
                failed.insert(id);
            }
        }
        left = failed;
        if !left.is_empty() {
            next_try = tokio::time::Instant::now() + AGAIN;
        }
    }
}

/// Fills all that can be filled now.
pub(super) async fn fill_now(vfs: &Vfs, overlay: &Arc<Overlay>) {
    for file in vfs.lacking() {
        fill_one(vfs, overlay, &file).await;
    }
}

/// Whether the disk has more room than programs that write may soon need.
fn has_room(overlay: &Overlay) -> io::Result<bool> {
    let (free, all) = room(overlay.path())?;
    Ok(free > LEFT_FREE.min(all / 10))
}

/// Fills a file. `false`: it needs the remote still.
async fn fill_one(vfs: &Vfs, overlay: &Arc<Overlay>, file: &Arc<LocalFile>) -> bool {
    let filled = try_to_fill(vfs, overlay, file).await;
    if let Err(reason) = &filled {
        tracing::debug!(node = file.node().0, reason, "a file that was written to needs the remote still");
    }
    filled.is_ok()
}

async fn try_to_fill(vfs: &Vfs, overlay: &Arc<Overlay>, file: &Arc<LocalFile>) -> Result<(), String> {
    // Looked at before its base: meanwhile it may be published, and changed anew over what was published.
    let (Some(into), Some(content)) = (file.staged(), vfs.open_base(file)) else { return Ok(()) };
    let mut at = 0;
    while let Some(missing) = file.missing(at).filter(|_| file.staged() == Some(into)) {
        let length = missing.len().min(STEP);
        if !has_room(overlay).map_err(|error| error.to_string())? {
            return Err("the disk is nearly full".into());
        }
        let bytes =
            content.read(ReaderThread(0), missing.start, length).await.map_err(|error| error.to_string())?;
        if bytes.len() as u64 != length {
            return Err("the remote's content is shorter than its entry says".into());
        }
        let (file, overlay, offset) = (file.clone(), overlay.clone(), missing.start);
        let filling = tokio::task::spawn_blocking(move || file.fill(&overlay, into, offset, &bytes));
        filling.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?;
        at = missing.start + length;
    }
    Ok(())
}
