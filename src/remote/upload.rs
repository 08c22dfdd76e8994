//! Sending one file's content, streamed from its file.

use std::path::PathBuf;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::CONTENT_LENGTH;
use tokio_util::io::ReaderStream;
use url::Url;

use super::{Remote, RemoteError};
use crate::wire::UploadTarget;

/// Bytes read from the file at once.
const PIECE: usize = 256 << 10;

/// A local file to send.
#[derive(Clone)]
pub struct UploadSource {
    /// For messages.
    pub path: PathBuf,
    /// Opens it; called once an attempt.
    pub open: Arc<dyn Fn() -> std::io::Result<std::fs::File> + Send + Sync>,
    /// Its size in bytes.
    pub size: u64,
}

impl Remote {
    /// Sends a file once, to where the remote said. A permission holds for one attempt, so a failed one needs a
    /// new target.
    pub async fn upload(&self, target: &UploadTarget, source: &UploadSource) -> Result<(), RemoteError> {
        let url = Url::parse(&target.url).map_err(|error| self.wrong(format!("its upload URL: {error}")))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(self.wrong("its upload URL is not over HTTP".into()));
        }
        let local = |error: std::io::Error| RemoteError::LocalFile {
            path: source.path.display().to_string(),
            reason: error.to_string(),
        };
        let file = (source.open)().map_err(local)?;
        let body = ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE);
        let mut request = self.request_elsewhere(Method::PUT, url).header(CONTENT_LENGTH, source.size);
        for (name, value) in &target.headers {
            request = request.header(name, value);
        }
        self.send(request.body(reqwest::Body::wrap_stream(body))).await.map(drop)
    }
}
