//! Sending one file's content, streamed from its file.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::TryStreamExt;
use reqwest::header::CONTENT_LENGTH;
use reqwest::{Method, RequestBuilder};
use tokio::time::Instant;
use tokio_util::io::ReaderStream;

use super::{Remote, RemoteError};
use crate::wire::{UPLOAD_OFFSET_HEADER, UploadTarget};

/// An upload of which no byte moves for so long is given up.
const MOVE_PATIENCE: Duration = Duration::from_secs(60);
/// After the last byte, the answer may take so long.
const ANSWER_PATIENCE: Duration = Duration::from_secs(300);
/// To tell how much of an upload is there may take so long.
const OFFSET_PATIENCE: Duration = Duration::from_secs(30);
/// Bytes read from the file at once.
const PIECE: usize = 256 << 10;

fn pieces(file: File) -> ReaderStream<tokio::fs::File> {
    ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE)
}

/// What is left of a file, as a body.
pub(super) fn streamed(file: File) -> reqwest::Body {
    reqwest::Body::wrap_stream(pieces(file))
}

/// A local file to send.
#[derive(Clone)]
pub struct UploadSource {
    /// For messages.
    pub path: PathBuf,
    /// Opens it; called once an attempt.
    pub open: Arc<dyn Fn() -> std::io::Result<File> + Send + Sync>,
    /// Its size in bytes.
    pub size: u64,
}

impl Remote {
    /// Sends a file from byte `from` on, to where the remote said; what comes before was received earlier.
    /// However long it takes: it ends only when nothing moves any more.
    pub async fn upload(
        &self,
        target: &UploadTarget,
        source: &UploadSource,
        from: u64,
    ) -> Result<(), RemoteError> {
        let local = |error: std::io::Error| RemoteError::LocalFile {
            path: source.path.display().to_string(),
            reason: error.to_string(),
        };
        let mut file = (source.open)().map_err(local)?;
        file.seek(SeekFrom::Start(from)).map_err(local)?;
        let left = source.size.saturating_sub(from);
        let sent = Arc::new(AtomicU64::new(0));
        let counted = sent.clone();
        let body = pieces(file).inspect_ok(move |piece| {
            counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
        });
        let mut request = self.request_upload(Method::PUT, target)?.header(CONTENT_LENGTH, left);
        if from > 0 {
            request = request.header(UPLOAD_OFFSET_HEADER, from);
        }
        let sending = self.send(request.body(reqwest::Body::wrap_stream(body)));
        tokio::select! {
            answer = sending => answer.map(drop),
            () = stalled(&sent, left) => Err(RemoteError::Unreachable {
                remote: self.url().to_owned(),
                reason: "the upload stands still".into(),
            }),
        }
    }

    /// How many bytes of an upload that broke off are there: it can go on from there.
    pub async fn upload_offset(&self, target: &UploadTarget) -> Result<u64, RemoteError> {
        // The client for uploads has no patience of its own: nothing here takes long.
        let request = self.request_upload(Method::HEAD, target)?.timeout(OFFSET_PATIENCE);
        let response = self.send(request).await?;
        let offset = response.headers().get(UPLOAD_OFFSET_HEADER);
        let offset = offset.and_then(|value| value.to_str().ok()?.parse().ok());
        offset.ok_or_else(|| self.wrong("it does not tell how much of an upload it has".into()))
    }

    fn request_upload(&self, method: Method, target: &UploadTarget) -> Result<RequestBuilder, RemoteError> {
        let mut request = self.request_elsewhere(method, &target.url)?;
        for (name, value) in &target.headers {
            // The remote may describe the file and bring its permission, not speak for us in other ways.
            if name.eq_ignore_ascii_case("content-type") || name.to_ascii_lowercase().starts_with("x-") {
                request = request.header(name, value);
            }
        }
        Ok(request)
    }
}

/// Ends when nothing has moved for a while.
async fn stalled(sent: &AtomicU64, size: u64) {
    let (mut seen, mut since) = (0, Instant::now());
    loop {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = sent.load(Ordering::Relaxed);
        if now != seen {
            (seen, since) = (now, Instant::now());
        }
        // When all is sent, the server still has to make it durable.
        let patience = if now >= size { ANSWER_PATIENCE } else { MOVE_PATIENCE };
        if since.elapsed() > patience {
            return;
        }
    }
}
