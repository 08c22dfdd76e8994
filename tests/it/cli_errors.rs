//! How commands fail: by the exit codes scripts depend on, in one line, with nothing half done; also when the
//! remote is hostile.

mod broken_transfers;
mod exit_codes;
mod hostile_manifests;
mod origins;
mod secrets;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::harness::{Reply, Request, Responder, TempTree, answer, bytes_of, json_answer};

const ID: &str = "db_0123456789abcdef01234567";

/// A remote with one database, alice/x at revision 1, whose manifest and files are whatever a test wants.
fn fake_remote(
    manifest: impl Into<Vec<u8>>,
    file: impl Fn(&Request) -> Reply + Send + Sync + 'static,
) -> Responder {
    let manifest = manifest.into();
    Responder::start(move |request| match request.target.as_str() {
        "/me" => json_answer(200, &json!({"id": "user_1", "username": "alice"})),
        "/api/db/alice/x" => json_answer(200, &description()),
        "/db/alice/x/_meta/manifest.json" => {
            answer(200, &[("ETag", "\"m\""), ("X-ParqueDB-Revision", "1")], &manifest)
        }
        target if target.starts_with("/db/alice/x/") => file(request),
        _ => json_answer(404, &json!({"error": "Not found"})),
    })
}

fn description() -> Value {
    json!({
        "id": ID, "name": "x", "owner": "alice", "slug": "x", "visibility": "public", "bucket": "parquedb",
        "prefix": "alice/x", "collectionCount": 0, "entityCount": 0, "createdAt": "2024-01-01T00:00:00Z",
        "updatedAt": "2024-01-01T00:00:00Z", "revision": 1, "manifestEtag": "\"m\"",
    })
}

/// A manifest of alice/x with these entries by path.
fn manifest(files: &[(&str, Value)]) -> Vec<u8> {
    let files: BTreeMap<_, _> = files.iter().cloned().collect();
    let document = json!({
        "version": 1, "databaseId": ID, "name": "x", "owner": "alice", "slug": "x", "visibility": "public",
        "lastSyncedAt": "2024-01-01T00:00:00Z", "files": files,
    });
    document.to_string().into_bytes()
}

/// Nothing was pulled: no data, no manifest, nothing beside the directory, nothing staged but what is whole and checked.
#[track_caller]
fn assert_untouched(tree: &TempTree) {
    let mut left = bytes_of(tree.outer());
    let is_ours =
        |name: &str| name == "tree/.parquedb/lock" || name.starts_with("tree/.parquedb/incoming/got-");
    left.retain(|name, _| !is_ours(name));
    assert!(left.is_empty(), "{:?}", left.keys());
    let mut dirs: Vec<_> = walkdir::WalkDir::new(tree.outer())
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.unwrap().path().strip_prefix(tree.outer()).unwrap().to_owned())
        .collect();
    dirs.retain(|dir| !is_ours(dir.to_str().unwrap()));
    dirs.retain(|dir| {
        !["tree", "tree/.parquedb", "tree/.parquedb/lock", "tree/.parquedb/incoming"]
            .iter()
            .any(|own| dir.as_os_str() == *own)
    });
    assert!(dirs.is_empty(), "{dirs:?}");
}
