//! `parquedb pull`.

use parquedb_mount::model::{DbRef, ExitCode, Revision};
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::sync::{Direction, Strategy, SyncOptions};
use serde_json::json;

use super::mounted::refuse_in_mount;
use super::{files, list_paths, tell_conflicts, texts};
use crate::args::PullArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;
use crate::progress::Narrator;

pub async fn run(args: &PullArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let reference: DbRef = args.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    args.run.check()?;
    refuse_in_mount(&args.directory)?;
    let context = flags.context(Some(&args.directory))?;
    let remote = context.remote(&RemoteOptions::default())?;
    let directory = args.directory.display().to_string();
    style.line(format!("Fetching database info from {}...", remote.url()));
    let strategy = if args.force { Strategy::RemoteWins } else { Strategy::Manual };
    let options = SyncOptions {
        at: args.at.map(Revision),
        ..args.run.options(&args.directory, &reference, Direction::Pull, strategy)?
    };
    let narrator = Narrator::new(style, |found| {
        style.line(format!("\nFound database: {}", found.name));
        style.line(format!("  Visibility: {}", found.visibility));
        style.line(format!("  Collections: {}\n", found.collections));
        if !args.run.dry_run {
            style.line(format!("Downloading to {directory}...\n"));
        }
    });
    let report = args.run.sync(&remote, &options, &narrator).await?;
    let plan = &report.plan;
    if args.run.dry_run {
        style.line("Dry run: nothing was changed.");
        style.line(format!("Would download {}.", files(plan.download.len())));
        list_paths(style, "+", plan.download.keys());
        if !plan.delete_here.is_empty() {
            style.line(format!("Would delete {}.", files(plan.delete_here.len())));
            list_paths(style, "-", plan.delete_here.iter());
        }
    }
    if !report.not_pulled.is_empty() {
        style.line(format!("{} not written here (protected names):", files(report.not_pulled.len())));
        list_paths(style, "!", report.not_pulled.iter());
    }
    tell_conflicts(style, &report, "To take theirs, pull again with --force.");
    if !args.run.dry_run && !report.needs_a_person() {
        style.line("Database pulled successfully!");
        style.line(format!("  Location: {directory}"));
    }
    style.json(&json!({
        "database": options.database.to_string(),
        "revision": report.revision,
        "dryRun": args.run.dry_run,
        "location": directory,
        "downloaded": texts(plan.download.keys()),
        "deleted": texts(&plan.delete_here),
        "setAside": texts(&report.set_aside),
        "conflicts": texts(plan.undecided().map(|(path, _)| path)),
        "changedHere": texts(&report.left.changed_here),
        "notPulled": texts(&report.not_pulled),
        "bytesReceived": report.bytes_received,
    }));
    Ok(report.exit_code())
}
