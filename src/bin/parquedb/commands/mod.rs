//! One file for each command: flags in, library call, lines or JSON out.

pub mod backup;
pub mod cache;
pub mod conflicts;
pub mod ctl;
pub mod diff;
pub mod fsck;
pub mod gc;
pub mod list;
pub mod log;
pub mod login;
mod mounted;
pub mod pin;
pub mod plain;
pub mod pull;
pub mod push;
pub mod resolve;
pub mod revert;
pub mod runs;
pub mod serve;
pub mod service;
pub mod status;
mod stores;
pub mod sync;
pub mod whoami;

use std::path::PathBuf;

use parquedb_mount::config::Dirs;
use parquedb_mount::model::DbPath;
use parquedb_mount::sync::{Side, SyncReport};

use crate::common::failure::Failure;
use crate::common::output::Style;

/// The cache that was chosen, or the user's.
fn cache_dir(chosen: Option<&PathBuf>) -> Result<PathBuf, Failure> {
    match chosen {
        Some(dir) => Ok(dir.clone()),
        None => Ok(Dirs::of_user()?.cache),
    }
}

/// "1 file", "2 files".
fn files(count: usize) -> String {
    if count == 1 { "1 file".into() } else { format!("{count} files") }
}

/// "1.2 MB" for 1,234,567.
fn bytes(count: u64) -> String {
    indicatif::DecimalBytes(count).to_string()
}

/// A list of paths, each behind a mark; long ones cut short.
fn list_paths<'a>(style: Style, mark: &str, paths: impl ExactSizeIterator<Item = &'a DbPath>) {
    const SHOWN: usize = 50;
    let count = paths.len();
    for path in paths.take(SHOWN) {
        style.line(format!("  {mark} {path}"));
    }
    if count > SHOWN {
        style.line(format!("  … and {} more", count - SHOWN));
    }
}

/// Paths for JSON.
fn texts<'a>(paths: impl IntoIterator<Item = &'a DbPath>) -> Vec<&'a str> {
    paths.into_iter().map(DbPath::as_str).collect()
}

/// Tells of conflicts: those that nobody has decided, and what was kept of the others; and of what was set aside.
fn tell_conflicts(style: Style, report: &SyncReport, remedy: &str) {
    let plan = &report.plan;
    let undecided: Vec<&DbPath> = plan.undecided().map(|(path, _)| path).collect();
    let decided = plan.conflicts.len() - undecided.len();
    if decided > 0 {
        style.line(format!(
            "\n{} changed on both sides; what lost is kept: parquedb conflicts",
            files(decided)
        ));
        for (path, conflict) in &plan.conflicts {
            let kept = match conflict.keeps {
                Some(Side::Local) => "yours",
                Some(Side::Remote) => "theirs",
                None => continue,
            };
            style.line(format!("  = {path}  {kept}"));
        }
    }
    if !undecided.is_empty() {
        style.line(format!("\n{} changed on both sides and left alone:", files(undecided.len())));
        list_paths(style, "!", undecided.into_iter());
        style.line(format!("{remedy} Or file by file: parquedb conflicts, parquedb resolve."));
    }
    let set_aside = &report.set_aside;
    if !set_aside.is_empty() {
        style.line(format!("\n{} written to while being replaced:", files(set_aside.len())));
        list_paths(style, "!", set_aside.iter());
        style.line("What was written is kept: parquedb conflicts shows where. Then: conflicts dismiss PATH.");
    }
}
