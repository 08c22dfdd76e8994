//! A mount before it is mounted: what it shows, and all that stands behind it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::follow::Follower;
use super::mount::{MountError, MountOptions, SyncSettings};
use super::past::{Past, dotdir};
use super::publishing::Publisher;
use super::rounds::Publishing;
use super::schedule::Schedule;
use super::start::{Started, start, start_at};
use super::told::Told;
use super::written::{ThrowAway, Written};
use crate::cache::{Cache, CacheOptions, Scope};
use crate::dotdir::DotDir;
use crate::fetch::{FetchOptions, Fetcher};
use crate::fuse::Invalidator;
use crate::metrics::MountCounters;
use crate::overlay::Overlay;
use crate::remote::{ManifestDocument, Remote};
use crate::state::Place;
use crate::sync::{Brake, Replica, ReplicaOptions, SyncError, Waits};
use crate::vfs::Vfs;

/// A flip waits no longer for its turn, where nobody says how often to ask for news.
const FLIP_PATIENCE: Duration = Duration::from_secs(30);
/// How long a mount waits at first to hear what became of its last commit.
const SETTLING: Duration = Duration::from_secs(5);

/// What a mount is made of.
pub(super) struct Prepared {
    pub(super) cache: Arc<Cache>,
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) counters: Arc<MountCounters>,
    /// Where what is written lasts, if anything may be.
    pub(super) written: Option<(Arc<Overlay>, Option<ThrowAway>)>,
    pub(super) vfs: Arc<Vfs>,
    pub(super) dotdir: Arc<DotDir>,
    /// It tells no kernel yet.
    pub(super) follower: Follower,
    pub(super) publishing: Option<Publishing>,
    pub(super) told: Told,
    /// A manifest that is not on disk yet.
    pub(super) fresh: Option<ManifestDocument>,
}

