//! What can be typed. The names are fixed: scripts depend on them.

mod mounts;
mod sync;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use parquedb_mount::model::Visibility;
use parquedb_mount::store::Keep;
use url::Url;

use crate::common::flags::EverywhereFlags;
use crate::common::size::Size;

pub use mounts::{CtlAction, CtlArgs, ServiceAction, ServiceArgs, StatusArgs};
pub use sync::{ConflictsAction, ConflictsArgs, PullArgs, PushArgs, ResolveArgs, SyncArgs};

const EXIT_CODES: &str = "Exit status:
  0 done, in sync      1 other failure        2 usage or configuration
  3 needs a decision   4 not allowed          5 no such database or file
  6 remote unreachable 7 remote kept changing 8 integrity
  9 newer format       10 partly done";

/// Share ParqueDB databases: push, pull, serve. To mount one, see parquedb-mount.
#[derive(Debug, Parser)]
#[command(name = "parquedb", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
    #[command(flatten)]
    pub everywhere: EverywhereFlags,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a ParqueDB server on this machine
    Serve(ServeArgs),
    /// Publish a directory as a database
    Push(PushArgs),
    /// Bring a directory to a database's current revision
    Pull(PullArgs),
    /// Make a directory and its database the same, both ways
    Sync(SyncArgs),
    /// List files that both sides changed, and what was kept of them
    Conflicts(ConflictsArgs),
    /// Decide a conflict
    Resolve(ResolveArgs),
    /// Show a database's revisions, the latest first
    Log(LogArgs),
    /// Show what changed between two revisions
    Diff(DiffArgs),
    /// Publish an earlier revision again, as a new one
    Revert(RevertArgs),
    /// List your databases, or the public ones
    List(ListArgs),
    /// Store a token for the remote
    Login(LoginArgs),
    /// Show who the remote says you are
    Whoami,
    /// Show what was written to a mount and is not published
    Status(StatusArgs),
    /// Tell a mount's daemon to sync, to wait, or to say what happens
    Ctl(CtlArgs),
    /// Mount a database whenever you log in, as a systemd user service
    Service(ServiceArgs),
    /// Make files of a database fully available offline: fetch them whole, and keep them
    Pin(PinArgs),
    /// Let go of what was pinned
    Unpin(UnpinArgs),
    /// Look after the cache that mounts on this machine share
    Cache(CacheArgs),
    /// Check a store, and mend what can be mended
    Fsck(FsckArgs),
    /// Remove from a store what no revision names; with --keep, let old revisions go
    Gc(GcArgs),
    /// Copy a store, or bring a copy up to date
    Backup(BackupArgs),
    /// Make a store of a copy, or bring back what a store has lost
    Restore(RestoreArgs),
    /// Write a database as a plain tree that any web server can serve
    Export(ExportArgs),
    /// Make a database of a plain tree
    Import(ImportArgs),
}

/// Which store.
#[derive(Debug, Args)]
pub struct StoreFlag {
    /// The store: a directory, or s3://bucket/prefix, gs://…, az://… [default: parquedb/store in your data directory]
    #[arg(long, value_name = "DIR|URL")]
    pub store: Option<String>,
}

/// How it is written to.
#[derive(Debug, Args)]
pub struct WriterFlag {
    /// For a store that overwrites objects which should only be created: this process takes it over as its only writer;
    /// a server that wrote to it before publishes no more
    #[arg(long)]
    pub single_writer: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The first start creates the store and an owner token in STORE/owner.token (mode 0600), \
    and prints the next commands to type. Ctrl-C stops it; nothing acknowledged is lost.\n\nSeveral servers can share one \
    store. Credentials of an object store come from the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, \
    AWS_ENDPOINT; GOOGLE_SERVICE_ACCOUNT; AZURE_STORAGE_ACCOUNT_NAME, AZURE_STORAGE_ACCOUNT_KEY); the owner's token is \
    then in your data directory.\n\nExample:\n  parquedb serve --store s3://my-bucket/parquedb --listen 127.0.0.1:3000"
)]
pub struct ServeArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3000", value_name = "ADDRESS:PORT")]
    pub listen: SocketAddr,
    #[command(flatten)]
    pub store: StoreFlag,
    #[command(flatten)]
    pub writer: WriterFlag,
    /// Whose databases these are [default: your login name]
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,
    /// The URL clients reach this server by, where a proxy stands in front
    #[arg(long, value_name = "URL")]
    pub public_url: Option<Url>,
}

