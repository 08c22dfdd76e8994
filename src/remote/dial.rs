//! Connections made before they are needed. A request that has to connect first waits one round trip more, two with
//! TLS; a query engine sends several at once, and knows that it will no sooner than we do.
//!
//! reqwest makes a connection only for a request, and keeps it only after one. So there are two clients that share a
//! stash: one whose connector puts what it has made into the stash and then fails, and the one that is used, whose
//! connector looks into the stash first.

use std::any::Any;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tower_layer::Layer;
use tower_service::Service;

/// Servers close connections on which nothing is asked, some after few seconds; one that is older is not used.
const FRESH: Duration = Duration::from_secs(10);

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// When it was made, and a connection of the type only reqwest can name.
type Ready = (Instant, Box<dyn Any + Send>);

/// Connections that wait for their first request.
#[derive(Clone, Default)]
pub(super) struct Stash(Arc<Mutex<Vec<Ready>>>);

impl std::fmt::Debug for Stash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stash").finish_non_exhaustive()
    }
}

impl Stash {
    fn put(&self, connection: Box<dyn Any + Send>) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).push((Instant::now(), connection));
    }

    fn take<C: 'static>(&self) -> Option<C> {
        let mut ready = self.0.lock().unwrap_or_else(|e| e.into_inner());
        ready.retain(|(made, _)| made.elapsed() < FRESH);
        let (_, connection) = ready.pop()?;
        connection.downcast().ok().map(|connection| *connection)
    }
}

/// For the client that is used: connections from the stash, and new ones when it is empty.
#[derive(Clone)]
pub(super) struct UseStash(pub(super) Stash);

/// For the client that only makes connections.
#[derive(Clone)]
pub(super) struct FillStash(pub(super) Stash);

/// A connector that looks into the stash first.
#[derive(Clone)]
pub(super) struct Using<S> {
    inner: S,
    stash: Stash,
}

/// A connector that puts connections into the stash.
#[derive(Clone)]
pub(super) struct Filling<S> {
    inner: S,
    stash: Stash,
}

impl<S> Layer<S> for UseStash {
    type Service = Using<S>;

    fn layer(&self, inner: S) -> Using<S> {
        Using { inner, stash: self.0.clone() }
    }
}

impl<S> Layer<S> for FillStash {
    type Service = Filling<S>;

    fn layer(&self, inner: S) -> Filling<S> {
        Filling { inner, stash: self.0.clone() }
    }
}

type Connecting<C> = Pin<Box<dyn Future<Output = Result<C, BoxError>> + Send>>;

impl<R, S> Service<R> for Using<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Connecting<S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        match self.stash.take() {
            Some(connection) => {
                tracing::trace!("a connection was ready");
                Box::pin(ready(Ok(connection)))
            }
            None => {
                tracing::trace!("no connection was ready");
                Box::pin(self.inner.call(request))
            }
        }
    }
}

impl<R, S> Service<R> for Filling<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Connecting<S::Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (connecting, stash) = (self.inner.call(request), self.stash.clone());
        Box::pin(async move {
            stash.put(Box::new(connecting.await?));
            tracing::trace!("a connection is ready");
            Err("the connection is kept for later".into())
        })
    }
}
