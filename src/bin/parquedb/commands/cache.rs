//! `parquedb cache`.

use std::io;
use std::path::Path;
use std::sync::atomic::AtomicBool;

use jiff::Timestamp;
use parquedb_mount::cache::{Cache, CacheOptions, ContentState, StoredContent, Which};
use parquedb_mount::model::{ContentHash, ExitCode};
use serde_json::json;

use super::cache_dir;
use crate::args::{CacheAction, CacheArgs, EvictArgs};
use crate::common::failure::Failure;
use crate::common::output::Style;
use crate::common::size::Size;

/// Digits of a hash that people see, and the fewest they may type.
const DIGITS: (usize, usize) = (16, 6);

pub fn run(args: &CacheArgs, style: Style) -> Result<ExitCode, Failure> {
    let dir = cache_dir(args.cache_dir.as_ref())?;
    let sets = matches!(args.action, CacheAction::Limit { size: Some(_) });
    if !dir.exists() && !sets {
        return Err(Failure::usage(format!(
            "there is no cache at '{}': name it with --cache-dir, or mount something first",
            dir.display()
        )));
    }
    let cache = Cache::open(&dir, CacheOptions::default())?;
    match &args.action {
        CacheAction::Ls => ls(&cache, style),
        CacheAction::Verify => verify(&cache, style),
        CacheAction::Evict(which) => evict(&cache, which, style),
        CacheAction::Limit { size } => limit(&cache, *size, style),
    }
    .map_err(|failure| match failure {
        Stopped::Disk(error) => told(&dir, &error),
        Stopped::Failure(failure) => failure,
    })
}

/// Why a command ended early.
enum Stopped {
    Disk(io::Error),
    Failure(Failure),
}

