//! `parquedb status`.

use std::path::{Path, PathBuf};

use parquedb_mount::config::Dirs;
use parquedb_mount::control::{Control, Request, Standing, SyncPhase};
use parquedb_mount::model::{ByteRange, DbRef, ExitCode};
use parquedb_mount::overlay::{Changed, HereOnly, OverlayError, Pending, pending_at};
use parquedb_mount::remote::RemoteOptions;
use parquedb_mount::state::{Place, StateDir};
use serde_json::{Value, json};

use super::bytes;
use super::mounted::InMount;
use crate::args::StatusArgs;
use crate::common::failure::Failure;
use crate::common::flags::EverywhereFlags;
use crate::common::output::{Style, without_controls};

/// So many ranges of a file are told one by one.
const RANGES: usize = 4;

/// A replica with local state.
struct Replica {
    place: Place,
    dir: PathBuf,
}

pub fn run(args: &StatusArgs, flags: &EverywhereFlags, style: Style) -> Result<ExitCode, Failure> {
    let state_dir = match &args.state_dir {
        Some(dir) => dir.clone(),
        None => Dirs::of_user()?.state,
    };
    let of = Path::new(&args.of);
    let replicas = if of.is_dir() || InMount::at(of).is_some() {
        vec![of_mount(of)?]
    } else {
        of_database(args, flags, &state_dir)?
    };
    let mut report = Vec::new();
    for (n, Replica { place, dir }) in replicas.iter().enumerate() {
        let pending = pending_at(dir).map_err(|error| unreadable(dir, &error))?;
        let mounted = StateDir::holder(dir);
        if n > 0 {
            style.line("");
        }
        // The daemon knows more, if there is one.
        let asked = Control::reach(dir).and_then(|control| control.ask(Request::Status));
        let standing = asked.ok().map(|(_, standing)| standing);
        tell(style, place, mounted.as_deref(), &pending);
        if let Some(standing) = &standing {
            tell_sync(style, standing);
        }
        report.push(json!({
            "database": place.database,
            "remote": place.origin,
            "replica": place.replica,
            "mountedBy": mounted.and_then(|pid| pid.parse::<u32>().ok()),
            "state": dir,
            "sync": standing,
            "pending": pending.iter().map(as_json).collect::<Vec<_>>(),
        }));
    }
    style.json(&json!({ "replicas": report }));
    Ok(ExitCode::Done)
}

fn unreadable(dir: &Path, error: &OverlayError) -> Failure {
    Failure::new(ExitCode::Failure, format!("the local state in {}: {error}", dir.display()))
}

/// Where the state of the mount is that a path lies in: it says so itself.
pub fn state_of(path: &Path) -> Result<PathBuf, Failure> {
    let shown = path.display();
    let Some(mount) = InMount::around(path) else {
        return Err(Failure::usage(format!("'{shown}' is not mounted: name the directory of a mount")));
    };
    let mountpoint = &mount.mountpoint;
    if mount.is_dead() {
        let text = format!(
            "the daemon of the mount '{}' is gone: mount it again; what was written is kept",
            mountpoint.display()
        );
        return Err(Failure::new(ExitCode::Failure, text));
    }
    let mut told = vec![0; 4096];
    let length = rustix::fs::getxattr(mountpoint, "user.parquedb.state", &mut told);
    let length = length.map_err(|_| {
        Failure::usage(format!("'{shown}' is mounted read-only: nothing is written there, or published"))
    })?;
    told.truncate(length);
    Ok(PathBuf::from(String::from_utf8_lossy(&told).into_owned()))
}

fn of_mount(mountpoint: &Path) -> Result<Replica, Failure> {
    let dir = state_of(mountpoint).map_err(|failure| match InMount::around(mountpoint) {
        None => Failure {
            message: format!(
                "{}; without a mount, 'parquedb status OWNER/SLUG' tells the same",
                failure.message
            ),
            ..failure
        },
        Some(_) => failure,
    })?;
    let place = Place::of(&dir).map_err(|error| unreadable(&dir, &error.into()))?;
    Ok(Replica { place, dir })
}

fn of_database(
    args: &StatusArgs,
    flags: &EverywhereFlags,
    state_dir: &Path,
) -> Result<Vec<Replica>, Failure> {
    let database: DbRef = args.of.parse().map_err(|error| {
        Failure::usage(format!("'{}' is neither a directory nor a database: {error}", args.of))
    })?;
    let origin = match &flags.remote {
        Some(_) => Some(flags.context(None)?.remote(&RemoteOptions::default())?.origin()),
        None => None,
    };
    let wanted = |place: &Place| {
        place.database == database.to_string()
            && args.replica.as_ref().is_none_or(|replica| *replica == place.replica)
            && origin.as_ref().is_none_or(|origin| *origin == place.origin)
    };
    let mut found: Vec<Replica> = Place::all(state_dir)
        .into_iter()
        .filter(|(place, _)| wanted(place))
        .map(|(place, dir)| Replica { place, dir })
        .collect();
    found.sort_by(|a, b| (&a.place.origin, &a.place.replica).cmp(&(&b.place.origin, &b.place.replica)));
    if found.is_empty() {
        let text = format!("nothing of {database} is local here: it was never mounted to be written to");
        return Err(Failure::new(ExitCode::NotFound, text));
    }
    Ok(found)
}

