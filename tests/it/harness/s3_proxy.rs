//! A proxy before an S3 server, in the test's own process: honest until told otherwise. It can lie (it takes the
//! conditions out of writes, so that the store overwrites and says 200), fail requests by order, and it counts them.
//!
//! Writes of one key pass one after the other. Neither server behind it decides between two at once as S3 does:
//! both look whether the object is there, and write later.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes, to_bytes};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{Mutex as Turn, Notify, OwnedMutexGuard};

use super::http::Request;
use super::responder::reset;
use super::{End, s3_signature};

/// What becomes of a request that an order matches.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// The store carries it out; the connection ends without an answer.
    LoseReply(End),
    /// 503 SlowDown; the store never hears of it.
    Refuse,
    /// The store carries it out; the answer is 503 SlowDown all the same.
    RefuseAfterwards,
    /// 409, as S3 answers a conditional write while another one of that key is under way; the store never hears
    /// of it.
    Conflict,
}

/// The proxy; it ends when dropped.
pub struct S3Proxy {
    pub address: String,
    shared: Arc<Shared>,
    runtime: Option<Runtime>,
}

/// An order given to a proxy.
pub struct Order(Arc<Standing>);

struct Standing {
    fault: Fault,
    times: AtomicUsize,
    hits: AtomicUsize,
    matches: Box<dyn Fn(&Request) -> bool + Send + Sync>,
}

struct Shared {
    upstream: Mutex<String>,
    lying: AtomicBool,
    orders: Mutex<Vec<Arc<Standing>>>,
    requests: AtomicUsize,
    turns: Mutex<HashMap<String, Arc<Turn<()>>>>,
}

/// Makes hyper end a connection without a word.
#[derive(Debug)]
struct HangUp;

impl S3Proxy {
    /// An honest proxy before the server at `upstream`, `host:port`.
    pub fn start(upstream: &str) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            upstream: Mutex::new(upstream.to_owned()),
            lying: AtomicBool::new(false),
            orders: Mutex::default(),
            requests: AtomicUsize::new(0),
            turns: Mutex::default(),
        });
        runtime.spawn(accept(listener, shared.clone()));
        Self { address, shared, runtime: Some(runtime) }
    }

    /// From now on the server is at `upstream`.
    pub fn point_at(&self, upstream: &str) {
        upstream.clone_into(&mut self.shared.upstream.lock().unwrap());
    }

    /// From now on conditions of writes are taken out, or are not.
    pub fn lie(&self, lying: bool) {
        self.shared.lying.store(lying, Ordering::SeqCst);
    }

    /// The next `times` requests that match meet the fault. Of two orders that match, the older one counts.
    pub fn order(
        &self,
        fault: Fault,
        times: usize,
        matches: impl Fn(&Request) -> bool + Send + Sync + 'static,
    ) -> Order {
        let (times, hits) = (AtomicUsize::new(times), AtomicUsize::new(0));
        let standing = Arc::new(Standing { fault, times, hits, matches: Box::new(matches) });
        self.shared.orders.lock().unwrap().push(standing.clone());
        Order(standing)
    }

    /// How many requests have come so far.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }
}

impl Drop for S3Proxy {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // An asynchronous test must not block, not even here.
            runtime.shutdown_background();
        }
    }
}

impl Order {
    /// How many requests have met it.
    pub fn hits(&self) -> usize {
        self.0.hits.load(Ordering::SeqCst)
    }
}

/// Whether a request creates an object if there is none.
pub fn creates(request: &Request) -> bool {
    request.method == "PUT" && request.header("if-none-match") == Some("*")
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    loop {
        if let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(converse(stream, shared.clone()));
        }
    }
}

/// All requests of one connection.
async fn converse(stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let stream = stream.into_std()?;
    let socket = Arc::new(stream.try_clone()?);
    let service = service_fn(|request| answer(request, shared.clone(), socket.clone()));
    let connection = hyper::server::conn::http1::Builder::new();
    let _ = connection.serve_connection(TokioIo::new(TcpStream::from_std(stream)?), service).await;
    Ok(())
}

async fn answer(
    request: hyper::Request<Incoming>,
    shared: Arc<Shared>,
    socket: Arc<std::net::TcpStream>,
) -> Result<hyper::Response<Body>, HangUp> {
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(Body::new(body), usize::MAX).await else { return Err(HangUp) };
    let seen = without_body(&parts);
    shared.requests.fetch_add(1, Ordering::SeqCst);
    let fault = shared.fault_for(&seen);
    // A client may be killed once it has sent everything; the store carries the request out all the same.
    let told = tokio::spawn(async move { shared.carry_out(parts, body, fault).await }).await;
    if let Some(Fault::LoseReply(End::Reset)) = fault {
        let _ = reset(&socket);
    }
    told.ok().flatten().ok_or(HangUp)
}

