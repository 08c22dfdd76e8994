//! The JSON bodies of the API, both directions.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::manifest::Entry;
use crate::model::{DbPath, Revision, Sha256, Visibility};

/// Every error of `/api/*`.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong, for a person.
    pub error: String,
}

/// `GET /me`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Me {
    /// The account's id.
    pub id: String,
    /// The account's name: the owner of its databases.
    pub username: String,
    /// Where the account has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// `POST /api/sync/register`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterRequest {
    /// The database's name for people.
    pub name: String,
    /// Sets the visibility where given; a new database without one is private.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub visibility: Option<Visibility>,
    /// The slug; the slugified name where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// The owner's name, which must be the caller's.
    pub owner: String,
}

/// Its answer, 201.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RegisterResponse {
    /// The database's id, stable for its life.
    pub id: String,
    /// A word the original client stores.
    pub bucket: String,
    /// `owner/slug`.
    pub prefix: String,
}

/// One database in metadata and listings.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseDescription {
    /// The database's id.
    pub id: String,
    /// The name for people.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Its slug.
    pub slug: String,
    /// Who may see it.
    pub visibility: Visibility,
    /// A sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// A word the original client needs.
    pub bucket: String,
    /// `owner/slug`.
    pub prefix: String,
    /// How many collections: namespaces with a file below `data/`.
    pub collection_count: u64,
    /// How many rows the collections' Parquet files have.
    pub entity_count: u64,
    /// When it was registered.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
    /// The current revision; 0 while nothing is published.
    pub revision: Revision,
    /// The current manifest's entity tag.
    pub manifest_etag: String,
    /// The hash of the current revision's record, which names everything before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_hash: Option<Sha256>,
}

/// `GET /api/public`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseList {
    /// One page.
    pub databases: Vec<DatabaseDescription>,
    /// How many there are in all.
    pub total: u64,
    /// Whether more follow this page.
    pub has_more: bool,
}

/// `POST /api/sync/upload-urls`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadUrlsRequest {
    /// Which database.
    pub database_id: String,
    /// At most [`MAX_UPLOAD_URLS`](super::MAX_UPLOAD_URLS).
    pub files: Vec<FileToUpload>,
}

/// A file about to be uploaded.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileToUpload {
    /// Its path in the database.
    pub path: DbPath,
    /// Its size in bytes, to which the upload is held.
    pub size: u64,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
    /// Its SHA-256, to which the upload is held where given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Sha256>,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct UploadUrlsResponse {
    /// One for each file asked for, in the same order.
    pub urls: Vec<UploadTarget>,
}

/// Where one file goes.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UploadTarget {
    /// The path asked for.
    pub path: DbPath,
    /// Where to PUT; empty where the content is there already.
    pub url: String,
    /// Headers to send with it.
    pub headers: BTreeMap<String, String>,
    /// Until when.
    pub expires_at: String,
    /// The content is stored already: nothing to upload.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub exists: bool,
}

/// `POST /api/sync/download-urls`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadUrlsRequest {
    /// Which database.
    pub database_id: String,
    /// At most [`MAX_UPLOAD_URLS`](super::MAX_UPLOAD_URLS).
    pub paths: Vec<DbPath>,
}

/// Its answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DownloadUrlsResponse {
    /// One for each path asked for, in the same order.
    pub urls: Vec<DownloadTarget>,
}

/// Where one file comes from.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadTarget {
    /// The path asked for.
    pub path: DbPath,
    /// Where to GET it: for whoever has this URL.
    pub url: String,
    /// Headers to send with it.
    pub headers: BTreeMap<String, String>,
    /// Until when.
    pub expires_at: String,
}

/// The answer to `PUT /api/sync/manifest/:id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ManifestPublished {
    /// For the original client.
    pub success: bool,
    /// The current revision, new or not.
    pub revision: Revision,
    /// Its manifest's entity tag; none while nothing is published.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
}

/// `POST /api/sync/commit/:id`: publish one revision, in the size of the change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommitRequest {
    /// Chosen at random and saved by the client before it sends (rule 3).
    pub commit_id: String,
    /// The revision the change was planned on.
    pub base: Revision,
    /// Entries added or replaced.
    #[serde(default)]
    pub put: Vec<PutEntry>,
    /// Paths removed.
    #[serde(default)]
    pub delete: Vec<DbPath>,
    /// A line for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// An entry with its path, as a commit and a revision record list it.
#[derive(Debug, Clone, PartialEq)]
pub struct PutEntry {
    /// Where.
    pub path: DbPath,
    /// What.
    pub entry: Entry,
}

impl Serialize for PutEntry {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.entry.with_path(&self.path).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PutEntry {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (path, entry) = Entry::deserialize_with_path(deserializer)?;
        Ok(Self { path, entry })
    }
}

/// Its answer, 200; the same again for the same commit id.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CommitResponse {
    /// The revision published.
    pub revision: Revision,
    /// The manifest's entity tag at that revision.
    pub etag: String,
    /// The hash of its record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Sha256>,
}

/// `GET /api/sync/changes/:id?since=N&limit`: what was published after revision N, oldest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChangesResponse {
    /// The current revision.
    pub revision: Revision,
    /// The current manifest's entity tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<String>,
    /// The hash of the current revision's record, which names everything before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Sha256>,
    /// The entity tag of the manifest these changes apply to; none where there is no such revision. A caller that
    /// knows another one has another history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_etag: Option<String>,
    /// Who asks, where a token says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
    /// One page of revisions.
    pub changes: Vec<PublishedChange>,
    /// Whether more follow: ask again since the last one's number.
    pub has_more: bool,
}

/// One revision's change.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PublishedChange {
    /// Its number.
    pub revision: Revision,
    /// The id its publisher chose (rule 3).
    pub commit_id: String,
    /// When, by the server's clock.
    pub time: String,
    /// Entries added or replaced.
    pub put: Vec<PutEntry>,
    /// Paths removed.
    pub delete: Vec<DbPath>,
}

/// `GET /api/sync/log/:id?before=N&limit`: revisions before N, latest first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogResponse {
    /// The current revision.
    pub revision: Revision,
    /// One page.
    pub log: Vec<LogEntry>,
    /// Whether earlier ones follow: ask again before the last one's number.
    pub has_more: bool,
}

/// One revision, without what it changed.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// Its number.
    pub revision: Revision,
    /// The hash of its record, which names everything before it.
    pub hash: Sha256,
    /// The id its publisher chose.
    pub commit_id: String,
    /// The account that published it.
    pub author: String,
    /// When, by the server's clock.
    pub time: String,
    /// What its publisher said of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// How many entries it added or replaced.
    pub put: u64,
    /// How many paths it removed.
    pub delete: u64,
    /// Versions that a client without a base sent, that were not published because others had changed the same paths.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<PutEntry>,
    /// What it changed is not kept any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub expired: bool,
}

/// The body of 412: the base is not current.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct MovedBody {
    /// What happened, for a person.
    pub error: String,
    /// The current revision.
    pub revision: Revision,
}

/// The body of 422: entries that cannot be published.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RejectedBody {
    /// What is wrong, for a person.
    pub error: String,
    /// The paths concerned.
    #[serde(default)]
    pub paths: Vec<String>,
}