impl Prepared {
    /// Finds out what is to be shown, and opens what that takes.
    pub(super) async fn new(remote: Remote, options: &MountOptions) -> Result<Self, MountError> {
        let origin = remote.origin();
        let place = |id: &str, replica: &str| Place::new(origin.as_str(), &options.database, id, replica);
        let has_pending = |id: &str| {
            let publishes =
                options.overlay.as_ref().filter(|overlay| options.sync.is_some() && !overlay.throw_away);
            publishes.is_some_and(|overlay| {
                Replica::has_pending_in(&place(id, &overlay.replica).dir(&overlay.state_dir), id)
            })
        };
        let begin = || async {
            match options.at {
                Some(revision) => start_at(&remote, &options.database, revision, &options.cache_dir).await,
                None => start(&remote, &options.database, &options.cache_dir, has_pending).await,
            }
        };
        let overlay = options.overlay.as_ref().filter(|_| options.at.is_none());
        let is_held = || {
            overlay.filter(|overlay| !overlay.throw_away).is_some_and(|overlay| {
                let (state_dir, replica) = (&overlay.state_dir, &overlay.replica);
                Place::is_held(state_dir, origin.as_str(), &options.database, replica)
            })
        };
        let mut was_held = is_held();
        tracing::info!(database = %options.database, remote = %origin.as_str(), "asking the remote");
        let mut started = begin().await?;
        let written = loop {
            let Some(overlay) = overlay else { break None };
            let written = Written::open(overlay, &place(&started.known.id, &overlay.replica)).await?;
            if !was_held && !written.waited {
                break Some(written);
            }
            // What was found out may be older than what is local.
            was_held = false;
            let id = std::mem::take(&mut started.known.id);
            drop(started);
            started = begin().await?;
            if started.known.id == id {
                break Some(written);
            }
        };
        let Started { shown, known, remembered, fresh } = started;

        let cache = Arc::new(Cache::open(
            &options.cache_dir,
            CacheOptions { limit: options.cache_limit, min_free: options.cache_min_free },
        )?);
        let counters = MountCounters { bytes_evicted: cache.evicted(), ..MountCounters::default() };
        let counters = Arc::new(counters);
        counters.reads.requests.add(1);
        let scope = Scope::new(remote.origin().as_str(), &known.id);
        let fetch = FetchOptions { deadline: options.read_deadline, memory: options.memory };
        let fetcher = Fetcher::new(remote.clone(), cache.clone(), scope, fetch, counters.clone());
        fetcher.make_ready();
        let (written, shown) = match written {
            Some(Written { overlay, upper, throw_away, .. }) => {
                (Some((overlay, throw_away)), shown.under(upper))
            }
            None => (None, shown),
        };
        let told = Told::new(options.database.to_string());
        let publishing = match (&written, &options.sync, known.revision) {
            (Some((overlay, None)), Some(settings), Some(_)) => {
                Some(publishing(overlay, settings, options, &known.id)?)
            }
            _ => None,
        };
        if let Some(publishing) = &publishing {
            told.update(|standing| {
                standing.trigger = Some(publishing.schedule.trigger().as_str().to_owned())
            });
        }
        told.waits(publishing.as_ref().map_or_else(Waits::default, |publishing| publishing.schedule.waits));
        let overlay = written.as_ref().map(|(overlay, _)| overlay.clone());
        let (database, counting) = (options.database.clone(), counters.clone());
        let vfs = Arc::new(Vfs::new(database, shown, overlay.clone(), fetcher.clone(), counting));

        let past = known.revision.map(|_| Past {
            remote: remote.clone(),
            database: options.database.clone(),
            id: known.id.clone(),
            cache_dir: options.cache_dir.clone(),
            fetcher: fetcher.clone(),
            counters: counters.clone(),
        });
        let conflicts = overlay.as_ref().filter(|_| publishing.is_some());
        let conflicts = conflicts.and_then(|overlay| Replica::make_conflicts_directory(overlay.path()).ok());
        let dotdir = Arc::new(dotdir(vfs.clone(), told.standing(), conflicts, past));

        let every = options.poll.unwrap_or(FLIP_PATIENCE);
        let follower = Follower {
            remote,
            vfs: vfs.clone(),
            invalidator: Invalidator::nobody(),
            counters: counters.clone(),
            remembered,
            known,
            every,
        };
        Ok(Self { cache, fetcher, counters, written, vfs, dotdir, follower, publishing, told, fresh })
    }

    /// Settles what an earlier life has published without hearing of it, before anybody can change anything. Where the remote does
    /// not say, that is done later. What an earlier life has had open and is as the remote has it is the remote's again.
    pub(super) async fn settle_earlier(&mut self) {
        let Some(Publishing { publisher, .. }) = &mut self.publishing else {
            return self.vfs.give_all_back();
        };
        if let Err(error) = publisher.resolve_within(SETTLING, &mut self.follower).await {
            tracing::info!(%error, "what became of the last commit is not known yet");
        }
    }
}

fn publishing(
    overlay: &Arc<Overlay>,
    settings: &SyncSettings,
    options: &MountOptions,
    id: &str,
) -> Result<Publishing, SyncError> {
    let replica = Replica::open(overlay.path(), id)?;
    let options = ReplicaOptions {
        database: options.database.clone(),
        strategy: settings.strategy,
        filter: settings.filter.clone(),
        brake: Brake::On,
        conflict_limit: settings.conflict_limit,
    };
    let critical = settings.critical.clone();
    let mut schedule = Schedule::new(settings.trigger, settings.every, Instant::now());
    if critical.is_some() {
        schedule = schedule.critical_first();
    }
    schedule.waits = replica.waits();
    if schedule.waits.paused {
        tracing::warn!("syncs are paused since an earlier mount: 'parquedb ctl resume' lets them go on");
    }
    if schedule.waits.gathering {
        tracing::warn!("changes are gathered since an earlier mount: 'parquedb ctl commit' publishes them");
    }
    Ok(Publishing {
        publisher: Publisher { replica, options, critical, overlay: overlay.clone() },
        schedule,
        stirs: overlay.stirs(),
        seen: 0,
    })
}
