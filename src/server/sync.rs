//! The routes push needs: register, upload-urls, commit.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, State};
use axum::http::header::HOST;
use axum::http::{HeaderMap, StatusCode};
use futures::{StreamExt, TryStreamExt};

use super::App;
use super::identity::admit;
use super::permissions::{Permission, expires_at};
use super::refusal::Refusal;
use crate::access::{Caller, Standing};
use crate::model::{DbRef, is_slug, slugify};
use crate::store::{Change, Registration};
use crate::wire::{
    CommitRequest, CommitResponse, MAX_COMMIT_BYTES, MAX_UPLOAD_URLS, RegisterRequest, RegisterResponse,
    UPLOAD_TOKEN_HEADER, UploadTarget, UploadUrlsRequest, UploadUrlsResponse, content_type_of,
};

/// Contents looked for at once.
const CLAIMS_AT_ONCE: usize = 32;
/// How long a JSON body may take to arrive.
const BODY_DEADLINE: Duration = Duration::from_secs(600);
const MAX_REGISTER_BYTES: usize = 64 << 10;
const MAX_UPLOAD_URLS_BYTES: usize = 8 << 20;
const MAX_NAME_CHARS: usize = 200;

pub(super) async fn register(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<(StatusCode, Json<RegisterResponse>), Refusal> {
    let Caller::Account { username, .. } = app.caller(&headers).await? else {
        return Err(Refusal::Api(StatusCode::UNAUTHORIZED, "Registering needs a token: log in".into()));
    };
    let request: RegisterRequest = read_json(body, MAX_REGISTER_BYTES).await?;
    if request.owner != username {
        return Err(Refusal::Api(
            StatusCode::FORBIDDEN,
            "You can only register databases of your own".into(),
        ));
    }
    if request.name.is_empty() || request.name.chars().count() > MAX_NAME_CHARS {
        return Err(Refusal::bad_request(format!("name must have 1 to {MAX_NAME_CHARS} characters")));
    }
    let slug = match request.slug {
        Some(slug) if is_slug(&slug) => slug,
        Some(_) => return Err(Refusal::bad_request("slug must be lower-case letters, digits and inner '-'")),
        None => slugify(&request.name)
            .ok_or_else(|| Refusal::bad_request("no slug can be made from this name: give one"))?,
    };
    let reference = DbRef::new(&username, &slug).map_err(|error| Refusal::bad_request(error.to_string()))?;
    let prefix = reference.to_string();
    let registration = Registration { reference, name: request.name, visibility: request.visibility };
    let database = app.store.register(&registration).await?;
    let response = RegisterResponse { id: database.id().to_owned(), bucket: "parquedb".into(), prefix };
    Ok((StatusCode::CREATED, Json(response)))
}

pub(super) async fn upload_urls(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<UploadUrlsResponse>, Refusal> {
    let caller = app.caller(&headers).await?;
    if caller == Caller::Anonymous {
        return Err(Refusal::hidden(&caller));
    }
    let request: UploadUrlsRequest = read_json(body, MAX_UPLOAD_URLS_BYTES).await?;
    let database = admit(&caller, app.store.open(&request.database_id).await?, Standing::Writes)?;
    if request.files.len() > MAX_UPLOAD_URLS {
        return Err(Refusal::bad_request(format!("at most {MAX_UPLOAD_URLS} files in one request")));
    }
    let base = app.base_url(&headers)?;
    let expires = expires_at();
    let claims = request.files.iter().map(|file| {
        let (database, hash, size) = (database.clone(), file.hash, file.size);
        async move {
            match hash {
                Some(hash) => database.claim(&hash, size).await,
                None => Ok(false),
            }
        }
    });
    let claims: Vec<_> = claims.collect();
    let stored: Vec<bool> = futures::stream::iter(claims).buffered(CLAIMS_AT_ONCE).try_collect().await?;
    let mut urls = Vec::with_capacity(request.files.len());
    for (file, exists) in request.files.into_iter().zip(stored) {
        let mut target = UploadTarget {
            path: file.path.clone(),
            url: String::new(),
            headers: BTreeMap::new(),
            expires_at: expires.clone(),
            exists,
        };
        if !exists {
            let content_type =
                file.content_type.unwrap_or_else(|| content_type_of(file.path.as_str()).to_owned());
            let segment =
                percent_encoding::utf8_percent_encode(file.path.as_str(), percent_encoding::NON_ALPHANUMERIC);
            target.url = format!("{base}/api/sync/upload/{}/{segment}", database.id());
            let permission = Permission::Upload {
                database: database.id().to_owned(),
                path: file.path,
                size: file.size,
                hash: file.hash,
            };
            let token = permission.grant(&app.signing_key);
            target.headers.insert("Content-Type".into(), content_type);
            target.headers.insert(UPLOAD_TOKEN_HEADER.into(), token);
        }
        urls.push(target);
    }
    Ok(Json(UploadUrlsResponse { urls }))
}

pub(super) async fn commit(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CommitResponse>, Refusal> {
    let caller = app.caller(&headers).await?;
    let database = admit(&caller, app.store.open(&id).await?, Standing::Writes)?;
    let Caller::Account { username, .. } = caller else { return Err(Refusal::hidden(&caller)) };
    let request: CommitRequest = read_json(body, MAX_COMMIT_BYTES).await?;
    let base = request.base;
    let answer = database.publish(Change { author: username, request, set_aside: Vec::new() }).await?;
    tracing::info!(database = %id, %base, revision = %answer.revision, "published");
    Ok(Json(answer))
}

impl App {
    /// The URL this client reached us by.
    pub(super) fn base_url(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        if let Some(url) = &self.public_url {
            return Ok(url.as_str().trim_end_matches('/').to_owned());
        }
        let host = headers.get(HOST).and_then(|host| host.to_str().ok());
        let host = host.ok_or_else(|| Refusal::bad_request("the Host header is missing"))?;
        Ok(format!("http://{host}"))
    }
}

/// Reads a JSON body of at most `limit` bytes.
pub(super) async fn read_json<T: serde::de::DeserializeOwned>(
    body: Body,
    limit: usize,
) -> Result<T, Refusal> {
    serde_json::from_slice(&read_body(body, limit).await?)
        .map_err(|error| Refusal::bad_request(format!("the body is not understood: {error}")))
}

/// Reads a body of at most `limit` bytes.
pub(super) async fn read_body(body: Body, limit: usize) -> Result<Bytes, Refusal> {
    let read = tokio::time::timeout(BODY_DEADLINE, axum::body::to_bytes(body, limit)).await;
    let late = |_| Refusal::Api(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time".into());
    read.map_err(late)?.map_err(|_| {
        Refusal::Api(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is cut short or larger than {limit} bytes"),
        )
    })
}
