//! One mount, from the manifest to the last unmount.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::background::Readiness;
use super::filling::fill;
use super::follow::remember;
use super::prepared::Prepared;
use super::recheck::recheck;
use super::rounds::Rounds;
use super::schedule::Trigger;
use super::supervised;
use super::written::ThrowAway;
use crate::cache::CacheError;
use crate::control::{Door, bind, listen};
use crate::dotdir::DotDir;
use crate::fetch::MemoryBudget;
use crate::fuse::{MountFlag, MountedSession, Passthrough, SessionOptions, unmount};
use crate::model::{DbRef, ExitCode, Revision};
use crate::overlay::{Overlay, OverlayError};
use crate::remote::{Remote, RemoteError};
use crate::state::PlaceError;
use crate::sync::{Filter, Strategy, SyncError};
use crate::vfs::Vfs;

/// After a signal, files that are open may be read for so long before the daemon goes.
const GRACE: Duration = Duration::from_secs(5);
/// What is under way when the mount ends may take so long, if nothing is to be published.
const STOPPING: Duration = Duration::from_secs(1);

/// What to mount, and how.
#[derive(Debug, Clone)]
pub struct MountOptions {
    /// The database.
    pub database: DbRef,
    /// An empty directory, absolute and without links: see [`prepare_mountpoint`](super::prepare_mountpoint).
    pub mountpoint: PathBuf,
    /// Where the block cache lies.
    pub cache_dir: PathBuf,
    /// The most bytes it may take; without it, what was set for all mounts.
    pub cache_limit: Option<u64>,
    /// What stays free on its disk.
    pub cache_min_free: Option<u64>,
    /// The revision to show, and to stay at; the current one and those that follow, where none is given.
    pub at: Option<Revision>,
    /// Where what is written lasts; nowhere, if nothing is to be written.
    pub overlay: Option<OverlayOptions>,
    /// How often the remote is asked for news, if at all.
    pub poll: Option<Duration>,
    /// How what is written is published; not at all, if nothing is to be.
    pub sync: Option<SyncSettings>,
    /// A read that cannot be served fails after so long.
    pub read_deadline: Duration,
    /// What reading may take in memory.
    pub memory: MemoryBudget,
    /// Whether the kernel is given complete cached files to read by itself.
    pub passthrough: Passthrough,
    /// What `-o` has asked for.
    pub flags: Vec<MountFlag>,
}

/// Where local changes lie.
#[derive(Debug, Clone)]
pub struct OverlayOptions {
    /// The user's state directory.
    pub state_dir: PathBuf,
    /// Which of the user's replicas of the database.
    pub replica: String,
    /// They are gone when the mount ends.
    pub throw_away: bool,
}

/// How local changes are published.
#[derive(Debug, Clone)]
pub struct SyncSettings {
    /// What makes it happen.
    pub trigger: Trigger,
    /// And every so often, but for [`Trigger::Manual`].
    pub every: Duration,
    /// What decides conflicts.
    pub strategy: Strategy,
    /// Which paths are published.
    pub filter: Filter,
    /// Which of them before all others, in a revision of their own; none, where all are alike.
    pub critical: Option<Filter>,
    /// The most that conflict copies may take, in bytes.
    pub conflict_limit: u64,
    /// How long the last sync may take, after the mount is gone.
    pub last_round: Duration,
}

/// Why a mount could not be made, or ended badly.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// The remote failed or refused.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// Local state cannot be had.
    #[error(transparent)]
    Overlay(#[from] OverlayError),
    /// What is known of its syncs cannot be had.
    #[error(transparent)]
    Sync(#[from] SyncError),
    /// The kernel or fusermount3 refused.
    #[error("cannot mount on '{path}': {reason}")]
    Mount {
        /// Where.
        path: String,
        /// Why not, and what to do.
        reason: String,
    },
    /// The session ended with an error.
    #[error("the mount broke: {0}")]
    Broke(#[source] std::io::Error),
}

impl MountError {
    /// The exit status this failure ends a program with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Remote(error) => error.exit_code(),
            Self::Cache(_) => ExitCode::Usage,
            Self::Overlay(OverlayError::Place(PlaceError::Newer { .. })) => ExitCode::Newer,
            Self::Overlay(OverlayError::Place(PlaceError::InUse { .. })) => ExitCode::Usage,
            Self::Overlay(_) => ExitCode::Failure,
            Self::Sync(error) => error.exit_code(),
            Self::Mount { .. } | Self::Broke(_) => ExitCode::Failure,
        }
    }
}

