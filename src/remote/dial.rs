//! Connections made before they are needed. A request that has to connect first waits one round trip more, two with
//! TLS; a query engine sends several at once, and knows that it will no sooner than we do.
//!
//! reqwest makes a connection only for a request, and keeps it only after one. So there are two clients that share a
//! stash: one whose connector puts what it has made into the stash and then fails, and the one that is used, whose
//! connector looks into the stash first.

use std::any::Any;
use std::collections::VecDeque;
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
pub(super) struct Stash(Arc<Mutex<VecDeque<Ready>>>);

impl std::fmt::Debug for Stash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stash").finish_non_exhaustive()
    }
}

impl Stash {
    fn put(&self, connection: Box<dyn Any + Send>) {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).push_back((Instant::now(), connection));
    }

    fn take<C: 'static>(&self) -> Option<C> {
        let mut ready = self.0.lock().unwrap_or_else(|e| e.into_inner());
        ready.retain(|(made, _)| made.elapsed() < FRESH);
        // The oldest: its server has had the most time to get ready for it.
        let (_, connection) = ready.pop_front()?;
        connection.downcast().ok().map(|connection| *connection)
    }
}

/// What a client's connector does with the stash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Takes what is ready, and connects when nothing is.
    Uses,
    /// Connects, puts the connection there, and fails.
    Fills,
}

/// A client's connector and the stash beside it.
#[derive(Clone)]
pub(super) struct Stashing<S> {
    inner: S,
    stash: Stash,
    role: Role,
}

/// What makes a connector one that knows the stash.
#[derive(Clone)]
pub(super) struct WithStash {
    stash: Stash,
    role: Role,
}

impl Stash {
    /// For the client that is used.
    pub(super) fn used(&self) -> WithStash {
        WithStash { stash: self.clone(), role: Role::Uses }
    }

    /// For the client that only makes connections.
    pub(super) fn filled(&self) -> WithStash {
        WithStash { stash: self.clone(), role: Role::Fills }
    }
}

impl<S> Layer<S> for WithStash {
    type Service = Stashing<S>;

    fn layer(&self, inner: S) -> Stashing<S> {
        Stashing { inner, stash: self.stash.clone(), role: self.role }
    }
}

impl<R, S> Service<R> for Stashing<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: Send + 'static,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: R) -> Self::Future {
        if self.role == Role::Uses
            && let Some(connection) = self.stash.take()
        {
            return Box::pin(ready(Ok(connection)));
        }
        let connecting = self.inner.call(request);
        if self.role == Role::Uses {
            return Box::pin(connecting);
        }
        let stash = self.stash.clone();
        Box::pin(async move {
            stash.put(Box::new(connecting.await?));
            Err("the connection is kept for later".into())
        })
    }
}
