//! A conflict as it was met, written down in `.parquedb/conflicts/WHEN/record.json`.

use serde::{Deserialize, Serialize};

use super::conflict::{Conflict, ConflictKind, Suggestion};
use crate::manifest::{Entry, PRIVATE_DIR};
use crate::model::{DbPath, Revision};
use crate::wire::PutEntry;

pub(super) const FORMAT: u64 = 1;
/// The directory of all records, below the tools' own.
pub(super) const DIR: &str = "conflicts";
/// How the names of copies end.
pub(super) const COPY: &str = ".conflict";

/// What became of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It is not decided, or what was decided is not done.
    Open,
    /// The version that was here stays.
    KeptLocal,
    /// The remote's version stays.
    KeptRemote,
    /// Another version was put in the place of both.
    Replaced,
    /// The two sides have changed since, or are the same by now.
    Over,
    /// No conflict of two sides: what somebody wrote to a file in the very moment it was replaced, and which could not be put back
    /// because something else stands there by now. A person looks at it.
    SetAside,
}

/// One conflict, as it was met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Where.
    pub path: DbPath,
    /// How.
    pub kind: ConflictKind,
    /// What it cannot stand beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<DbPath>,
    /// What the dates say.
    pub suggestion: Suggestion,
    /// What became of it.
    pub outcome: Outcome,
    /// What both sides had agreed on.
    pub base: Option<PutEntry>,
    /// What was here.
    pub local: Option<PutEntry>,
    /// What the remote had.
    pub remote: Option<PutEntry>,
}

/// The conflicts of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    pub(super) format: u64,
    /// When, which is also what its directory is called.
    pub when: String,
    /// The revision of the remote that was met.
    pub revision: Option<Revision>,
    /// The conflicts, by path.
    pub conflicts: Vec<Recorded>,
}

/// One of the three versions of a file in conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// What both sides had agreed on.
    Base,
    /// What was here.
    Local,
    /// What the remote had.
    Remote,
}

impl Version {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Base, Self::Local, Self::Remote];

    /// Its name in the names of copies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

impl Record {
    /// Where the copy of a version lies below the directory, if it was kept.
    pub fn copy(&self, path: &DbPath, version: Version) -> DbPath {
        Self::copy_of(&self.when, path, version)
    }

    pub(super) fn copy_of(when: &str, path: &DbPath, version: Version) -> DbPath {
        let suffix = format!(".{}{COPY}", version.as_str());
        let whole = format!("{PRIVATE_DIR}/{DIR}/{when}/{path}{suffix}", path = path.as_str());
        // A name that is too long with its suffix: told by its hash, beside the others.
        DbPath::parse(&whole).unwrap_or_else(|_| {
            let digest = ring::digest::digest(&ring::digest::SHA256, path.as_str().as_bytes());
            let short = format!("{PRIVATE_DIR}/{DIR}/{when}/{}{suffix}", hex::encode(&digest.as_ref()[..16]));
            DbPath::parse(&short).unwrap_or_else(|_| path.clone())
        })
    }
}

impl Recorded {
    /// One that nobody has decided yet, or whose decision is not carried out.
    pub(super) fn open(path: &DbPath, conflict: &Conflict) -> Self {
        let at = |entry: &Option<Entry>| {
            entry.as_ref().map(|entry| PutEntry { path: path.clone(), entry: entry.clone() })
        };
        Self {
            path: path.clone(),
            kind: conflict.kind,
            against: conflict.against.iter().cloned().collect(),
            suggestion: conflict.suggestion,
            outcome: Outcome::Open,
            base: at(&conflict.base),
            local: at(&conflict.local),
            remote: at(&conflict.remote),
        }
    }

    /// A version that was here, and is kept for itself.
    pub(super) fn of_local(path: &DbPath, entry: Entry, outcome: Outcome) -> Self {
        Self {
            path: path.clone(),
            kind: ConflictKind::EditEdit,
            against: Vec::new(),
            suggestion: Suggestion::Manual,
            outcome,
            base: None,
            local: Some(PutEntry { path: path.clone(), entry }),
            remote: None,
        }
    }

    /// Whether it is about the same versions.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let hash = |put: &Option<PutEntry>| put.as_ref().map(|put| (put.entry.size, put.entry.hash));
        self.path == other.path
            && self.kind == other.kind
            && hash(&self.base) == hash(&other.base)
            && hash(&self.local) == hash(&other.local)
            && hash(&self.remote) == hash(&other.remote)
    }
}
