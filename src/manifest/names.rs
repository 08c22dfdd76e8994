//! Names that never travel.

use crate::disk::STAGED_SUFFIX;
use crate::model::DbPath;

/// Where a database's manifest lies, below its root.
pub const MANIFEST_PATH: &str = "_meta/manifest.json";
/// The tools' own directory below a database's root; never uploaded, refused in manifests (rule 11).
pub const PRIVATE_DIR: &str = ".parquedb";

/// Whether a manifest that lists `path` is refused: the path is the tools' own.
pub fn is_reserved(path: &DbPath) -> bool {
    let text = path.as_str();
    text == MANIFEST_PATH
        || text == "_meta/locks"
        || text.starts_with("_meta/locks/")
        || path.components().next() == Some(PRIVATE_DIR)
}

/// Whether push and pull leave a path alone, on both sides: it is the tools' own, a conflict copy, or has a
/// protected name in it. A database that lists such a file keeps its entry as it is; a pull does not write it,
/// for a `.git` that came with a database would be obeyed by the next `git status` (rule 11).
pub fn stays_put(path: &DbPath) -> bool {
    is_reserved(path) || path.components().any(is_protected) || path.name().ends_with(".conflict")
}

/// Whether a name met anywhere in a directory is left out of scans: other tools' droppings, and what is likely
/// a secret.
pub fn is_protected(component: &str) -> bool {
    const WHOLE: [&str; 9] = [
        PRIVATE_DIR,
        ".git",
        "node_modules",
        ".ds_store",
        ".netrc",
        ".npmrc",
        ".pypirc",
        "id_rsa",
        "id_ed25519",
    ];
    const ENDS: [&str; 4] = [STAGED_SUFFIX, ".token", ".pem", ".key"];
    // Asked of every name of every path: without a copy of it.
    let bytes = component.as_bytes();
    let is =
        |part: Option<&[u8]>, text: &str| part.is_some_and(|part| part.eq_ignore_ascii_case(text.as_bytes()));
    let end = |length| bytes.len().checked_sub(length).and_then(|at| bytes.get(at..));
    WHOLE.iter().any(|name| is(Some(bytes), name))
        || is(bytes.get(..4), ".env")
        || ENDS.iter().any(|text| is(end(text.len()), text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_and_droppings_are_protected_data_is_not() {
        for name in [
            ".env",
            ".env.local",
            "owner.token",
            "server.key",
            "cert.pem",
            ".git",
            "node_modules",
            ".DS_Store",
        ] {
            assert!(is_protected(name), "{name}");
        }
        for name in ["data.parquet", "environment", "keys.parquet", "token", "git", ".hidden"] {
            assert!(!is_protected(name), "{name}");
        }
    }

    #[test]
    fn the_tools_own_paths_are_reserved() {
        let reserved = |text: &str| is_reserved(&DbPath::parse(text).unwrap());
        assert!(
            reserved("_meta/manifest.json") && reserved("_meta/locks/x") && reserved(".parquedb/sync.json")
        );
        assert!(!reserved("_meta/schema.json") && !reserved("data/.parquedb.txt"));
    }
}
