//! `parquedb resolve`.

use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use parquedb_mount::control::{Request, SyncPhase};
use parquedb_mount::model::{DbPath, ExitCode};
use parquedb_mount::sync::{Choice, Outcome, Record, Recorded, SyncError, Version, conflicts, resolve};
use serde_json::json;

use super::mounted::InMount;
use super::{ctl, status};
use crate::args::ResolveArgs;
use crate::common::failure::Failure;
use crate::common::output::Style;

pub fn run(args: &ResolveArgs, style: Style) -> Result<ExitCode, Failure> {
    let (choice, told) = match (&args.file, args.local) {
        (Some(file), _) => (Choice::File(file), "file"),
        (None, true) => (Choice::Local, "local"),
        (None, false) => (Choice::Remote, "remote"),
    };
    // A path that leads into a mount is as good as one from its top.
    let typed = args.directory.join(&args.path);
    if let Some(mount) = InMount::around(&typed).or_else(|| InMount::around(&args.directory)) {
        return in_mount(args, &mount.mountpoint, choice, told, style);
    }
    let path = &db_path(&args.path)?;
    resolve(&args.directory, path, choice)?;
    style.line(match choice {
        Choice::Local => format!("{path}: yours is kept. Sync, or push, to publish it."),
        Choice::Remote => format!("{path}: theirs is here; what was here is kept: parquedb conflicts"),
        Choice::File(_) => format!("{path}: replaced; what was here is kept. Sync, or push, to publish it."),
    });
    style.json(&json!({ "path": path, "resolved": told }));
    Ok(ExitCode::Done)
}

fn db_path(path: &Path) -> Result<DbPath, Failure> {
    let parsed = DbPath::parse(&path.to_string_lossy());
    parsed.map_err(|error| Failure::usage(format!("'{}': {error}", path.display())))
}

/// The conflict in a mount that somebody means: by the path that `parquedb conflicts` tells, or by that from where he is.
fn meant(args: &ResolveArgs, mountpoint: &Path, state: &Path) -> Result<(Record, DbPath), Failure> {
    let mut called = Vec::new();
    let is_within = InMount::around(&args.directory).is_some_and(|mount| mount.mountpoint == mountpoint);
    if is_within && args.path.is_relative() {
        called.push(db_path(&args.path)?);
    }
    if let Some(from_here) = InMount::around(&args.directory.join(&args.path))
        && from_here.mountpoint == mountpoint
    {
        called.push(db_path(&from_here.inside)?);
    }
    called.dedup();
    let records = conflicts(state)?;
    let record_of = |path: &DbPath| {
        let is_it = |one: &Recorded| one.path == *path && one.outcome == Outcome::Open;
        records.iter().rev().find(|record| record.conflicts.iter().any(is_it))
    };
    let mut open = called.iter().filter_map(|path| Some((record_of(path)?.clone(), path.clone())));
    match (open.next(), open.next()) {
        (Some(one), None) => Ok(one),
        (Some((_, one)), Some((_, other))) => Err(Failure::usage(format!(
            "both '{one}' and '{other}' are in conflict, and either may be meant: say it from {}",
            mountpoint.display()
        ))),
        (None, _) => match called.pop() {
            Some(path) => Err(SyncError::NoConflict { path }.into()),
            None => Err(Failure::usage(format!("'{}' is not in the mount", args.path.display()))),
        },
    }
}

/// A mount's daemon does it, and publishes what follows from it.
fn in_mount(
    args: &ResolveArgs,
    mountpoint: &Path,
    choice: Choice<'_>,
    told: &str,
    style: Style,
) -> Result<ExitCode, Failure> {
    let state = &status::state_of(mountpoint)?;
    let (record, path) = &meant(args, mountpoint, state)?;
    if let Choice::File(file) = choice {
        let (_, standing) = ctl::reach(state)?.ask(Request::Status).map_err(ctl::failure)?;
        if standing.state == SyncPhase::Paused || standing.gathering {
            let text = "syncs are paused, or changes are gathered: 'parquedb ctl resume', or commit, lets them go on";
            return Err(Failure::new(ExitCode::NeedsDecision, text));
        }
        let kept = state.join(record.copy(path, Version::Local).as_str());
        let replaced = replace(&mountpoint.join(path.as_str()), file, &kept);
        replaced.map_err(|error| Failure::new(ExitCode::Failure, format!("{path}: {error}")))?;
    }
    let local = !matches!(choice, Choice::Remote);
    let resolving = Request::Resolve { path: path.clone(), local };
    let (_, standing) = ctl::reach(state)?.ask(resolving).map_err(ctl::failure)?;
    style.line(match choice {
        Choice::Local => format!("{path}: yours is published; theirs is kept: parquedb conflicts"),
        Choice::Remote => format!("{path}: theirs is here; what was here is kept: parquedb conflicts"),
        Choice::File(_) => format!("{path}: replaced and published; theirs is kept: parquedb conflicts"),
    });
    style.json(&json!({ "path": path, "resolved": told, "status": standing }));
    Ok(ExitCode::Done)
}

/// Puts a file in the place of what is here, which is kept.
fn replace(here: &Path, file: &Path, kept: &Path) -> io::Result<()> {
    let found = here.metadata().ok();
    let is_it = |found: &Metadata, file: Metadata| (found.dev(), found.ino()) == (file.dev(), file.ino());
    if let Some(found) = &found {
        if is_it(found, file.metadata()?) {
            // It was edited in its place.
            return Ok(());
        }
        if found.is_file() && !kept.exists() {
            put(here, kept)?;
        }
    }
    put(file, here)
}

/// Copies a file to a place, where it is as a whole or not at all.
fn put(file: &Path, place: &Path) -> io::Result<()> {
    let directory = place.parent().unwrap_or(place);
    fs::create_dir_all(directory)?;
    // A name that never travels.
    let beside = directory.join(format!(".{}.conflict", std::process::id()));
    let placed = fs::copy(file, &beside).and_then(|_| fs::rename(&beside, place));
    placed.inspect_err(|_| drop(fs::remove_file(&beside)))
}
