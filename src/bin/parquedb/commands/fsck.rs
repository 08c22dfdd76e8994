//! `parquedb fsck`.

use parquedb_mount::model::ExitCode;
use parquedb_mount::store::{Finding, FsckOptions};
use serde_json::json;

use super::bytes;
use crate::args::FsckArgs;
use crate::common::failure::Failure;
use crate::common::output::Style;

pub async fn run(args: &FsckArgs, style: Style) -> Result<ExitCode, Failure> {
    let store =
        if args.repair { args.store.open(&args.writer).await? } else { args.store.open_read_only().await? };
    let options = FsckOptions { deep: args.deep, repair: args.repair };
    let report = store.fsck(options).await?;
    for finding in &report.findings {
        style.line(line(finding));
    }
    let lost = report.lost_data();
    style.line(format!(
        "{} databases, {} revisions, {} contents{}; {} contents that no revision names.",
        report.databases,
        report.revisions,
        report.contents,
        if args.deep { format!(" ({} read)", bytes(report.bytes_read)) } else { String::new() },
        report.orphans,
    ));
    let said = json!({
        "databases": report.databases, "revisions": report.revisions, "contents": report.contents,
        "orphans": report.orphans, "bytesRead": report.bytes_read, "lostData": lost, "findings": report.findings,
    });
    if lost {
        let message =
            "something that was published cannot be had any more: 'parquedb restore' brings it from a copy";
        return Err(Failure::new(ExitCode::Integrity, message).with_report(said));
    }
    let open = report.findings.iter().filter(|finding| finding.kind.can_be_repaired() && !finding.repaired);
    style.line(match open.count() {
        0 if report.findings.is_empty() => "Everything is as it should be.",
        0 => "Nothing is lost, and there is nothing left to mend.",
        _ => "Nothing is lost. 'parquedb fsck --repair' mends what was found.",
    });
    style.json(&said);
    Ok(ExitCode::Done)
}

fn line(finding: &Finding) -> String {
    let repaired = if finding.repaired { " (mended)" } else { "" };
    format!("{}: {}: {}{repaired}", finding.database, finding.kind.text(), finding.place)
}
