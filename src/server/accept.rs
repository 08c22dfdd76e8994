//! Taking connections, and letting them go: clients that send nothing are not waited for, neither at work nor when
//! the server stops.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// A request's head must be there after so long, and the next one on a kept connection must have begun: longer
/// than clients keep idle connections, so that it is they who close them.
const HEAD_DEADLINE: Duration = Duration::from_secs(75);
/// After the signal to stop, running requests have so long to end.
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Connections held at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// After a failed accept (out of descriptors, say), a pause instead of a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `shutdown` is ready and running requests have ended, or their time is up.
pub(super) async fn serve(listener: TcpListener, router: Router, shutdown: impl Future<Output = ()>) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_DEADLINE);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = async {
            let place = places.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((connection, _)) => {
                // Small answers must not wait for Nagle's algorithm.
                let _ = connection.set_nodelay(true);
                let service = TowerToHyperService::new(router.clone());
                let served = graceful.watch(http.serve_connection(TokioIo::new(connection), service));
                tokio::spawn(async move {
                    let _place = place;
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "a connection ended badly");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    if tokio::time::timeout(STOP_DEADLINE, graceful.shutdown()).await.is_err() {
        tracing::warn!("stopping although requests were still running");
    }
}
