//! Some files before the others: a run about those, with its own revision, and then one about all (F33).

use super::filter::BadPattern;
use super::options::{SyncOptions, SyncReport};
use super::retry::sync_with_retries;
use super::{Reporter, SyncError};
use crate::remote::Remote;

impl SyncOptions {
    /// The same for some of the files only: those that one of the patterns matches.
    pub fn of_some(&self, patterns: &[String]) -> Result<Self, BadPattern> {
        Ok(Self { filter: self.filter.narrowed(patterns)?, ..self.clone() })
    }
}

/// Runs [`sync_with_retries`] about the files that `critical` takes, where there are any such patterns, and then about all. A
/// reader sees the critical ones first, and never half of either.
pub async fn sync_critical_first(
    remote: &Remote,
    options: &SyncOptions,
    critical: Option<&SyncOptions>,
    retries: u32,
    reporter: &dyn Reporter,
) -> Result<SyncReport, SyncError> {
    let Some(critical) = critical.filter(|_| !options.dry_run) else {
        return sync_with_retries(remote, options, retries, reporter).await;
    };
    let before = sync_with_retries(remote, critical, retries, reporter).await?;
    let whole = sync_with_retries(remote, options, retries, reporter).await?;
    Ok(whole.and_before(before))
}