fn without_body(parts: &Parts) -> Request {
    let headers = parts.headers.iter();
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    Request {
        method: parts.method.to_string(),
        target: parts.uri.to_string(),
        headers: headers.map(|(name, value)| (name.to_string(), text(value.as_bytes()))).collect(),
        body: Vec::new(),
    }
}

impl Shared {
    fn fault_for(&self, request: &Request) -> Option<Fault> {
        let orders = self.orders.lock().unwrap();
        let due = |order: &Standing| order.hits.load(Ordering::SeqCst) < order.times.load(Ordering::SeqCst);
        let order = orders.iter().find(|order| due(order) && (order.matches)(request))?;
        order.hits.fetch_add(1, Ordering::SeqCst);
        Some(order.fault)
    }

    /// The client's answer, if it gets one.
    async fn carry_out(
        &self,
        parts: Parts,
        body: Bytes,
        fault: Option<Fault>,
    ) -> Option<hyper::Response<Body>> {
        match fault {
            Some(Fault::Refuse) => Some(slow_down()),
            Some(Fault::Conflict) => Some(conflict()),
            Some(Fault::RefuseAfterwards) => {
                self.carry_out_unheard(parts, body).await;
                Some(slow_down())
            }
            Some(Fault::LoseReply(_)) => {
                self.carry_out_unheard(parts, body).await;
                None
            }
            None => self.forward(parts, body).await,
        }
    }

    /// Carries a request out whose answer nobody will see, to its end.
    async fn carry_out_unheard(&self, parts: Parts, body: Bytes) {
        if let Some(answer) = self.forward(parts, body).await {
            let _ = to_bytes(answer.into_body(), usize::MAX).await;
        }
    }

    async fn forward(&self, mut parts: Parts, body: Bytes) -> Option<hyper::Response<Body>> {
        let _turn = self.turn(&parts).await;
        without_framing(&mut parts.headers);
        if self.lying.load(Ordering::SeqCst) && matches!(parts.method, Method::PUT | Method::POST) {
            strip_conditions(&mut parts);
        }
        let upstream = self.upstream.lock().unwrap().clone();
        let stream = TcpStream::connect(upstream).await.ok()?;
        stream.set_nodelay(true).ok()?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let mut answer = sender.send_request(with_body(parts, body)).await.ok()?.map(Body::new);
        without_framing(answer.headers_mut());
        Some(answer)
    }

    /// Waits until no other write of that key is under way.
    async fn turn(&self, parts: &Parts) -> Option<OwnedMutexGuard<()>> {
        let part = parts.uri.query().is_some_and(|query| query.contains("partNumber="));
        if part || !matches!(parts.method, Method::PUT | Method::POST | Method::DELETE) {
            return None;
        }
        let turn = self.turns.lock().unwrap().entry(parts.uri.path().to_owned()).or_default().clone();
        Some(turn.lock_owned().await)
    }
}

/// The request with its body, which is sent once the server asks for it, as both servers do. One that refuses does so
/// before, and closes: what is sent to it then makes its answer unreadable.
fn with_body(mut parts: Parts, body: Bytes) -> hyper::Request<Body> {
    // A client that expects to be asked was asked by us.
    parts.headers.remove(header::EXPECT);
    if body.is_empty() {
        return hyper::Request::from_parts(parts, Body::empty());
    }
    parts.headers.insert(header::EXPECT, HeaderValue::from_static("100-continue"));
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let asked = Arc::new(Notify::new());
    let body = futures::stream::once({
        let asked = asked.clone();
        async move {
            asked.notified().await;
            Ok::<_, Infallible>(body)
        }
    });
    let mut request = hyper::Request::from_parts(parts, Body::from_stream(body));
    hyper::ext::on_informational(&mut request, move |_| asked.notify_one());
    request
}

/// Each of the two connections frames its messages itself. What a body's length was stays: HEAD says nothing else.
fn without_framing(headers: &mut HeaderMap) {
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding"] {
        headers.remove(name);
    }
}

const CONDITIONS: [HeaderName; 2] = [header::IF_MATCH, header::IF_NONE_MATCH];

/// The signature covers the conditions it was made with: what is left is signed anew.
fn strip_conditions(parts: &mut Parts) {
    let had = CONDITIONS.map(|name| parts.headers.remove(name).is_some());
    if had.contains(&true) {
        s3_signature::sign_again(parts);
    }
}

fn slow_down() -> hyper::Response<Body> {
    refusal(StatusCode::SERVICE_UNAVAILABLE, "SlowDown")
}

fn conflict() -> hyper::Response<Body> {
    refusal(StatusCode::CONFLICT, "ConditionalRequestConflict")
}

fn refusal(status: StatusCode, code: &str) -> hyper::Response<Body> {
    let text =
        format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>by order</Message></Error>");
    let mut response = hyper::Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
    response
}

impl std::fmt::Display for HangUp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("told to hang up")
    }
}

impl std::error::Error for HangUp {}
