//! Pull: what the remote has changed comes here, each file whole, and nothing that was edited here is touched.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::download::Downloads;
use super::landed::{anchor_at, check_same_history, landed_commit};
use super::plan::{Files, PullPlan, plan_pull};
use super::workdir::{Identity, Intent};
use super::{Brake, Event, Reporter, SyncError, Workdir, local};
use crate::manifest::{Entry, stays_put};
use crate::model::{DbPath, DbRef, ExitCode, Revision};
use crate::remote::{Remote, RemoteError};
use crate::tree::{self, Applied, Durability, Occupant, Root};
use crate::wire::DatabaseDescription;

/// Up to so many files are made durable one by one; more, all at once.
const FEW_FILES: usize = 64;
/// How often a pull plans again because the remote moved.
const MAX_PLANS: usize = 5;

/// What to pull, and where to.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// The database.
    pub reference: DbRef,
    /// The directory; made if it is missing.
    pub directory: PathBuf,
    /// The revision to bring it to; the current one, where none is given.
    pub at: Option<Revision>,
    /// Whether mass deletions go through.
    pub brake: Brake,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// What a pull did, or would do.
#[derive(Debug)]
pub struct PullReport {
    /// The plan, which was carried out unless this was a dry run. Files that were edited while the pull ran
    /// are among its conflicts.
    pub plan: PullPlan,
    /// Bytes received.
    pub bytes_received: u64,
    /// Files of the database whose names stay put on either side: not written here.
    pub not_pulled: Vec<DbPath>,
    /// The revision the directory now has, where the remote numbers them.
    pub revision: Option<Revision>,
}

impl PullReport {
    /// Conflicts need a decision; everything else is done.
    pub fn exit_code(&self) -> ExitCode {
        if self.plan.conflicts.is_empty() { ExitCode::Done } else { ExitCode::NeedsDecision }
    }
}

/// Brings a directory to the remote's current revision, but for what was changed in it.
pub async fn pull(
    remote: &Remote,
    options: &PullOptions,
    reporter: &dyn Reporter,
) -> Result<PullReport, SyncError> {
    let found = remote.describe(&options.reference).await?;
    reporter.report(Event::Found {
        name: &found.name,
        visibility: found.visibility,
        collections: found.collection_count,
    });
    let shown = options.directory.display();
    if !options.dry_run {
        std::fs::create_dir_all(&options.directory).map_err(SyncError::directory(shown))?;
    } else if !options.directory.exists() {
        let files = current(remote, options, &found).await?.0;
        let plan = plan_pull(&Files::new(), &Files::new(), &files);
        return Ok(PullReport {
            plan,
            bytes_received: 0,
            revision: Some(options.at.unwrap_or(found.revision)),
            not_pulled: Vec::new(),
        });
    }
    let intent = if options.dry_run { Intent::Look } else { Intent::Work };
    let mut workdir = Workdir::open(&options.directory, intent)?;
    check_same_history(remote, &workdir, &found).await?;
    for _ in 0..MAX_PLANS {
        match pull_once(remote, options, &found, &mut workdir, reporter).await {
            Err(SyncError::Remote(RemoteError::Moved { .. })) => {}
            other => return other,
        }
    }
    Err(SyncError::KeptChanging)
}

/// The remote's files: the current ones, or those of the revision asked for.
async fn current(
    remote: &Remote,
    options: &PullOptions,
    found: &DatabaseDescription,
) -> Result<(Files, Option<Revision>), SyncError> {
    let fetched = match options.at {
        Some(revision) => remote.manifest_at(&options.reference, revision).await?,
        None if found.revision == Revision::NONE => return Ok((Files::new(), Some(Revision::NONE))),
        None => remote.manifest(&options.reference).await?,
    };
    if fetched.manifest.database_id != found.id {
        return Err(RemoteError::Moved { revision: None }.into());
    }
    Ok((fetched.manifest.files, fetched.revision))
}

