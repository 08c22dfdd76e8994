//! A plain directory and a remote are made the same, three-way: what both sides were when they last agreed (the base, per
//! path), what is here, and what the remote has now.
//!
//! Planning is pure ([`reconcile`]), and costs what has changed; a conflict is a value, not an error. Nothing a person
//! wrote is overwritten in either direction: what loses a conflict is kept beside the database ([`conflicts`]).

mod apply;
mod batches;
mod brake;
mod changes;
mod collisions;
mod conflict;
mod diff;
mod direction;
mod dismiss;
mod download;
mod error;
mod families;
mod far;
mod filter;
mod kept;
mod landed;
#[cfg(test)]
mod model_tests;
mod near;
mod noted;
mod options;
mod publish;
mod reconcile;
mod record;
mod replica;
mod report;
mod resolve;
mod retry;
mod revert;
mod run;
mod state;
mod upload;
mod workdir;

pub use batches::sync_critical_first;
pub use brake::{Brake, MassDeletion};
pub use changes::{Changes, Files, changes_between};
pub use conflict::{Conflict, ConflictKind, Policy, Side, Strategy, Suggestion, UnknownStrategy};
pub use diff::SyncDiff;
pub use direction::{Direction, Left};
pub use dismiss::{Dismissed, conflicts, dismiss};
pub use error::SyncError;
pub use filter::{BadPattern, Filter};
pub use kept::CONFLICT_LIMIT;
pub use options::{NewDatabase, SyncOptions, SyncReport};
pub use reconcile::{Plan, reconcile};
pub use record::{Outcome, Record, Recorded, Version};
pub use replica::{Landed, LocalSide, PublishReport, Replica, ReplicaOptions};
pub use report::{Event, Reporter};
pub use resolve::{Choice, resolve};
pub use retry::{sync_with_retries, wait_before};
pub use revert::{Difference, RevertOptions, RevertReport, diff, revert};
pub use run::sync;
pub use state::Waits;
pub use workdir::{LastSync, last_sync};
