//! Making files of a database fully available offline (F26): their contents are pinned first, so that what comes
//! stays, and then fetched whole and checked. A pin is a content's: what is published later under the same path is another.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use crate::cache::{Cache, CacheError, CacheOptions, PinError, Scope, Verification};
use crate::fetch::{FetchError, FetchOptions, Fetcher, MemoryBudget, ReaderThread};
use crate::manifest::{Entry, Manifest};
use crate::metrics::MountCounters;
use crate::model::{DbPath, DbRef, ExitCode};
use crate::namespace::Remembered;
use crate::remote::{ContentKey, ManifestDocument, Remote, RemoteError};

/// Files fetched side by side; each is read ahead of as far as the link has room.
const FILES: usize = 8;
/// Bytes read at a time.
const STEP: u64 = 1 << 20;
/// A read gives up after so long without what it needs: nobody waits at a prompt for it.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often a check that others are in the way of is tried.
const CHECKS: usize = 600;
const BETWEEN_CHECKS: Duration = Duration::from_millis(100);

/// What to pin, and where.
#[derive(Debug, Clone)]
pub struct PinOptions {
    /// The database.
    pub database: DbRef,
    /// Files, or directories with all below them; none: the whole database.
    pub paths: Vec<DbPath>,
    /// The cache that mounts use.
    pub cache_dir: PathBuf,
}

/// What is pinned now.
#[derive(Debug, Clone, Default)]
pub struct Pinned {
    /// The files, in the manifest's order.
    pub paths: Vec<DbPath>,
    /// Their bytes, equal contents counted for each.
    pub bytes: u64,
}

impl Pinned {
    fn of(chosen: &Chosen<'_>) -> Self {
        Self {
            paths: chosen.iter().map(|(path, _)| (*path).clone()).collect(),
            bytes: chosen.iter().map(|(_, entry)| entry.size).sum(),
        }
    }
}

/// Why files were not pinned, or could not be had.
#[derive(Debug, thiserror::Error)]
pub enum PinningError {
    /// The manifest could not be had.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// There is no cache to keep it in.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// No file has this path, or lies below it.
    #[error("there is no '{0}' in the database")]
    NoSuchFile(DbPath),
    /// They do not fit, or it cannot be written down. Nothing was pinned.
    #[error("{source}; nothing was pinned: raise the limit with 'parquedb cache limit', or unpin something")]
    Pin {
        /// What is in the way.
        source: PinError,
    },
    /// A pin cannot be removed.
    #[error("the pins cannot be removed")]
    Unpin(#[source] io::Error),
    /// A file's bytes could not be had; all are pinned, and what is here of them stays.
    #[error("'{path}' could not be fetched: {source}; it is pinned: run the same command again for the rest")]
    Fetch {
        /// The file.
        path: DbPath,
        /// What happened.
        source: FetchError,
    },
}

impl PinningError {
    /// The exit status this failure ends a program with.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Remote(error) => error.exit_code(),
            Self::Cache(_) | Self::Pin { .. } => ExitCode::Usage,
            Self::NoSuchFile(_) => ExitCode::NotFound,
            Self::Fetch { source: FetchError::Unreachable(_), .. } => ExitCode::Unreachable,
            Self::Fetch { source: FetchError::Wrong(_), .. } => ExitCode::Integrity,
            Self::Fetch { source: FetchError::Denied(_), .. } => ExitCode::NotAllowed,
            Self::Unpin(_) | Self::Fetch { .. } => ExitCode::Failure,
        }
    }
}

/// Pins files, and fetches what is missing of them. `progress` hears of bytes as they are here, and first of them all.
pub async fn pin(
    remote: Remote,
    options: &PinOptions,
    progress: impl Fn(PinProgress) + Sync,
) -> Result<Pinned, PinningError> {
    let ManifestDocument { body, etag, revision } = remote.manifest_document(&options.database).await?;
    let manifest = Manifest::from_json(&body).map_err(RemoteError::from)?;
    let chosen = choose(&manifest, &options.paths)?;
    let cache = Arc::new(Cache::open(&options.cache_dir, CacheOptions::default())?);
    pin_all(&cache, &chosen)?;
    let pinned = Pinned::of(&chosen);
    progress(PinProgress::Begins { bytes: pinned.bytes });
    let scope = Scope::new(remote.origin().as_str(), &manifest.database_id);
    let remembered = Remembered::below(&options.cache_dir, &remote.origin(), &options.database);
    let fetch = FetchOptions { deadline: DEADLINE, memory: MemoryBudget::default() };
    let fetcher = Fetcher::new(remote, cache.clone(), scope.clone(), fetch, Arc::<MountCounters>::default());
    let mut fetching = stream::iter(&chosen)
        .map(|(path, entry)| {
            let key =
                ContentKey::new(options.database.clone(), (*path).clone(), entry.size, entry.hash, revision);
            let key = if revision.is_none() { key.on_static_host() } else { key };
            let key = key.with_blocks(entry.blocks);
            let (fetcher, cache, scope, progress) = (&fetcher, &cache, &scope, &progress);
            async move {
                let had = bring(fetcher, cache, scope, &key, progress).await;
                had.map_err(|source| PinningError::Fetch { path: (*path).clone(), source })
            }
        })
        .buffer_unordered(FILES);
    while let Some(one) = fetching.next().await {
        one?;
    }
    // Without the remote, a mount begins with what was seen last.
    let kept = tokio::task::spawn_blocking(move || remembered.save(body, &etag, revision)).await;
    if !matches!(kept, Ok(Ok(()))) {
        tracing::warn!(?kept, "the manifest was not kept for a mount without the remote");
    }
    Ok(pinned)
}

