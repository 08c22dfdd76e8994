//! Sending a request and sorting its answer. Credentials go to the remote's own origin only: a redirect elsewhere
//! is refused, not followed.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{AUTHORIZATION, DATE, HeaderValue, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use url::Url;

use super::RemoteError;
use super::dial::Stash;
use super::versions::HostVersions;
use crate::model::{Revision, Token};
use crate::wire::{ErrorBody, MovedBody};

/// Redirects followed inside the remote's origin.
const MAX_REDIRECTS: usize = 5;
/// Idle connections are closed before servers and middleboxes forget them.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// The most bytes of an error's body that are read.
const MAX_ERROR_BYTES: usize = 64 << 10;
/// The most bytes of any other JSON answer but a manifest.
pub(super) const MAX_JSON_BYTES: usize = 64 << 20;

/// Between two attempts at one request.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// How to reach a remote.
#[derive(Debug, Clone)]
pub struct RemoteOptions {
    /// Longest wait for a connection.
    pub connect_timeout: Duration,
    /// Longest silence while an answer is awaited or read.
    pub idle_timeout: Duration,
    /// How often a request that failed in passing is sent again; mounts repeat reads by their own deadline.
    pub retries: usize,
}

impl Default for RemoteOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(10), idle_timeout: Duration::from_secs(30), retries: 3 }
    }
}

/// A remote server, and who we are to it. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Remote {
    client: reqwest::Client,
    /// For requests whose answer takes as long as their work: it has no limit on silence.
    patient: reqwest::Client,
    /// Only makes connections, for `client` to use.
    dialer: reqwest::Client,
    base: Url,
    authorization: Option<HeaderValue>,
    retries: usize,
    /// Microseconds.
    quickest: Arc<AtomicU64>,
    /// By how many seconds the remote's clock is ahead of ours, as far as its answers have told.
    ahead: Arc<AtomicI64>,
    /// Who it has told that we are.
    username: Arc<OnceLock<String>>,
    /// Its tags, where they are not hashes.
    pub(super) versions: Arc<HostVersions>,
}

