//! Receiving contents into staged files, several at a time, each checked before it may be put in place.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt};

use super::changes::Files;
use super::{Event, Reporter, SyncError};
use crate::manifest::Entry;
use crate::model::{ByteRange, DbPath, DbRef, Revision};
use crate::remote::{ContentBody, ContentKey, Remote, RemoteError};
use crate::tree::{Durability, Hasher, Root, Staged};

/// Downloads under way at once.
const AT_ONCE: usize = 8;
/// How often one file is asked for.
const MAX_ATTEMPTS: usize = 4;

/// How a content is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// It is what its path has.
    AtPath,
    /// Its path may have another one by now.
    ByHash,
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
    /// Receives every file, or fails with none in place.
    pub(super) async fn receive_all(&self, files: &Files) -> Result<Vec<(DbPath, Staged)>, SyncError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = files.values().map(|entry| entry.size).sum();
        self.reporter.report(Event::Transferring { files: files.len() as u64, bytes });
        let downloads = files.iter().map(|(path, entry)| async {
            Ok((path.clone(), self.receive(path, entry, Found::AtPath).await?))
        });
        let staged = futures::stream::iter(downloads).buffer_unordered(AT_ONCE).try_collect().await;
        self.reporter.report(Event::Finished);
        staged
    }

    /// Receives versions that are not current any more, as far as the remote keeps them.
    pub(super) async fn receive_what_is_left(
        &self,
        files: &Files,
    ) -> Result<Vec<(DbPath, Staged)>, SyncError> {
        if files.is_empty() {
            return Ok(Vec::new());
        }
        let bytes = files.values().map(|entry| entry.size).sum();
        self.reporter.report(Event::Transferring { files: files.len() as u64, bytes });
        let downloads = files.iter().map(|(path, entry)| async {
            match self.receive(path, entry, Found::ByHash).await {
                Ok(staged) => Ok(Some((path.clone(), staged))),
                Err(SyncError::Remote(RemoteError::Moved { .. } | RemoteError::Refused { .. })) => Ok(None),
                Err(error) => Err(error),
            }
        });
        let staged: Result<Vec<_>, _> =
            futures::stream::iter(downloads).buffer_unordered(AT_ONCE).try_collect().await;
        self.reporter.report(Event::Finished);
        Ok(staged?.into_iter().flatten().collect())
    }

    /// Receives one content, asking again after passing faults.
    async fn receive(&self, path: &DbPath, entry: &Entry, found: Found) -> Result<Staged, SyncError> {
        let mut wait = Duration::from_millis(300);
        for _ in 1..MAX_ATTEMPTS {
            match self.receive_once(path, entry, found).await {
                Err(SyncError::Remote(error)) if error.is_transient() => {
                    tokio::time::sleep(wait).await;
                    wait *= 2;
                }
                received => return received,
            }
        }
        self.receive_once(path, entry, found).await
    }

    /// Receives one content with one request, and agrees only if its hash is the manifest's.
    async fn receive_once(&self, path: &DbPath, entry: &Entry, found: Found) -> Result<Staged, SyncError> {
        let io = |error| SyncError::directory(path)(error);
        let mut staged = self.root.stage().map_err(io)?;
        let mut hasher = Hasher::like(&entry.hash);
        if entry.size > 0 {
            let mut body = self.open(path, entry, found).await?;
            while let Some(piece) = body.next().await? {
                hasher.update(&piece);
                // Writes go to the page cache; only the closing sync waits for the disk.
                staged.write(&piece).map_err(io)?;
                self.reporter.report(Event::Progress { bytes: piece.len() as u64 });
            }
        }
        if hasher.finish() != entry.hash {
            return Err(SyncError::WrongContent { path: path.clone() });
        }
        let (modified, durability) = (entry.modified(), self.durability);
        tokio::task::spawn_blocking(move || staged.seal(modified, durability).map(|()| staged))
            .await
            .map_err(std::io::Error::other)
            .and_then(|sealed| sealed)
            .map_err(io)
    }

    async fn open(&self, path: &DbPath, entry: &Entry, found: Found) -> Result<ContentBody, RemoteError> {
        // A pull brings one revision or nothing.
        let key = ContentKey::new(self.database.clone(), path.clone(), entry.size, entry.hash, self.at);
        let key = match found {
            Found::ByHash => key.by_hash(self.id),
            Found::AtPath if self.at.is_some() => key.of_the_past(),
            Found::AtPath => key,
        };
        self.remote.open_range(&key, ByteRange::new(0, entry.size)).await.map_err(|error| match error {
            // The path is pinned to a content: gone or replaced, the manifest is an old one.
            RemoteError::NotFound { .. } => RemoteError::Moved { revision: None },
            other => other,
        })
    }
}
