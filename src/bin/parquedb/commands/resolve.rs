//! `parquedb resolve`.

use std::path::Path;

use parquedb_mount::control::{Control, Request};
use parquedb_mount::model::ExitCode;
use parquedb_mount::sync::{Choice, resolve};
use serde_json::json;

use super::{ctl, status};
use crate::args::ResolveArgs;
use crate::common::failure::Failure;
use crate::common::output::Style;

pub fn run(args: &ResolveArgs, style: Style) -> Result<ExitCode, Failure> {
    let path = &args.path;
    let (choice, told) = match (&args.file, args.local) {
        (Some(file), _) => (Choice::File(file), "file"),
        (None, true) => (Choice::Local, "local"),
        (None, false) => (Choice::Remote, "remote"),
    };
    if let Ok(state) = status::state_of(&args.directory) {
        return in_mount(args, &state, choice, told, style);
    }
    resolve(&args.directory, path, choice)?;
    style.line(match choice {
        Choice::Local => format!("{path}: yours is kept. Sync, or push, to publish it."),
        Choice::Remote => format!("{path}: theirs is here; what was here is kept: parquedb conflicts"),
        Choice::File(_) => format!("{path}: replaced; what was here is kept. Sync, or push, to publish it."),
    });
    style.json(&json!({ "path": path, "resolved": told }));
    Ok(ExitCode::Done)
}

/// A mount's daemon does it, and publishes what follows from it.
fn in_mount(
    args: &ResolveArgs,
    state: &Path,
    choice: Choice<'_>,
    told: &str,
    style: Style,
) -> Result<ExitCode, Failure> {
    let path = &args.path;
    let failed = |error: std::io::Error| Failure::new(ExitCode::Failure, format!("{path}: {error}"));
    if let Choice::File(file) = choice {
        std::fs::copy(file, args.directory.join(path.as_str())).map_err(failed)?;
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