impl Remote {
    /// A client for `base`. Nothing is sent yet.
    pub fn new(base: &Url, token: Option<&Token>, options: &RemoteOptions) -> Result<Self, RemoteError> {
        let wrong = |reason: String| RemoteError::WrongAnswer { remote: base.to_string(), reason };
        // The second call finds the provider installed, which is what it wanted.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = || {
            let builder = reqwest::Client::builder();
            // Reading the system's certificates takes a while, and redirects stay at this origin.
            let builder = match base.scheme() {
                "http" => builder.tls_certs_only([]),
                _ => builder,
            };
            builder
                .user_agent(concat!("parquedb-mount/", env!("CARGO_PKG_VERSION")))
                .connect_timeout(options.connect_timeout)
                .pool_idle_timeout(POOL_IDLE)
                .tcp_nodelay(true)
                .redirect(same_origin_only())
                .gzip(true)
        };
        let no_client = |error| wrong(format!("no client can be made: {error}"));
        let stash = Stash::default();
        let client = builder().read_timeout(options.idle_timeout).connector_layer(stash.used());
        let client = client.build().map_err(no_client)?;
        let dialer = builder().pool_max_idle_per_host(0).connector_layer(stash.filled());
        let dialer = dialer.build().map_err(no_client)?;
        let patient = builder().build().map_err(no_client)?;
        let authorization = match token {
            None => None,
            Some(token) => {
                let mut value = HeaderValue::from_str(&format!("Bearer {}", token.reveal()))
                    .map_err(|_| wrong("the token cannot stand in a header".into()))?;
                value.set_sensitive(true);
                Some(value)
            }
        };
        let quickest = Arc::new(AtomicU64::new(u64::MAX));
        let retries = options.retries;
        let (base, versions) = (base.clone(), Arc::default());
        let (ahead, username) = (Arc::default(), Arc::default());
        Ok(Self {
            client,
            patient,
            dialer,
            base,
            authorization,
            retries,
            quickest,
            ahead,
            username,
            versions,
        })
    }

    /// The remote's URL, without a closing slash.
    pub fn url(&self) -> &str {
        self.base.as_str().trim_end_matches('/')
    }

    /// The remote's origin: scheme, host and port.
    pub fn origin(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// The shortest time from a request to its answer so far, which a new connection may be part of.
    pub fn quickest(&self) -> Option<Duration> {
        let micros = self.quickest.load(Ordering::Relaxed);
        (micros < u64::MAX).then(|| Duration::from_micros(micros))
    }

    /// Makes a connection for a request to come, without sending any. Failing is no matter: the request will find out
    /// by itself.
    pub async fn dial(&self) {
        // What comes back is the connector's word that it kept the connection.
        let _ = self.dialer.get(self.base.clone()).send().await;
    }

    /// A request below the remote's URL; `path` is encoded and begins with a slash.
    pub(super) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorized(self.client.request(method, format!("{}{path}", self.url())))
    }

    /// A request below the remote's URL whose answer may take up to `limit`, because the work does.
    pub(super) fn long_request(&self, method: Method, path: &str, limit: Duration) -> RequestBuilder {
        self.authorized(self.patient.request(method, format!("{}{path}", self.url())).timeout(limit))
    }

    /// A request below the remote's URL whose answer does not end by itself.
    pub(super) fn endless_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.authorized(self.patient.request(method, format!("{}{path}", self.url())))
    }

    fn authorized(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.authorization {
            Some(value) => request.header(AUTHORIZATION, value),
            None => request,
        }
    }

    /// A request to a URL the remote gave us, which may be anywhere: it never carries the token, and never leaves
    /// the protection of TLS where the remote has it.
    pub(super) fn request_elsewhere(&self, method: Method, url: &str) -> Result<RequestBuilder, RemoteError> {
        let url =
            Url::parse(url).map_err(|error| self.wrong(format!("it gives an impossible URL: {error}")))?;
        match (self.base.scheme(), url.scheme()) {
            (_, "https") | ("http", "http") => Ok(self.patient.request(method, url)),
            (ours, theirs) => Err(self.wrong(format!("it sends us from {ours}: to {theirs}:"))),
        }
    }

    /// Sends once; any answer but success is an error.
    pub(super) async fn send(&self, request: RequestBuilder) -> Result<Response, RemoteError> {
        let sent = Instant::now();
        let response = request.send().await.map_err(|error| self.broken(&error))?;
        let micros = u64::try_from(sent.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.quickest.fetch_min(micros, Ordering::Relaxed);
        self.compare_clocks(&response);
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        Err(self.refusal(response).await)
    }

    /// Who we are to it, as far as it was asked.
    pub fn username(&self) -> Option<&str> {
        self.username.get().map(String::as_str)
    }

    pub(super) fn is_told(&self, username: &str) {
        let _ = self.username.set(username.to_owned());
    }

    fn compare_clocks(&self, response: &Response) {
        let date = response.headers().get(DATE).and_then(|date| date.to_str().ok());
        let Some(theirs) = date.and_then(|date| httpdate::parse_http_date(date).ok()) else { return };
        let theirs = jiff::Timestamp::try_from(theirs).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let ahead = theirs.as_second() - jiff::Timestamp::now().as_second();
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// The latest date that can be true, by our clock and the remote's: a later one is of a clock that is wrong.
    pub fn latest_date(&self) -> jiff::Timestamp {
        /// Dates of answers have whole seconds, and take their time.
        const TOLERANCE: i64 = 2;
        let ahead = self.ahead.load(Ordering::Relaxed).max(0).saturating_add(TOLERANCE);
        let now = jiff::Timestamp::now();
        now.saturating_add(jiff::SignedDuration::from_secs(ahead)).unwrap_or(now)
    }

    /// Does `attempt` again while it fails in passing, a few times, waiting longer each time.
    pub(super) async fn with_retries<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        attempt.retry(self.waits()).when(RemoteError::is_transient).adjust(as_asked).await
    }

    /// The same for a first request: a server that is not there at all is told at once, for it is the address
    /// that is wrong more often than the network.
    pub(super) async fn at_first_contact<T, F>(&self, attempt: impl FnMut() -> F) -> Result<T, RemoteError>
    where
        F: Future<Output = Result<T, RemoteError>>,
    {
        let in_trouble = |error: &RemoteError| matches!(error, RemoteError::Trouble { .. });
        attempt.retry(self.waits()).when(in_trouble).adjust(as_asked).await
    }

    fn waits(&self) -> ExponentialBuilder {
        ExponentialBuilder::default()
            .with_min_delay(Duration::from_millis(300))
            .with_max_delay(LONGEST_WAIT)
            .with_jitter()
            .with_max_times(self.retries)
    }

    /// Reads a JSON answer.
    pub(super) async fn json<T: DeserializeOwned>(&self, response: Response) -> Result<T, RemoteError> {
        let bytes = self.body(response, MAX_JSON_BYTES).await?;
        serde_json::from_slice(&bytes)
            .map_err(|error| self.wrong(format!("its JSON is not understood: {error}")))
    }

    /// Reads a whole body of at most `limit` bytes.
    pub(super) async fn body(&self, mut response: Response, limit: usize) -> Result<Vec<u8>, RemoteError> {
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| self.broken(&error))? {
            if body.len() + piece.len() > limit {
                return Err(self.wrong(format!("its answer is larger than {limit} bytes")));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// A request that brought no answer, or only part of one.
    pub(super) fn broken(&self, error: &reqwest::Error) -> RemoteError {
        if error.is_redirect() {
            return self.wrong("it redirects to another place; name that place with --remote instead".into());
        }
        // The innermost cause says what happened; the outer ones repeat the URL.
        let mut cause: &dyn std::error::Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let reason = if error.is_timeout() { "no answer in time".to_owned() } else { cause.to_string() };
        RemoteError::Unreachable { remote: self.url().to_owned(), reason }
    }

    pub(super) fn wrong(&self, reason: String) -> RemoteError {
        RemoteError::WrongAnswer { remote: self.url().to_owned(), reason }
    }

    async fn refusal(&self, response: Response) -> RemoteError {
        let status = response.status();
        let retry_after = retry_after(&response);
        let body = self.body(response, MAX_ERROR_BYTES).await.unwrap_or_default();
        let remote = self.url().to_owned();
        let said = error_text(&self.without_token(&body));
        let text = said.clone().unwrap_or_else(|| "no explanation".into());
        // Alone in a line: it must not leave open who has said it.
        let alone = said
            .unwrap_or_else(|| format!("{remote} answers HTTP {}, without an explanation", status.as_u16()));
        match status {
            StatusCode::UNAUTHORIZED => RemoteError::NotAuthenticated { remote, text: alone },
            StatusCode::FORBIDDEN => RemoteError::NotAllowed { text: alone },
            // Gone: what was asked for is not kept any more.
            StatusCode::NOT_FOUND | StatusCode::GONE => RemoteError::NotFound { text: alone },
            StatusCode::PRECONDITION_FAILED => {
                let moved = serde_json::from_slice::<MovedBody>(&body).ok();
                RemoteError::Moved {
                    revision: moved.map(|moved| moved.revision).filter(|r| *r != Revision::NONE),
                }
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                RemoteError::Trouble { remote, status: status.as_u16(), text, retry_after }
            }
            status if status.is_server_error() => {
                RemoteError::Trouble { remote, status: status.as_u16(), text, retry_after }
            }
            status => RemoteError::Refused { remote, status: status.as_u16(), text },
        }
    }
}

impl Remote {
    /// A server that repeats what it was sent must not make us print our token.
    fn without_token(&self, body: &[u8]) -> Vec<u8> {
        let text = String::from_utf8_lossy(body).into_owned();
        let value = self.authorization.as_ref().and_then(|value| value.to_str().ok());
        match value.and_then(|value| value.strip_prefix("Bearer ")) {
            Some(token) => text.replace(token, "…").into_bytes(),
            None => text.into_bytes(),
        }
    }
}

/// A remote that asks to be left alone for a while is; one that asks for long is not asked again here.
fn as_asked(error: &RemoteError, wait: Option<Duration>) -> Option<Duration> {
    let asked = error.retry_after().unwrap_or_default();
    wait.filter(|_| asked <= LONGEST_WAIT).map(|wait| wait.max(asked))
}

fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim();
    match text.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let until = httpdate::parse_http_date(text).ok()?;
            Some(until.duration_since(std::time::SystemTime::now()).unwrap_or_default())
        }
    }
}

/// What an error's body says, if anything, short enough for a line and without control characters.
fn error_text(body: &[u8]) -> Option<String> {
    let text = match serde_json::from_slice::<ErrorBody>(body) {
        Ok(body) => body.error,
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let line: String = text.trim().chars().take(300).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!line.is_empty()).then_some(line)
}

fn same_origin_only() -> reqwest::redirect::Policy {
    reqwest::redirect::Policy::custom(|attempt| {
        let same = attempt.previous().first().is_some_and(|first| first.origin() == attempt.url().origin());
        if same && attempt.previous().len() <= MAX_REDIRECTS {
            attempt.follow()
        } else {
            attempt.error("redirected to another place")
        }
    })
}
