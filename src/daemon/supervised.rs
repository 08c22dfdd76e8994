//! Under systemd: it hears when the mount answers, how the syncs stand, that the daemon is alive, and when it stops. Where nobody
//! supervises, nothing is said.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::control::Standing;

/// A mount that does not answer a question that needs nothing but itself has hung.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);

/// What a start takes at most, once it need not wait any more: a remote that does not answer is asked several times.
const STARTS_WITHIN: Duration = Duration::from_secs(150);

/// Says that the mount answers.
pub(super) fn ready() {
    tell(&[NotifyState::Ready]);
}

/// Says what the mount waits for before it can answer, and how long that may take.
pub(super) fn waiting(what: &str, patience: Duration) {
    let more = u32::try_from((patience + STARTS_WITHIN).as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Status(what), NotifyState::ExtendTimeoutUsec(more)]);
}

/// Says that the mount is being taken away; what is left to publish may take so long.
pub(super) fn stopping(patience: Duration) {
    let more = u32::try_from(patience.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(more)]);
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "the service manager does not hear");
    }
}

/// Says how things stand whenever that changes, and that the mount is alive, for as long as it answers.
pub(super) async fn supervise(mountpoint: PathBuf, mut standing: watch::Receiver<Standing>) {
    // It goes on however often something is told in between.
    let mut beat = sd_notify::watchdog_enabled().map(|limit| {
        let mut beat = tokio::time::interval(limit / 3);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        beat
    });
    let mut told = String::new();
    loop {
        let text = line(&standing.borrow_and_update());
        if text != told {
            tell(&[NotifyState::Status(&text)]);
            told = text;
        }
        let pause = async {
            match &mut beat {
                Some(beat) => drop(beat.tick().await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = pause => if answers(&mountpoint).await {
                tell(&[NotifyState::Watchdog]);
            },
            changed = standing.changed() => if changed.is_err() {
                return;
            }
        }
    }
}

/// Asks the mount something that the kernel does not know the answer to.
async fn answers(mountpoint: &Path) -> bool {
    let path = mountpoint.to_owned();
    let asking = tokio::task::spawn_blocking(move || {
        let mut value = [0; 64];
        rustix::fs::getxattr(&path, "user.parquedb.revision", &mut value).map(|_| ())
    });
    let answered = tokio::time::timeout(ANSWERS_WITHIN, asking).await;
    // A mount that is gone has its own end; a value that is longer is an answer, too.
    answered.is_ok()
}

fn line(standing: &Standing) -> String {
    let mut line = format!("{}: {}", standing.database, standing.state.as_str());
    if let Some(revision) = standing.revision {
        line.push_str(&format!(", revision {revision}"));
    }
    if standing.pending > 0 {
        line.push_str(&format!(", {} to be published", standing.pending));
    }
    if !standing.conflicts.is_empty() {
        line.push_str(&format!(", {} in conflict", standing.conflicts.len()));
    }
    if let Some(error) = &standing.last_error {
        line.push_str(&format!(": {}", error.message));
    }
    line
}
