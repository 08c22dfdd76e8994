//! A run that failed in passing is run again, after a while that grows (F34).

use std::time::Duration;

use super::options::{SyncOptions, SyncReport};
use super::run::sync;
use super::{Event, Reporter, SyncError};
use crate::disk::random_below_one;
use crate::remote::Remote;

/// No wait is longer, unless the remote asks for it.
const LONGEST: Duration = Duration::from_secs(64);
/// Nor is one that it asks for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);

/// Runs [`sync`], up to `retries` times more where the remote fails in passing. Each run goes on where the one before broke
/// off: what it had sent is there.
pub async fn sync_with_retries(
    remote: &Remote,
    options: &SyncOptions,
    retries: u32,
    reporter: &dyn Reporter,
) -> Result<SyncReport, SyncError> {
    for attempt in 0..retries {
        match sync(remote, options, reporter).await {
            Err(SyncError::Remote(error)) if error.is_transient() => {
                let wait = wait_before(attempt, error.retry_after(), random_below_one());
                reporter.report(Event::Finished);
                reporter.report(Event::Waiting { error: &error, wait });
                tokio::time::sleep(wait).await;
            }
            ended => return ended,
        }
    }
    sync(remote, options, reporter).await
}

/// How long to wait before retry number `attempt`, counted from 0: 2^n seconds, give or take a quarter by `chance`, which is
/// below 1, so that many clients do not come back at once; and as long as the remote asks.
pub fn wait_before(attempt: u32, asked: Option<Duration>, chance: f64) -> Duration {
    let wait = Duration::from_secs(1_u64.checked_shl(attempt).unwrap_or(u64::MAX)).min(LONGEST);
    let wait = wait.mul_f64(0.75 + chance / 2.0);
    wait.max(asked.unwrap_or_default().min(LONGEST_ASKED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn f34_waits_double_up_to_a_minute_and_heed_the_remote() {
        let around = |attempt, seconds: u64| {
            let (least, most) = (wait_before(attempt, None, 0.0), wait_before(attempt, None, 1.0));
            assert_eq!(
                (least, most),
                (Duration::from_secs(seconds).mul_f64(0.75), Duration::from_secs(seconds).mul_f64(1.25))
            );
        };
        for (attempt, seconds) in
            [(0, 1), (1, 2), (2, 4), (5, 32), (6, 64), (7, 64), (63, 64), (64, 64), (u32::MAX, 64)]
        {
            around(attempt, seconds);
        }
        assert_eq!(wait_before(0, Some(Duration::from_secs(90)), 0.5), Duration::from_secs(90));
        assert_eq!(wait_before(9, Some(Duration::from_secs(5)), 0.5), Duration::from_secs(64));
        assert_eq!(wait_before(0, Some(Duration::MAX), 0.5), LONGEST_ASKED);
    }
}
