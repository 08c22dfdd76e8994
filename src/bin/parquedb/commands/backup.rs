//! `parquedb backup` and `parquedb restore`: the same copy, one way and the other.

use parquedb_mount::model::ExitCode;
use parquedb_mount::store::{Missing, Store, StoreLocation, backup};
use serde_json::json;

use super::{bytes, stores};
use crate::args::{BackupArgs, RestoreArgs, WriterFlag};
use crate::common::failure::Failure;
use crate::common::output::Style;

pub async fn run(args: &BackupArgs, style: Style) -> Result<ExitCode, Failure> {
    copy(&args.store.location()?, &stores::location(&args.to)?, &args.writer, style).await
}

pub async fn run_restore(args: &RestoreArgs, style: Style) -> Result<ExitCode, Failure> {
    copy(&stores::location(&args.from)?, &args.store.location()?, &args.writer, style).await
}

async fn copy(
    from: &StoreLocation,
    to: &StoreLocation,
    writer: &WriterFlag,
    style: Style,
) -> Result<ExitCode, Failure> {
    if from == to {
        return Err(Failure::usage(format!("{from} cannot be a copy of itself")));
    }
    // Private databases lie in it: nobody else on this machine reads its files.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let source = Store::open_read_only(from).await?;
    let target = Store::open_at(to, Missing::Create, writer.writers()).await?;
    let report = backup(&source, &target).await?;
    style.line(format!(
        "Copied from {from} to {to}: {} revisions and {} contents ({}) of {} databases were not there yet.",
        report.revisions,
        report.contents,
        bytes(report.bytes),
        report.databases,
    ));
    style.json(&json!({
        "from": from.to_string(), "to": to.to_string(), "databases": report.databases,
        "revisions": report.revisions, "contents": report.contents, "bytes": report.bytes,
    }));
    Ok(ExitCode::Done)
}
