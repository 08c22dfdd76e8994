//! Reading verified contents again, slowly and for ever: what the kernel reads by itself is not checked by anybody else,
//! and disks forget.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::cache::{CHECKED_FOR, Cache, Recheck};
use crate::metrics::MountCounters;

/// Time between looks for one that is.
const PAUSE: Duration = Duration::from_secs(600);
/// Bytes a second, on average: a disk hardly notices.
const RATE: u64 = 20 << 20;

/// Goes on until the mount ends; `stop` ends a check that is under way.
pub(super) async fn recheck(cache: Arc<Cache>, stop: Arc<AtomicBool>, counters: Arc<MountCounters>) {
    loop {
        let (cache, stop) = (cache.clone(), stop.clone());
        let checked = tokio::task::spawn_blocking(move || cache.recheck(CHECKED_FOR, &stop)).await;
        let pause = match checked.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(Recheck::Sound(bytes)) => Duration::from_secs(bytes / RATE),
            Ok(Recheck::Rotten(bytes)) => {
                tracing::warn!(
                    bytes,
                    "a cached content has rotted and was dropped: it will be fetched again"
                );
                counters.reads.blocks_rotten.add(1);
                Duration::ZERO
            }
            Ok(Recheck::Nothing | Recheck::Stopped) => PAUSE,
            Err(error) => {
                tracing::warn!(%error, "the cache could not be checked");
                PAUSE
            }
        };
        tokio::time::sleep(pause.max(Duration::from_secs(1))).await;
    }
}
