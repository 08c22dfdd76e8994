//! `GET` and `PUT /api/sync/manifest/:id`: the whole document. Publishing by it is for clients that know no commits:
//! with `If-Match` on the revision they know, and without, as the original client does, merged (rule 5).

use std::collections::{BTreeSet, VecDeque};
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use lru::LruCache;

use super::App;
use super::identity::admit;
use super::raw::{asked_revision, unsized_body};
use super::refusal::Refusal;
use super::sync::read_body;
use crate::access::{Caller, Standing};
use crate::disk::random_hex;
use crate::manifest::{Manifest, ManifestError};
use crate::model::{Revision, Sha256};
use crate::store::{Change, Database, Files, Merged, PublishError, knows_only, merge_sent};
use crate::wire::{
    Answer, CommitRequest, Conditions, MAX_COMMIT_BYTES, ManifestPublished, REVISION_HEADER, Representation,
    evaluate,
};

/// How often a merge is done again because others published.
const MAX_MERGES: usize = 8;
/// Tokens and databases remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();
/// A manifest that was fetched longer ago is not sent back any more.
const SENT_BACK_WITHIN: Duration = Duration::from_secs(3600);
/// Fetches of one token that are remembered.
const FETCHES: usize = 16;

/// Which revisions each token has fetched, of each database: what a manifest it sends was made from. Several machines
/// may have the same token, so each fetch counts by itself.
#[derive(Clone, Default)]
struct Fetches {
    /// Oldest first.
    outstanding: VecDeque<(Revision, Instant)>,
    /// The last manifest that was sent and taken, and its answer: a repeated request is answered again.
    taken: Option<(Sha256, ManifestPublished)>,
}

/// What tokens have fetched.
pub(super) struct Fetched(Mutex<LruCache<(Sha256, String), Fetches>>);

impl Default for Fetched {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Fetched {
    fn with<T>(&self, headers: &HeaderMap, id: &str, act: impl FnOnce(&mut Fetches) -> T) -> Option<T> {
        let token = headers.get(AUTHORIZATION)?;
        let key = (Sha256::of(token.as_bytes()), id.to_owned());
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        Some(act(all.get_or_insert_mut(key, Fetches::default)))
    }

    fn remember(&self, headers: &HeaderMap, id: &str, revision: Revision) {
        self.with(headers, id, |fetches| {
            fetches.outstanding.retain(|(_, at)| at.elapsed() < SENT_BACK_WITHIN);
            if fetches.outstanding.len() == FETCHES {
                fetches.outstanding.pop_front();
            }
            fetches.outstanding.push_back((revision, Instant::now()));
            // Whoever has fetched since means what it sends, although it sent the same before.
            fetches.taken = None;
        });
    }

    /// The revisions that a manifest sent now may have been made from, each once, the latest first.
    fn candidates(&self, headers: &HeaderMap, id: &str) -> Vec<Revision> {
        let fetched = self.with(headers, id, |fetches| {
            let held = fetches.outstanding.iter().filter(|(_, at)| at.elapsed() < SENT_BACK_WITHIN);
            held.map(|(revision, _)| *revision).collect::<BTreeSet<_>>()
        });
        fetched.unwrap_or_default().into_iter().rev().collect()
    }

    fn answered(&self, headers: &HeaderMap, id: &str, body: Sha256) -> Option<ManifestPublished> {
        let taken = self.with(headers, id, |fetches| fetches.taken.clone()).flatten();
        taken.filter(|(known, _)| *known == body).map(|(_, answer)| answer)
    }

