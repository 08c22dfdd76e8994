//! Where each object lies. The whole layout is in this file; `ARCHITECTURE.md` shows it as a tree.

use object_store::path::Path;

use super::condemned::StoredContent;
use crate::model::{Revision, Sha256};

pub(super) const STORE: &str = "store.json";
/// What servers sign permissions with.
pub(super) const SECRET: &str = "secret.json";
/// Written to learn what time it is there.
pub(super) const CLOCK: &str = "clock.json";
/// Who writes, where a store is for one writer.
pub(super) const WRITER: &str = "writer";

/// Objects that show whether a store keeps its word.
pub(super) fn probe(name: &str) -> Path {
    Path::from_iter(["probes", name])
}

pub(super) fn accounts() -> Path {
    Path::from("accounts")
}

pub(super) fn tokens() -> Path {
    Path::from("tokens")
}

pub(super) fn account(username: &str) -> Path {
    Path::from_iter(["accounts", &format!("{username}.json")])
}

/// Tokens are found by their hash: the store never holds one.
pub(super) fn token(hash: &Sha256) -> Path {
    Path::from_iter(["tokens", &format!("{hash}.json")])
}

pub(super) fn names() -> Path {
    Path::from("names")
}

pub(super) fn name(owner: &str, slug: &str) -> Path {
    Path::from_iter(["names", owner, &format!("{slug}.json")])
}

pub(super) fn databases() -> Path {
    Path::from("databases")
}

pub(super) fn settings(database: &str) -> Path {
    Path::from_iter(["databases", database, "settings"])
}

pub(super) fn revisions(database: &str) -> Path {
    Path::from_iter(["databases", database, "revisions"])
}

pub(super) fn condemned(database: &str) -> Path {
    Path::from_iter(["databases", database, "condemned"])
}

/// Which of the two checkpoints that a revision may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckpointKind {
    /// All files.
    Whole,
    /// What changed since a whole one. It must never take the place of that, which history may begin with.
    Since,
}

impl CheckpointKind {
    /// By the revision of the whole one that it continues, if it does.
    pub(super) fn of(since: Option<Revision>) -> Self {
        if since.is_none() { Self::Whole } else { Self::Since }
    }
}

pub(super) fn checkpoint(database: &str, revision: Revision, kind: CheckpointKind) -> Path {
    let name = match kind {
        CheckpointKind::Whole => format!("{:020}", revision.0),
        CheckpointKind::Since => format!("{:020}.since", revision.0),
    };
    Path::from_iter(["databases", database, "checkpoints", &name])
}

pub(super) fn contents(database: &str) -> Path {
    Path::from_iter(["databases", database, "contents"])
}

pub(super) fn claims(database: &str) -> Path {
    Path::from_iter(["databases", database, "claims"])
}

pub(super) fn checkpoints(database: &str) -> Path {
    Path::from_iter(["databases", database, "checkpoints"])
}

/// Which content has that MD5 and size.
pub(super) fn md5(database: &str, hash: &[u8; 16], size: u64) -> Path {
    Path::from_iter(["databases", database, "md5s", &format!("{}-{size}.json", hex::encode(hash))])
}

/// Uploads under way.
pub(super) fn all_incoming(database: &str) -> Path {
    Path::from_iter(["databases", database, "incoming"])
}

pub(super) fn content(database: &str, content: &StoredContent) -> Path {
    below_hash(database, "contents", content)
}

/// The block tree of a content.
pub(super) fn block_tree(database: &str, content: &StoredContent) -> Path {
    below_hash(database, "trees", content)
}

/// Somebody means to publish this content.
pub(super) fn claim(database: &str, hash: &Sha256) -> Path {
    below_hash(database, "claims", &StoredContent { hash: *hash, generation: 0 })
}

fn below_hash(database: &str, what: &str, content: &StoredContent) -> Path {
    let name = content.to_string();
    Path::from_iter(["databases", database, what, &name[..2], &name])
}

/// An upload whose hash is not known before its last byte; moved to [`content`] when it is.
pub(super) fn incoming(database: &str, name: &str) -> Path {
    Path::from_iter(["databases", database, "incoming", name])
}