/// Mounts and serves until someone unmounts or a signal comes. `readiness` hears of it once the mount answers.
/// Called inside a runtime of several threads.
pub async fn run(
    remote: Remote,
    options: &MountOptions,
    readiness: &mut Readiness,
) -> Result<(), MountError> {
    let mut prepared = Prepared::new(remote, options).await?;
    prepared.settle_earlier().await;
    let Prepared { cache, fetcher, counters, written, vfs, dotdir, mut follower, publishing, told, fresh } =
        prepared;
    let (overlay, throw_away) =
        written.map_or((None, None), |(overlay, throw_away)| (Some(overlay), throw_away));

    // Signals are heard from before the mount is there: one that comes early is not lost.
    let cannot_hear = |source| MountError::Broke(source);
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot_hear)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot_hear)?;
    let session = start_session(vfs.clone(), dotdir.clone(), options)?;
    let invalidator = session.invalidator();
    let mountpoint = session.mountpoint().to_owned();
    let mut ended = tokio::task::spawn_blocking(move || session.wait());
    tracing::info!(database = %options.database, mountpoint = %mountpoint.display(), "mounted");
    if let Err(error) = answers(&mountpoint).await {
        let _ = tokio::task::spawn_blocking(move || unmount(&mountpoint)).await;
        return Err(error);
    }
    // Whoever is told that it is mounted may ask at once.
    let listener = overlay.as_deref().and_then(open_door);
    readiness.ready();
    supervised::ready();
    let supervising = tokio::spawn(supervised::supervise(mountpoint.clone(), told.standing()));
    let rechecking = tokio::spawn(recheck(cache, fetcher.stopping(), counters.clone()));
    let filling = overlay.clone().map(|overlay| tokio::spawn(fill(vfs.clone(), overlay)));
    follower.invalidator.clone_from(&invalidator);
    // Whatever publishes nothing has nothing to end with.
    let patience = options.sync.as_ref().filter(|_| publishing.is_some());
    let patience = patience.map_or(Duration::ZERO, |sync| sync.last_round);
    let (stop, stopped) = oneshot::channel();
    let (wishes, orders) = mpsc::channel(16);
    let door = Door { standing: told.standing(), events: told.events(), orders: wishes };
    let listening = listener.map(|listener| tokio::spawn(async { drop(listen(listener, door).await) }));
    let rounds = Rounds {
        follower,
        poll: options.poll.filter(|_| options.at.is_none()),
        publishing,
        told,
        orders,
        dotdir,
    };
    let remembered = rounds.follower.remembered.clone();
    let mut rounds = tokio::spawn(rounds.run(stopped));
    if let Some(document) = fresh {
        tokio::spawn(remember(remembered, document));
    }

    let (mut rounds_broke, mut stopped) = (None, None);
    tokio::select! {
        session = &mut ended => stopped = Some(session),
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
        // They end when they are told to: a mount that follows nobody and publishes nothing is to be begun anew.
        rounds = &mut rounds => rounds_broke = rounds.err(),
    }
    supervised::stopping(GRACE + patience);
    supervising.abort();
    let _ = stop.send(());
    filling.into_iter().chain(listening).for_each(|task| task.abort());
    rechecking.abort();
    let last = Last { rounds: rounds_broke.is_none().then_some(rounds), patience };
    fetcher.stop();
    // While there are still threads that answer the kernel.
    let disarming = tokio::task::spawn_blocking(move || invalidator.disarm());
    let ended = match stopped {
        Some(ended) => {
            vfs.release_all();
            finish(overlay, &vfs, throw_away, last).await;
            ended
        }
        None => {
            tracing::info!(mountpoint = %mountpoint.display(), "unmounting");
            let _ = disarming.await;
            let path = mountpoint.clone();
            let unmounted = tokio::task::spawn_blocking(move || unmount(&path)).await;
            if let Ok(Err(error)) = unmounted {
                // The mount ends with this process, whether it could be taken away or not.
                finish(overlay, &vfs, throw_away, last).await;
                return Err(MountError::Mount {
                    path: mountpoint.display().to_string(),
                    reason: error.to_string(),
                });
            }
            overlay.iter().for_each(|overlay| overlay.is_ending());
            let ended = tokio::time::timeout(GRACE, ended).await;
            if ended.is_ok() {
                vfs.release_all();
            }
            // Also of files that are still open: what was written to them is here.
            finish(overlay, &vfs, throw_away, last).await;
            match ended {
                Ok(ended) => ended,
                Err(_) => {
                    tracing::warn!("files were still open when the mount ended");
                    return Ok(());
                }
            }
        }
    };
    tracing::info!(mountpoint = %mountpoint.display(), "unmounted");
    if let Some(error) = rounds_broke {
        return Err(MountError::Broke(std::io::Error::other(error)));
    }
    ended.map_err(std::io::Error::other).and_then(|session| session).map_err(MountError::Broke)
}

