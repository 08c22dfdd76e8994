//! Sending the contents a remote does not have yet.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use super::changes::Files;
use super::{Event, Reporter, SyncError};
use crate::manifest::Entry;
use crate::model::DbPath;
use crate::remote::{Remote, RemoteError, UploadSource};
use crate::tree::Root;
use crate::wire::{FileToUpload, UploadTarget, UploadUrlsRequest};

/// Uploads under way at once; one in the simulation, which numbers requests.
const AT_ONCE: usize = if cfg!(test) { 1 } else { 8 };
/// Files asked about at a time: their permissions hold for an hour, so not too many before the first is sent.
const BATCH: usize = 500;
/// How often one file is sent again without getting on.
const MAX_ATTEMPTS: usize = 4;
const FIRST_WAIT: Duration = Duration::from_millis(300);

/// What had to be sent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) contents: u64,
    pub(super) bytes: u64,
}

impl std::ops::AddAssign for Sent {
    fn add_assign(&mut self, other: Self) {
        self.contents += other.contents;
        self.bytes += other.bytes;
    }
}

/// Where files to be sent lie below the root.
#[derive(Debug, Clone, Copy)]
pub(super) enum Places<'a> {
    /// Each at its own path.
    Own,
    /// Here; the remote has the others.
    Some(&'a BTreeMap<DbPath, DbPath>),
}

impl Places<'_> {
    fn of<'b>(&'b self, path: &'b DbPath) -> Option<&'b DbPath> {
        match self {
            Self::Own => Some(path),
            Self::Some(places) => places.get(path),
        }
    }
}

/// Makes sure the remote has the contents of `put`. Equal contents are sent once, and none that is there.
pub(super) async fn upload_contents(
    remote: &Remote,
    id: &str,
    root: &Arc<Root>,
    places: Places<'_>,
    put: &Files,
    reporter: &dyn Reporter,
) -> Result<Sent, SyncError> {
    let mut contents: BTreeMap<_, (&DbPath, &Entry)> = BTreeMap::new();
    for (path, entry) in put {
        let known = contents.entry(entry.hash).or_insert((path, entry));
        if places.of(known.0).is_none() {
            *known = (path, entry);
        }
    }
    let wanted: Vec<(&DbPath, &Entry)> = contents.into_values().collect();
    let bytes = wanted.iter().map(|(_, entry)| entry.size).sum();
    reporter.report(Event::Transferring { files: wanted.len() as u64, bytes });
    let mut sent = Sent::default();
    for batch in wanted.chunks(BATCH) {
        let targets = ask_targets(remote, id, batch).await?;
        // Boxed, for the compiler does not see else that they may be sent to another thread.
        let mut uploads: Vec<BoxFuture<'_, Result<Sent, SyncError>>> = Vec::with_capacity(batch.len());
        for (&(path, entry), target) in batch.iter().zip(targets) {
            uploads.push(Box::pin(async move {
                let exists = target.exists;
                if !exists {
                    let lost = || SyncError::Lost { path: path.clone() };
                    let place = places.of(path).ok_or_else(lost)?;
                    upload_one(remote, id, (root, place), path, entry, target).await?;
                }
                reporter.report(Event::Progress { bytes: entry.size });
                Ok(if exists { Sent::default() } else { Sent { contents: 1, bytes: entry.size } })
            }));
        }
        let done: Vec<Sent> = futures::stream::iter(uploads).buffer_unordered(AT_ONCE).try_collect().await?;
        done.into_iter().for_each(|one| sent += one);
    }
    reporter.report(Event::Finished);
    Ok(sent)
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

/// Sends one file. After a failure in passing it goes on where it broke off; or from the start with a new permission, which
/// also says if it arrived after all.
async fn upload_one(
    remote: &Remote,
    id: &str,
    (root, place): (&Arc<Root>, &DbPath),
    path: &DbPath,
    entry: &Entry,
    mut target: UploadTarget,
) -> Result<(), SyncError> {
    let source = UploadSource {
        path: root.path().join(place.as_str()),
        open: Arc::new({
            let (root, place) = (root.clone(), place.clone());
            move || root.open_file(&place)
        }),
        size: entry.size,
    };
    let (mut from, mut attempt, mut wait) = (0, 1, FIRST_WAIT);
    loop {
        let error = match remote.upload(&target, &source, from).await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        // A permission may have run out; or another server has what was sent before.
        let worth_another = error.is_transient()
            || matches!(
                error,
                RemoteError::NotAuthenticated { .. } | RemoteError::Refused { status: 409, .. }
            );
        match error {
            RemoteError::Refused { status: 422, .. } => {
                let changed = "it changed while it was being sent: nothing was published; try again";
                return Err(SyncError::directory(path)(std::io::Error::other(changed)));
            }
            error if !worth_another || attempt >= MAX_ATTEMPTS => return Err(error.into()),
            _ => {}
        }
        tokio::time::sleep(wait).await;
        (attempt, wait) = (attempt + 1, wait * 2);
        match remote.upload_offset(&target).await {
            Ok(there) if there > 0 => {
                // A large file may break off often: what counts is whether it gets on.
                if there > from {
                    (attempt, wait) = (1, FIRST_WAIT);
                }
                from = there;
                continue;
            }
            _ => from = 0,
        }
        match ask_targets(remote, id, &[(path, entry)]).await?.into_iter().next() {
            Some(next) if next.exists => return Ok(()),
            Some(next) => target = next,
            None => return Ok(()),
        }
    }
}
