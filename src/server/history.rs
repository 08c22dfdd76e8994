//! What was published, revision by revision: `changes`, which tells what each changed, and `log`, which tells of them.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Uri};

use super::App;
use super::identity::admit;
use super::public::query_number;
use super::refusal::Refusal;
use crate::access::{Caller, Standing};
use crate::model::{Revision, Sha256};
use crate::store::RevisionRecord;
use crate::wire::{ChangesResponse, LogEntry, LogResponse, PublishedChange};

pub(super) async fn changes(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<ChangesResponse>, Refusal> {
    let caller = app.caller(&headers).await?;
    let database = admit(&caller, app.store.open(&id).await?, Standing::Reads)?;
    let since = query_number(&uri, "since", 0, 0..=usize::MAX)?;
    let limit = query_number(&uri, "limit", 100, 1..=1000)?;
    let (revision, _, hash, etag) = database.present();
    let since = Revision(since as u64);
    let since_etag = database.manifest_etag_at(since).await?;
    let mut records = database.changes(since, limit).await?;
    // What was published since we looked comes with the next answer.
    records.retain(|record| record.revision <= revision);
    let has_more = records.last().is_some_and(|last| last.revision < revision);
    let changes = records.into_iter().map(|record| PublishedChange {
        revision: record.revision,
        commit_id: record.commit_id,
        time: record.time,
        put: record.put,
        delete: record.delete,
    });
    let caller = match caller {
        Caller::Account { username, .. } => Some(username),
        Caller::Anonymous => None,
    };
    let changes = changes.collect();
    let etag = Some(etag);
    Ok(Json(ChangesResponse { revision, etag, hash, since_etag, caller, changes, has_more }))
}

pub(super) async fn log(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<LogResponse>, Refusal> {
    let caller = app.caller(&headers).await?;
    let database = admit(&caller, app.store.open(&id).await?, Standing::Reads)?;
    let before = query_number(&uri, "before", usize::MAX, 0..=usize::MAX)?;
    let limit = query_number(&uri, "limit", 100, 1..=1000)?;
    let (revision, _) = database.current();
    let newest = revision.0.min((before as u64).saturating_sub(1));
    let oldest = newest.saturating_sub(limit as u64 - 1).max(1);
    let mut log = database.log(Revision(oldest), Revision(newest), log_entry).await?;
    log.reverse();
    Ok(Json(LogResponse { revision, log, has_more: oldest > 1 && newest > 0 }))
}

fn log_entry(record: RevisionRecord, hash: Sha256) -> LogEntry {
    LogEntry {
        revision: record.revision,
        hash,
        commit_id: record.commit_id,
        author: record.author,
        time: record.time,
        message: record.message,
        put: record.put.len() as u64,
        delete: record.delete.len() as u64,
        set_aside: record.set_aside,
        expired: record.expired.is_some(),
    }
}
