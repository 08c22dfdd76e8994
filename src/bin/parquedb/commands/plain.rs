//! `parquedb export` and `parquedb import`: a database as a plain tree.

use parquedb_mount::model::{DbPath, DbRef, ExitCode, Revision};
use parquedb_mount::plain::{ImportOptions, export, import};
use serde_json::json;

use super::{bytes, list_paths, stores, texts};
use crate::args::{ExportArgs, ImportArgs};
use crate::common::failure::Failure;
use crate::common::output::Style;

pub async fn run_export(args: &ExportArgs, style: Style) -> Result<ExitCode, Failure> {
    let store = args.store.open_read_only().await?;
    let database = stores::database(&store, &args.database).await?;
    let report = export(&database, args.at.map(Revision), &args.directory).await?;
    let directory = args.directory.display();
    style.line(format!(
        "{directory} has revision {} of {}: {} files, of which {} were written ({}) and {} others removed.",
        report.revision,
        args.database,
        report.files,
        report.written,
        bytes(report.bytes),
        report.removed,
    ));
    tell_withheld(style, &report.withheld);
    style.line(format!("A web server that serves it as /db/{} can be mounted.", args.database));
    style.json(&json!({
        "database": args.database, "directory": args.directory, "revision": report.revision, "files": report.files,
        "written": report.written, "bytes": report.bytes, "removed": report.removed,
        "withheld": texts(&report.withheld),
    }));
    Ok(ExitCode::Done)
}

pub async fn run_import(args: &ImportArgs, style: Style) -> Result<ExitCode, Failure> {
    let reference: DbRef = args.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let store = args.store.open(&args.writer).await?;
    let options = ImportOptions { directory: args.directory.clone(), reference, visibility: args.visibility };
    let report = import(&store, &options).await?;
    style.line(format!(
        "{} is revision {} of {}: {} files, {}.",
        args.directory.display(),
        report.revision,
        options.reference,
        report.files,
        bytes(report.bytes),
    ));
    tell_withheld(style, &report.withheld);
    style.json(&json!({
        "database": options.reference.to_string(), "id": report.id, "revision": report.revision,
        "files": report.files, "bytes": report.bytes, "withheld": texts(&report.withheld),
    }));
    Ok(ExitCode::Done)
}

fn tell_withheld(style: Style, withheld: &[DbPath]) {
    if !withheld.is_empty() {
        style.line("Left out (protected names):");
        list_paths(style, "!", withheld.iter());
    }
}
