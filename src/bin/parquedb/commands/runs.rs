//! What push, pull and sync have in common.

use std::path::Path;

use clap::Args;
use parquedb_mount::config::DatabaseFile;
use parquedb_mount::model::{DbRef, slugify};
use parquedb_mount::remote::{Remote, RemoteError};
use parquedb_mount::sync::{
    Brake, Direction, Filter, Reporter, Strategy, SyncOptions, SyncReport, sync_critical_first,
};

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
    /// Sync files that match before all others, in a revision of their own; may be repeated
    #[arg(long, value_name = "PATTERN")]
    pub critical_first: Vec<String>,
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
    /// Refuses what is no pattern, before anything is asked for.
    pub fn check(&self) -> Result<(), Failure> {
        let critical = Filter::new(&self.critical_first, &[]);
        critical.map_err(|error| Failure::usage(error.to_string()))?;
        self.filter().map(drop)
    }

    /// Which paths it is about.
    fn filter(&self) -> Result<Filter, Failure> {
        Filter::new(&self.include, &self.exclude).map_err(|error| Failure::usage(error.to_string()))
    }

    /// What a run works with, by these flags.
    pub fn options(
        &self,
        directory: &Path,
        database: &DbRef,
        direction: Direction,
        strategy: Strategy,
    ) -> Result<SyncOptions, Failure> {
        Ok(SyncOptions {
            directory: directory.to_owned(),
            database: database.clone(),
            create: None,
            visibility: None,
            direction,
            at: None,
            strategy,
            filter: self.filter()?,
            brake: if self.allow_mass_delete { Brake::Released } else { Brake::On },
            conflict_limit: self.conflict_limit.0,
            dry_run: self.dry_run,
        })
    }

    /// Does the work.
    pub async fn sync(
        &self,
        remote: &Remote,
        options: &SyncOptions,
        reporter: &dyn Reporter,
    ) -> Result<SyncReport, Failure> {
        let some = (!self.critical_first.is_empty()).then(|| options.of_some(&self.critical_first));
        let critical = some.transpose().map_err(|error| Failure::usage(error.to_string()))?;
        Ok(sync_critical_first(remote, options, critical.as_ref(), self.retries, reporter).await?)
    }
}

/// What a directory's own database is called: as its file says, or after the directory.
pub struct OwnDatabase {
    /// Its name for people.
    pub name: String,
    slug: String,
    owner: Option<String>,
}

impl OwnDatabase {
    /// Of a directory, whose file says `file`; `slug` is what was typed.
    pub fn of(directory: &Path, file: &DatabaseFile, slug: Option<&String>) -> Result<Self, Failure> {
        let directory_name = std::fs::canonicalize(directory)
            .ok()
            .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
        let slug = slug.or(file.slug.as_ref()).cloned();
        let name = file.name.clone().or(slug.clone()).or(directory_name);
        let slug = slug.or(name.as_deref().and_then(slugify));
        let (Some(name), Some(slug)) = (name, slug) else {
            let text = "no slug can be made from the directory's name: give one with push --slug";
            return Err(Failure::usage(text));
        };
        // Checked here too, so that a bad slug is wrong usage and not the remote's refusal.
        DbRef::new("x", &slug).map_err(|error| Failure::usage(error.to_string()))?;
        Ok(Self { name, slug, owner: file.owner.clone() })
    }

    /// Asks the remote who we are: the database is one of our own.
    pub async fn reference(&self, remote: &Remote) -> Result<DbRef, Failure> {
        let username = remote.me().await?.username;
        if let Some(owner) = self.owner.as_ref().filter(|owner| **owner != username) {
            let text = format!("the database's file says its owner is {owner}, but you are {username}");
            return Err(RemoteError::NotAllowed { text }.into());
        }
        let reference = DbRef::new(&username, &self.slug).map_err(|error| RemoteError::WrongAnswer {
            remote: remote.url().to_owned(),
            reason: format!("it gives us an impossible name: {error}"),
        });
        Ok(reference?)
    }
}
