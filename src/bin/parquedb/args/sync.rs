//! Of the commands that make a directory and a remote the same.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use parquedb_mount::model::{DbPath, Visibility};
use parquedb_mount::sync::Strategy;

use crate::commands::runs::RunFlags;

#[derive(Debug, Args)]
#[command(
    after_help = "Only what changed since the last push or pull is sent; equal contents are sent once. Files \
    changed on both sides are left alone (exit 3).\n\nExample:\n  parquedb push --directory ./my-data --slug my-dataset \
    --visibility public"
)]
pub struct PushArgs {
    /// The directory to publish
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// The database's name in URLs [default: from parquedb.toml, or the directory's name]
    #[arg(long, value_name = "SLUG")]
    pub slug: Option<String>,
    /// Who may see it: public, unlisted or private [default: as it is; private when new]
    #[arg(long, value_name = "LEVEL")]
    pub visibility: Option<Visibility>,
    /// Publish over files that others changed too; their versions are kept
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Files you edited are never overwritten: those the remote changed too are named and left alone \
    (exit 3).\n\nExample:\n  parquedb pull alice/my-dataset --directory ./local-data"
)]
pub struct PullArgs {
    /// The database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// The directory to bring up to date; made if missing
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// Bring it to this revision instead of the current one
    #[arg(long, value_name = "REVISION")]
    pub at: Option<u64>,
    /// Take the remote's version of files that you changed too; yours are kept
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

#[derive(Debug, Args)]
#[command(
    after_help = "A file that both sides changed since they last agreed is in conflict. newest takes the version that was \
    changed last, local-wins yours, remote-wins theirs; manual leaves both alone (exit 3) until 'parquedb resolve'. What \
    loses is kept: 'parquedb conflicts' lists it. An edit beats a deletion.\n\nExamples:\n  parquedb sync\n  \
    parquedb sync --strategy manual --exclude '*.tmp'\n  parquedb sync --status"
)]
pub struct SyncArgs {
    /// The directory
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    /// What decides conflicts: newest, local-wins, remote-wins or manual
    #[arg(long, value_name = "STRATEGY", default_value = "newest")]
    pub strategy: Strategy,
    /// Only show how both sides differ
    #[arg(long)]
    pub status: bool,
    #[command(flatten)]
    pub run: RunFlags,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Copies lie in DIR/.parquedb/conflicts until you dismiss them.\n\nExamples:\n  parquedb conflicts\n  \
    parquedb conflicts dismiss"
)]
pub struct ConflictsArgs {
    /// The directory, or mount
    #[arg(long, global = true, default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
    #[command(subcommand)]
    pub action: Option<ConflictsAction>,
}

#[derive(Debug, Subcommand)]
pub enum ConflictsAction {
    /// Remove what is kept of conflicts that are decided
    Dismiss {
        /// Only of these files
        #[arg(value_name = "PATH", value_parser = db_path)]
        paths: Vec<DbPath>,
    },
}

#[derive(Debug, Args)]
#[command(
    after_help = "In a directory nothing is sent: the next sync, or push, publishes what you have decided. In a mount it is \
    published at once, with what else was changed there.\n\nExamples:\n  parquedb resolve \
    data/posts/data.parquet --remote\n  parquedb resolve notes.txt --file merged.txt"
)]
#[command(group = clap::ArgGroup::new("choice").required(true))]
pub struct ResolveArgs {
    /// The file in conflict
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Keep what is here
    #[arg(long, group = "choice")]
    pub local: bool,
    /// Take what the remote has
    // Stands in the place of the flag of every command, which would be of no use here.
    #[arg(id = "remote", long = "remote", num_args = 0, default_missing_value = "", group = "choice")]
    pub theirs: Option<String>,
    /// Put this file in its place
    #[arg(long, value_name = "FILE", group = "choice")]
    pub file: Option<PathBuf>,
    /// The directory, or mount
    #[arg(long, default_value = ".", value_name = "DIR")]
    pub directory: PathBuf,
}

fn db_path(text: &str) -> Result<DbPath, String> {
    DbPath::parse(text).map_err(|error| error.to_string())
}
