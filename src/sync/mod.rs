//! Push and pull between a plain directory and a remote, three-way: what both sides were when they last agreed
//! (the base, per path), what is here, and what the remote has now.
//!
//! The planning is pure ([`classify`], [`plan_push`], [`plan_pull`]); a conflict is a value, not an error. Nothing
//! a person wrote is overwritten by either direction.

mod brake;
mod changes;
mod collisions;
mod conflict;
mod diff;
mod download;
mod error;
mod filter;
mod landed;
mod local;
#[cfg(test)]
mod model_tests;
mod plan;
mod pull;
mod push;
mod reconcile;
mod report;
mod revert;
mod upload;
mod workdir;

pub use brake::{Brake, MassDeletion};
pub use changes::{Changes, changes_between};
pub use conflict::{Conflict, ConflictKind, Policy, Side, Strategy, Suggestion, UnknownStrategy};
pub use diff::SyncDiff;
pub use error::SyncError;
pub use filter::{BadPattern, Filter};
pub use plan::{Files, Overwrite, PathState, PullPlan, PushPlan, classify, plan_pull, plan_push};
pub use pull::{PullOptions, PullReport, pull};
pub use push::{PushOptions, PushReport, push};
pub use reconcile::{Plan, reconcile};
pub use report::{Event, Reporter};
pub use revert::{Difference, RevertOptions, RevertReport, diff, revert};
pub use workdir::Workdir;
