//! Push: content first, by hash; then one revision, by precondition.

use std::path::PathBuf;

use super::landed::{anchor_at, check_same_history, landed_commit};
use super::local::{self, Local};
use super::plan::{Files, Overwrite, PushPlan, plan_push};
use super::upload::{Sent, upload_contents};
use super::workdir::{Identity, Intent, PendingCommit};
use super::{Brake, Event, Reporter, SyncError, Workdir};
use crate::disk::random_hex;
use crate::manifest::stays_put;
use crate::model::{DbPath, DbRef, ExitCode, Revision, Visibility};
use crate::remote::{Remote, RemoteError};
use crate::tree::{self, Skipped};
use crate::wire::{CommitRequest, CommitResponse, DatabaseDescription, PutEntry, RegisterRequest};

/// How often a push plans again because others published.
const MAX_PLANS: usize = 5;

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

/// What the remote has now.
pub(super) struct Published {
    pub(super) files: Files,
    pub(super) revision: Revision,
}

/// Publishes what changed in a directory since it last agreed with the remote.
pub async fn push(
    remote: &Remote,
    options: &PushOptions,
    reporter: &dyn Reporter,
) -> Result<PushReport, SyncError> {
    let me = remote.me().await?;
    reporter.report(Event::Authenticated { username: &me.username });
    let reference = own_reference(remote, options, &me.username)?;
    let intent = if options.dry_run { Intent::Look } else { Intent::Work };
    let mut workdir = Workdir::open(&options.directory, intent)?;
    let existing = match remote.describe(&reference).await {
        Ok(found) => Some(found),
        Err(RemoteError::NotFound { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if let Some(found) = existing.as_ref().filter(|found| !is_replaced(&workdir, found)) {
        check_same_history(remote, &workdir, found).await?;
    }
    let known = existing.as_ref().map(|found| found.visibility);
    let visibility = options.visibility.or(known).unwrap_or_default();
    reporter.report(Event::Target { visibility, reference: &reference.to_string() });

    let scan = tree::scan(workdir.root()).map_err(SyncError::directory(options.directory.display()))?;
    let mut published = read_published(remote, &reference, existing.as_ref()).await?;
    let like = |path: &DbPath| published.files.get(path).map(|entry| entry.hash);
    let local = local::read(workdir.root(), &scan, like, |_| true, reporter).await?;

    let mut id = None;
    let mut sent = Sent::default();
    let mut asked_again = false;
    for _ in 0..MAX_PLANS {
        let base = read_base(remote, &workdir, existing.as_ref(), published.revision).await?;
        let here = with_untouched(&local, &scan.skipped, &published.files);
        let plan = plan_push(&base, &here, &published.files, options.overwrite);
        check_plan(remote, options, &plan, &published.files)?;
        let done = |plan, sent: Sent, revision, skipped| PushReport {
            reference: reference.clone(),
            plan,
            contents_sent: sent.contents,
            bytes_sent: sent.bytes,
            revision,
            skipped,
        };
        if options.dry_run {
            return Ok(done(plan, sent, published.revision, scan.skipped));
        }
        let id = match &id {
            Some(id) => id,
            None => id.insert(register(remote, options, &me.username, reporter).await?),
        };
        sent += upload_contents(remote, id, workdir.root(), &plan.put, reporter).await?;
        let mut revision = published.revision;
        let mut anchor = None;
        if !plan.is_empty() {
            match commit(remote, &mut workdir, id, revision, &plan).await {
                Ok(committed) => {
                    revision = committed.revision;
                    anchor = committed.hash.map(|hash| (revision, hash));
                }
                // A push that took more than a day: the first contents must be asked for again, not sent.
                Err(SyncError::Remote(RemoteError::Refused { status: 422, .. })) if !asked_again => {
                    asked_again = true;
                    continue;
                }
                Err(SyncError::Remote(RemoteError::Moved { .. })) => {
                    published = fetch_published(remote, &reference).await?;
                    continue;
                }
                Err(error) => return Err(error),
            }
        }
        if let (None, Some(found)) = (anchor, &existing) {
            anchor = anchor_at(remote, found, Some(revision)).await?;
        }
        let identity = Identity {
            id,
            name: existing.as_ref().map_or(&options.name, |found| &found.name),
            reference: &reference,
            visibility,
            synced_from: "local",
        };
        workdir.save_base(
            &identity,
            settled_base(base, &here, &published.files, &plan),
            Some(revision),
            anchor,
        )?;
        return Ok(done(plan, sent, revision, scan.skipped));
    }
    Err(SyncError::KeptChanging)
}

fn own_reference(remote: &Remote, options: &PushOptions, username: &str) -> Result<DbRef, SyncError> {
    let reference = DbRef::new(username, &options.slug).map_err(|error| RemoteError::WrongAnswer {
        remote: remote.url().to_owned(),
        reason: format!("it gives us an impossible name: {error}"),
    })?;
    match options.owner.as_deref() {
        Some(owner) if owner != username => {
            let text = format!("the database's file says its owner is {owner}, but you are {username}");
            Err(RemoteError::NotAllowed { text }.into())
        }
        _ => Ok(reference),
    }
}

async fn read_published(
    remote: &Remote,
    reference: &DbRef,
    existing: Option<&DatabaseDescription>,
) -> Result<Published, SyncError> {
    match existing {
        Some(found) if found.revision != Revision::NONE => fetch_published(remote, reference).await,
        _ => Ok(Published { files: Files::new(), revision: Revision::NONE }),
    }
}

/// The current revision of a remote that can be published to.
pub(super) async fn fetch_published(remote: &Remote, reference: &DbRef) -> Result<Published, SyncError> {
    let fetched = remote.manifest(reference).await?;
    let revision = fetched.revision.ok_or_else(|| RemoteError::WrongAnswer {
        remote: remote.url().to_owned(),
        reason: "it does not number its revisions, so nothing can be published to it".into(),
    })?;
    Ok(Published { files: fetched.manifest.files, revision })
}

async fn read_base(
    remote: &Remote,
    workdir: &Workdir,
    existing: Option<&DatabaseDescription>,
    revision: Revision,
) -> Result<Files, SyncError> {
    match existing {
        Some(found) if is_replaced(workdir, found) => Ok(Files::new()),
        Some(found) => {
            let landed = landed_commit(remote, workdir, &found.id).await?;
            workdir.base(&found.id, Some(revision), landed.as_ref())
        }
        // A database that does not exist yet has agreed with nobody.
        None => Ok(Files::new()),
    }
}

/// Whether the remote's database has taken the place of the one this directory was synced with, and is empty still.
fn is_replaced(workdir: &Workdir, found: &DatabaseDescription) -> bool {
    found.revision == Revision::NONE && workdir.belongs_to_another(&found.id)
}

/// The local side, with the remote's own state wherever a push has no say: names that stay put, and what the scan
/// passed over, which is there although it is no file. Neither is deleted nor replaced.
fn with_untouched(local: &Local, skipped: &[Skipped], remote: &Files) -> Files {
    let mut here = local.files.clone();
    let passed_over = |path: &DbPath| {
        skipped.iter().any(|skipped| std::path::Path::new(path.as_str()).starts_with(&skipped.path))
    };
    let untouched = remote.iter().filter(|(path, _)| stays_put(path) || passed_over(path));
    here.extend(untouched.map(|(path, entry)| (path.clone(), entry.clone())));
    here
}

fn check_plan(
    remote: &Remote,
    options: &PushOptions,
    plan: &PushPlan,
    there: &Files,
) -> Result<(), SyncError> {
    if plan.put.values().any(|entry| entry.hash.sha256().is_none()) {
        return Err(RemoteError::WrongAnswer {
            remote: remote.url().to_owned(),
            reason: "it lists files by MD5, which cannot be published again".into(),
        }
        .into());
    }
    let left =
        there.len() - plan.delete.len() + plan.put.keys().filter(|path| !there.contains_key(*path)).count();
    options
        .brake
        .check(plan.delete.len(), there.len(), left)
        .map_err(|counts| SyncError::Halted { counts, side: "on the remote" })
}

async fn register(
    remote: &Remote,
    options: &PushOptions,
    owner: &str,
    reporter: &dyn Reporter,
) -> Result<String, SyncError> {
    let request = RegisterRequest {
        name: options.name.clone(),
        visibility: options.visibility,
        slug: Some(options.slug.clone()),
        owner: owner.to_owned(),
    };
    let id = remote.register(&request).await?.id;
    reporter.report(Event::Registered { id: &id });
    Ok(id)
}

/// What both sides agree on after the push, path by path (rule 8).
fn settled_base(mut base: Files, here: &Files, remote: &Files, plan: &PushPlan) -> Files {
    for (path, entry) in here {
        match remote.get(path).filter(|theirs| theirs.same_content(entry)) {
            Some(theirs) => base.insert(path.clone(), theirs.clone()),
            None if plan.put.contains_key(path) => base.insert(path.clone(), entry.clone()),
            None => None,
        };
    }
    // Gone on both sides: nothing to remember.
    base.retain(|path, _| {
        !plan.delete.contains(path) && (here.contains_key(path) || remote.contains_key(path))
    });
    base
}

async fn commit(
    remote: &Remote,
    workdir: &mut Workdir,
    id: &str,
    base: Revision,
    plan: &PushPlan,
) -> Result<CommitResponse, SyncError> {
    let put = plan.put.iter().map(|(path, entry)| PutEntry { path: path.clone(), entry: entry.clone() });
    let request = CommitRequest {
        commit_id: random_hex::<16>(),
        base,
        put: put.collect(),
        delete: plan.delete.iter().cloned().collect(),
        message: None,
    };
    let pending = PendingCommit {
        commit_id: request.commit_id.clone(),
        base,
        put: request.put.clone(),
        delete: request.delete.clone(),
    };
    workdir.save_pending(id, pending)?;
    Ok(remote.commit(id, &request).await?)
}
