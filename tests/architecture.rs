//! The house's floors: a folder of `src/` imports only from floors below its own, never sideways and never in a
//! circle. `src/ARCHITECTURE.md` draws the table; this checks it.

// A failed expectation of the test itself is a failed test.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Folder and floor. Two folders on one floor do not know each other.
const FLOORS: [(&str, u32); 27] = [
    ("disk", 0),
    ("metrics", 0),
    ("model", 10),
    ("manifest", 20),
    ("rows", 20),
    ("config", 20),
    ("access", 20),
    ("wire", 21),
    ("store", 22),
    ("remote", 30),
    ("cache", 30),
    ("state", 30),
    ("fetch", 40),
    ("overlay", 40),
    ("content", 50),
    ("namespace", 60),
    ("tree", 60),
    ("vfs", 70),
    ("sync", 70),
    ("plain", 70),
    ("dotdir", 75),
    ("fuse", 80),
    ("server", 80),
    ("control", 80),
    ("daemon", 90),
    ("bin", 100),
    ("lib.rs", 100),
];

/// Crates that stay in their rooms.
const ROOMS: [(&str, &[&str]); 9] = [
    ("fuser", &["fuse"]),
    ("axum", &["server"]),
    ("object_store", &["store"]),
    ("daemonize", &["daemon"]),
    ("sd_notify", &["daemon"]),
    ("clap", &["bin"]),
    ("indicatif", &["bin"]),
    ("rusqlite", &["state"]),
    ("postcard", &["state", "tree"]),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Each source with its folder.
fn by_folder() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    sources(&root, &mut found);
    assert!(found.len() > 50, "the sources were found");
    let folder =
        |path: &Path| path.strip_prefix(&root).unwrap().components().next().unwrap().as_os_str().to_owned();
    found
        .into_iter()
        .map(|path| (folder(&path).into_string().unwrap(), path.clone(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The names that stand behind `marker`, comments and strings not looked into.
fn names_after(text: &str, marker: &str) -> Vec<String> {
    let code =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let is_name = |c: &char| c.is_ascii_alphanumeric() || *c == '_';
    code.match_indices(marker)
        .filter(|(at, _)| !code[..*at].ends_with(|c: char| is_name(&c) || c == ':'))
        .map(|(at, _)| code[at + marker.len()..].chars().take_while(is_name).collect())
        .filter(|name: &String| !name.is_empty())
        .collect()
}

#[test]
fn folders_import_only_from_floors_below() {
    let floors: BTreeMap<&str, u32> = FLOORS.into_iter().collect();
    let mut wrong = Vec::new();
    let mut seen = 0;
    for (folder, path, text) in by_folder() {
        let floor = *floors.get(folder.as_str()).unwrap_or_else(|| panic!("no floor for src/{folder}"));
        let marker = if folder == "bin" { "parquedb_mount::" } else { "crate::" };
        for name in names_after(&text, marker) {
            let Some(other) = floors.get(name.as_str()) else {
                assert!(
                    folder == "bin" || !name.chars().next().unwrap().is_lowercase(),
                    "{path:?}: crate::{name}"
                );
                continue;
            };
            seen += 1;
            if name != folder && *other >= floor {
                wrong.push(format!(
                    "{}: {folder} (floor {floor}) imports {name} (floor {other})",
                    path.display()
                ));
            }
        }
        assert!(
            !text.contains("use crate::{"),
            "{path:?}: import room by room, so that this test can read it"
        );
    }
    assert!(seen > 100, "imports were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn crates_stay_in_their_rooms() {
    for (folder, path, text) in by_folder() {
        for (krate, rooms) in ROOMS {
            let used = !names_after(&text, &format!("{krate}::")).is_empty();
            assert!(
                !used || rooms.contains(&folder.as_str()),
                "{}: {krate} belongs to {rooms:?}",
                path.display()
            );
        }
    }
}

#[test]
fn every_file_says_what_it_is_and_holds_one_idea() {
    for (_, path, text) in by_folder() {
        let first = text.lines().next().unwrap_or_default();
        assert!(first.starts_with("//!") || first.starts_with("#![doc"), "{} has no header", path.display());
        let code = text.split("#[cfg(test)]").next().unwrap_or_default().lines().count();
        assert!(code <= 500, "{} has {code} lines: it may hold two ideas", path.display());
    }
}
