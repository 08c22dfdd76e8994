//! `POST /api/sync/download-urls` and the URLs it gives: a file each, for an hour, for whoever has the URL.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use axum::response::Response;

use super::App;
use super::identity::admit;
use super::permissions::{Permission, expires_at};
use super::raw;
use super::refusal::Refusal;
use super::sync::read_json;
use crate::access::Standing;
use crate::model::{DbPath, Sha256, encode_segment};
use crate::wire::{DownloadTarget, DownloadUrlsRequest, DownloadUrlsResponse, MAX_UPLOAD_URLS};

const MAX_BODY_BYTES: usize = 8 << 20;

pub(super) async fn urls(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<DownloadUrlsResponse>, Refusal> {
    let caller = app.caller(&headers).await?;
    let request: DownloadUrlsRequest = read_json(body, MAX_BODY_BYTES).await?;
    let database = admit(&caller, app.store.open(&request.database_id).await?, Standing::Reads)?;
    if request.paths.len() > MAX_UPLOAD_URLS {
        return Err(Refusal::bad_request(format!("at most {MAX_UPLOAD_URLS} paths in one request")));
    }
    let base = app.base_url(&headers)?;
    let expires = expires_at();
    let mut urls = Vec::with_capacity(request.paths.len());
    for path in request.paths {
        let Some((_, revision)) = database.file(&path) else {
            return Err(Refusal::Rejected("these paths are not there".into(), vec![path]));
        };
        let permission =
            Permission::Download { database: database.id().into(), path: path.clone(), revision };
        let segment = encode_segment(path.as_str());
        let token = permission.grant(&app.signing_key);
        let url = format!("{base}/api/sync/download/{}/{segment}?token={token}", database.id());
        urls.push(DownloadTarget { path, url, headers: BTreeMap::new(), expires_at: expires.clone() });
    }
    Ok(Json(DownloadUrlsResponse { urls }))
}

/// The file, as it was when the URL was given.
pub(super) async fn file(
    State(app): State<Arc<App>>,
    Path((id, path)): Path<(String, String)>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let denied = || Refusal::Raw(StatusCode::UNAUTHORIZED, "This URL is not ours, or too late".into());
    let query = uri.query().unwrap_or_default();
    let token = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == "token");
    let (_, token) = token.ok_or_else(denied)?;
    let asked = DbPath::parse(&path).map_err(|_| denied())?;
    let Some(Permission::Download { database, path, revision }) = Permission::read(&token, &app.signing_key)
    else {
        return Err(denied());
    };
    if database != id || path != asked {
        return Err(denied());
    }
    let sent = async {
        let database = app.store.open(&id).await?.ok_or_else(denied)?;
        let found = raw::find(&database, &path, Some(revision)).await?.ok_or_else(denied)?;
        raw::send(database, found, &method, &headers).await
    };
    sent.await.map_err(Refusal::into_raw)
}

/// A content by its hash, if the caller may read a file that has it, in this revision or another one that is kept.
pub(super) async fn blob(
    State(app): State<Arc<App>>,
    Path((id, hash)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let sent = async {
        let caller = app.caller(&headers).await?;
        let database = admit(&caller, app.store.open(&id).await?, Standing::Reads)?;
        let hash =
            Sha256::parse(&hash).map_err(|_| Refusal::bad_request("A hash is 64 hexadecimal digits"))?;
        let absent = || Refusal::Api(StatusCode::NOT_FOUND, "No file here has this content".into());
        let size = database.named_size(&hash).await?.ok_or_else(absent)?;
        let found = raw::Found::content(hash, size, database.revision().0);
        raw::send(database, found, &method, &headers).await
    };
    sent.await.map_err(Refusal::into_raw)
}
