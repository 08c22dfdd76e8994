//! Push: content first, by hash; then one revision, by precondition.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::plan::{Files, Overwrite, PushPlan, plan_push};
use super::workdir::{Identity, Intent, PendingCommit};
use super::{Brake, Event, Reporter, SyncError, Workdir, local};
use crate::disk::random_hex;
use crate::manifest::{Entry, is_protected};
use crate::model::{DbPath, DbRef, ExitCode, Revision, Visibility};
use crate::remote::{FetchedManifest, Remote, RemoteError, UploadSource};
use crate::tree::{self, Root, Skipped};
use crate::wire::{
    CommitRequest, DatabaseDescription, FileToUpload, MAX_UPLOAD_URLS, PutEntry, RegisterRequest,
    UploadTarget, UploadUrlsRequest,
};

/// Uploads under way at once.
const AT_ONCE: usize = 8;
/// How often a push plans again because others published.
const MAX_PLANS: usize = 5;
/// How often one file is sent again.
const MAX_ATTEMPTS: usize = 4;

/// What to push, and where.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// The directory.
    pub directory: PathBuf,
    /// The database's slug among the caller's own.
    pub slug: String,
    /// Its name for people.
    pub name: String,
    /// The owner it must belong to, where its file says so.
    pub owner: Option<String>,
    /// Sets its visibility, where given.
    pub visibility: Option<Visibility>,
    /// Whether conflicts are decided for the local side.
    pub overwrite: Overwrite,
    /// Whether mass deletions go through.
    pub brake: Brake,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// What a push did, or would do.
#[derive(Debug)]
pub struct PushReport {
    /// `owner/slug`.
    pub reference: DbRef,
    /// The plan, which was carried out unless this was a dry run.
    pub plan: PushPlan,
    /// How many contents had to be sent.
    pub contents_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// The revision published, or the current one if there was nothing to publish.
    pub revision: Revision,
    /// What in the directory is not published.
    pub skipped: Vec<Skipped>,
}

impl PushReport {
    /// Conflicts need a decision; everything else is done.
    pub fn exit_code(&self) -> ExitCode {
        if self.plan.conflicts.is_empty() { ExitCode::Done } else { ExitCode::NeedsDecision }
    }
}

