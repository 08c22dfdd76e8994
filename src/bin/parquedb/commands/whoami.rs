//! `parquedb whoami`.

use parquedb_mount::model::ExitCode;
use parquedb_mount::remote::RemoteOptions;
use serde_json::json;

use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::Style;

pub async fn run(flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let context = flags.context(None)?;
    let remote = context.remote(&RemoteOptions::default())?;
    let me = remote.me().await?;
    style.line(format!("{} at {}", me.username, remote.url()));
    style.json(&json!({"username": me.username, "id": me.id, "remote": remote.url()}));
    Ok(ExitCode::Done)
}
