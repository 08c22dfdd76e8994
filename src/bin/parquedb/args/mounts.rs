//! Of the commands about mounts on this machine.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Debug, Args)]
#[command(
    after_help = "Works whether it is mounted or not, and without the remote.\n\nExamples:\n  parquedb status /mnt/data\n  \
    parquedb status alice/my-dataset --json"
)]
pub struct StatusArgs {
    /// A mount, or a database that was mounted here
    #[arg(value_name = "DIR|OWNER/SLUG")]
    pub of: String,
    /// Which of your replicas of the database [default: all]
    #[arg(long, value_name = "NAME")]
    pub replica: Option<String>,
    /// Where local state is kept [default: parquedb in your state directory]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Between 'begin' and 'commit' nothing is published; then all of it is one revision.\n\nExamples:\n  \
    parquedb ctl sync /mnt/data\n  parquedb ctl events /mnt/data"
)]
pub struct CtlArgs {
    /// What it is to do
    #[command(subcommand)]
    pub action: CtlAction,
}

#[derive(Debug, Subcommand)]
pub enum CtlAction {
    /// Fetch news and publish what is local, now
    Sync {
        /// Delete many files on the remote, if that is what was done here
        #[arg(long)]
        allow_mass_delete: bool,
        /// The mount
        #[arg(value_name = "DIR")]
        mount: PathBuf,
    },
    /// Publish nothing until 'resume'
    Pause {
        /// The mount
        #[arg(value_name = "DIR")]
        mount: PathBuf,
    },
    /// Publish again
    Resume {
        /// The mount
        #[arg(value_name = "DIR")]
        mount: PathBuf,
    },
    /// Gather what is changed from now on, until 'commit'
    Begin {
        /// The mount
        #[arg(value_name = "DIR")]
        mount: PathBuf,
    },
    /// Publish what was gathered as one revision
    Commit {
        /// Delete many files on the remote, if that is what was done here
        #[arg(long)]
        allow_mass_delete: bool,
        /// The mount
        #[arg(value_name = "DIR")]
        mount: PathBuf,
    },
    /// Print what happens, a line of JSON each: first how things stand, then every event
    Events {
        /// The mount
        #[arg(value_name = "DIR")]
        mount: PathBuf,
    },
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  parquedb service install alice/my-dataset /home/alice/data\n  \
    parquedb service install alice/my-dataset -- --strategy manual --sync smart\n  parquedb service status")]
pub struct ServiceArgs {
    /// What is to be done
    #[command(subcommand)]
    pub action: ServiceAction,
}

#[derive(Debug, Subcommand)]
pub enum ServiceAction {
    /// Install it and start it
    Install {
        /// The database
        #[arg(value_name = "OWNER/SLUG")]
        database: String,
        /// Where to mount it [default: ~/parquedb/OWNER/SLUG]
        #[arg(value_name = "DIR")]
        mountpoint: Option<PathBuf>,
        /// What else parquedb-mount is told
        #[arg(last = true, value_name = "OPTION")]
        mount_args: Vec<String>,
    },
    /// Show how it is
    Status {
        /// The database [default: all]
        #[arg(value_name = "OWNER/SLUG")]
        database: Option<String>,
    },
    /// Stop it and remove it; what was written stays
    Remove {
        /// The database
        #[arg(value_name = "OWNER/SLUG")]
        database: String,
    },
}
