//! `parquedb list`.

use parquedb_mount::model::ExitCode;
use parquedb_mount::remote::RemoteOptions;
use serde_json::json;

use crate::args::ListArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;

/// Databases asked for at a time.
const PAGE: usize = 100;

pub async fn run(args: &ListArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let context = flags.context(None)?;
    let remote = context.remote(&RemoteOptions::default())?;
    let mut databases = Vec::new();
    loop {
        let page = if args.public {
            remote.list_public(PAGE, databases.len()).await?
        } else {
            remote.list_own(PAGE, databases.len()).await?
        };
        let last = !page.has_more || page.databases.is_empty();
        databases.extend(page.databases);
        if last {
            break;
        }
    }
    if databases.is_empty() {
        let whose = if args.public { "public databases" } else { "databases of yours" };
        style.line(format!("No {whose} at {}.", remote.url()));
    }
    let width = databases.iter().map(|database| database.prefix.chars().count()).max().unwrap_or(0);
    for database in &databases {
        style.line(format!(
            "{:width$}  {:8}  {:>9} rows  revision {:<5} {}",
            database.prefix,
            database.visibility.to_string(),
            database.entity_count,
            database.revision.0,
            database.updated_at,
        ));
    }
    style.json(&json!({"databases": databases}));
    Ok(ExitCode::Done)
}