fn tell_sync(style: Style, standing: &Standing) {
    let Some(trigger) = standing.trigger.as_deref() else {
        let text =
            "Sync: this mount publishes nothing. With --overlay memory, what was written goes when it ends.";
        return style.line(text);
    };
    let last = standing.last_sync.as_deref().unwrap_or("never");
    let next = match (standing.state, standing.gathering) {
        (SyncPhase::Paused, _) => "not before 'parquedb ctl resume'",
        (_, true) => "not before 'parquedb ctl commit'",
        _ if trigger == "manual" => "when 'parquedb ctl sync' says so",
        _ => standing.next_sync.as_deref().unwrap_or("when something is changed, or 'parquedb ctl sync'"),
    };
    style.line(format!("Sync: {}; last {last}; next {next}.", standing.state.as_str()));
    for held in &standing.held {
        style.line(format!("  waits  {}  {}", held.path, held.why));
    }
    tell_conflicts(style, standing);
    if let Some(error) = &standing.last_error {
        style.line(format!("  {}: {}", error.time, error.message));
    }
}

/// What a person has to decide, and how.
pub fn tell_conflicts(style: Style, standing: &Standing) {
    for path in &standing.conflicts {
        style.line(format!("  ! {path}  changed on both sides"));
    }
    if !standing.conflicts.is_empty() {
        style.line("'parquedb conflicts --directory MOUNTPOINT' shows what there is to decide, and how.");
    }
}

fn tell(style: Style, place: &Place, mounted: Option<&str>, pending: &[Pending]) {
    let by = mounted.map_or("not mounted".to_owned(), |pid| format!("mounted by process {pid}"));
    style.line(format!("{} (replica {}, {}), {by}", place.database, place.replica, place.origin));
    for pending in pending {
        style.line(format!("  {}", line(pending)));
    }
    let (here, travels): (Vec<_>, Vec<_>) = pending.iter().partition(|pending| !pending.what.travels());
    style.line(match travels.len() {
        0 => "Nothing is waiting to be published.".to_owned(),
        1 => "1 change is not published.".to_owned(),
        count => format!("{count} changes are not published."),
    });
    if !here.is_empty() {
        style.line(format!("{} stay here: the remote has no room for them.", here.len()));
    }
}

fn line(pending: &Pending) -> String {
    let path = without_controls(&pending.path.to_string_lossy(), "");
    match &pending.what {
        Changed::Created { size } => format!("created    {path}  {}", bytes(*size)),
        Changed::Edited { size, ranges, from, depends_on_remote } => {
            let local = match ranges {
                None => "all of it".to_owned(),
                Some(ranges) => told_ranges(ranges),
            };
            let from = from.as_ref().map_or(String::new(), |from| format!(", was {from}"));
            let depends = if *depends_on_remote { "; the rest is with the remote only" } else { "" };
            format!("changed    {path}  {local} of {}{from}{depends}", bytes(*size))
        }
        Changed::Renamed { from, .. } => format!("renamed    {path}  was {from}"),
        Changed::Deleted => format!("deleted    {path}"),
        Changed::HereOnly(why) => format!("here only  {path}  {}", reason(*why)),
    }
}

fn told_ranges(ranges: &[ByteRange]) -> String {
    let told = ranges.iter().take(RANGES).map(|range| format!("{}-{}", range.start, range.end.max(1) - 1));
    let told = told.collect::<Vec<_>>().join(", ");
    let total: u64 = ranges.iter().map(ByteRange::len).sum();
    match ranges.len() {
        0 => "nothing but the size".to_owned(),
        count if count > RANGES => {
            format!("bytes {told} and {} ranges more, {},", count - RANGES, bytes(total))
        }
        _ => format!("bytes {told}"),
    }
}

fn reason(why: HereOnly) -> &'static str {
    match why {
        HereOnly::Attributes => "its attributes",
        HereOnly::EmptyDirectory => "a directory as such, not what is in it",
        HereOnly::Symlink => "a symbolic link",
        HereOnly::Special => "a fifo, socket or device",
        HereOnly::Name => "a name that cannot be published",
        HereOnly::Protected => "a name that never travels",
    }
}

fn as_json(pending: &Pending) -> Value {
    let path = pending.path.to_string_lossy();
    match &pending.what {
        Changed::Created { size } => json!({"path": path, "change": "created", "size": size}),
        Changed::Edited { size, ranges, from, depends_on_remote } => json!({
            "path": path,
            "change": "changed",
            "size": size,
            "ranges": ranges.as_ref().map(|ranges| {
                ranges.iter().map(|range| [range.start, range.end]).collect::<Vec<_>>()
            }),
            "from": from.as_ref().map(|from| from.as_str()),
            "dependsOnRemote": depends_on_remote,
        }),
        Changed::Renamed { from, size } => {
            json!({"path": path, "change": "renamed", "from": from.as_str(), "size": size})
        }
        Changed::Deleted => json!({"path": path, "change": "deleted"}),
        Changed::HereOnly(why) => json!({"path": path, "change": "here only", "why": reason(*why)}),
    }
}