#[derive(Debug, Args)]
pub struct LogArgs {
    /// The database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// How many revisions to show
    #[arg(long, short = 'n', default_value_t = 20, value_name = "COUNT", value_parser = clap::value_parser!(u64).range(1..=100_000))]
    pub limit: u64,
}

#[derive(Debug, Args)]
#[command(after_help = "Example:\n  parquedb diff alice/my-dataset 3 5")]
pub struct DiffArgs {
    /// The database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// The earlier revision; 0 is the empty database
    #[arg(value_name = "FROM")]
    pub from: u64,
    /// The later one [default: the current revision]
    #[arg(value_name = "TO")]
    pub to: Option<u64>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is lost by it: the revisions in between stay in the history, and reverting can be reverted. No \
    content is sent.\n\nExample:\n  parquedb revert alice/my-dataset 3"
)]
pub struct RevertArgs {
    /// The database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// The revision to publish again
    #[arg(value_name = "REVISION")]
    pub revision: u64,
    /// Show what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Let more than a quarter of the files be deleted
    #[arg(long)]
    pub allow_mass_delete: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Exit status 8 says that something published cannot be had any more; what only costs time is told, and \
    mended with --repair. A content that turns out wrong is given up by --repair, so that whoever has the right bytes can \
    bring them again: 'parquedb restore' from a copy does.\n\nExample:\n  parquedb fsck --deep --repair"
)]
pub struct FsckArgs {
    #[command(flatten)]
    pub store: StoreFlag,
    #[command(flatten)]
    pub writer: WriterFlag,
    /// Read every content and compare it with its hash
    #[arg(long)]
    pub deep: bool,
    /// Mend what can be made anew from what is sound
    #[arg(long)]
    pub repair: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Servers may go on serving and publishing meanwhile. Contents uploaded or asked for within the last 7 days \
    stay, published or not.\n\nExamples:\n  parquedb gc --dry-run\n  parquedb gc --keep 90d alice/my-dataset"
)]
pub struct GcArgs {
    /// Only this database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: Option<String>,
    #[command(flatten)]
    pub store: StoreFlag,
    #[command(flatten)]
    pub writer: WriterFlag,
    /// Keep so many revisions (100), or those of so long (90d, 12h), and let older ones go [default: keep all]
    #[arg(long, value_name = "COUNT|AGE")]
    pub keep: Option<Keep>,
    /// Show what would be done and change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Servers may go on meanwhile: the copy has each database as it was at some moment. Run it again to bring \
    what is new.\n\nExample:\n  parquedb backup --store s3://my-bucket/parquedb /srv/backup"
)]
pub struct BackupArgs {
    /// Where the copy is, or will be: a directory or a URL
    #[arg(value_name = "TO")]
    pub to: String,
    #[command(flatten)]
    pub store: StoreFlag,
    #[command(flatten)]
    pub writer: WriterFlag,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Clients that have seen later revisions than the copy has notice it and stop, with nothing deleted.\n\n\
    Example:\n  parquedb restore /srv/backup --store /srv/parquedb"
)]
pub struct RestoreArgs {
    /// Where the copy is
    #[arg(value_name = "FROM")]
    pub from: String,
    #[command(flatten)]
    pub store: StoreFlag,
    #[command(flatten)]
    pub writer: WriterFlag,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Served as /db/OWNER/SLUG by any web server, such a tree can be mounted, read-only. Exporting again writes \
    what has changed.\n\nExample:\n  parquedb export --plain alice/my-dataset /var/www/html/db/alice/my-dataset"
)]
pub struct ExportArgs {
    /// The database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// The tree's directory: new, empty, or an earlier export
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// As a plain tree: the files by their names, and _meta/manifest.json
    #[arg(long, required = true)]
    pub plain: bool,
    /// This revision instead of the current one
    #[arg(long, value_name = "REVISION")]
    pub at: Option<u64>,
    #[command(flatten)]
    pub store: StoreFlag,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Every file is checked against the tree's manifest. A directory without one is published with 'parquedb \
    push'.\n\nExample:\n  parquedb import ./exported alice/my-dataset"
)]
pub struct ImportArgs {
    /// The tree
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
    /// The new database's name
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// Who may see it: public, unlisted or private [default: as the tree's manifest says]
    #[arg(long, value_name = "LEVEL")]
    pub visibility: Option<Visibility>,
    #[command(flatten)]
    pub store: StoreFlag,
    #[command(flatten)]
    pub writer: WriterFlag,
}

