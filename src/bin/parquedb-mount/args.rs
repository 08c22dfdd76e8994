//! What can be typed. The names are fixed: scripts depend on them.

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use parquedb_mount::daemon::Trigger;
use parquedb_mount::fetch::MemoryBudget;
use parquedb_mount::fuse::MountFlag;
use parquedb_mount::sync::Strategy;

use crate::common::flags::EverywhereFlags;
use crate::common::size::Size;

/// Mount a remote ParqueDB database as a folder: read it with DuckDB, Polars, pandas or ls.
#[derive(Debug, Parser)]
#[command(
    name = "parquedb-mount",
    version,
    after_help = "Exits 0 once the mount answers; otherwise the status says why (see parquedb --help) and the reason is \
        printed. Unmount with: fusermount3 -u DIR\n\nExamples:\n  parquedb-mount alice/my-dataset /mnt/data\n  \
        parquedb-mount --remote http://127.0.0.1:3000 -f alice/my-dataset ./data"
)]
pub struct MountArgs {
    /// The database
    #[arg(value_name = "OWNER/SLUG")]
    pub database: String,
    /// An empty directory to mount it on
    #[arg(value_name = "DIR")]
    pub mountpoint: PathBuf,
    /// Stay in the foreground and log to standard error
    #[arg(short, long)]
    pub foreground: bool,
    /// Refuse writes, and show nothing of what was written here
    #[arg(long)]
    pub read_only: bool,
    /// Which of your replicas of the database: each has its own local changes, and one mount at a time
    #[arg(long, value_name = "NAME", default_value = "main", value_parser = replica)]
    pub replica: String,
    /// Where what is written is kept: on disk, until it is published; or in memory, until the mount ends
    #[arg(long, value_name = "WHERE", value_enum, default_value_t = OverlayPlace::Disk)]
    pub overlay: OverlayPlace,
    /// Show this revision, and stay at it, read-only [default: the current one, and those that follow]
    #[arg(long, value_name = "REVISION")]
    pub at: Option<u64>,
    /// Where fetched blocks are kept [default: parquedb in your cache directory]
    #[arg(long, value_name = "DIR")]
    pub cache_dir: Option<PathBuf>,
    /// The most the cache may take, for example 500MB [default: what parquedb cache limit has set, or 10GB]
    #[arg(long, value_name = "SIZE")]
    pub cache_size: Option<Size>,
    /// What the cache leaves free on its disk [default: the larger of 5 % and 1GiB, at most half]
    #[arg(long, value_name = "SIZE")]
    pub cache_min_free: Option<Size>,
    /// What reading may take in memory, for example 64MiB, at least 32MiB; names and attributes come on top
    /// [default: 256MiB]
    #[arg(long, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<MemoryBudget>,
    /// Where what is written is kept, and the daemon's log [default: parquedb in your state directory]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// A read that the remote does not answer fails after so many seconds
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    pub read_timeout: Duration,
    /// Where the remote does not tell of new revisions, it is asked for them every so many seconds; 0: never
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = poll)]
    pub poll: Poll,
    /// When what is written is published: on-change, when nothing was changed for two seconds; smart, ten changes at once and
    /// fewer after five minutes; interval; or manual, with 'parquedb ctl sync DIR'
    #[arg(long, value_name = "WHEN", default_value = "on-change")]
    pub sync: Trigger,
    /// Besides, it is published every so many seconds, unless it is by hand
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    pub sync_interval: Duration,
    /// What decides conflicts: newest, local-wins, remote-wins or manual
    #[arg(long, value_name = "STRATEGY", default_value = "newest")]
    pub strategy: Strategy,
    /// Publish these files only: '*.parquet', 'data/**'; may be given again
    #[arg(long, value_name = "PATTERN")]
    pub include: Vec<String>,
    /// Do not publish these files; may be given again
    #[arg(long, value_name = "PATTERN")]
    pub exclude: Vec<String>,
    /// Publish files that match before all others, in a revision of their own; with --sync smart, the others a minute later; may
    /// be given again
    #[arg(long, value_name = "PATTERN")]
    pub critical_first: Vec<String>,
    /// The most that copies of what lost a conflict may take
    #[arg(long, value_name = "SIZE", default_value = "10GiB")]
    pub conflict_limit: Size,
    /// After unmounting, what is left may take so many seconds to be published; 0: it stays for the next mount
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = poll)]
    pub last_sync: Poll,
    /// Do not let the kernel read complete cached files by itself, which it does for root
    #[arg(long)]
    pub no_passthrough: bool,
    /// Mount options, for example allow_other, ro or noexec
    #[arg(short = 'o', value_name = "OPTION,…", value_delimiter = ',')]
    pub options: Vec<MountFlag>,
    #[command(flatten)]
    pub everywhere: EverywhereFlags,
}

/// Where what is written is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum OverlayPlace {
    /// In the state directory.
    Disk,
    /// In memory: gone when the mount ends.
    Memory,
}

fn replica(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if text.is_empty() || text.len() > 64 || !text.chars().all(is_plain) {
        return Err("letters, digits, '-', '_' and '.', at most 64".into());
    }
    Ok(text.to_owned())
}

/// How often to ask for news, if at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Poll(pub Option<Duration>);

fn poll(text: &str) -> Result<Poll, String> {
    if text.parse() == Ok(0.0) { Ok(Poll(None)) } else { seconds(text).map(|every| Poll(Some(every))) }
}

fn memory(text: &str) -> Result<MemoryBudget, String> {
    MemoryBudget::new(text.parse::<Size>()?.0).map_err(|error| error.to_string())
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.1..=86_400.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 0.1 to 86400".into()),
    }
}
