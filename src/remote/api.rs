//! The routes by name.

use std::fs::File;
use std::io::{Seek, SeekFrom};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, ETAG, IF_NONE_MATCH};
use reqwest::{Method, RequestBuilder, Response, StatusCode};

use super::upload::streamed;
use super::{Remote, RemoteError};
use crate::manifest::{MANIFEST_PATH, Manifest};
use crate::model::{DbRef, Revision};
use crate::wire::{
    ChangesResponse, CommitRequest, CommitResponse, DatabaseDescription, DatabaseList, LogResponse, Me,
    REVISION_HEADER, RegisterRequest, RegisterResponse, UploadUrlsRequest, UploadUrlsResponse,
};

/// The most bytes a manifest may have: several million entries.
const MAX_MANIFEST_BYTES: usize = 2 << 30;

/// A commit may take the server a while...
const COMMIT_PATIENCE: Duration = Duration::from_secs(60);
/// ...and so much longer for each file.
const COMMIT_PATIENCE_PER_FILE: Duration = Duration::from_millis(2);

/// A request that lies in a file.
#[derive(Clone)]
pub struct RequestSource {
    /// For messages.
    pub path: PathBuf,
    /// Opens the file, and says at which byte the request begins and how many it has; called once an attempt.
    pub open: Arc<dyn Fn() -> std::io::Result<(File, u64, u64)> + Send + Sync>,
    /// How many files it is about: so much longer it may take.
    pub files: usize,
}

/// A manifest as it came, not read yet.
#[derive(Debug, Clone)]
pub struct ManifestDocument {
    /// The document.
    pub body: Vec<u8>,
    /// Its entity tag, with quotes; empty where the remote gave none.
    pub etag: String,
    /// Its number; a static host knows none.
    pub revision: Option<Revision>,
}

impl ManifestDocument {
    /// Reads and checks it.
    pub fn read(self) -> Result<FetchedManifest, RemoteError> {
        let Self { body, etag, revision } = self;
        Ok(FetchedManifest { manifest: Manifest::from_json(&body)?, etag, revision })
    }
}

/// A manifest with the revision it is.
#[derive(Debug, Clone)]
pub struct FetchedManifest {
    /// The document, checked.
    pub manifest: Manifest,
    /// Its entity tag, with quotes; empty where the remote gave none.
    pub etag: String,
    /// Its number; a static host knows none.
    pub revision: Option<Revision>,
}

impl Remote {
    /// Who the token speaks for.
    pub async fn me(&self) -> Result<Me, RemoteError> {
        self.at_first_contact(|| async {
            let response = self.send(self.request(Method::GET, "/me")).await?;
            let me: Me = self.json(response).await?;
            self.is_told(&me.username);
            Ok(me)
        })
        .await
    }

    /// A database's description.
    pub async fn describe(&self, database: &DbRef) -> Result<DatabaseDescription, RemoteError> {
        let path = format!("/api/db/{}/{}", database.owner(), database.slug());
        self.at_first_contact(|| async {
            let response = self.send(self.request(Method::GET, &path)).await?;
            self.json(response).await
        })
        .await
    }

    /// One page of the public databases.
    pub async fn list_public(&self, limit: usize, offset: usize) -> Result<DatabaseList, RemoteError> {
        self.list("/api/public", limit, offset).await
    }

    /// One page of the caller's own databases.
    pub async fn list_own(&self, limit: usize, offset: usize) -> Result<DatabaseList, RemoteError> {
        self.list("/api/sync/databases", limit, offset).await
    }

    async fn list(&self, path: &str, limit: usize, offset: usize) -> Result<DatabaseList, RemoteError> {
        self.at_first_contact(|| async {
            let request = self.request(Method::GET, path).query(&[("limit", limit), ("offset", offset)]);
            self.json(self.send(request).await?).await
        })
        .await
    }

    /// The current manifest, as any host of the seed's layout serves it: one request.
    pub async fn manifest(&self, database: &DbRef) -> Result<FetchedManifest, RemoteError> {
        self.manifest_document(database).await?.read()
    }

    /// The same, not read yet.
    pub async fn manifest_document(&self, database: &DbRef) -> Result<ManifestDocument, RemoteError> {
        let fetched = self.manifest_unless(database, "").await?;
        fetched.ok_or_else(|| self.wrong("HTTP 304 where nothing is known".into()))
    }

    /// The current manifest, unless it is the one with this entity tag: one request.
    pub async fn manifest_unless(
        &self,
        database: &DbRef,
        known: &str,
    ) -> Result<Option<ManifestDocument>, RemoteError> {
        self.document(database, None, known).await
    }

    /// The manifest of a revision, or the current one, unless it is the one with this entity tag.
    async fn document(
        &self,
        database: &DbRef,
        revision: Option<Revision>,
        known: &str,
    ) -> Result<Option<ManifestDocument>, RemoteError> {
        let path = format!("/db/{}/{}/{MANIFEST_PATH}", database.owner(), database.slug());
        self.with_retries(|| async {
            let mut request = self.request(Method::GET, &path);
            if let Some(revision) = revision {
                request = request.query(&[("revision", revision.0)]);
            }
            if !known.is_empty() {
                request = request.header(IF_NONE_MATCH, known);
            }
            let response = self.send(request).await?;
            if response.status() == StatusCode::NOT_MODIFIED && !known.is_empty() {
                return Ok(None);
            }
            self.read_document(response).await.map(Some)
        })
        .await
    }

