//! `parquedb gc`.

use parquedb_mount::model::ExitCode;
use parquedb_mount::store::CollectOptions;
use serde_json::json;

use super::{bytes, stores};
use crate::args::GcArgs;
use crate::common::failure::Failure;
use crate::common::output::Style;

pub async fn run(args: &GcArgs, style: Style) -> Result<ExitCode, Failure> {
    let store =
        if args.dry_run { args.store.open_read_only().await? } else { args.store.open(&args.writer).await? };
    let databases = match &args.database {
        Some(name) => vec![stores::database(&store, name).await?],
        None => store.all().await?,
    };
    let options = CollectOptions { keep: args.keep, dry_run: args.dry_run };
    let mut told = Vec::new();
    for database in databases {
        let report = database.collect(options).await?;
        let settings = database.settings();
        let name = format!("{}/{}", settings.owner, settings.slug);
        style.line(format!(
            "{name}: {}{} contents removed ({}), {} revisions expired; {} kept, {} waiting for their week to end.",
            if args.dry_run { "would be: " } else { "" },
            report.removed,
            bytes(report.removed_bytes),
            report.expired,
            report.named,
            report.claimed,
        ));
        told.push(json!({
            "database": name, "removed": report.removed, "removedBytes": report.removed_bytes,
            "expired": report.expired, "named": report.named, "claimed": report.claimed,
        }));
    }
    if !args.dry_run && args.database.is_none() {
        store.remove_staged().await?;
    }
    style.json(&json!({"dryRun": args.dry_run, "databases": told}));
    Ok(ExitCode::Done)
}