/// Publishes what changed in a directory since it last agreed with the remote.
pub async fn push(
    remote: &Remote,
    options: &PushOptions,
    reporter: &dyn Reporter,
) -> Result<PushReport, SyncError> {
    let intent = if options.dry_run { Intent::Look } else { Intent::Work };
    let me = remote.me().await?;
    reporter.report(Event::Authenticated { username: &me.username });
    let reference = DbRef::new(&me.username, &options.slug).map_err(|error| RemoteError::WrongAnswer {
        remote: remote.url().to_owned(),
        reason: format!("it names us {:?}: {error}", me.username),
    })?;
    if let Some(owner) = options.owner.as_deref().filter(|owner| *owner != me.username) {
        let text = format!("the database's file says its owner is {owner}, but you are {}", me.username);
        return Err(RemoteError::NotAllowed { text }.into());
    }
    let mut workdir = Workdir::open(&options.directory, intent)?;
    let existing = match remote.describe(&reference).await {
        Ok(found) => Some(found),
        Err(RemoteError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let visibility =
        options.visibility.or(existing.as_ref().map(|found| found.visibility)).unwrap_or_default();
    reporter.report(Event::Target { visibility, reference: &reference.to_string() });

    let mut published = published_files(remote, &reference, existing.as_ref()).await?;
    let scan = tree::scan(workdir.root()).map_err(SyncError::directory(options.directory.display()))?;
    let like = |path: &DbPath| published.files.get(path).map(|entry| entry.hash);
    let local = local::read(workdir.root(), &scan, like, |_| true, reporter).await?;
    // A protected name the database already has is neither deleted nor replaced (rule 11).
    let protected = |files: &Files| -> Files {
        let kept = files.iter().filter(|(path, _)| path.components().any(is_protected));
        kept.map(|(path, entry)| (path.clone(), entry.clone())).collect()
    };

    let mut registered: Option<String> = None;
    let (mut contents_sent, mut bytes_sent) = (0, 0);
    for _ in 0..MAX_PLANS {
        let base = match &existing {
            // A database with nothing in it has agreed with nobody yet.
            Some(found) if published.revision != Some(Revision::NONE) => {
                workdir.base(&found.id, published.revision, &published.files)?
            }
            _ => Files::new(),
        };
        let mut here = local.files.clone();
        here.extend(protected(&published.files));
        let mut plan = plan_push(&base, &here, &published.files, options.overwrite);
        if has_md5(&plan) {
            return Err(RemoteError::WrongAnswer {
                remote: remote.url().to_owned(),
                reason: "it lists files by MD5, which cannot be published again".into(),
            }
            .into());
        }
        for skipped in &scan.skipped {
            // What was passed over is not deleted: it is still there, and so is what lies behind a link.
            if let Some(skipped) = skipped.path.to_str() {
                let behind = |path: &DbPath| path.ancestors().any(|ancestor| ancestor == skipped);
                plan.delete.retain(|path| path.as_str() != skipped && !behind(path));
            }
        }
        options
            .brake
            .check(plan.delete.len(), published.files.len())
            .map_err(|counts| SyncError::Halted { counts, side: "on the remote" })?;
        let report = |plan: PushPlan, contents_sent, bytes_sent, revision, skipped| PushReport {
            reference: reference.clone(),
            plan,
            contents_sent,
            bytes_sent,
            revision,
            skipped,
        };
        if options.dry_run {
            let revision = published.revision.unwrap_or_default();
            return Ok(report(plan, 0, 0, revision, scan.skipped));
        }
        let id = match &registered {
            Some(id) => id.clone(),
            None => {
                let request = RegisterRequest {
                    name: options.name.clone(),
                    visibility: options.visibility,
                    slug: Some(options.slug.clone()),
                    owner: me.username.clone(),
                };
                let id = remote.register(&request).await?.id;
                reporter.report(Event::Registered { id: &id });
                registered.insert(id).clone()
            }
        };
        let sent = upload_contents(remote, &id, workdir.root(), &plan.put, reporter).await?;
        contents_sent += sent.0;
        bytes_sent += sent.1;
        let identity = Identity {
            id: &id,
            name: existing.as_ref().map_or(&options.name, |found| &found.name),
            reference: &reference,
            visibility,
            synced_from: "local",
        };
        let mut revision = published.revision.unwrap_or_default();
        if !plan.is_empty() {
            match commit(remote, &mut workdir, &id, revision, &plan).await {
                Ok(committed) => revision = committed,
                Err(SyncError::Remote(RemoteError::Moved { .. })) => {
                    published = FetchedFiles::from(remote.manifest(&reference).await?);
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        let base = settled_base(base, &here, &published.files, &plan);
        workdir.save_base(&identity, base, Some(revision))?;
        return Ok(report(plan, contents_sent, bytes_sent, revision, scan.skipped));
    }
    Err(SyncError::KeptChanging)
}

struct FetchedFiles {
    files: Files,
    revision: Option<Revision>,
}

impl From<FetchedManifest> for FetchedFiles {
    fn from(fetched: FetchedManifest) -> Self {
        Self { files: fetched.manifest.files, revision: fetched.revision }
    }
}

async fn published_files(
    remote: &Remote,
    reference: &DbRef,
    existing: Option<&DatabaseDescription>,
) -> Result<FetchedFiles, SyncError> {
    match existing {
        Some(found) if found.revision != Revision::NONE => Ok(remote.manifest(reference).await?.into()),
        _ => Ok(FetchedFiles { files: Files::new(), revision: Some(Revision::NONE) }),
    }
}

fn has_md5(plan: &PushPlan) -> bool {
    plan.put.values().any(|entry| entry.hash.sha256().is_none())
}

/// What both sides agree on after the push, path by path (rule 8).
fn settled_base(mut base: Files, here: &Files, remote: &Files, plan: &PushPlan) -> Files {
    for (path, entry) in here {
        let agreed =
            plan.put.contains_key(path) || remote.get(path).is_some_and(|theirs| theirs.same_content(entry));
        if agreed {
            base.insert(
                path.clone(),
                remote.get(path).filter(|e| e.same_content(entry)).unwrap_or(entry).clone(),
            );
        }
    }
    // Gone on both sides: nothing to remember.
    base.retain(|path, _| {
        !plan.delete.contains(path) && (here.contains_key(path) || remote.contains_key(path))
    });
    base
}

/// Sends the contents the remote does not have yet: how many, and how many bytes.
async fn upload_contents(
    remote: &Remote,
    id: &str,
    root: &Arc<Root>,
    put: &Files,
    reporter: &dyn Reporter,
) -> Result<(u64, u64), SyncError> {
    // Equal contents are sent once.
    let contents: BTreeMap<_, _> = put.iter().map(|(path, entry)| (entry.hash, (path, entry))).collect();
    let wanted: Vec<(&DbPath, &Entry)> = contents.into_values().collect();
    let mut missing: Vec<(&DbPath, &Entry, UploadTarget)> = Vec::new();
    for batch in wanted.chunks(MAX_UPLOAD_URLS) {
        let targets = ask_targets(remote, id, batch).await?;
        missing.extend(batch.iter().zip(targets).filter(|(_, t)| !t.exists).map(|((p, e), t)| (*p, *e, t)));
    }
    let bytes: u64 = missing.iter().map(|(_, entry, _)| entry.size).sum();
    let files = missing.len() as u64;
    reporter.report(Event::Transferring { files, bytes });
    let uploads = missing.into_iter().map(|(path, entry, target)| async move {
        upload_one(remote, id, root, path, entry, target).await?;
        reporter.report(Event::Progress { bytes: entry.size });
        Ok::<_, SyncError>(())
    });
    let done = futures::stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect::<Vec<()>>().await;
    reporter.report(Event::Finished);
    done?;
    Ok((files, bytes))
}

async fn ask_targets(
    remote: &Remote,
    id: &str,
    batch: &[(&DbPath, &Entry)],
) -> Result<Vec<UploadTarget>, SyncError> {
    let files = batch.iter().map(|(path, entry)| FileToUpload {
        path: (*path).clone(),
        size: entry.size,
        content_type: entry.content_type.as_deref().map(str::to_owned),
        hash: entry.hash.sha256(),
    });
    let request = UploadUrlsRequest { database_id: id.to_owned(), files: files.collect() };
    Ok(remote.upload_urls(&request).await?.urls)
}

/// Sends one file; after a failure in passing, with a new permission, which also says if it arrived after all.
async fn upload_one(
    remote: &Remote,
    id: &str,
    root: &Arc<Root>,
    path: &DbPath,
    entry: &Entry,
    mut target: UploadTarget,
) -> Result<(), SyncError> {
    let source = UploadSource {
        path: root.path().join(path.as_str()),
        open: Arc::new({
            let (root, path) = (root.clone(), path.clone());
            move || root.open_file(&path)
        }),
        size: entry.size,
    };
    let mut wait = std::time::Duration::from_millis(300);
    for attempt in 1.. {
        match remote.upload(&target, &source).await {
            Ok(()) => break,
            Err(RemoteError::Refused { status: 422, .. }) => {
                let changed = std::io::Error::other(
                    "it changed while it was being sent: nothing was published; try again",
                );
                return Err(SyncError::directory(path)(changed));
            }
            Err(error) if error.is_transient() && attempt < MAX_ATTEMPTS => {
                tokio::time::sleep(wait).await;
                wait *= 2;
                let again = ask_targets(remote, id, &[(path, entry)]).await?;
                match again.into_iter().next() {
                    Some(next) if next.exists => break,
                    Some(next) => target = next,
                    None => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

async fn commit(
    remote: &Remote,
    workdir: &mut Workdir,
    id: &str,
    base: Revision,
    plan: &PushPlan,
) -> Result<Revision, SyncError> {
    let put = plan.put.iter().map(|(path, entry)| PutEntry { path: path.clone(), entry: entry.clone() });
    let delete: Vec<DbPath> = plan.delete.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect();
    let request =
        CommitRequest { commit_id: random_hex::<16>(), base, put: put.collect(), delete, message: None };
    workdir.save_pending(PendingCommit {
        database_id: id.to_owned(),
        commit_id: request.commit_id.clone(),
        put: request.put.clone(),
        delete: request.delete.clone(),
    })?;
    Ok(remote.commit(id, &request).await?.revision)
}
