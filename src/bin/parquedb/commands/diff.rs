//! `parquedb diff`.

use parquedb_mount::model::{DbRef, ExitCode, Revision};
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::sync::{Difference, diff};
use serde_json::json;

use super::{list_paths, texts};
use crate::args::DiffArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;

pub async fn run(args: &DiffArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let reference: DbRef = args.database.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let remote = flags.context(None)?.remote(&RemoteOptions::default())?;
    let from = Revision(args.from);
    let to = match args.to {
        Some(to) => Revision(to),
        None => remote.describe(&reference).await?.revision,
    };
    let difference = diff(&remote, &reference, from, to).await?;
    show(style, &difference);
    if difference.is_empty() {
        style.line(format!("Revisions {from} and {to} have the same files."));
    }
    style.json(&json!({
        "database": reference.to_string(), "from": from, "to": to,
        "added": texts(difference.added.keys()),
        "changed": texts(difference.changed.keys()),
        "removed": texts(difference.removed.keys()),
    }));
    Ok(ExitCode::Done)
}

/// Lists what was added, changed and removed.
pub fn show(style: Style, difference: &Difference) {
    list_paths(style, "+", difference.added.keys());
    list_paths(style, "~", difference.changed.keys());
    list_paths(style, "-", difference.removed.keys());
}
