//! The flags that stand everywhere, and how they become a remote.

use std::path::{Path, PathBuf};

use clap::Args;
use parquedb_mount::config::{Credentials, DatabaseFile, Dirs, RemoteChoice, RemoteSources, UserFile};
use parquedb_mount::remote::{Remote, RemoteOptions};

use super::failure::Failure;

/// Flags of every command.
#[derive(Debug, Clone, Args)]
pub struct EverywhereFlags {
    /// The remote's URL [default: <https://api.parque.db>]
    #[arg(long, global = true, value_name = "URL", env = "PARQUEDB_REMOTE_URL", hide_env_values = true)]
    pub remote: Option<String>,
    /// Read the access token from this file (or set PARQUEDB_TOKEN)
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub json: bool,
    /// Print errors only
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// Where we are going, and what is known of the user.
#[allow(dead_code, reason = "each of the two programs uses its part")]
pub struct Context {
    /// The chosen remote.
    pub choice: RemoteChoice,
    /// What the database's file says.
    pub database: DatabaseFile,
    /// Stored tokens.
    pub credentials: Credentials,
}

impl EverywhereFlags {
    /// Chooses the remote; `directory` is a database's, whose own file may have a say.
    pub fn context(&self, directory: Option<&Path>) -> Result<Context, Failure> {
        let dirs = Dirs::of_user()?;
        let database = directory.map(DatabaseFile::read).transpose()?.unwrap_or_default();
        let credentials = Credentials::read(&dirs)?;
        let sources = RemoteSources {
            remote: self.remote.clone().filter(|text| !text.is_empty()),
            token_file: self.token_file.clone(),
            token: std::env::var("PARQUEDB_TOKEN").ok(),
            user: UserFile::read(&dirs)?,
            database: database.clone(),
        };
        let choice = RemoteChoice::choose(&sources, &credentials)?;
        Ok(Context { choice, database, credentials })
    }
}

impl Context {
    /// A client for the chosen remote.
    pub fn remote(&self, options: &RemoteOptions) -> Result<Remote, Failure> {
        Ok(Remote::new(&self.choice.url, self.choice.token.as_ref(), options)?)
    }
}
