//! The remote side: which database it is, and how it differs from the base. Asked about what is new since the last run
//! where that can be told, so that nothing new costs one request.

use super::SyncError;
use super::changes::{Changes, changes_between};
use super::landed::check_same_history;
use super::reconcile::same;
use super::workdir::Workdir;
use crate::model::{DbRef, Revision, Sha256, Visibility};
use crate::remote::{ManifestDocument, NewChanges, News, Remote, RemoteError};
use crate::wire::DatabaseDescription;

/// A database as the remote has it.
#[derive(Debug)]
pub(super) struct Far {
    /// Its id and what it is called; none where it is yet to be made.
    pub(super) database: Option<Named>,
    /// The revision that is looked at, where the remote numbers them.
    pub(super) revision: Option<Revision>,
    /// The entity tag of its manifest; none where it is not the current one.
    pub(super) etag: Option<String>,
    /// How that revision differs from the base.
    pub(super) changes: Changes,
    /// The hash of that revision's record, where it came with what is new.
    pub(super) hash: Option<Sha256>,
    /// The base was given up by this question: whatever was compared with it must be compared again.
    pub(super) anew: bool,
    /// What the remote says of itself, where it was asked.
    pub(super) found: Option<DatabaseDescription>,
}

/// What a database is called.
#[derive(Debug, Clone)]
pub(super) struct Named {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) visibility: Visibility,
}

impl Far {
    /// A database that does not exist yet: it agrees with nobody.
    fn absent() -> Self {
        Self {
            database: None,
            revision: Some(Revision::NONE),
            etag: None,
            changes: Changes::new(),
            hash: None,
            anew: true,
            found: None,
        }
    }
}

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Question<'a> {
    pub(super) database: &'a DbRef,
    /// An earlier revision than the current one.
    pub(super) at: Option<Revision>,
    /// Whether there may be no such database.
    pub(super) may_be_absent: bool,
}

/// Asks the remote, and halts where it is not what the directory was synced with (rules 4 and 14). `news` are what it has said
/// already of what is new.
pub(super) async fn read(
    remote: &Remote,
    question: Question<'_>,
    news: Option<Result<News, RemoteError>>,
    workdir: &mut Workdir,
) -> Result<Far, SyncError> {
    let mut whole = None;
    if question.at.is_none() {
        match read_news(remote, question.database, news, workdir).await? {
            Told::Far(far) => return Ok(*far),
            Told::Whole(document) => whole = Some(document),
            Told::Nothing => {}
        }
    }
    let found = match remote.describe(question.database).await {
        Ok(found) => found,
        Err(RemoteError::NotFound { .. }) if question.may_be_absent => {
            workdir.start_anew();
            return Ok(Far::absent());
        }
        Err(error) => return Err(error.into()),
    };
    // A database in the place of the one this directory was synced with, that agrees with nobody yet; or with this directory,
    // whose first commit to it may have landed unheard.
    let ours_or_empty = found.revision == Revision::NONE || workdir.pending(&found.id).is_some();
    let anew = question.may_be_absent && ours_or_empty && workdir.belongs_to_another(&found.id);
    if anew {
        workdir.start_anew();
    }
    check_same_history(remote, workdir.anchor(&found.id), &found).await?;
    let fetched = match question.at {
        Some(revision) => Some(remote.manifest_at(question.database, revision).await?),
        None if found.revision == Revision::NONE => None,
        None => Some(match whole {
            Some(document) => document.read()?,
            None => remote.manifest(question.database).await?,
        }),
    };
    let (files, etag, revision) = match fetched {
        Some(fetched) if fetched.manifest.database_id != found.id => {
            return Err(RemoteError::Moved { revision: None }.into());
        }
        Some(fetched) => (fetched.manifest.files, Some(fetched.etag), fetched.revision),
        None => (Default::default(), None, Some(Revision::NONE)),
    };
    workdir.check(&found.id, if question.at.is_some() { Some(found.revision) } else { revision })?;
    let named = Named { id: found.id.clone(), name: found.name.clone(), visibility: found.visibility };
    Ok(Far {
        database: Some(named),
        revision,
        etag: etag.filter(|etag| question.at.is_none() && !etag.is_empty()),
        changes: changes_between(workdir.base(), &files),
        hash: None,
        anew,
        found: Some(found),
    })
}

/// What a question for news has brought.
enum Told {
    Far(Box<Far>),
    /// Another manifest, which is not said to follow the known one.
    Whole(ManifestDocument),
    Nothing,
}

/// By what is new since the last run, where that can be told.
async fn read_news(
    remote: &Remote,
    database: &DbRef,
    news: Option<Result<News, RemoteError>>,
    workdir: &Workdir,
) -> Result<Told, SyncError> {
    let Some((known, mut changes)) = workdir.seen(database) else { return Ok(Told::Nothing) };
    let news = match news {
        Some(news) => news,
        None => remote.news(&known).await,
    };
    let news = match news {
        // Whether there is such a database is asked by its name.
        Err(RemoteError::NotFound { .. }) => return Ok(Told::Nothing),
        news => news?,
    };
    let (revision, etag, hash) = match news {
        News::Nothing => (known.revision, known.etag.clone(), None),
        News::Changes(NewChanges { changes: revisions, etag, revision, hash }) => {
            for published in revisions {
                changes.extend(published.delete.into_iter().map(|path| (path, None)));
                changes.extend(published.put.into_iter().map(|put| (put.path, Some(put.entry))));
            }
            changes.retain(|path, entry| !same(workdir.base().get(path), entry.as_ref()));
            (Some(revision), etag, hash)
        }
        News::RolledBack(there) => {
            let here = known.revision.unwrap_or_default();
            return Err(SyncError::RolledBack { here, there });
        }
        News::Whole(document) => return Ok(Told::Whole(document)),
    };
    let Some(manifest) = workdir.manifest() else { return Ok(Told::Nothing) };
    let named = Named { id: known.id, name: manifest.name.clone(), visibility: manifest.visibility };
    Ok(Told::Far(Box::new(Far {
        database: Some(named),
        revision,
        etag: Some(etag),
        changes,
        hash,
        anew: false,
        found: None,
    })))
}
