//! `parquedb push`.

use parquedb_mount::model::{ExitCode, slugify};
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::sync::{Brake, Overwrite, PushOptions, push};
use serde_json::json;

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
    let context = flags.context(Some(&args.directory))?;
    let file = &context.database;
    let directory_name = std::fs::canonicalize(&args.directory)
        .ok()
        .and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let name = file.name.clone().or(args.slug.clone()).or(file.slug.clone()).or(directory_name);
    let slug = args.slug.clone().or(file.slug.clone()).or(name.as_deref().and_then(slugify));
    let (Some(name), Some(slug)) = (name, slug) else {
        return Err(Failure::usage("no slug can be made from the directory's name: give one with --slug"));
    };
    let options = PushOptions {
        directory: args.directory.clone(),
        slug,
        name,
        owner: file.owner.clone(),
        visibility: args.visibility.or(file.visibility),
        overwrite: if args.force { Overwrite::Remote } else { Overwrite::No },
        brake: if args.allow_mass_delete { Brake::Released } else { Brake::On },
        dry_run: args.dry_run,
    };
    // Checked here too, so that a bad slug is wrong usage and not the remote's refusal.
    parquedb_mount::model::DbRef::new("x", &options.slug)
        .map_err(|error| Failure::usage(error.to_string()))?;
    let remote = context.remote(&RemoteOptions::default())?;
    style.line("Authenticating...");
    let narrator = Narrator::new(style, remote.url(), &args.directory.display().to_string(), args.dry_run);
    let report = push(&remote, &options, &narrator).await?;

    let plan = &report.plan;
    for skipped in &report.skipped {
        let path = without_controls(&skipped.path.display().to_string(), "");
        style.line(format!("  not published: {path} ({})", skipped.reason.as_str()));
    }
    if args.dry_run {
        style.line("Dry run: nothing was changed.");
        style.line(format!("Would upload {}.", files(plan.put.len())));
        list_paths(style, "+", plan.put.keys());
        if !plan.delete.is_empty() {
            style.line(format!("Would delete {}.", files(plan.delete.len())));
            list_paths(style, "-", plan.delete.iter());
        }
    } else {
        style.line(format!("Uploaded {}.", files(plan.put.len())));
        if !plan.delete.is_empty() {
            style.line(format!("Deleted {}.", files(plan.delete.len())));
        }
    }
    if !plan.newer_on_remote.is_empty() {
        let count = files(plan.newer_on_remote.len());
        style.line(format!("{count} newer on the remote: parquedb pull {} gets them.", report.reference));
    }
    let remedy = "To keep yours, push again with --force; to take theirs, move yours away and pull.";
    tell_conflicts(style, &plan.conflicts, remedy);
    if !args.dry_run && plan.conflicts.is_empty() {
        style.line("\nDatabase pushed successfully!");
        style.line(format!("  URL: {}/{}", page_url(remote.url()), report.reference));
    }
    style.json(&json!({
        "database": report.reference.to_string(),
        "revision": report.revision,
        "dryRun": args.dry_run,
        "uploaded": texts(plan.put.keys()),
        "deleted": texts(&plan.delete),
        "conflicts": texts(&plan.conflicts),
        "newerOnRemote": texts(&plan.newer_on_remote),
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
