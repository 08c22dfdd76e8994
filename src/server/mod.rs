//! ParqueDB's HTTP API over a store. Routes deny by default: a handler first asks `identity::admit` for
//! its database, and what it may not see it cannot tell from what is not there (rule 29).

mod accept;
mod cors;
mod counts;
mod identity;
mod public;
mod raw;
mod refusal;
mod routes;
mod sync;
mod uploads;

use std::future::Future;
use std::sync::Arc;

use url::Url;

use crate::store::Store;

/// What every handler sees.
struct App {
    store: Store,
    uploads: uploads::Uploads,
    counts: counts::Counts,
    public_url: Option<Url>,
}

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The URL clients reach this server by, where a proxy stands in front.
    pub public_url: Option<Url>,
}

/// Serves `store` on `listener` until `shutdown` is ready, then lets running requests end, but not for long.
pub async fn serve(
    listener: tokio::net::TcpListener,
    store: Store,
    options: ServerOptions,
    shutdown: impl Future<Output = ()>,
) {
    let app = Arc::new(App {
        store,
        uploads: uploads::Uploads::default(),
        counts: counts::Counts::default(),
        public_url: options.public_url,
    });
    accept::serve(listener, routes::router(app), shutdown).await;
}
