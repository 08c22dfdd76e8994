//! Receiving contents into staged files, several at a time, each checked before it may be put in place.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};

use super::changes::Files;
use super::{Event, Reporter, SyncError};
use crate::manifest::Entry;
use crate::model::{ByteRange, ContentHash, DbPath, DbRef, Revision};
use crate::remote::{ContentBody, ContentKey, Remote, RemoteError};
use crate::tree::{Durability, Hasher, Root, Staged};

/// Downloads under way at once; one in the simulation, which numbers requests.
const AT_ONCE: usize = if cfg!(test) { 1 } else { 8 };
/// How often one file is asked for without getting on.
const MAX_ATTEMPTS: usize = 4;
/// So many bytes are worth another request, however often it breaks off.
const GETS_ON: u64 = 64 << 10;
const FIRST_WAIT: Duration = Duration::from_millis(300);

/// How a content is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is what its path has.
    AtPath,
    /// Its path may have another one by now.
    ByHash,
}

/// A content that is on its way.
struct Partly {
    staged: Staged,
    hasher: Hasher,
    /// How much of it is here, in bytes.
    length: u64,
}

/// Where contents come from and go to.
pub(super) struct Downloads<'a> {
    pub(super) remote: &'a Remote,
    pub(super) database: &'a DbRef,
    /// Its id.
    pub(super) id: &'a str,
    /// The revision they are of; the current one, where none is given.
    pub(super) at: Option<Revision>,
    pub(super) root: &'a Arc<Root>,
    pub(super) durability: Durability,
    pub(super) reporter: &'a dyn Reporter,
}

impl Downloads<'_> {
    /// Receives every file, or fails with none in place; what has come by then is there for the next run.
    pub(super) async fn receive_all(&self, files: &Files) -> Result<Vec<(DbPath, Staged)>, SyncError> {
        self.receive_each(files, Found::AtPath).await
    }

    /// Receives versions that are not current any more, as far as the remote keeps them.
    pub(super) async fn receive_what_is_left(
        &self,
        files: &Files,
    ) -> Result<Vec<(DbPath, Staged)>, SyncError> {
        self.receive_each(files, Found::ByHash).await
    }

    async fn receive_each(&self, files: &Files, found: Found) -> Result<Vec<(DbPath, Staged)>, SyncError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = files.values().fold(0, |sum: u64, entry| sum.saturating_add(entry.size));
        self.reporter.report(Event::Transferring { files: files.len() as u64, bytes });
        // Boxed, for the compiler does not see else that they may be sent to another thread.
        let mut downloads: Vec<BoxFuture<'_, Result<Option<_>, SyncError>>> = Vec::with_capacity(files.len());
        for (path, entry) in files {
            downloads.push(Box::pin(async move {
                match (self.receive(path, entry, found).await, found) {
                    // The remote does not keep it any more.
                    (
                        Err(SyncError::Remote(RemoteError::Moved { .. } | RemoteError::Refused { .. })),
                        Found::ByHash,
                    ) => Ok(None),
                    (received, _) => Ok(Some((path.clone(), received?))),
                }
            }));
        }
        let received: Result<Vec<_>, _> =
            futures::stream::iter(downloads).buffer_unordered(AT_ONCE).try_collect().await;
        self.reporter.report(Event::Finished);
        Ok(received?.into_iter().flatten().collect())
    }

    /// Receives one content, asking again after passing faults, from where it broke off; or takes what an earlier run has
    /// received. Agrees only if its hash is the manifest's.
    async fn receive(&self, path: &DbPath, entry: &Entry, found: Found) -> Result<Staged, SyncError> {
        let io = |error| SyncError::directory(path)(error);
        if let Some(staged) = self.received_before(&entry.hash).await.map_err(io)? {
            self.reporter.report(Event::Progress { bytes: entry.size });
            return self.seal(path, entry, staged).await;
        }
        let mut partly =
            Partly { staged: self.root.stage().map_err(io)?, hasher: Hasher::like(&entry.hash), length: 0 };
        let (mut attempt, mut wait) = (1, FIRST_WAIT);
        while partly.length < entry.size {
            let before = partly.length;
            match self.receive_more(path, entry, found, &mut partly).await {
                Err(SyncError::Remote(error)) if error.is_transient() => {
                    // A large file may break off often: what counts is whether it gets on.
                    if partly.length - before >= GETS_ON {
                        (attempt, wait) = (1, FIRST_WAIT);
                    } else if attempt == MAX_ATTEMPTS {
                        return Err(error.into());
                    }
                    tokio::time::sleep(wait).await;
                    (attempt, wait) = (attempt + 1, wait * 2);
                }
                received => received?,
            }
        }
        if partly.hasher.finish() != entry.hash {
            return Err(SyncError::WrongContent { path: path.clone() });
        }
        let mut staged = self.seal(path, entry, partly.staged).await?;
        staged.keep_as(&entry.hash).map_err(io)?;
        Ok(staged)
    }

    /// Receives what is missing of a content, with one request.
    async fn receive_more(
        &self,
        path: &DbPath,
        entry: &Entry,
        found: Found,
        partly: &mut Partly,
    ) -> Result<(), SyncError> {
        let rest = ByteRange::new(partly.length, entry.size);
        let mut body = self.open(path, entry, found, rest).await?;
        while let Some(piece) = body.next().await? {
            partly.hasher.update(&piece);
            // Writes go to the page cache; only the closing sync waits for the disk.
            partly.staged.write(&piece).map_err(SyncError::directory(path))?;
            partly.length += piece.len() as u64;
            self.reporter.report(Event::Progress { bytes: piece.len() as u64 });
        }
        Ok(())
    }

    async fn received_before(&self, hash: &ContentHash) -> std::io::Result<Option<Staged>> {
        let (root, hash) = (self.root.clone(), *hash);
        tokio::task::spawn_blocking(move || root.take_received(&hash)).await.map_err(std::io::Error::other)?
    }

    async fn seal(&self, path: &DbPath, entry: &Entry, mut staged: Staged) -> Result<Staged, SyncError> {
        let (modified, durability) = (entry.modified(), self.durability);
        tokio::task::spawn_blocking(move || staged.seal(modified, durability).map(|()| staged))
            .await
            .map_err(std::io::Error::other)
            .and_then(|sealed| sealed)
            .map_err(SyncError::directory(path))
    }

    async fn open(
        &self,
        path: &DbPath,
        entry: &Entry,
        found: Found,
        range: ByteRange,
    ) -> Result<ContentBody, RemoteError> {
        // A pull brings one revision or nothing.
        let key = ContentKey::new(self.database.clone(), path.clone(), entry.size, entry.hash, self.at);
        let key = match found {
            Found::ByHash => key.by_hash(self.id),
            Found::AtPath if self.at.is_some() => key.of_the_past(),
            Found::AtPath => key,
        };
        self.remote.open_range(&key, range).await.map_err(|error| match error {
            // The path is pinned to a content: gone or replaced, the manifest is an old one.
            RemoteError::NotFound { .. } => RemoteError::Moved { revision: None },
            other => other,
        })
    }
}