    /// A manifest made from `base` was taken: that fetch is done with.
    fn done(
        &self,
        headers: &HeaderMap,
        id: &str,
        base: Option<Revision>,
        sent: Sha256,
        answer: &ManifestPublished,
    ) {
        self.with(headers, id, |fetches| {
            if let Some(at) = fetches.outstanding.iter().position(|(revision, _)| Some(*revision) == base) {
                fetches.outstanding.remove(at);
            }
            fetches.taken = Some((sent, answer.clone()));
        });
    }
}

pub(super) async fn get(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Response, Refusal> {
    let caller = app.caller(&headers).await?;
    let database = admit(&caller, app.store.open(&id).await?, Standing::Reads)?;
    let not_published = || Refusal::Api(StatusCode::NOT_FOUND, "Manifest not found".into());
    let if_none_match = headers.get(IF_NONE_MATCH).and_then(|value| value.to_str().ok());
    let asked = asked_revision(&uri)?;
    let conditions = Conditions { if_none_match, ..Conditions::default() };
    // Decided before the document is written: most callers have it already.
    let (revision, etag) = match asked {
        None => database.current(),
        Some(asked) => (asked, database.manifest_etag_at(asked).await?.ok_or_else(not_published)?),
    };
    let answer = evaluate(conditions, Representation { etag: &etag, modified: None, size: 0 });
    let (status, body, etag, revision) = match answer {
        Answer::NotModified if revision != Revision::NONE => {
            (StatusCode::NOT_MODIFIED, unsized_body(), etag, revision)
        }
        _ => {
            let published = match asked {
                None => database.published().await,
                Some(asked) => database.published_at(asked).await?,
            };
            let published = published.ok_or_else(not_published)?;
            (StatusCode::OK, Body::from(published.json), published.etag, published.revision)
        }
    };
    if asked.is_none() {
        app.fetched.remember(&headers, &id, revision);
    }
    let headers = [
        (ETAG.as_str(), etag),
        (REVISION_HEADER, revision.to_string()),
        (CONTENT_TYPE.as_str(), "application/json".to_owned()),
    ];
    Ok((status, headers, body).into_response())
}

pub(super) async fn put(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<ManifestPublished>, Refusal> {
    let caller = app.caller(&headers).await?;
    let database = admit(&caller, app.store.open(&id).await?, Standing::Writes)?;
    let Caller::Account { username, .. } = caller else { return Err(Refusal::hidden(&caller)) };
    let body = read_body(body, MAX_COMMIT_BYTES).await?;
    let document = Sha256::of(&body);
    let if_match = headers.get(IF_MATCH).and_then(|value| value.to_str().ok());
    if if_match.is_none()
        && let Some(answer) = app.fetched.answered(&headers, &id, document)
    {
        return Ok(Json(answer));
    }
    let sent = Manifest::from_json(&body).map_err(|error| {
        let status = match error {
            ManifestError::Newer { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            _ => StatusCode::BAD_REQUEST,
        };
        Refusal::Api(status, error.to_string())
    })?;
    if sent.database_id != id {
        let text = format!("this manifest is of the database {}", sent.database_id);
        return Err(Refusal::Api(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let sent = database.with_sha256(sent.files).await?;
    let base = match if_match {
        Some(_) => None,
        None => made_from(&database, &app.fetched.candidates(&headers, &id), &sent).await?,
    };
    let base_files = base.as_ref().map(|(_, files)| &**files);
    let answer = merge_and_publish(&database, &username, if_match, base_files, &sent).await?;
    if if_match.is_none() {
        app.fetched.done(&headers, &id, base.map(|(revision, _)| revision), document, &answer);
    }
    Ok(Json(answer))
}

/// The revision that a manifest was made from, and its files, of those that may be: the latest, unless it has what only an earlier one
/// had. Whoever has not seen what came later must not undo it.
async fn made_from(
    database: &Database,
    candidates: &[Revision],
    sent: &Files,
) -> Result<Option<(Revision, Arc<Files>)>, Refusal> {
    let Some((latest, earlier)) = candidates.split_first() else { return Ok(None) };
    let latest_files = database.files_of(*latest).await?;
    let mut base = (*latest, latest_files.clone());
    for candidate in earlier {
        let files = database.files_of(*candidate).await?;
        if knows_only(sent, &files, &latest_files) {
            base = (*candidate, files);
        }
    }
    Ok(Some(base))
}

async fn merge_and_publish(
    database: &Arc<Database>,
    author: &str,
    if_match: Option<&str>,
    base: Option<&Files>,
    sent: &Files,
) -> Result<ManifestPublished, Refusal> {
    for _ in 0..MAX_MERGES {
        database.refresh().await?;
        let (current, etag) = database.current();
        let now_files = database.files_of(current).await?;
        let base = match if_match {
            None => base,
            Some(if_match) => {
                let conditions = Conditions { if_match: Some(if_match), ..Conditions::default() };
                let now = Representation { etag: &etag, modified: None, size: 0 };
                if matches!(evaluate(conditions, now), Answer::PreconditionFailed) {
                    return Err(Refusal::Moved(current));
                }
                Some(&*now_files)
            }
        };
        let merged = merge_sent(base, sent, &now_files);
        if merged.is_empty() {
            let etag = Some(etag).filter(|_| current != Revision::NONE);
            return Ok(ManifestPublished { success: true, revision: current, etag });
        }
        match publish(database, author, current, merged).await {
            Ok(published) => return Ok(published),
            Err(PublishError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::Api(StatusCode::SERVICE_UNAVAILABLE, "Others keep publishing: try again".into()))
}

async fn publish(
    database: &Arc<Database>,
    author: &str,
    base: Revision,
    merged: Merged,
) -> Result<ManifestPublished, PublishError> {
    let Merged { put, delete, set_aside } = merged;
    let request = CommitRequest { commit_id: random_hex::<16>(), base, put, delete, message: None };
    let published = database.publish(Change { author: author.to_owned(), request, set_aside }).await?;
    tracing::info!(database = %database.id(), %base, revision = %published.revision, "published by manifest");
    Ok(ManifestPublished { success: true, revision: published.revision, etag: Some(published.etag) })
}
