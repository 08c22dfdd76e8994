//! `PUT /api/sync/upload/:id/:path`, with a permission for one file; and, where a connection broke, going on from where
//! it did: `HEAD` tells how much is here (`Upload-Offset`), and a `PUT` with that offset brings the rest. What was
//! begun is held by the server that received it, for an hour.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use serde_json::json;
use tokio::sync::Semaphore;

use super::App;
use super::permissions::{LIFETIME, Permission};
use super::refusal::Refusal;
use crate::model::{DbPath, Sha256};
use crate::store::ContentUpload;
use crate::wire::{UPLOAD_OFFSET_HEADER, UPLOAD_TOKEN_HEADER};

/// Uploads received at once; more wait. Each may hold one part in memory.
const MAX_RECEIVING: usize = 32;
/// Uploads that broke off and are held for their rest; the oldest goes when there are more. Each may hold one part in
/// memory.
const MAX_BROKEN_OFF: usize = 32;
/// An upload that brings nothing for so long is given up for now.
const IDLE: Duration = Duration::from_secs(60);

/// Uploads between requests.
pub(super) struct Uploads {
    broken_off: Mutex<HashMap<Sha256, (ContentUpload, Instant)>>,
    /// Permissions that were used, by this server, until they end.
    used: Mutex<Used>,
    receiving: Semaphore,
}

#[derive(Default)]
struct Used {
    tokens: HashSet<Sha256>,
    /// In the order in which they end.
    until: std::collections::VecDeque<(Instant, Sha256)>,
}

impl Default for Uploads {
    fn default() -> Self {
        Self {
            broken_off: Mutex::default(),
            used: Mutex::default(),
            receiving: Semaphore::new(MAX_RECEIVING),
        }
    }
}

impl Used {
    fn add(&mut self, token: Sha256) {
        let now = Instant::now();
        while let Some((until, old)) = self.until.front().copied()
            && until < now
        {
            self.until.pop_front();
            self.tokens.remove(&old);
        }
        if self.tokens.insert(token) {
            self.until.push_back((now + LIFETIME, token));
        }
    }
}

impl Uploads {
    fn is_used(&self, token: &Sha256) -> bool {
        self.used.lock().unwrap_or_else(|e| e.into_inner()).tokens.contains(token)
    }

    fn mark_used(&self, token: Sha256) {
        self.used.lock().unwrap_or_else(|e| e.into_inner()).add(token);
    }

    fn take(&self, token: &Sha256) -> Option<ContentUpload> {
        let mut held = self.broken_off.lock().unwrap_or_else(|e| e.into_inner());
        held.remove(token).map(|(upload, _)| upload)
    }

    fn received(&self, token: &Sha256) -> u64 {
        let held = self.broken_off.lock().unwrap_or_else(|e| e.into_inner());
        held.get(token).map_or(0, |(upload, _)| upload.received())
    }

    /// Holds an upload for its rest. Gives back those that must go instead.
    fn hold(&self, token: Sha256, upload: ContentUpload) -> Vec<ContentUpload> {
        if upload.received() == 0 {
            return vec![upload];
        }
        let mut held = self.broken_off.lock().unwrap_or_else(|e| e.into_inner());
        let replaced = held.insert(token, (upload, Instant::now()));
        let mut gone: Vec<_> = held
            .iter()
            .filter(|(_, (_, since))| since.elapsed() > LIFETIME)
            .map(|(token, _)| *token)
            .collect();
        if held.len() - gone.len() > MAX_BROKEN_OFF
            && let Some((oldest, _)) = held.iter().min_by_key(|(_, (_, since))| *since)
        {
            gone.push(*oldest);
        }
        let gone = gone.iter().filter_map(|token| held.remove(token));
        gone.chain(replaced).map(|(upload, _)| upload).collect()
    }
}

/// One upload's permission, as its request shows it.
struct Announced {
    token: Sha256,
    path: DbPath,
    size: u64,
    hash: Option<Sha256>,
}

