//! `parquedb cache`: listing, checking, evicting and limiting, as people type it.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use parquedb_mount::cache::{BLOCK, Cache, CacheOptions, Scope};
use parquedb_mount::model::{ContentHash, Sha256};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::{Cli, noise, sha256, text};

/// A cache with a verified content and half of another one.
fn filled() -> (TempDir, [Vec<u8>; 2]) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path(), CacheOptions::default()).unwrap();
    let scope = Scope::new("https://origin.example", "db_7");
    let contents = [noise(1, 100_000), noise(2, 8 * BLOCK as usize)];
    for (bytes, blocks) in contents.iter().zip([13, 4]) {
        let hash = ContentHash::Sha256(Sha256::of(bytes));
        let content = cache.content(&scope, &hash, bytes.len() as u64).unwrap();
        content.called("folder/name.parquet");
        let length = bytes.len().min(blocks * BLOCK as usize);
        assert!(cache.reserve(length as u64));
        content.write(0, &bytes[..length]).unwrap();
        content.verify(&false.into()).unwrap();
    }
    (dir, contents)
}

fn flip(dir: &Path) {
    let files = walkdir::WalkDir::new(dir.join("blocks-3/shared")).into_iter().map(Result::unwrap);
    let bytes = files.into_iter().find(|entry| entry.file_name() == "bytes").unwrap();
    let file = File::options().read(true).write(true).open(bytes.path()).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 40_000).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 40_000).unwrap();
}

#[test]
fn ls_tells_what_is_here_and_whose_it_is() {
    let (dir, contents) = filled();
    let in_it = ["--cache-dir", text(dir.path())];
    let told = Cli::new().run(&[&["cache", "ls", "--json"][..], &in_it].concat()).expect(0).json();
    let list = told["contents"].as_array().unwrap();
    let of = |bytes: &[u8]| list.iter().find(|content| content["hash"] == sha256(bytes)).unwrap();
    let (whole, half) = (of(&contents[0]), of(&contents[1]));
    assert_eq!(
        (&whole["verified"], &whole["cached"], &whole["scope"]),
        (&json!(true), &json!(100_000), &json!(null))
    );
    assert_eq!((&half["complete"], &half["cached"]), (&json!(false), &json!(4 * BLOCK)));
    assert_eq!(half["scope"], json!({"origin": "https://origin.example", "databaseId": "db_7"}));
    assert_eq!((&half["name"], &told["limit"]), (&json!("folder/name.parquet"), &json!(10_000_000_000_u64)));
    let text = Cli::new().run(&[&["cache", "ls"][..], &in_it].concat()).expect(0).stdout;
    assert!(text.contains("private to https://origin.example db_7: folder/name.parquet"), "{text}");
    assert!(text.contains(&sha256(&contents[0])[..16]) && text.contains("2 contents, "), "{text}");
}

#[test]
fn verify_exits_8_when_something_had_rotted_and_0_after() {
    let (dir, _) = filled();
    let verify = || Cli::new().run(&["cache", "verify", "--cache-dir", text(dir.path())]);
    assert_eq!(verify().code, 0);
    flip(dir.path());
    let found = verify();
    assert!(found.code == 8 && found.stderr.contains("1 blocks had rotted"), "{found:?}");
    let again = verify();
    assert!(again.code == 0 && again.stdout.contains(" 16 blocks"), "the others stay: {again:?}");
}

#[test]
fn evict_takes_all_the_old_or_those_that_are_named() {
    let (dir, contents) = filled();
    let run = |args: &[&str]| {
        Cli::new().run(&[&["cache", "evict", "--cache-dir", text(dir.path())], args].concat())
    };
    assert!(run(&["--older-than", "1d"]).expect(0).stdout.starts_with("0 contents"));
    assert_eq!(run(&["ab"]).code, 2, "too short");
    assert_eq!(run(&["0123456789"]).code, 5, "not there");
    assert_eq!(run(&[]).code, 2);
    assert_eq!(run(&["--all", "--older-than", "1d"]).code, 2);
    assert_eq!(run(&["--older-than", "soon"]).code, 2);
    assert!(run(&[&sha256(&contents[0])[..12]]).expect(0).stdout.starts_with("1 contents"));
    assert!(run(&["--all"]).expect(0).stdout.starts_with("1 contents"));
    let files = walkdir::WalkDir::new(dir.path()).into_iter().map(Result::unwrap);
    assert_eq!(files.into_iter().filter(|entry| entry.file_name() == "bytes").count(), 0);
}

#[test]
fn limit_is_shown_set_and_kept_to() {
    let (dir, _) = filled();
    let run = |args: &[&str]| {
        Cli::new().run(&[&["cache", "limit", "--json", "--cache-dir", text(dir.path())], args].concat())
    };
    let shown = run(&[]).expect(0).json();
    assert!(
        shown["limit"] == 10_000_000_000_u64 && shown["bytesOnDisk"].as_u64().unwrap() > 130_000,
        "{shown}"
    );
    let set = run(&["70kB"]).expect(0).json();
    assert!(set["limit"] == 70_000 && set["bytesOnDisk"].as_u64().unwrap() <= 70_000, "{set}");
    assert_eq!(run(&[]).expect(0).json()["limit"], 70_000);
    assert_eq!(run(&["much"]).code, 2);
}

#[test]
fn without_a_cache_it_says_so() {
    let none = Cli::new().run(&["cache", "ls"]);
    assert!(none.code == 2 && none.stderr.contains("--cache-dir"), "{none:?}");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "x").unwrap();
    assert_eq!(Cli::new().run(&["cache", "ls", "--cache-dir", text(&dir.path().join("file"))]).code, 2);
}
