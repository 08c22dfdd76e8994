//! What push, pull and sync have in common.

use clap::Args;
use parquedb_mount::remote::Remote;
use parquedb_mount::sync::{Brake, Filter, Reporter, SyncError, SyncOptions, SyncReport, sync_with_retries};

use crate::common::failure::Failure;
use crate::common::size::Size;

/// Flags of every command that changes a directory or a remote.
#[derive(Debug, Args)]
pub struct RunFlags {
    /// Show what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Only files that match: '*.parquet' anywhere, 'data/**' from the root; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Leave out files that match, on both sides; stronger than --include; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Let more than a quarter of the files be deleted
    #[arg(long)]
    pub allow_mass_delete: bool,
    /// The most that kept versions of files in conflict may take; at the limit, conflicts are left for you
    #[arg(long, value_name = "SIZE", default_value = "10GB")]
    pub conflict_limit: Size,
    /// How often to begin again where the remote fails in passing, after 1, 2, 4 … seconds
    #[arg(long, value_name = "COUNT", default_value_t = 3, env = "PARQUEDB_RETRIES", hide_env_values = true)]
    pub retries: u32,
}

impl RunFlags {
    /// Which paths it is about.
    pub fn filter(&self) -> Result<Filter, Failure> {
        Filter::new(&self.include, &self.exclude).map_err(|error| Failure::usage(error.to_string()))
    }

    /// Whether mass deletions go through.
    pub fn brake(&self) -> Brake {
        if self.allow_mass_delete { Brake::Released } else { Brake::On }
    }

    /// Does the work.
    pub async fn sync(
        &self,
        remote: &Remote,
        options: &SyncOptions,
        reporter: &dyn Reporter,
    ) -> Result<SyncReport, SyncError> {
        sync_with_retries(remote, options, self.retries, reporter).await
    }
}
