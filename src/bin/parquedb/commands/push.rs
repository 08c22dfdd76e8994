//! `parquedb push`.

use parquedb_mount::model::{DbRef, ExitCode, slugify};
use parquedb_mount::remote::{RemoteError, RemoteOptions};
use parquedb_mount::sync::{Direction, NewDatabase, Strategy, SyncOptions};
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
    // Checked here too, so that a bad slug is wrong usage and not the remote's refusal.
    DbRef::new("x", &slug).map_err(|error| Failure::usage(error.to_string()))?;
    let filter = args.run.filter()?;
    let remote = context.remote(&RemoteOptions::default())?;
    style.line("Authenticating...");
    let username = remote.me().await?.username;
    style.line(format!("Logged in as {username}\n"));
    if let Some(owner) = file.owner.as_ref().filter(|owner| **owner != username) {
        let text = format!("the database's file says its owner is {owner}, but you are {username}");
        return Err(RemoteError::NotAllowed { text }.into());
    }
    let database = DbRef::new(&username, &slug).map_err(|error| RemoteError::WrongAnswer {
        remote: remote.url().to_owned(),
        reason: format!("it gives us an impossible name: {error}"),
    })?;
    let options = SyncOptions {
        directory: args.directory.clone(),
        database: database.clone(),
        create: Some(NewDatabase { name }),
        visibility: args.visibility.or(file.visibility),
        direction: Direction::Push,
        at: None,
        strategy: if args.force { Strategy::LocalWins } else { Strategy::Manual },
        filter,
        brake: args.run.brake(),
        conflict_limit: args.run.conflict_limit.0,
        dry_run: args.run.dry_run,
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
    let undecided = tell_conflicts(style, plan, "To keep yours, push again with --force.");
    if !args.run.dry_run && !undecided {
        style.line("\nDatabase pushed successfully!");
        style.line(format!("  URL: {}/{}", page_url(remote.url()), database));
    }
    style.json(&json!({
        "database": database.to_string(),
        "revision": report.revision,
        "dryRun": args.run.dry_run,
        "uploaded": texts(plan.upload.keys()),
        "deleted": texts(&plan.delete_there),
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