async fn pull_once(
    remote: &Remote,
    options: &PullOptions,
    found: &DatabaseDescription,
    workdir: &mut Workdir,
    reporter: &dyn Reporter,
) -> Result<PullReport, SyncError> {
    let shown = options.directory.display();
    let root = workdir.root().clone();
    let (mut theirs, revision) = current(remote, options, found).await?;
    let landed = landed_commit(remote, workdir, &found.id).await?;
    let current = if options.at.is_some() { Some(found.revision) } else { revision };
    let mut base = workdir.base(&found.id, current, landed.as_ref())?;
    let not_pulled: Vec<DbPath> = theirs.keys().filter(|path| stays_put(path)).cloned().collect();
    theirs.retain(|path, _| !stays_put(path));
    base.retain(|path, _| !stays_put(path));
    let scan = tree::scan(&root).map_err(SyncError::directory(shown))?;
    // Files neither side has ever agreed on need not be read: nothing will happen to them.
    let like = |path: &DbPath| theirs.get(path).or_else(|| base.get(path)).map(|entry| entry.hash);
    let wanted = |path: &DbPath| theirs.contains_key(path) || base.contains_key(path);
    let here = local::read(&root, &scan, like, wanted, reporter).await?;
    let mut plan = plan_pull(&base, &here.files, &theirs);
    // What stands in a file's place but is none, a link or a device, is somebody's: it is not replaced.
    for path in obstructed(&root, &here.files, base.keys().chain(theirs.keys()))? {
        plan.put.remove(&path);
        plan.delete.remove(&path);
        // It matters only if the remote has something new for this path.
        let same = |(base, theirs): (&Entry, &Entry)| base.same_content(theirs);
        if base.get(&path).zip(theirs.get(&path)).is_some_and(same) {
            plan.changed_here.insert(path);
        } else {
            plan.changed_here.remove(&path);
            plan.conflicts.insert(path);
        }
    }
    let left = here.files.len() - plan.delete.len()
        + plan.put.keys().filter(|path| !here.files.contains_key(*path)).count();
    options
        .brake
        .check(plan.delete.len(), here.files.len(), left)
        .map_err(|counts| SyncError::Halted { counts, side: "here" })?;
    if options.dry_run {
        return Ok(PullReport { plan, bytes_received: 0, revision, not_pulled });
    }

    let many = plan.put.len() + plan.delete.len() > FEW_FILES;
    let durability = if many { Durability::Later } else { Durability::Now };
    let bytes = plan.put.values().map(|entry| entry.size).sum();
    let downloads =
        Downloads { remote, database: &options.reference, at: options.at, root: &root, durability, reporter };
    let staged = downloads.receive_all(&plan.put).await?;
    let mut settled = base.clone();
    if many {
        sync_everything(&root).await?;
    }
    // Everything is here, checked and durable: from now on only names change.
    for path in plan.delete.clone() {
        let Some(seen) = here.stamps.get(&path) else { continue };
        match root.remove(&path, *seen, durability).map_err(SyncError::directory(&path))? {
            Applied::Done => {
                settled.remove(&path);
            }
            Applied::Overtaken => {
                plan.delete.remove(&path);
                plan.conflicts.insert(path);
            }
        }
    }
    for (path, staged) in staged {
        let placed = root.place(staged, &path, here.stamps.get(&path).copied(), durability);
        match placed.map_err(SyncError::directory(&path))? {
            Applied::Done => {
                settled
                    .extend(theirs.get_key_value(&path).map(|(path, entry)| (path.clone(), entry.clone())));
            }
            Applied::Overtaken => {
                plan.put.remove(&path);
                plan.conflicts.insert(path);
            }
        }
    }
    if many {
        sync_everything(&root).await?;
    }
    for (path, entry) in &theirs {
        if here.files.get(path).is_some_and(|mine| mine.same_content(entry)) {
            settled.insert(path.clone(), entry.clone());
        }
    }
    settled.retain(|path, _| theirs.contains_key(path) || here.files.contains_key(path));
    let synced_from = format!("remote:{}", remote.url());
    let identity = Identity {
        id: &found.id,
        name: &found.name,
        reference: &options.reference,
        visibility: found.visibility,
        synced_from: &synced_from,
    };
    let anchor = anchor_at(remote, found, current).await?;
    workdir.save_base(&identity, settled, current, anchor)?;
    Ok(PullReport { plan, bytes_received: bytes, revision, not_pulled })
}

async fn sync_everything(root: &Arc<Root>) -> Result<(), SyncError> {
    let (root, shown) = (root.clone(), root.path().display().to_string());
    let synced = tokio::task::spawn_blocking(move || root.sync_everything()).await;
    synced.map_err(std::io::Error::other).and_then(|synced| synced).map_err(SyncError::directory(shown))
}

/// Those of `paths` at which the directory has something, but no file that was read.
fn obstructed<'a>(
    root: &Root,
    read: &Files,
    paths: impl Iterator<Item = &'a DbPath>,
) -> Result<BTreeSet<DbPath>, SyncError> {
    let mut found = BTreeSet::new();
    for path in paths.filter(|path| !read.contains_key(*path)) {
        match root.occupant(path).map_err(SyncError::directory(path))? {
            Occupant::Nothing | Occupant::Directory => {}
            Occupant::File(_) | Occupant::Obstacle => {
                found.insert(path.clone());
            }
        }
    }
    Ok(found)
}
