//! `parquedb pull`.

use parquedb_mount::model::{DbRef, ExitCode, Revision};
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::sync::{Brake, PullOptions, pull};
use serde_json::json;

use super::{files, list_paths, tell_conflicts, texts};
use crate::args::PullArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;
use crate::progress::Narrator;

pub async fn run(args: &PullArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let reference: DbRef = args.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let context = flags.context(Some(&args.directory))?;
    let remote = context.remote(&RemoteOptions::default())?;
    let directory = args.directory.display().to_string();
    style.line(format!("Fetching database info from {}...", remote.url()));
    let narrator = Narrator::new(style, remote.url(), &directory, args.dry_run);
    let options = PullOptions {
        reference,
        directory: args.directory.clone(),
        at: args.at.map(Revision),
        brake: if args.allow_mass_delete { Brake::Released } else { Brake::On },
        dry_run: args.dry_run,
    };
    let report = pull(&remote, &options, &narrator).await?;
    let plan = &report.plan;
    if args.dry_run {
        style.line("Dry run: nothing was changed.");
        style.line(format!("Would download {}.", files(plan.put.len())));
        list_paths(style, "+", plan.put.keys());
        if !plan.delete.is_empty() {
            style.line(format!("Would delete {}.", files(plan.delete.len())));
            list_paths(style, "-", plan.delete.iter());
        }
    }
    if !report.not_pulled.is_empty() {
        style.line(format!("{} not written here (protected names):", files(report.not_pulled.len())));
        list_paths(style, "!", report.not_pulled.iter());
    }
    let remedy = "To take theirs, move yours away and pull again; to keep yours, push with --force.";
    tell_conflicts(style, &plan.conflicts, remedy);
    if !args.dry_run && plan.conflicts.is_empty() {
        style.line("Database pulled successfully!");
        style.line(format!("  Location: {directory}"));
    }
    style.json(&json!({
        "database": options.reference.to_string(),
        "revision": report.revision,
        "dryRun": args.dry_run,
        "location": directory,
        "downloaded": texts(plan.put.keys()),
        "deleted": texts(&plan.delete),
        "conflicts": texts(&plan.conflicts),
        "changedHere": texts(&plan.changed_here),
        "notPulled": texts(&report.not_pulled),
        "bytesReceived": report.bytes_received,
    }));
    Ok(report.exit_code())
}
