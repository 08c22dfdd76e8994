//! Databases on an object store: contents by hash, revisions as an append-only log, settings, accounts.
//!
//! The only importer of `object_store`. Everything that must be decided between concurrent writers is decided by
//! creating an object that must not exist yet: it works alike on a local directory and on object stores, for one
//! server process or several. The layout is specified in `ARCHITECTURE.md`.

mod accounts;
mod attach;
mod block_trees;
mod catalogue;
mod checkpoints;
mod claims;
mod commits;
mod condemned;
mod contents;
#[cfg(test)]
mod crash_tests;
mod database;
mod error;
#[cfg(test)]
mod faults;
mod history;
mod keys;
mod location;
mod log;
mod md5s;
mod merge_sent;
mod objects;
mod open_files;
mod probe;
mod publish;
mod revisions;
mod secret;
mod settings;
mod single_writer;
mod upkeep;

#[cfg(test)]
pub(crate) use faults::Faulty;

pub use accounts::{Account, random_token};
pub use attach::{Store, Writers};
pub use catalogue::Registration;
pub use contents::{ContentStream, ContentUpload, UploadError};
pub use database::{Database, Published};
pub use error::StoreError;
pub use location::{BadLocation, Missing, StoreLocation};
pub use merge_sent::{Files, Merged, knows_only, merge_sent};
pub use publish::{Change, PublishError};
pub use revisions::{Expired, RevisionRecord};
pub use secret::SigningKey;
pub use settings::DatabaseSettings;
pub use upkeep::{
    BackupReport, CollectOptions, CollectReport, Finding, FindingKind, FsckOptions, FsckReport, Keep, backup,
};