#[derive(Debug, Args)]
pub struct ListArgs {
    /// List public databases instead of your own
    #[arg(long)]
    pub public: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "The token is checked with the remote and stored for that remote only, mode 0600. A token on the \
    command line can be seen by other users of this machine: prefer --token-file, or --token - to read standard input."
)]
pub struct LoginArgs {
    /// The token; '-' reads it from standard input
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    pub token: Option<String>,
}

#[derive(Debug, Args)]
pub struct PinnedFiles {
    /// The database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// Files, or directories with all below them [default: the whole database]
    #[arg(value_name = "PATH")]
    pub paths: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "What is pinned is read from the cache by every mount, with the remote or without it, and is never \
    evicted. It stays what it was when it was pinned: pin again after something was published. More than the cache's \
    limit is refused.\n\nExample:\n  parquedb pin alice/my-dataset data/events"
)]
pub struct PinArgs {
    #[command(flatten)]
    pub files: PinnedFiles,
    /// Where the cache is [default: parquedb in your cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "What was pinned stays in the cache until its room is needed.")]
pub struct UnpinArgs {
    /// The database
    #[arg(value_name = "OWNER/SLUG", required_unless_present = "all")]
    pub database: Option<String>,
    /// Files, or directories with all below them [default: the whole database]
    #[arg(value_name = "PATH")]
    pub paths: Vec<String>,
    /// Everything that was ever pinned in this cache, without asking a remote
    #[arg(long, conflicts_with = "database")]
    pub all: bool,
    /// Where the cache is [default: parquedb in your cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct CacheArgs {
    #[command(subcommand)]
    pub action: CacheAction,
    /// Where the cache is [default: parquedb in your cache directory]
    #[arg(long, global = true, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum CacheAction {
    /// List what is in the cache
    Ls,
    /// Read everything in the cache and drop what has rotted (then exit 8; it is fetched again when needed)
    Verify,
    /// Remove contents that no mount has open
    Evict(EvictArgs),
    /// Show the most the cache may take, or set it for mounts without --cache-size, running ones too
    Limit {
        /// For example 500MB or 10GB
        #[arg(value_name = "SIZE")]
        size: Option<Size>,
    },
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct EvictArgs {
    /// Everything
    #[arg(long)]
    pub all: bool,
    /// What was not read for so long, for example 30d, 12h, 15m or 45s
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub older_than: Option<Duration>,
    /// The contents whose hashes begin so, as parquedb cache ls shows them
    #[arg(value_name = "HASH")]
    pub hashes: Vec<String>,
}

fn age(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return Err("an age is a number and s, m, h or d".into()),
    };
    let number: u64 = number.parse().map_err(|_| "an age begins with a whole number".to_owned())?;
    number.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "that is too long".to_owned())
}
