//! `/me`, `/api/public` and `/api/db/:owner/:slug`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};

use super::App;
use super::identity::admit;
use super::refusal::Refusal;
use crate::access::{Caller, Standing};
use crate::model::DbRef;
use crate::store::{Database, DatabaseSettings, StoreError};
use crate::wire::{DatabaseDescription, DatabaseList, Me};

pub(super) async fn me(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Json<Me>, Refusal> {
    match app.caller(&headers).await? {
        Caller::Anonymous => Err(Refusal::Api(StatusCode::UNAUTHORIZED, "Not logged in".into())),
        Caller::Account { id, username } => Ok(Json(Me { id, username, email: None })),
    }
}

pub(super) async fn list(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<DatabaseList>, Refusal> {
    app.caller(&headers).await?;
    list_page(&app, &uri, |settings| settings.visibility.allows_discovery()).await
}

/// The caller's own databases, of every visibility.
pub(super) async fn list_own(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    uri: Uri,
) -> Result<Json<DatabaseList>, Refusal> {
    match app.caller(&headers).await? {
        Caller::Anonymous => Err(Refusal::Api(StatusCode::UNAUTHORIZED, "Not logged in".into())),
        Caller::Account { username, .. } => {
            list_page(&app, &uri, |settings| settings.owner == username).await
        }
    }
}

async fn list_page(
    app: &App,
    uri: &Uri,
    shown: impl Fn(&DatabaseSettings) -> bool,
) -> Result<Json<DatabaseList>, Refusal> {
    let limit = query_number(uri, "limit", 50, 1..=1000)?;
    let offset = query_number(uri, "offset", 0, 0..=100_000)?;
    let mut listed = app.store.all().await?;
    listed.retain(|database| shown(&database.settings()));
    let total = listed.len();
    let mut databases = Vec::new();
    for database in listed.iter().skip(offset).take(limit) {
        databases.push(describe_database(app, database).await?);
    }
    let has_more = offset.saturating_add(databases.len()) < total;
    Ok(Json(DatabaseList { databases, total: total as u64, has_more }))
}

pub(super) async fn describe(
    State(app): State<Arc<App>>,
    Path((owner, slug)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Json<DatabaseDescription>, Refusal> {
    let caller = app.caller(&headers).await?;
    let found = match DbRef::new(&owner, &slug) {
        Ok(reference) => app.store.find(&reference).await?,
        Err(_) => None,
    };
    let database = admit(&caller, found, Standing::Reads)?;
    Ok(Json(describe_database(&app, &database).await?))
}

async fn describe_database(app: &App, database: &Database) -> Result<DatabaseDescription, StoreError> {
    let count = app.counts.of(database).await?;
    let settings = database.settings();
    let (revision, published, revision_hash, manifest_etag) = database.present();
    Ok(DatabaseDescription {
        prefix: format!("{}/{}", settings.owner, settings.slug),
        id: settings.id,
        name: settings.name,
        owner: settings.owner,
        slug: settings.slug,
        visibility: settings.visibility,
        description: settings.description,
        bucket: "parquedb".into(),
        collection_count: count.collections,
        entity_count: count.entities,
        created_at: settings.created_at,
        updated_at: later(published, settings.updated_at),
        revision,
        manifest_etag,
        revision_hash,
    })
}

/// The later of two times as the store writes them; one that cannot be read is the earlier.
fn later(one: String, other: String) -> String {
    let time = |text: &str| text.parse::<jiff::Timestamp>().ok();
    if time(&one) > time(&other) { one } else { other }
}

/// A number from the query string; anything but a number inside `allowed` is refused.
pub(super) fn query_number(
    uri: &Uri,
    name: &str,
    default: usize,
    allowed: std::ops::RangeInclusive<usize>,
) -> Result<usize, Refusal> {
    let query = uri.query().unwrap_or_default();
    let Some((_, text)) = url::form_urlencoded::parse(query.as_bytes()).find(|(key, _)| key == name) else {
        return Ok(default);
    };
    text.parse().ok().filter(|number| allowed.contains(number)).ok_or_else(|| {
        Refusal::bad_request(format!("{name} must be a number from {} to {}", allowed.start(), allowed.end()))
    })
}
