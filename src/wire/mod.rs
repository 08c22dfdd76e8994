//! What travels between client and server: header names, JSON shapes, and RFC 9110's rules for ranges and
//! conditions. Shared by both sides, so they cannot disagree. Nothing here sends or serves.

mod block_proof;
mod conditional;
mod content_range;
mod content_type;
mod events;
mod messages;

pub use block_proof::{BLOCK_HASHES_HEADER, BlockProof, WANT_PROOF_HEADER};
pub use conditional::{Answer, Conditions, Representation, evaluate};
pub use content_range::ContentRange;
pub use content_type::content_type_of;
pub use events::{ChangeEvent, MAX_EVENT_PATHS, RevisionEvent, event};
pub use messages::{
    ChangesResponse, CommitRequest, CommitResponse, DatabaseDescription, DatabaseList, DownloadTarget,
    DownloadUrlsRequest, DownloadUrlsResponse, ErrorBody, FileToUpload, LogEntry, LogResponse,
    ManifestPublished, Me, MovedBody, PublishedChange, PutEntry, RegisterRequest, RegisterResponse,
    RejectedBody, UploadTarget, UploadUrlsRequest, UploadUrlsResponse,
};

/// The revision a response was made from (rule 1).
pub const REVISION_HEADER: &str = "x-parquedb-revision";
/// The permission to upload one file.
pub const UPLOAD_TOKEN_HEADER: &str = "x-upload-token";
/// How many bytes of an upload are there, or where what is sent goes on.
pub const UPLOAD_OFFSET_HEADER: &str = "upload-offset";
/// The most files one `upload-urls` request may name.
pub const MAX_UPLOAD_URLS: usize = 1000;
/// The most bytes a commit's body may have: about a million entries.
pub const MAX_COMMIT_BYTES: usize = 512 << 20;
