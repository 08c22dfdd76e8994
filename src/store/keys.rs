//! Where each object lies. The whole layout is in this file; `ARCHITECTURE.md` shows it as a tree.

use object_store::path::Path;

use crate::model::Sha256;

pub(super) const STORE: &str = "store.json";

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

pub(super) fn settings(database: &str) -> Path {
    Path::from_iter(["databases", database, "settings"])
}

pub(super) fn revisions(database: &str) -> Path {
    Path::from_iter(["databases", database, "revisions"])
}

pub(super) fn whole_manifest(database: &str, revision: u64) -> Path {
    Path::from_iter(["databases", database, "manifests", &format!("{revision:020}.json")])
}

pub(super) fn content(database: &str, hash: &Sha256) -> Path {
    let digits = hash.to_string();
    Path::from_iter(["databases", database, "contents", &digits[..2], &digits])
}

/// The block tree of a content.
pub(super) fn block_tree(database: &str, hash: &Sha256) -> Path {
    let digits = hash.to_string();
    Path::from_iter(["databases", database, "trees", &digits[..2], &digits])
}

/// An upload whose hash is not known before its last byte; moved to [`content`] when it is.
pub(super) fn incoming(database: &str, name: &str) -> Path {
    Path::from_iter(["databases", database, "incoming", name])
}
