//! Databases on an object store: contents by hash, revisions as an append-only log, settings, accounts.
//!
//! The only importer of `object_store`. Everything that must be decided between concurrent writers is decided by
//! creating an object that must not exist yet: it works alike on a local directory and on object stores, for one
//! server process or several. The layout is specified in `ARCHITECTURE.md`.

mod accounts;
mod attach;
mod block_trees;
mod catalogue;
mod contents;
mod database;
mod error;
mod history;
mod keys;
mod log;
mod publish;
mod revisions;
mod settings;
mod whole_manifest;

pub use accounts::{Account, random_token};
pub use attach::Store;
pub use catalogue::Registration;
pub use contents::{ContentStream, ContentUpload, UploadError};
pub use database::{Database, Published};
pub use error::StoreError;
pub use publish::{Change, PublishError};
pub use revisions::RevisionRecord;
pub use settings::DatabaseSettings;
