//! `parquedb ctl`.

use std::io::Write;
use std::path::Path;

use parquedb_mount::control::{Control, ControlError, Counts, Request, Standing};
use parquedb_mount::model::ExitCode;

use super::{files, status};
use crate::args::{CtlAction, CtlArgs};
use crate::common::failure::Failure;
use crate::common::output::Style;

pub fn run(args: &CtlArgs, style: Style) -> Result<ExitCode, Failure> {
    let (mount, request) = match &args.action {
        CtlAction::Sync { mount, allow_mass_delete } => {
            (mount, Request::Sync { allow_mass_delete: *allow_mass_delete })
        }
        CtlAction::Commit { mount, allow_mass_delete } => {
            (mount, Request::Commit { allow_mass_delete: *allow_mass_delete })
        }
        CtlAction::Pause { mount } => (mount, Request::Pause),
        CtlAction::Resume { mount } => (mount, Request::Resume),
        CtlAction::Begin { mount } => (mount, Request::Begin),
        CtlAction::Events { mount } => (mount, Request::Events),
    };
    let control = reach(&status::state_of(mount)?)?;
    if request == Request::Events {
        let mut out = std::io::stdout();
        control.events(|line| writeln!(out, "{line}").and_then(|()| out.flush())).map_err(failure)?;
        return Ok(ExitCode::Done);
    }
    let (counts, standing) = control.ask(request.clone()).map_err(failure)?;
    tell(style, &request, counts, &standing);
    style.json(&serde_json::json!({ "published": counts, "status": standing }));
    let undecided = counts.is_some_and(|counts| counts.conflicts > 0);
    Ok(if undecided { ExitCode::NeedsDecision } else { ExitCode::Done })
}

/// The daemon that has a state.
pub fn reach(state: &Path) -> Result<Control, Failure> {
    Control::reach(state).map_err(failure)
}

pub fn failure(error: ControlError) -> Failure {
    let code = match &error {
        ControlError::Failed(failed) => ExitCode::from_number(failed.code),
        ControlError::Nobody(_) | ControlError::Broken(_) => ExitCode::Failure,
    };
    Failure::new(code, error.to_string())
}

fn tell(style: Style, request: &Request, counts: Option<Counts>, standing: &Standing) {
    match request {
        Request::Pause => style.line("Paused: nothing is published until 'parquedb ctl resume'."),
        Request::Resume => style.line("Resumed."),
        Request::Begin => {
            style.line("Gathering: 'parquedb ctl commit' publishes what is changed from now on.")
        }
        _ => {}
    }
    let Some(counts) = counts else { return };
    style.line(match (counts.uploaded, counts.deleted) {
        (0, 0) => "Nothing was to be published.".to_owned(),
        (uploaded, 0) => format!("Published {}.", files(uploaded)),
        (0, deleted) => format!("Deleted {} on the remote.", files(deleted)),
        (uploaded, deleted) => {
            format!("Published {}, deleted {} on the remote.", files(uploaded), files(deleted))
        }
    });
    if let Some(revision) = counts.revision {
        style.line(format!("The mount shows revision {revision}."));
    }
    for held in &standing.held {
        style.line(format!("  waits  {}  {}", held.path, held.why));
    }
    status::tell_conflicts(style, standing);
}
