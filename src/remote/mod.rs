//! The far side: ParqueDB's HTTP API as a client. Every answer is checked against what was asked before anyone
//! sees it. What cannot be reached, or answers with an error of its own, is never taken for "absent" (rule 15).

mod api;
mod content;
mod dial;
mod error;
mod events;
mod http;
mod news;
mod upload;
mod versions;

pub use api::{FetchedManifest, ManifestDocument, RequestSource};
pub use content::{ContentBody, ContentKey};
pub use error::RemoteError;
pub use events::{Events, RemoteEvent};
pub use http::{Remote, RemoteOptions};
pub use news::{Known, NewChanges, News};
pub use upload::UploadSource;
