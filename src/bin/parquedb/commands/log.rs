//! `parquedb log`.

use parquedb_mount::model::{DbRef, ExitCode};
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::wire::LogEntry;
use serde_json::json;

use crate::args::LogArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;

/// Revisions asked for at a time.
const PAGE: u64 = 1000;

pub async fn run(args: &LogArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let reference: DbRef = args.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let remote = flags.context(None)?.remote(&RemoteOptions::default())?;
    let id = remote.describe(&reference).await?.id;
    let mut log: Vec<LogEntry> = Vec::new();
    loop {
        let before = log.last().map(|last| last.revision);
        let page = remote.log(&id, before, PAGE.min(args.limit - log.len() as u64)).await?;
        let done = !page.has_more || page.log.is_empty();
        log.extend(page.log);
        if done || log.len() as u64 >= args.limit {
            break;
        }
    }
    if log.is_empty() {
        style.line(format!("{reference}: nothing is published yet."));
    }
    for entry in &log {
        style.line(line(entry));
        for put in &entry.set_aside {
            style.line(format!("         set aside: another version of {}", put.path));
        }
    }
    style.json(&json!({"database": reference.to_string(), "log": log}));
    Ok(ExitCode::Done)
}

fn line(entry: &LogEntry) -> String {
    let change = match (entry.expired, entry.put, entry.delete) {
        (true, ..) => "not kept".to_owned(),
        (false, put, delete) => format!("+{put} -{delete}"),
    };
    let message = entry.message.as_deref().map(|text| format!("  {text}")).unwrap_or_default();
    // To the second: what follows is for machines.
    let time = entry.time.split('.').next().unwrap_or_default().trim_end_matches('Z');
    format!("{:>7}  {time}Z  {:<12} {change}{message}", entry.revision.0, entry.author)
}
