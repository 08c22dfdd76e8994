//! `parquedb conflicts`.

use std::path::Path;

use parquedb_mount::model::ExitCode;
use parquedb_mount::sync::{
    ConflictKind, Dismissed, Outcome, Record, Recorded, Suggestion, Version, conflicts, dismiss,
};
use parquedb_mount::wire::PutEntry;
use serde_json::{Value, json};

use super::mounted::InMount;
use super::{bytes, files, status, texts};
use crate::args::{ConflictsAction, ConflictsArgs};
use crate::common::failure::Failure;
use crate::common::output::Style;

pub fn run(args: &ConflictsArgs, style: Style) -> Result<ExitCode, Failure> {
    // A mount's lie beside its state.
    let mount = InMount::around(&args.directory).map(|mount| mount.mountpoint);
    let directory = match &mount {
        Some(mountpoint) => status::state_of(mountpoint)?,
        None if args.directory.is_dir() => args.directory.clone(),
        None => return Err(Failure::usage(format!("'{}' is not a directory", args.directory.display()))),
    };
    match &args.action {
        None => list(&directory, mount.as_deref(), style),
        Some(ConflictsAction::Dismiss { paths }) => {
            let mut gone = Vec::new();
            if paths.is_empty() {
                gone = dismiss(&directory, Dismissed::Decided)?;
            }
            for path in paths {
                gone.append(&mut dismiss(&directory, Dismissed::Path(path))?);
            }
            style.line(format!("Dismissed what was kept of {}.", files(gone.len())));
            style.json(&json!({ "dismissed": texts(&gone) }));
            Ok(ExitCode::Done)
        }
    }
}

fn list(directory: &Path, mount: Option<&Path>, style: Style) -> Result<ExitCode, Failure> {
    let records = conflicts(directory)?;
    let all: Vec<(&Record, &Recorded)> =
        records.iter().flat_map(|record| record.conflicts.iter().map(move |one| (record, one))).collect();
    let (open, others): (Vec<_>, Vec<_>) = all.iter().partition(|(_, one)| one.outcome == Outcome::Open);
    let (set_aside, decided): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|(_, one)| one.outcome == Outcome::SetAside);
    for (record, one) in &open {
        style.line(format!("{}  {}", one.path, kind(one.kind)));
        for other in &one.against {
            style.line(format!("  beside  {other}"));
        }
        style.line(format!("  here    {}", version(one.local.as_ref())));
        style.line(format!("  remote  {}", version(one.remote.as_ref())));
        for which in [Version::Base, Version::Remote] {
            if let Some(copy) = copy(directory, record, one, which) {
                style.line(format!("  {:<6}  {copy}", which.as_str()));
            }
        }
        style.line(match (one.kind, one.suggestion) {
            (ConflictKind::FileDirectory | ConflictKind::Names, _) => {
                "  both cannot stand here: rename or remove what is here"
            }
            (_, Suggestion::KeepLocal) => "  the dates say: --local",
            (_, Suggestion::KeepRemote) => "  the dates say: --remote",
            (_, Suggestion::Manual) => "  the dates do not say which",
        });
    }
    for (record, one) in &decided {
        style.line(format!("{}  {}, {}", one.path, kind(one.kind), outcome(one.outcome)));
        for which in Version::ALL {
            if let Some(copy) = copy(directory, record, one, which) {
                style.line(format!("  {:<6}  {copy}", which.as_str()));
            }
        }
    }
    for (record, one) in &set_aside {
        style.line(format!("{}  written to while it was replaced; what was written is", one.path));
        style.line(format!("  {}", copy(directory, record, one, Version::Local).unwrap_or_default()));
    }
    if !set_aside.is_empty() {
        style.line(format!(
            "{} set aside: take from it what you want, then 'parquedb conflicts dismiss PATH'.",
            files(set_aside.len())
        ));
    }
    style.line(match (open.len(), decided.len()) {
        (0, 0) if !set_aside.is_empty() => "No other conflicts.".to_owned(),
        (0, 0) => "No conflicts.".to_owned(),
        (0, kept) => format!("{} decided: 'parquedb conflicts dismiss' removes what is kept.", files(kept)),
        (open, _) => {
            let (at, then) = match mount {
                Some(mount) => (format!(" --directory {}", mount.display()), ""),
                None => (String::new(), "; then sync"),
            };
            let choices = "--local, --remote or --file FILE";
            format!("{} to decide: parquedb resolve{at} PATH {choices}{then}.", files(open))
        }
    });
    let object = |(record, one): &(&Record, &Recorded)| as_json(directory, record, one);
    style.json(&json!({
        "open": open.iter().map(object).collect::<Vec<_>>(),
        "setAside": set_aside.iter().map(object).collect::<Vec<_>>(),
        "decided": decided.iter().map(object).collect::<Vec<_>>(),
    }));
    Ok(ExitCode::Done)
}

fn copy(directory: &Path, record: &Record, one: &Recorded, version: Version) -> Option<String> {
    let path = directory.join(record.copy(&one.path, version).as_str());
    path.is_file().then(|| path.display().to_string())
}

fn version(put: Option<&PutEntry>) -> String {
    match put {
        Some(PutEntry { entry, .. }) => format!("{}, of {}", bytes(entry.size), entry.modified_at),
        None => "none".into(),
    }
}

fn kind(kind: ConflictKind) -> &'static str {
    match kind {
        ConflictKind::EditEdit => "edited on both sides",
        ConflictKind::EditDelete => "edited on one side, deleted on the other",
        ConflictKind::CreateCreate => "created on both sides",
        ConflictKind::FileDirectory => "a file on one side, a directory on the other",
        ConflictKind::Names => "names that many systems take for one",
    }
}

fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Open => "to decide",
        Outcome::KeptLocal => "yours was kept",
        Outcome::KeptRemote => "theirs was kept",
        Outcome::Replaced => "another version was put in its place",
        Outcome::Over => "over",
        Outcome::SetAside => "set aside",
    }
}

fn as_json(directory: &Path, record: &Record, one: &Recorded) -> Value {
    let copies: serde_json::Map<String, Value> = Version::ALL
        .into_iter()
        .filter_map(|which| Some((which.as_str().to_owned(), json!(copy(directory, record, one, which)?))))
        .collect();
    json!({
        "path": one.path, "when": record.when, "revision": record.revision, "kind": one.kind,
        "against": one.against, "suggestion": one.suggestion, "outcome": one.outcome,
        "base": one.base, "local": one.local, "remote": one.remote, "copies": copies,
    })
}
