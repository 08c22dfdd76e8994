//! `parquedb resolve`.

use std::path::Path;

use parquedb_mount::control::{Control, Request};
use parquedb_mount::model::{DbPath, ExitCode};
use parquedb_mount::sync::{Choice, Outcome, conflicts, resolve};
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
    if let Some(mount) = InMount::around(&args.directory).or_else(|| InMount::around(&typed)) {
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

/// The path in a mount that somebody means: as `parquedb conflicts` calls it, or as it is called from where he is.
fn meant(args: &ResolveArgs, state: &Path) -> Result<DbPath, Failure> {
    let open = conflicts(state)?;
    let is_open = |path: &DbPath| {
        let mut all = open.iter().flat_map(|record| &record.conflicts);
        all.any(|one| one.path == *path && one.outcome == Outcome::Open)
    };
    let as_called = db_path(&args.path);
    if let Some(path) = as_called.as_ref().ok().filter(|path| is_open(path)) {
        return Ok(path.clone());
    }
    match InMount::around(&args.directory.join(&args.path)) {
        Some(from_here) => db_path(&from_here.inside),
        None => as_called,
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
    let path = &meant(args, state)?;
    let failed = |error: std::io::Error| Failure::new(ExitCode::Failure, format!("{path}: {error}"));
    if let Choice::File(file) = choice {
        std::fs::copy(file, mountpoint.join(path.as_str())).map_err(failed)?;
    }
    let control = Control::reach(state).map_err(ctl::failure)?;
    let local = !matches!(choice, Choice::Remote);
    let (_, standing) = control.ask(Request::Resolve { path: path.clone(), local }).map_err(ctl::failure)?;
    style.line(match choice {
        Choice::Local => format!("{path}: yours is published; theirs is kept: parquedb conflicts"),
        Choice::Remote => format!("{path}: theirs is here; what was here is kept: parquedb conflicts"),
        Choice::File(_) => format!("{path}: replaced and published; theirs is kept: parquedb conflicts"),
    });
    style.json(&json!({ "path": path, "resolved": told, "status": standing }));
    Ok(ExitCode::Done)
}