impl App {
    fn announced(&self, id: &str, path: &str, headers: &HeaderMap) -> Result<Announced, Refusal> {
        let text = "This upload was not announced, is done, or is too late";
        let denied = || Refusal::Api(StatusCode::UNAUTHORIZED, text.into());
        let token =
            headers.get(UPLOAD_TOKEN_HEADER).and_then(|value| value.to_str().ok()).ok_or_else(denied)?;
        let asked = DbPath::parse(path).map_err(|_| denied())?;
        let Some(Permission::Upload { database, path, size, hash }) =
            Permission::read(token, &self.signing_key)
        else {
            return Err(denied());
        };
        let token = Sha256::of(token.as_bytes());
        if database != id || path != asked || self.uploads.is_used(&token) {
            return Err(denied());
        }
        Ok(Announced { token, path, size, hash })
    }
}

/// `HEAD`: how much of an upload is here.
pub(super) async fn offset(
    State(app): State<Arc<App>>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let announced = app.announced(&id, &path, &headers)?;
    let received = app.uploads.received(&announced.token);
    Ok((StatusCode::NO_CONTENT, [(UPLOAD_OFFSET_HEADER, received.to_string())]).into_response())
}

pub(super) async fn receive(
    State(app): State<Arc<App>>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let announced = app.announced(&id, &path, &headers)?;
    // On its own: when the connection breaks, nobody polls a handler any more, and what has come must be held.
    let receiving =
        tokio::spawn(async move { receive_announced(&app, &id, announced, &headers, body).await });
    receiving.await.unwrap_or_else(|error| {
        tracing::error!(%error, "an upload failed");
        Err(Refusal::Api(StatusCode::INTERNAL_SERVER_ERROR, "The upload failed".into()))
    })
}

async fn receive_announced(
    app: &App,
    id: &str,
    announced: Announced,
    headers: &HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let number = |name: &str| headers.get(name).map(|value| value.to_str().ok()?.parse::<u64>().ok());
    let offset = match number(UPLOAD_OFFSET_HEADER) {
        None => 0,
        Some(Some(offset)) => offset,
        Some(None) => return Err(Refusal::bad_request("Upload-Offset must be a number")),
    };
    let left = announced.size.saturating_sub(offset);
    if let Some(length) = number(CONTENT_LENGTH.as_str()).flatten().filter(|length| *length != left) {
        let text = format!("announced {} bytes, sending {}", announced.size, offset.saturating_add(length));
        return Err(Refusal::Api(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let _turn = app.uploads.receiving.acquire().await;
    let mut upload = match app.uploads.take(&announced.token) {
        Some(begun) if offset > 0 && begun.received() == offset => begun,
        begun => {
            if offset > 0 {
                return Ok(other_offset(app, &announced.token, begun).await);
            }
            if let Some(begun) = begun {
                begun.abort().await;
            }
            let gone = || Refusal::Api(StatusCode::UNAUTHORIZED, "This database is gone".into());
            let database = app.store.open(id).await?.ok_or_else(gone)?;
            database.upload(announced.size, announced.hash).await?
        }
    };
    let mut pieces = body.into_data_stream();
    let broken = loop {
        match tokio::time::timeout(IDLE, pieces.next()).await {
            Err(_) => break Some("nothing came for a minute".to_owned()),
            Ok(None) => break None,
            Ok(Some(Err(error))) => break Some(error.to_string()),
            Ok(Some(Ok(piece))) => {
                if let Err(error) = upload.write(&piece).await {
                    upload.abort().await;
                    return Err(error.into());
                }
            }
        }
    };
    if let Some(why) = broken {
        for gone in app.uploads.hold(announced.token, upload) {
            gone.abort().await;
        }
        return Err(Refusal::bad_request(format!("the upload broke off: {why}")));
    }
    upload.finish().await?;
    app.uploads.mark_used(announced.token);
    Ok(Json(json!({"success": true, "path": announced.path})).into_response())
}

/// The client would go on from elsewhere than we can.
async fn other_offset(app: &App, token: &Sha256, begun: Option<ContentUpload>) -> Response {
    let received = begun.as_ref().map_or(0, ContentUpload::received);
    for gone in begun.map(|begun| app.uploads.hold(*token, begun)).unwrap_or_default() {
        gone.abort().await;
    }
    let body = Json(json!({"error": format!("{received} bytes are here: go on from there")}));
    (StatusCode::CONFLICT, [(UPLOAD_OFFSET_HEADER, received.to_string())], body).into_response()
}
