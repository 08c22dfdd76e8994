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
    #[serde(default)]
    pub put: Vec<PutEntry>,
    /// Paths removed.
    #[serde(default)]
    pub delete: Vec<DbPath>,
    /// Versions that were sent without a base and not published, because others had changed the same paths (rule 5).
    /// Naming them here keeps their contents.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set_aside: Vec<PutEntry>,
    /// Set where the change itself is not kept any more: what stays is a marker, so that the number is never given
    /// again and the chain can still be followed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expired: Option<Expired>,
}

/// What a marker says besides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Expired {
    /// The hash of the record that was here.
    pub record_hash: Sha256,
    /// The oldest revision kept then. Its files are in the checkpoint beside it.
    pub kept_from: Revision,
}
