//! `parquedb push`.

use parquedb_mount::model::ExitCode;
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::sync::{Direction, NewDatabase, Strategy, SyncOptions};
use serde_json::json;

use super::mounted::refuse_in_mount;
use super::runs::OwnDatabase;
use super::{files, list_paths, tell_conflicts, texts};
use crate::args::PushArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::{Style, without_controls};
use crate::progress::Narrator;

pub async fn run(args: &PushArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    if !args.directory.is_dir() {
        return Err(Failure::usage(format!("'{}' is not a directory", args.directory.display())));
    }
    args.run.check()?;
    refuse_in_mount(&args.directory)?;
    let context = flags.context(Some(&args.directory))?;
    let file = &context.database;
    let own = OwnDatabase::of(&args.directory, file, args.slug.as_ref())?;
    let remote = context.remote(&RemoteOptions::default())?;
    style.line("Authenticating...");
    let database = own.reference(&remote).await?;
    style.line(format!("Logged in as {}\n", database.owner()));
    let strategy = if args.force { Strategy::LocalWins } else { Strategy::Manual };
    let options = SyncOptions {
        create: Some(NewDatabase { name: own.name }),
        visibility: args.visibility.or(file.visibility),
        ..args.run.options(&args.directory, &database, Direction::Push, strategy)?
    };
    let narrator = Narrator::new(style, |found| {
        style.line(format!("Pushing to {}...", remote.url()));
        style.line(format!("  Visibility: {}", found.visibility));
        style.line(format!("  Slug: {}\n", found.reference));
    });
    let report = args.run.sync(&remote, &options, &narrator).await?;

    let plan = &report.plan;
    for skipped in &report.skipped {
        let path = without_controls(&skipped.path.display().to_string(), "");
        style.line(format!("  not published: {path} ({})", skipped.reason.as_str()));
    }
    if args.run.dry_run {
        style.line("Dry run: nothing was changed.");
        style.line(format!("Would upload {}.", files(plan.upload.len())));
        list_paths(style, "+", plan.upload.keys());
        if !plan.delete_there.is_empty() {
            style.line(format!("Would delete {}.", files(plan.delete_there.len())));
            list_paths(style, "-", plan.delete_there.iter());
        }
    } else {
        style.line(format!("Uploaded {}.", files(plan.upload.len())));
        if !plan.delete_there.is_empty() {
            style.line(format!("Deleted {}.", files(plan.delete_there.len())));
        }
    }
    let newer = &report.left.newer_there;
    if !newer.is_empty() {
        style
            .line(format!("{} newer on the remote: parquedb pull {database} gets them.", files(newer.len())));
    }
    tell_conflicts(style, &report, "To keep yours, push again with --force.");
    if !args.run.dry_run && !report.needs_a_person() {
        style.line("\nDatabase pushed successfully!");
        style.line(format!("  URL: {}/{}", page_url(remote.url()), database));
    }
    style.json(&json!({
        "database": database.to_string(),
        "revision": report.revision,
        "dryRun": args.run.dry_run,
        "uploaded": texts(plan.upload.keys()),
        "deleted": texts(&plan.delete_there),
        "setAside": texts(&report.set_aside),
        "conflicts": texts(plan.undecided().map(|(path, _)| path)),
        "newerOnRemote": texts(newer),
        "contentsSent": report.contents_sent,
        "bytesSent": report.bytes_sent,
        "notPublished": report.skipped.iter().map(|s| json!({
            "path": s.path.to_string_lossy(), "reason": s.reason.as_str(),
        })).collect::<Vec<_>>(),
    }));
    Ok(report.exit_code())
}

/// Where a person looks at a database: the hosted service shows them beside its API's address.
fn page_url(remote: &str) -> &str {
    if remote == parquedb_mount::config::DEFAULT_REMOTE { "https://parque.db" } else { remote }
}