impl From<io::Error> for Stopped {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

fn told(dir: &Path, error: &io::Error) -> Failure {
    let message =
        format!("the cache at '{}' cannot be used: {error}; check the disk and its owner", dir.display());
    Failure::new(ExitCode::Failure, message)
}

fn ls(cache: &Cache, style: Style) -> Result<ExitCode, Stopped> {
    let mut contents = cache.list()?;
    contents.sort_by_key(|content| std::cmp::Reverse(content.last_used));
    let (on_disk, limit) = (cache.measure(), cache.limit());
    for content in &contents {
        style.line(format!(
            "{}  {:>9} of {:>9}  {:8}  {}  {}",
            &content.hash.to_string()[..DIGITS.0],
            Size(content.cached).to_string(),
            Size(content.size).to_string(),
            state(content),
            last_used(content),
            place(content),
        ));
    }
    let count = contents.len();
    let noun = if count == 1 { "content" } else { "contents" };
    style.line(format!("{count} {noun}, {} on disk; the limit is {}.", Size(on_disk), Size(limit)));
    let contents: Vec<_> = contents.iter().map(as_json).collect();
    style.json(&json!({"contents": contents, "bytesOnDisk": on_disk, "limit": limit}));
    Ok(ExitCode::Done)
}

fn state(content: &StoredContent) -> String {
    let state = match content.state {
        ContentState::Partial => "partial",
        ContentState::Complete => "complete",
        ContentState::Verified => "verified",
    };
    if content.pinned { format!("{state}, pinned") } else { state.to_owned() }
}

fn last_used(content: &StoredContent) -> String {
    let milliseconds = i64::try_from(content.last_used).unwrap_or(i64::MAX);
    let time = Timestamp::from_millisecond(milliseconds).unwrap_or_default();
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn place(content: &StoredContent) -> String {
    let area = match &content.scope {
        None => "shared".to_owned(),
        Some(None) => "private".to_owned(),
        Some(Some(scope)) => format!("private to {} {}", scope.origin, scope.database_id),
    };
    match &content.name {
        Some(name) => format!("{area}: {name}"),
        None => area,
    }
}

fn as_json(content: &StoredContent) -> serde_json::Value {
    let scope = content.scope.as_ref().map(|scope| {
        let scope = scope.as_ref();
        json!({
            "origin": scope.map(|scope| &scope.origin),
            "databaseId": scope.map(|scope| &scope.database_id),
        })
    });
    json!({
        "hash": content.hash.to_string(),
        "hashAlgorithm": content.hash.algorithm(),
        "size": content.size,
        "cached": content.cached,
        "bytesOnDisk": content.on_disk,
        "complete": content.state != ContentState::Partial,
        "verified": content.state == ContentState::Verified,
        "pinned": content.pinned,
        "lastUsed": last_used(content),
        "scope": scope,
        "name": content.name,
    })
}

fn verify(cache: &Cache, style: Style) -> Result<ExitCode, Stopped> {
    let report = cache.check(&AtomicBool::new(false))?;
    style.line(format!("{} contents read, {} blocks.", report.contents, report.blocks));
    let found = json!({
        "contents": report.contents,
        "blocks": report.blocks,
        "rottenBlocks": report.rotten_blocks,
        "droppedContents": report.dropped_contents,
    });
    if report.rotten_blocks + report.dropped_contents == 0 {
        style.json(&found);
        return Ok(ExitCode::Done);
    }
    let message = format!(
        "{} blocks had rotted and {} contents were not what they should be; they were dropped and will be fetched \
        again: check the disk",
        report.rotten_blocks, report.dropped_contents
    );
    Err(Stopped::Failure(Failure::new(ExitCode::Integrity, message)))
}

fn evict(cache: &Cache, args: &EvictArgs, style: Style) -> Result<ExitCode, Stopped> {
    let which = match (args.all, args.older_than) {
        (true, _) => Which::All,
        (_, Some(age)) => Which::OlderThan(age),
        _ => Which::Hashes(hashes(cache, &args.hashes)?),
    };
    let removed = cache.remove(&which)?;
    style.line(format!("{} contents removed, {} freed.", removed.contents, Size(removed.bytes)));
    if removed.left > 0 {
        style.line(format!("{} are open or pinned and stay.", removed.left));
    }
    style.json(&json!({"removed": removed.contents, "bytesFreed": removed.bytes, "left": removed.left}));
    Ok(if removed.left > 0 { ExitCode::Partly } else { ExitCode::Done })
}

/// The contents people mean by the beginnings of their hashes.
fn hashes(cache: &Cache, beginnings: &[String]) -> Result<Vec<ContentHash>, Stopped> {
    let contents = cache.list()?;
    let mut chosen = Vec::new();
    for beginning in beginnings {
        let failed = |code, what: &str| Stopped::Failure(Failure::new(code, format!("'{beginning}' {what}")));
        if beginning.len() < DIGITS.1 {
            return Err(failed(ExitCode::Usage, "is too short: name at least 6 digits of the hash"));
        }
        let wanted = beginning.to_ascii_lowercase();
        let mut found: Vec<_> = contents
            .iter()
            .map(|content| content.hash)
            .filter(|hash| hash.to_string().starts_with(&wanted))
            .collect();
        found.sort_unstable();
        found.dedup();
        match found[..] {
            [one] => chosen.push(one),
            [] => return Err(failed(ExitCode::NotFound, "is not in the cache: see parquedb cache ls")),
            _ => return Err(failed(ExitCode::Usage, "begins several hashes: name more digits")),
        }
    }
    Ok(chosen)
}

fn limit(cache: &Cache, size: Option<Size>, style: Style) -> Result<ExitCode, Stopped> {
    let on_disk = match size {
        Some(size) => {
            cache.set_limit(size.0)?;
            cache.shrink_to_limit()
        }
        None => cache.measure(),
    };
    let limit = cache.limit();
    style.line(format!("The limit is {}; {} are on disk.", Size(limit), Size(on_disk)));
    style.json(&json!({"limit": limit, "bytesOnDisk": on_disk}));
    Ok(ExitCode::Done)
}
