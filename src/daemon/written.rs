//! What was written in earlier lives, found and said.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::mount::{MountError, OverlayOptions};
use super::supervised::waiting;
use crate::disk::random_hex;
use crate::overlay::{Overlay, OverlayError, Upper};
use crate::state::{Place, PlaceError, StateDir};

/// What is local, and where it lasts.
pub(super) struct Written {
    pub(super) overlay: Arc<Overlay>,
    pub(super) upper: Upper,
    pub(super) throw_away: Option<ThrowAway>,
    /// The daemon of an earlier mount was waited for: it may have published, and taken in, what was not known then.
    pub(super) waited: bool,
}

/// A directory in memory that is gone when the mount ends.
pub(super) struct ThrowAway(PathBuf);

/// Where such directories lie.
const MEMORY: &str = "/dev/shm";
const PREFIX: &str = "parquedb-throw-away-";
/// A daemon that is unmounted knows of it by then.
const HEARD_WITHIN: Duration = Duration::from_secs(1);
/// So long the daemon of an earlier mount is waited for.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

impl ThrowAway {
    /// Makes one, and removes those of daemons that were killed.
    fn make() -> PathBuf {
        for left in std::fs::read_dir(MEMORY).into_iter().flatten().flatten() {
            let is_ours = left.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
            if is_ours && StateDir::is_left(&left.path()) {
                // One of another user's stays.
                let _ = std::fs::remove_dir_all(left.path());
            }
        }
        Path::new(MEMORY).join(format!("{PREFIX}{}", random_hex::<8>()))
    }

    /// All that was written is gone.
    pub(super) fn remove(self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, dir = %self.0.display(), "what was to be thrown away is still there");
        }
    }
}

/// Takes a replica's directory, once the daemon of its last mount has ended; and whether that was waited for.
fn take_when_free(place: &Place, state_dir: &Path) -> (Result<StateDir, PlaceError>, bool) {
    let began = Instant::now();
    let (mut waited, mut said) = (false, false);
    loop {
        let taken = place.take(state_dir);
        match &taken {
            // It may not have heard yet that it was unmounted.
            Err(PlaceError::InUse { .. }) if began.elapsed() < HEARD_WITHIN => {}
            Err(PlaceError::Ending { pid, .. }) if began.elapsed() < ENDS_WITHIN => {
                if !std::mem::replace(&mut said, true) {
                    tracing::info!(
                        pid,
                        "the daemon of the last mount is still publishing: this one waits until it has ended"
                    );
                    waiting("the daemon of the last mount is still publishing", ENDS_WITHIN);
                }
            }
            _ => return (taken, waited),
        }
        waited = true;
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Written {
    /// Opens a replica's state.
    pub(super) async fn open(options: &OverlayOptions, place: &Place) -> Result<Self, MountError> {
        let (state_dir, throw_away, place) = (options.state_dir.clone(), options.throw_away, place.clone());
        let opening = tokio::task::spawn_blocking(move || {
            let throw_away = throw_away.then(ThrowAway::make);
            let (dir, waited) = match &throw_away {
                Some(dir) => (place.take_at(dir.clone()), false),
                None => take_when_free(&place, &state_dir),
            };
            let dir = dir.map_err(OverlayError::from)?;
            let (overlay, upper, recovered) = Overlay::open(dir)?;
            if recovered.replayed > 0 {
                tracing::info!(
                    changes = recovered.replayed,
                    "the last daemon died: what it had acknowledged is here"
                );
            }
            if recovered.lost > 0 {
                tracing::warn!(
                    changes = recovered.lost,
                    "the machine stopped before these were committed, and nobody had asked for it: they are lost"
                );
            }
            for id in recovered.given_up {
                let path = upper.path(id).unwrap_or_default().join(std::ffi::OsStr::new("/"));
                tracing::warn!(
                    path = %path.display(),
                    "the machine stopped before this was synced: what was written last was given up"
                );
            }
            overlay.start_committing().map_err(OverlayError::from)?;
            Ok::<_, OverlayError>(Self { overlay, upper, throw_away: throw_away.map(ThrowAway), waited })
        });
        let opened = opening.await.map_err(std::io::Error::other).map_err(OverlayError::from)?;
        Ok(opened?)
    }
}
