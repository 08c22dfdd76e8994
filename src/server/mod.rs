//! ParqueDB's HTTP API over a store. Routes deny by default: a handler first asks `identity::admit` for
//! its database, and what it may not see it cannot tell from what is not there (rule 29).

mod accept;
mod cors;
mod counts;
mod downloads;
mod events;
mod history;
mod identity;
mod manifest;
mod permissions;
mod public;
mod raw;
mod refusal;
mod routes;
mod sync;
mod uploads;

use std::future::Future;
use std::sync::Arc;

use tokio::sync::{Semaphore, watch};
use url::Url;

use crate::store::{SigningKey, Store, StoreError};

/// What every handler sees.
struct App {
    store: Store,
    signing_key: SigningKey,
    uploads: uploads::Uploads,
    fetched: manifest::Fetched,
    counts: counts::Counts,
    public_url: Option<Url>,
    /// How many more may listen.
    listeners: Arc<Semaphore>,
    /// Whether the server is about to end: streams end by themselves then.
    closing: watch::Sender<bool>,
}

/// How to serve.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// The URL clients reach this server by, where a proxy stands in front.
    pub public_url: Option<Url>,
}

/// A server, ready to take connections.
pub struct Server(Arc<App>);

impl Server {
    /// A server of that store.
    pub async fn new(store: Store, options: ServerOptions) -> Result<Self, StoreError> {
        Ok(Self(Arc::new(App {
            signing_key: store.signing_key().await?,
            store,
            uploads: uploads::Uploads::default(),
            fetched: manifest::Fetched::default(),
            counts: counts::Counts::default(),
            public_url: options.public_url,
            listeners: Arc::new(Semaphore::new(events::MAX_LISTENERS)),
            closing: watch::Sender::new(false),
        })))
    }

    /// Serves on `listener` until `shutdown` is ready, then lets running requests end, but not for long.
    pub async fn serve(self, listener: tokio::net::TcpListener, shutdown: impl Future<Output = ()>) {
        let closing = self.0.closing.clone();
        let shutdown = async move {
            shutdown.await;
            closing.send_replace(true);
        };
        accept::serve(listener, routes::router(self.0), shutdown).await;
    }
}
