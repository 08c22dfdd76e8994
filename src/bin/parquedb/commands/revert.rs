//! `parquedb revert`.

use parquedb_mount::model::{DbRef, ExitCode, Revision};
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::sync::{Brake, RevertOptions, revert};
use serde_json::json;

use super::diff::show;
use super::texts;
use crate::args::RevertArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;

pub async fn run(args: &RevertArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let reference: DbRef = args.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let remote = flags.context(None)?.remote(&RemoteOptions::default())?;
    let options = RevertOptions {
        reference,
        to: Revision(args.revision),
        brake: if args.allow_mass_delete { Brake::Released } else { Brake::On },
        dry_run: args.dry_run,
    };
    let report = revert(&remote, &options).await?;
    let (difference, to) = (&report.difference, options.to);
    show(style, difference);
    style.line(match (difference.is_empty(), args.dry_run) {
        (true, _) => format!("Revision {} has the files of revision {to} already.", report.revision),
        (false, true) => "Dry run: nothing was changed.".to_owned(),
        (false, false) => format!("Revision {} has the files of revision {to} again.", report.revision),
    });
    style.json(&json!({
        "database": options.reference.to_string(), "to": to, "revision": report.revision, "dryRun": args.dry_run,
        "added": texts(difference.added.keys()),
        "changed": texts(difference.changed.keys()),
        "removed": texts(difference.removed.keys()),
    }));
    Ok(ExitCode::Done)
}
