//! `PUT /api/sync/upload/:id/:path`, and the permissions for it: each for one file, once, for an hour.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode};
use futures::StreamExt;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::App;
use super::refusal::Refusal;
use crate::disk::random_hex;
use crate::model::{DbPath, Sha256};
use crate::wire::UPLOAD_TOKEN_HEADER;

/// Permissions outstanding at once: a bound on memory, far above what one client asks for.
const MAX_OUTSTANDING: usize = 1_000_000;
/// Uploads received at once; more wait. Each may hold one part in memory.
const MAX_RECEIVING: usize = 32;
/// An upload that brings nothing for so long is given up.
const IDLE: Duration = Duration::from_secs(60);

/// What one permission is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Grant {
    pub(super) database: String,
    pub(super) path: DbPath,
    pub(super) size: u64,
    pub(super) hash: Option<Sha256>,
}

/// The permissions given and not yet used.
pub(super) struct Uploads {
    granted: Mutex<HashMap<String, (Grant, Instant)>>,
    receiving: Semaphore,
}

impl Default for Uploads {
    fn default() -> Self {
        Self { granted: Mutex::default(), receiving: Semaphore::new(MAX_RECEIVING) }
    }
}

impl Uploads {
    /// Allows one upload for `lifetime`, and returns its token.
    pub(super) fn allow(&self, grant: Grant, lifetime: Duration) -> Result<String, Refusal> {
        let mut granted = self.granted.lock().unwrap_or_else(|e| e.into_inner());
        if granted.len() >= MAX_OUTSTANDING {
            let now = Instant::now();
            granted.retain(|_, (_, until)| *until > now);
            if granted.len() >= MAX_OUTSTANDING {
                let text = "Too many uploads are announced: try again later";
                return Err(Refusal::Api(StatusCode::SERVICE_UNAVAILABLE, text.into()));
            }
        }
        let token = random_hex::<24>();
        granted.insert(token.clone(), (grant, Instant::now() + lifetime));
        Ok(token)
    }

    /// Takes a permission, if it is for this database and path and still holds. It is gone afterwards.
    fn take(&self, token: &str, database: &str, path: &DbPath) -> Option<Grant> {
        let mut granted = self.granted.lock().unwrap_or_else(|e| e.into_inner());
        let (grant, until) = granted.get(token)?;
        if grant.database != database || grant.path != *path {
            return None;
        }
        let holds = *until > Instant::now();
        granted.remove(token).map(|(grant, _)| grant).filter(|_| holds)
    }
}

pub(super) async fn receive(
    State(app): State<Arc<App>>,
    Path((id, path)): Path<(String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, Refusal> {
    let denied = || {
        Refusal::Api(
            StatusCode::UNAUTHORIZED,
            "This upload was not announced, is done, or is too late".into(),
        )
    };
    let token = headers.get(UPLOAD_TOKEN_HEADER).and_then(|value| value.to_str().ok()).ok_or_else(denied)?;
    let path = DbPath::parse(&path).map_err(|_| denied())?;
    let grant = app.uploads.take(token, &id, &path).ok_or_else(denied)?;
    let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if let Some(length) = length.filter(|length| *length != grant.size) {
        let text = format!("announced {} bytes, sending {length}", grant.size);
        return Err(Refusal::Api(StatusCode::UNPROCESSABLE_ENTITY, text));
    }
    let database = app.store.open(&id).await?.ok_or_else(denied)?;
    let _turn = app.uploads.receiving.acquire().await;
    let mut upload = database.upload(grant.size, grant.hash).await?;
    let mut pieces = body.into_data_stream();
    let broken = |why: &str| Refusal::bad_request(format!("the upload broke off: {why}"));
    let result = loop {
        match tokio::time::timeout(IDLE, pieces.next()).await {
            Err(_) => break Err(broken("nothing came for a minute")),
            Ok(None) => break Ok(()),
            Ok(Some(Err(error))) => break Err(broken(&error.to_string())),
            Ok(Some(Ok(piece))) => {
                if let Err(error) = upload.write(&piece).await {
                    break Err(error.into());
                }
            }
        }
    };
    if let Err(refusal) = result {
        upload.abort().await;
        return Err(refusal);
    }
    upload.finish().await?;
    Ok(Json(json!({"success": true, "path": grant.path})))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permission_is_for_one_file_once_and_for_its_time() {
        let uploads = Uploads::default();
        let grant = |path: &str| Grant {
            database: "db_1".into(),
            path: DbPath::parse(path).unwrap(),
            size: 1,
            hash: None,
        };
        let path = |path: &str| DbPath::parse(path).unwrap();
        let token = uploads.allow(grant("a"), Duration::from_secs(60)).unwrap();
        assert_eq!(uploads.take(&token, "db_1", &path("b")), None, "another path");
        assert_eq!(uploads.take(&token, "db_2", &path("a")), None, "another database");
        assert_eq!(uploads.take(&token, "db_1", &path("a")), Some(grant("a")));
        assert_eq!(uploads.take(&token, "db_1", &path("a")), None, "used");
        let late = uploads.allow(grant("a"), Duration::ZERO).unwrap();
        assert_eq!(uploads.take(&late, "db_1", &path("a")), None, "expired");
    }
}
