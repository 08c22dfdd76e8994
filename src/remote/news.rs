//! What has happened to a database since one knew it: its changes where the remote has them, so that asking costs in
//! proportion to the change; else its whole manifest, if that is another one.

use super::{ManifestDocument, Remote, RemoteError};
use crate::model::{DbRef, Revision, Sha256};
use crate::wire::PublishedChange;

/// After so many pages of changes the whole manifest is asked for instead.
const MAX_PAGES: usize = 50;

/// What is known of a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub database: DbRef,
    /// Its id.
    pub id: String,
    /// The manifest's entity tag, with quotes; empty where the remote gave none.
    pub etag: String,
    /// The manifest's number; a static host has none.
    pub revision: Option<Revision>,
}

/// The answer.
#[derive(Debug)]
pub enum News {
    /// It is as it was known.
    Nothing,
    /// Revisions that follow the known one.
    Changes(NewChanges),
    /// It has another manifest: a later one, or an earlier one, or another database's.
    Whole(ManifestDocument),
    /// It has fewer revisions than were known (rule 4).
    RolledBack(Revision),
}

/// Revisions that follow one another.
#[derive(Debug)]
pub struct NewChanges {
    /// Oldest first; the last one is current.
    pub changes: Vec<PublishedChange>,
    /// The current manifest's entity tag.
    pub etag: String,
    /// The current revision.
    pub revision: Revision,
    /// The hash of its record, where the remote tells it.
    pub hash: Option<Sha256>,
}

impl Remote {
    /// What has happened to a database since it was `known`.
    pub async fn news(&self, known: &Known) -> Result<News, RemoteError> {
        if let Some(revision) = known.revision
            && let Some(news) = self.changes_since(known, revision).await?
        {
            return Ok(news);
        }
        let document = self.manifest_unless(&known.database, &known.etag).await?;
        Ok(document.map_or(News::Nothing, News::Whole))
    }

    /// By the changes route; nothing where it does not tell, or tells of another history.
    async fn changes_since(&self, known: &Known, since: Revision) -> Result<Option<News>, RemoteError> {
        let mut changes: Vec<PublishedChange> = Vec::new();
        for _ in 0..MAX_PAGES {
            let at = changes.last().map_or(since, |last| last.revision);
            let page = match self.changes(&known.id, at).await {
                Ok(page) => page,
                // No such route, or no such database any more.
                Err(RemoteError::NotFound { .. } | RemoteError::NotAuthenticated { .. }) => return Ok(None),
                Err(RemoteError::Refused { .. } | RemoteError::WrongAnswer { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            if page.revision < since {
                return Ok(Some(News::RolledBack(page.revision)));
            }
            if changes.is_empty() && page.since_etag.as_ref() != Some(&known.etag) {
                return Ok(None);
            }
            for change in page.changes {
                if change.revision != changes.last().map_or(since, |last| last.revision).next() {
                    return Err(self.wrong("its changes do not follow each other".into()));
                }
                changes.push(change);
            }
            let reached = changes.last().map_or(since, |last| last.revision);
            if reached == page.revision {
                let Some(etag) = page.etag else { return Ok(None) };
                let revision = page.revision;
                let news = NewChanges { changes, etag, revision, hash: page.hash };
                return Ok(Some(if news.changes.is_empty() { News::Nothing } else { News::Changes(news) }));
            }
            if reached == at {
                return Err(self.wrong("it tells of changes and does not give them".into()));
            }
        }
        Ok(None)
    }
}