    async fn read_document(&self, response: Response) -> Result<ManifestDocument, RemoteError> {
        let text = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let etag = text(ETAG.as_str()).unwrap_or_default().to_owned();
        let revision = text(REVISION_HEADER).and_then(|text| text.parse().ok()).map(Revision);
        let announced = response.content_length();
        let body = self.body(response, MAX_MANIFEST_BYTES).await?;
        if announced.is_some_and(|announced| announced != body.len() as u64) {
            return Err(self.wrong("the manifest is cut short".into()));
        }
        Ok(ManifestDocument { body, etag, revision })
    }

    /// The manifest of an earlier revision, or of the current one by its number.
    pub async fn manifest_at(
        &self,
        database: &DbRef,
        revision: Revision,
    ) -> Result<FetchedManifest, RemoteError> {
        let document = self.manifest_document_at(database, revision, "").await?;
        let document = document.ok_or_else(|| self.wrong("HTTP 304 where nothing is known".into()))?;
        document.read()
    }

    /// The same, not read yet, unless it is the one with this entity tag.
    pub async fn manifest_document_at(
        &self,
        database: &DbRef,
        revision: Revision,
        known: &str,
    ) -> Result<Option<ManifestDocument>, RemoteError> {
        let document = self.document(database, Some(revision), known).await?;
        let Some(document) = document else { return Ok(None) };
        if document.revision != Some(revision) {
            return Err(self.wrong(format!("it does not tell revision {revision} from others")));
        }
        Ok(Some(document))
    }

    /// One page of a database's revisions before `before`, latest first.
    pub async fn log(
        &self,
        id: &str,
        before: Option<Revision>,
        limit: u64,
    ) -> Result<LogResponse, RemoteError> {
        let path = format!("/api/sync/log/{}", crate::model::encode_segment(id));
        self.with_retries(|| async {
            let mut request = self.request(Method::GET, &path).query(&[("limit", limit)]);
            if let Some(before) = before {
                request = request.query(&[("before", before.0)]);
            }
            self.json(self.send(request).await?).await
        })
        .await
    }

    /// Registers a database, or finds it.
    pub async fn register(&self, request: &RegisterRequest) -> Result<RegisterResponse, RemoteError> {
        self.with_retries(|| async {
            let response = self.send(self.request(Method::POST, "/api/sync/register").json(request)).await?;
            self.json(response).await
        })
        .await
    }

    /// Asks where to put files, and which of them need not be sent. At most
    /// [`MAX_UPLOAD_URLS`](crate::wire::MAX_UPLOAD_URLS) at a time.
    pub async fn upload_urls(&self, request: &UploadUrlsRequest) -> Result<UploadUrlsResponse, RemoteError> {
        let answer: UploadUrlsResponse = self
            .with_retries(|| async {
                let request = self.request(Method::POST, "/api/sync/upload-urls").json(request);
                self.json(self.send(request).await?).await
            })
            .await?;
        let asked = request.files.iter().map(|file| &file.path);
        if !asked.eq(answer.urls.iter().map(|target| &target.path)) {
            return Err(self.wrong("it gives upload URLs for other files".into()));
        }
        Ok(answer)
    }

    /// One page of what was published after `since`.
    pub async fn changes(&self, id: &str, since: Revision) -> Result<ChangesResponse, RemoteError> {
        let path = format!("/api/sync/changes/{}", crate::model::encode_segment(id));
        self.with_retries(|| async {
            let request = self.request(Method::GET, &path).query(&[("since", since.0)]);
            let answer: ChangesResponse = self.json(self.send(request).await?).await?;
            if let Some(username) = &answer.caller {
                self.is_told(username);
            }
            Ok(answer)
        })
        .await
    }

    /// Publishes a revision. Sending the same commit again is safe (rule 3), so it is repeated after a lost
    /// answer.
    pub async fn commit(&self, id: &str, request: &CommitRequest) -> Result<CommitResponse, RemoteError> {
        let files = request.put.len() + request.delete.len();
        self.send_commit(id, files, |sent| Ok(sent.json(request))).await
    }

    /// The same with a [`CommitRequest`] that lies in a file.
    pub async fn commit_from(&self, id: &str, source: &RequestSource) -> Result<CommitResponse, RemoteError> {
        let local = |error: std::io::Error| RemoteError::LocalFile {
            path: source.path.display().to_string(),
            reason: error.to_string(),
        };
        self.send_commit(id, source.files, |sent| {
            let (mut file, start, size) = (source.open)().map_err(local)?;
            file.seek(SeekFrom::Start(start)).map_err(local)?;
            let sent = sent.header(CONTENT_TYPE, "application/json").header(CONTENT_LENGTH, size);
            Ok(sent.body(streamed(file)))
        })
        .await
    }

    async fn send_commit(
        &self,
        id: &str,
        files: usize,
        with_body: impl Fn(RequestBuilder) -> Result<RequestBuilder, RemoteError>,
    ) -> Result<CommitResponse, RemoteError> {
        let path = format!("/api/sync/commit/{}", crate::model::encode_segment(id));
        let files = u32::try_from(files).unwrap_or(u32::MAX);
        let patience = COMMIT_PATIENCE + COMMIT_PATIENCE_PER_FILE.saturating_mul(files);
        self.with_retries(|| async {
            let sent = with_body(self.long_request(Method::POST, &path, patience))?;
            self.json(self.send(sent).await?).await
        })
        .await
    }
}
