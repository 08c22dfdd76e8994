//! Which URL leads where.

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use tower_http::compression::CompressionLayer;

use super::refusal::Refusal;
use super::{App, cors, downloads, events, history, manifest, public, raw, sync, uploads};

pub(super) fn router(app: Arc<App>) -> Router {
    // Handlers read bodies through their own limits; axum's would be a second, hidden one.
    let api = Router::new()
        .route("/me", get(public::me))
        .route("/api/public", get(public::list))
        .route("/api/db/{owner}/{slug}", get(public::describe))
        .route("/api/sync/databases", get(public::list_own))
        .route("/api/sync/register", post(sync::register))
        .route("/api/sync/upload-urls", post(sync::upload_urls))
        .route("/api/sync/download-urls", post(downloads::urls))
        .route("/api/sync/manifest/{id}", get(manifest::get).put(manifest::put))
        .route("/api/sync/changes/{id}", get(history::changes))
        .route("/api/sync/log/{id}", get(history::log))
        .route("/api/sync/commit/{id}", post(sync::commit))
        .layer(CompressionLayer::new());
    let files = Router::new()
        .route("/api/sync/upload/{id}/{path}", put(uploads::receive).head(uploads::offset))
        .route("/api/sync/download/{id}/{path}", get(downloads::file))
        .route("/api/sync/blob/{id}/{hash}", get(downloads::blob))
        .route("/api/sync/events/{id}", get(events::events))
        .route("/db/{owner}/{slug}/{*path}", get(raw::file));
    api.merge(files)
        .fallback(async || Refusal::Api(StatusCode::NOT_FOUND, "No such route".into()))
        .layer(DefaultBodyLimit::disable())
        .layer(axum::middleware::from_fn(cors::add_headers))
        .with_state(app)
}
