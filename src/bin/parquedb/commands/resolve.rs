//! `parquedb resolve`.

use parquedb_mount::model::ExitCode;
use parquedb_mount::sync::{Choice, resolve};
use serde_json::json;

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
    resolve(&args.directory, path, choice)?;
    style.line(match choice {
        Choice::Local => format!("{path}: yours is kept. Sync, or push, to publish it."),
        Choice::Remote => format!("{path}: theirs is here; what was here is kept: parquedb conflicts"),
        Choice::File(_) => format!("{path}: replaced; what was here is kept. Sync, or push, to publish it."),
    });
    style.json(&json!({ "path": path, "resolved": told }));
    Ok(ExitCode::Done)
}