/// Lets go of files' contents, as the remote names them now. What is here stays until its room is needed.
pub async fn unpin(remote: &Remote, options: &PinOptions) -> Result<Pinned, PinningError> {
    let fetched = remote.manifest(&options.database).await?;
    let chosen = choose(&fetched.manifest, &options.paths)?;
    let cache = Cache::open(&options.cache_dir, CacheOptions::default())?;
    for (_, entry) in &chosen {
        cache.unpin(&entry.hash, entry.size).map_err(PinningError::Unpin)?;
    }
    Ok(Pinned::of(&chosen))
}

/// How far pinning has come.
#[derive(Debug, Clone, Copy)]
pub enum PinProgress {
    /// So many bytes are to be here in the end.
    Begins {
        /// All of them.
        bytes: u64,
    },
    /// So many more are here.
    Came {
        /// The new ones.
        bytes: u64,
    },
}

type Chosen<'a> = Vec<(&'a DbPath, &'a Entry)>;

fn choose<'a>(manifest: &'a Manifest, paths: &[DbPath]) -> Result<Chosen<'a>, PinningError> {
    let lies_in = |file: &DbPath, path: &DbPath| {
        let below = file.as_str().strip_prefix(path.as_str());
        below.is_some_and(|below| below.is_empty() || below.starts_with('/'))
    };
    for path in paths {
        if !manifest.files.keys().any(|file| lies_in(file, path)) {
            return Err(PinningError::NoSuchFile(path.clone()));
        }
    }
    let is_chosen = |file: &DbPath| paths.is_empty() || paths.iter().any(|path| lies_in(file, path));
    Ok(manifest.files.iter().filter(|(file, _)| is_chosen(file)).collect())
}

/// All or none.
fn pin_all(cache: &Cache, chosen: &Chosen<'_>) -> Result<(), PinningError> {
    let mut new = Vec::new();
    for (_, entry) in chosen {
        match cache.pin(&entry.hash, entry.size) {
            Ok(true) => new.push(entry),
            Ok(false) => {}
            Err(source) => {
                for entry in new {
                    let _ = cache.unpin(&entry.hash, entry.size);
                }
                return Err(PinningError::Pin { source });
            }
        }
    }
    Ok(())
}

/// Reads a content from its first byte to its last, and has it checked.
async fn bring(
    fetcher: &Arc<Fetcher>,
    cache: &Cache,
    scope: &Scope,
    key: &ContentKey,
    progress: &impl Fn(PinProgress),
) -> Result<(), FetchError> {
    let failed = |error: io::Error| FetchError::Cache(error.to_string());
    if key.size == 0 {
        return Ok(());
    }
    let cached = cache.content(scope, &key.hash, key.size).map_err(failed)?;
    let open = fetcher.open(key);
    for offset in (0..key.size).step_by(STEP as usize) {
        let bytes = match open.read_cached(ReaderThread(0), offset, STEP) {
            Some(bytes) => bytes,
            None => open.read(ReaderThread(0), offset, STEP).await?,
        };
        progress(PinProgress::Came { bytes: bytes.len() as u64 });
    }
    for _ in 0..CHECKS {
        let content = cached.clone();
        let checked = tokio::task::spawn_blocking(move || content.verify(&AtomicBool::new(false)));
        let checked = checked.await.map_err(|error| FetchError::Cache(error.to_string()))?.map_err(failed)?;
        match checked {
            // By MD5 it can be kept, and is checked no further (rule 5).
            Verification::Verified | Verification::Weak => return Ok(()),
            Verification::Wrong => return Err(FetchError::Wrong("it is not what its hash says".into())),
            Verification::Incomplete => {
                return Err(FetchError::Cache("there is no room for all of it".into()));
            }
            Verification::Later => tokio::time::sleep(BETWEEN_CHECKS).await,
        }
    }
    Err(FetchError::Cache("others were busy with it".into()))
}
