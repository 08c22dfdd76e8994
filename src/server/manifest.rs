//! `GET` and `PUT /api/sync/manifest/:id`: the whole document. Publishing by it is for clients that know no commits:
//! with `If-Match` on the revision they know, and without, as the original client does, merged (rule 5).

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex};

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
use crate::store::{Change, Database, Merged, PublishError, merge_sent};
use crate::wire::{
    Answer, CommitRequest, Conditions, MAX_COMMIT_BYTES, ManifestPublished, REVISION_HEADER, Representation,
    evaluate,
};

/// How often a merge is done again because others published.
const MAX_MERGES: usize = 8;
/// Manifests that tokens have fetched, remembered.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// Which revision each token fetched last, of each database: what a manifest it sends was made from.
pub(super) struct Fetched(Mutex<LruCache<(Sha256, String), Revision>>);

impl Default for Fetched {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(REMEMBERED)))
    }
}

impl Fetched {
    fn key(headers: &HeaderMap, id: &str) -> Option<(Sha256, String)> {
        let token = headers.get(AUTHORIZATION)?;
        Some((Sha256::of(token.as_bytes()), id.to_owned()))
    }

    fn remember(&self, headers: &HeaderMap, id: &str, revision: Revision) {
        if let Some(key) = Self::key(headers, id) {
            self.0.lock().unwrap_or_else(|e| e.into_inner()).put(key, revision);
        }
    }

    /// Used once: what is sent next was not made from it.
    fn take(&self, headers: &HeaderMap, id: &str) -> Option<Revision> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).pop(&Self::key(headers, id)?)
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
    let sent = Manifest::from_json(&read_body(body, MAX_COMMIT_BYTES).await?).map_err(|error| {
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
    let if_match = headers.get(IF_MATCH).and_then(|value| value.to_str().ok());
    let fetched = app.fetched.take(&headers, &id);
    for _ in 0..MAX_MERGES {
        database.refresh().await?;
        let (current, etag) = database.current();
        let base = match if_match {
            Some(if_match) => {
                let conditions = Conditions { if_match: Some(if_match), ..Conditions::default() };
                let now = Representation { etag: &etag, modified: None, size: 0 };
                if matches!(evaluate(conditions, now), Answer::PreconditionFailed) {
                    return Err(Refusal::Moved(current));
                }
                Some(current)
            }
            None => fetched,
        };
        let merged = merge(&database, base, current, &sent).await?;
        if merged.is_empty() {
            let etag = Some(etag).filter(|_| current != Revision::NONE);
            return Ok(Json(ManifestPublished { success: true, revision: current, etag }));
        }
        match publish(&database, &username, current, merged).await {
            Ok(published) => return Ok(Json(published)),
            Err(PublishError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Refusal::Api(StatusCode::SERVICE_UNAVAILABLE, "Others keep publishing: try again".into()))
}

async fn merge(
    database: &Database,
    base: Option<Revision>,
    current: Revision,
    sent: &crate::store::Files,
) -> Result<Merged, Refusal> {
    let now = database.files_of(current).await?;
    let base = match base {
        Some(base) => Some(database.files_of(base).await?),
        None => None,
    };
    Ok(merge_sent(base.as_deref(), sent, &now))
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
