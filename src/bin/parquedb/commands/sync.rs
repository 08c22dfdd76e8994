//! `parquedb sync`.

use parquedb_mount::model::{DbPath, DbRef, ExitCode};
use parquedb_mount::remote::{Remote, RemoteOptions};
use parquedb_mount::sync::{
    Direction, LastSync, NewDatabase, Side, SyncDiff, SyncOptions, SyncReport, last_sync,
};
use serde_json::{Value, json};

use super::mounted::refuse_in_mount;
use super::runs::OwnDatabase;
use super::{files, list_paths, tell_conflicts, texts};
use crate::args::SyncArgs;
use crate::common::failure::Failure;
use crate::common::flags::{Context, EverywhereFlags};
use crate::common::output::Style;
use crate::progress::Narrator;

pub async fn run(args: &SyncArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    if !args.directory.is_dir() {
        return Err(Failure::usage(format!("'{}' is not a directory", args.directory.display())));
    }
    args.run.check()?;
    refuse_in_mount(&args.directory)?;
    let context = flags.context(Some(&args.directory))?;
    let remote = context.remote(&RemoteOptions::default())?;
    style.line("Authenticating...");
    let last = last_sync(&args.directory);
    let (database, create) = target(args, &context, &remote, last.as_ref()).await?;
    let only_looks = args.status || args.run.dry_run;
    let options = SyncOptions {
        create,
        dry_run: only_looks,
        ..args.run.options(&args.directory, &database, Direction::Both, args.strategy)?
    };
    let narrator = Narrator::new(style, |found| {
        if let Some(username) = remote.username() {
            style.line(format!("Logged in as {username}\n"));
        }
        style.line("Checking sync status...");
        style.line(format!("  Strategy: {}\n", args.strategy));
        if let Some(last) = &last {
            style.line("Local manifest:");
            style.line(format!("  Database: {}", found.name));
            style.line(format!("  Last synced: {}", last.time));
            style.line(format!("  Files: {}\n", last.files));
        }
        if !only_looks {
            style.line("Syncing...\n");
        }
    });
    let report = args.run.sync(&remote, &options, &narrator).await?;
    if let Some(diff) = &report.diff {
        show_diff(style, diff);
    }
    if args.run.dry_run {
        style.line("Dry run: nothing was changed.");
        show_plan(style, &report);
    }
    for skipped in &report.skipped {
        let path = crate::common::output::without_controls(&skipped.path.display().to_string(), "");
        style.line(format!("  not published: {path} ({})", skipped.reason.as_str()));
    }
    let remedy = format!("To let a rule decide: --strategy {}.", "newest, local-wins or remote-wins");
    tell_conflicts(style, &report, &remedy);
    if !only_looks {
        let plan = &report.plan;
        let counts = [
            ("uploaded", plan.upload.len()),
            ("downloaded", plan.download.len()),
            ("deleted on the remote", plan.delete_there.len()),
            ("deleted here", plan.delete_here.len()),
        ];
        let told: Vec<String> = counts
            .iter()
            .filter(|(_, count)| *count > 0)
            .map(|(what, count)| format!("{} {what}", files(*count)))
            .collect();
        if !told.is_empty() {
            style.line(format!("{}.", told.join(", ")));
        }
        if !report.needs_a_person() {
            style.line("Sync complete!");
        }
    } else if report.plan.is_empty() && !report.needs_a_person() {
        style.line("In sync.");
    }
    style.json(&as_json(args, &database, &report));
    Ok(report.exit_code())
}

/// The database the directory was synced with last; else one of the caller's own, as for a push.
async fn target(
    args: &SyncArgs,
    context: &Context,
    remote: &Remote,
    last: Option<&LastSync>,
) -> Result<(DbRef, Option<NewDatabase>), Failure> {
    if let Some(last) = last {
        return Ok((last.database.clone(), None));
    }
    let own = OwnDatabase::of(&args.directory, &context.database, None)?;
    let reference = own.reference(remote).await?;
    Ok((reference, Some(NewDatabase { name: own.name })))
}

fn show_diff(style: Style, diff: &SyncDiff) {
    let lists: [(&str, &str, Vec<&DbPath>); 5] = [
        ("To upload", "+", diff.to_upload.iter().map(|(path, _)| path).collect()),
        ("To download", "<", diff.to_download.iter().map(|(path, _)| path).collect()),
        ("Conflicts", "!", diff.conflicts.iter().map(|(path, _)| path).collect()),
        ("Deleted locally", "-", diff.deleted_locally.iter().collect()),
        ("Deleted remotely", "x", diff.deleted_remotely.iter().collect()),
    ];
    for (title, mark, paths) in lists {
        style.line(format!("{title}: {}", paths.len()));
        list_paths(style, mark, paths.into_iter());
    }
    style.line(format!("Unchanged: {}\n", diff.unchanged.len()));
}

fn show_plan(style: Style, report: &SyncReport) {
    let plan = &report.plan;
    for (title, mark, paths) in [
        ("Would upload", "+", plan.upload.keys().collect::<Vec<_>>()),
        ("Would download", "<", plan.download.keys().collect()),
        ("Would delete on the remote", "-", plan.delete_there.iter().collect()),
        ("Would delete here", "x", plan.delete_here.iter().collect()),
    ] {
        if !paths.is_empty() {
            style.line(format!("{title} {}.", files(paths.len())));
            list_paths(style, mark, paths.into_iter());
        }
    }
}

fn as_json(args: &SyncArgs, database: &DbRef, report: &SyncReport) -> Value {
    let plan = &report.plan;
    let conflict = |(path, conflict): (&DbPath, &parquedb_mount::sync::Conflict)| {
        json!({
            "path": path, "kind": conflict.kind, "against": conflict.against, "suggestion": conflict.suggestion,
            "resolution": conflict.keeps.map_or("none", |side| match side {
                Side::Local => "keep-local",
                Side::Remote => "keep-remote",
            }),
        })
    };
    let diff = report.diff.as_ref().map(|diff| {
        json!({
            "toUpload": texts(diff.to_upload.iter().map(|(path, _)| path)),
            "toDownload": texts(diff.to_download.iter().map(|(path, _)| path)),
            "conflicts": texts(diff.conflicts.iter().map(|(path, _)| path)),
            "unchanged": texts(&diff.unchanged),
            "deletedLocally": texts(&diff.deleted_locally),
            "deletedRemotely": texts(&diff.deleted_remotely),
        })
    });
    json!({
        "database": database.to_string(),
        "revision": report.revision,
        "strategy": args.strategy.as_str(),
        "dryRun": args.status || args.run.dry_run,
        "diff": diff,
        "uploaded": texts(plan.upload.keys()),
        "downloaded": texts(plan.download.keys()),
        "deletedThere": texts(&plan.delete_there),
        "deletedHere": texts(&plan.delete_here),
        "conflicts": plan.conflicts.iter().map(conflict).collect::<Vec<_>>(),
        "setAside": texts(&report.set_aside),
        "contentsSent": report.contents_sent,
        "bytesSent": report.bytes_sent,
        "bytesReceived": report.bytes_received,
        "notPublished": report.skipped.iter().map(|s| json!({
            "path": s.path.to_string_lossy(), "reason": s.reason.as_str(),
        })).collect::<Vec<_>>(),
    })
}
