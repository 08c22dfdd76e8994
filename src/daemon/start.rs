//! What a mount begins with: the remote's current manifest, fetched only if the one on disk is not it; or the one on
//! disk, where the remote cannot be reached.

use std::path::Path;

use super::allocator::give_back_memory;
use crate::manifest::Manifest;
use crate::model::{DbRef, Revision};
use crate::namespace::{Kept, Remembered, RememberedManifest};
use crate::remote::{Known, ManifestDocument, NewChanges, News, Remote, RemoteError};
use crate::vfs::Shown;

/// A mount's beginning.
pub(super) struct Started {
    pub(super) shown: Shown,
    pub(super) known: Known,
    pub(super) remembered: Remembered,
    /// What is not on disk yet.
    pub(super) fresh: Option<ManifestDocument>,
}

/// Begins with one revision, and stays there. Where its manifest is on disk, the remote need not be reached: a revision
/// does not change.
pub(super) async fn start_at(
    remote: &Remote,
    database: &DbRef,
    revision: Revision,
    cache_dir: &Path,
) -> Result<Started, RemoteError> {
    let remembered = Remembered::at(cache_dir, &remote.origin(), database, revision);
    let place = remembered.clone();
    let last = tokio::task::spawn_blocking(move || place.load()).await.ok().flatten();
    let last = last.filter(|last| last.revision == Some(revision));
    let known = last.as_ref().map_or("", |last| last.etag.as_str());
    let document = match remote.manifest_document_at(database, revision, known).await {
        Err(error) if error.is_transient() && last.is_some() => {
            tracing::warn!(%error, %revision, "mounting without the remote: what is cached can be read");
            None
        }
        answered => answered?,
    };
    let mut started = match (document, last) {
        (Some(document), _) => read(remote, document, database, remembered).await?,
        (None, Some(last)) => as_it_was(remote, database, last, remembered).await?,
        (None, None) => {
            let text = format!("{database} has no revision {revision}");
            return Err(RemoteError::NotFound { text });
        }
    };
    started.shown.stays = true;
    Ok(started)
}

/// Finds the revision to begin with. `has_pending` says of a database's id whether something of ours may have been published of
/// which we have not heard: then the last revision shown is the one to begin with, for what was changed here is a change to that.
pub(super) async fn start(
    remote: &Remote,
    database: &DbRef,
    cache_dir: &Path,
    has_pending: impl FnOnce(&str) -> bool,
) -> Result<Started, RemoteError> {
    let remembered = Remembered::below(cache_dir, &remote.origin(), database);
    let place = remembered.clone();
    let last = tokio::task::spawn_blocking(move || place.load()).await.ok().flatten();
    let Some(last) = last else { return whole(remote, database, remembered).await };
    if has_pending(&last.manifest.database_id) {
        return as_it_was(remote, database, last, remembered).await;
    }
    let known = known_of(database, &last);
    match remote.news(&known).await {
        Ok(News::Nothing) => {}
        Ok(News::Changes(news)) => {
            let known = Known { etag: news.etag.clone(), revision: Some(news.revision), ..known };
            let place = remembered.clone();
            let shown = elsewhere(remote, move || Ok(follow(last, news, &place))).await?;
            return Ok(Started { shown, known, remembered, fresh: None });
        }
        Ok(News::Whole(document)) => return read(remote, document, database, remembered).await,
        // Whoever mounts anew sees the remote as it is.
        Ok(News::RolledBack(to)) => {
            tracing::warn!(from = ?known.revision, %to, "the remote has gone back since it was last mounted");
            return whole(remote, database, remembered).await;
        }
        Err(error) if error.is_transient() => {
            tracing::warn!(
                %error,
                revision = known.revision.map(|revision| revision.0),
                published = last.manifest.last_synced_at,
                "mounting the revision seen last: what is cached can be read"
            );
        }
        Err(error) => return Err(error),
    }
    as_it_was(remote, database, last, remembered).await
}

fn known_of(database: &DbRef, last: &RememberedManifest) -> Known {
    let (id, etag) = (last.manifest.database_id.clone(), last.etag.clone());
    Known { database: database.clone(), id, etag, revision: last.revision }
}

async fn as_it_was(
    remote: &Remote,
    database: &DbRef,
    last: RememberedManifest,
    remembered: Remembered,
) -> Result<Started, RemoteError> {
    let known = known_of(database, &last);
    let shown = elsewhere(remote, move || Ok(Shown::new(&last.manifest, last.revision))).await?;
    Ok(Started { shown, known, remembered, fresh: None })
}

async fn whole(remote: &Remote, database: &DbRef, remembered: Remembered) -> Result<Started, RemoteError> {
    let document = remote.manifest_document(database).await?;
    read(remote, document, database, remembered).await
}

async fn read(
    remote: &Remote,
    document: ManifestDocument,
    database: &DbRef,
    remembered: Remembered,
) -> Result<Started, RemoteError> {
    let reading = move || {
        let manifest = Manifest::from_json(&document.body)?;
        Ok((Shown::new(&manifest, document.revision), manifest.database_id, document))
    };
    let (shown, id, document) = elsewhere(remote, reading).await?;
    let (etag, revision) = (document.etag.clone(), document.revision);
    let known = Known { database: database.clone(), id, etag, revision };
    Ok(Started { shown, known, remembered, fresh: Some(document) })
}

/// The revision that follows the last one.
fn follow(mut last: RememberedManifest, news: NewChanges, remembered: &Remembered) -> Shown {
    let kept = remembered.add(&last.etag, &news.changes, &news.etag);
    for change in news.changes {
        for path in &change.delete {
            last.manifest.files.remove(path);
        }
        last.manifest.files.extend(change.put.into_iter().map(|put| (put.path, put.entry)));
        last.manifest.last_synced_at = change.time;
    }
    let kept = kept.and_then(|kept| match kept {
        Kept::Beside => Ok(()),
        Kept::TooMuch => remembered.save(last.manifest.to_json(), &news.etag, Some(news.revision)),
    });
    if let Err(error) = kept {
        tracing::warn!(%error, "the manifest was not kept for the next start");
    }
    Shown::new(&last.manifest, Some(news.revision))
}

/// Does work that takes a while where it holds nobody up.
async fn elsewhere<T: Send + 'static>(
    remote: &Remote,
    work: impl FnOnce() -> Result<T, RemoteError> + Send + 'static,
) -> Result<T, RemoteError> {
    let done = tokio::task::spawn_blocking(work).await;
    give_back_memory();
    done.unwrap_or_else(|error| {
        let reason = format!("its manifest could not be taken in: {error}");
        Err(RemoteError::WrongAnswer { remote: remote.url().to_owned(), reason })
    })
}