/// What works beside the mount until its end.
struct Last {
    rounds: Option<JoinHandle<Rounds>>,
    /// So long it may take to publish what is left.
    patience: Duration,
}

impl Last {
    /// Publishes what is left, when nobody writes any more (F38).
    async fn round(self) {
        let (began, Some(rounds)) = (Instant::now(), self.rounds) else { return };
        let abort = rounds.abort_handle();
        // It may be in the middle of something.
        let Ok(Ok(mut rounds)) = tokio::time::timeout(self.patience.max(STOPPING), rounds).await else {
            abort.abort();
            return;
        };
        rounds.finish(self.patience.saturating_sub(began.elapsed())).await;
    }
}

/// What is local is put on the disk, and how much is not published is said.
async fn finish(overlay: Option<Arc<Overlay>>, vfs: &Vfs, throw_away: Option<ThrowAway>, last: Last) {
    overlay.iter().for_each(|overlay| overlay.is_ending());
    last.round().await;
    let Some(overlay) = overlay else { return };
    if let Some(throw_away) = throw_away {
        throw_away.remove();
        return;
    }
    let synced = tokio::task::spawn_blocking(move || overlay.sync_everything()).await;
    if let Ok(Err(error)) = synced {
        tracing::error!(%error, "not all of what was written could be put on the disk");
    }
    let pending = vfs.pending();
    if pending > 0 {
        tracing::info!(
            pending,
            "local changes are not published: they are kept, and the next mount shows them"
        );
    }
}

/// Where `parquedb ctl` and `parquedb status` ask.
fn open_door(overlay: &Overlay) -> Option<UnixListener> {
    let bound = bind(overlay.path());
    bound.inspect_err(|error| tracing::error!(%error, "'parquedb ctl' will find nobody here")).ok()
}

fn start_session(
    vfs: Arc<Vfs>,
    dotdir: Arc<DotDir>,
    options: &MountOptions,
) -> Result<MountedSession, MountError> {
    let threads = std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 8);
    let session = SessionOptions {
        name: options.database.to_string(),
        passthrough: options.passthrough,
        read_only: options.overlay.is_none() || options.at.is_some(),
        flags: options.flags.clone(),
        threads,
    };
    MountedSession::start(vfs, dotdir, &options.mountpoint, &session, tokio::runtime::Handle::current())
        .map_err(|error| {
            let remedy = match error.kind() {
                std::io::ErrorKind::NotFound => ": is fuse3 installed, and /dev/fuse there?",
                std::io::ErrorKind::PermissionDenied => ": may you use /dev/fuse?",
                _ => "",
            };
            MountError::Mount {
                path: options.mountpoint.display().to_string(),
                reason: format!("{error}{remedy}"),
            }
        })
}

/// Asks the mount itself, as any program would.
async fn answers(mountpoint: &std::path::Path) -> Result<(), MountError> {
    let path = mountpoint.to_owned();
    let asked = tokio::task::spawn_blocking(move || rustix::fs::stat(&path).map(|stat| stat.st_ino)).await;
    let reason = match asked {
        Ok(Ok(1)) => return Ok(()),
        Ok(Ok(_)) => "it was unmounted again at once".to_owned(),
        Ok(Err(error)) => std::io::Error::from(error).to_string(),
        Err(error) => error.to_string(),
    };
    Err(MountError::Mount { path: mountpoint.display().to_string(), reason })
}
