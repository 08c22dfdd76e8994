//! One published revision as it is stored, and its identity.

use serde::{Deserialize, Serialize};

use crate::model::{DbPath, Revision, Sha256};
use crate::wire::PutEntry;

/// A revision object (rule 2). Never changed once created. Its hash is over the stored bytes and covers its
/// parent's, so it names the whole history up to here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RevisionRecord {
    /// The record's own format, 1.
    pub format: u64,
    /// Its number.
    pub revision: Revision,
    /// The hash of the revision before; nothing for the first.
    pub parent: Option<Sha256>,
    /// Chosen by the client before it sent the change (rule 3).
    pub commit_id: String,
    /// The account that published.
    pub author: String,
    /// When, by the server's clock.
    pub time: String,
    /// A line for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Entries added or replaced.
    pub put: Vec<PutEntry>,
    /// Paths removed.
    pub delete: Vec<DbPath>,
}
