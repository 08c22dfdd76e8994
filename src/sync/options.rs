//! What a run is told, and what it says of itself.

use std::path::PathBuf;

use super::brake::Brake;
use super::conflict::Strategy;
use super::diff::SyncDiff;
use super::direction::{Direction, Left};
use super::filter::Filter;
use super::reconcile::Plan;
use crate::model::{DbPath, DbRef, ExitCode, Revision, Visibility};
use crate::tree::Skipped;

/// What a run works with.
#[derive(Debug, Clone)]
pub struct SyncOptions {
    /// The directory.
    pub directory: PathBuf,
    /// The database.
    pub database: DbRef,
    /// What the database is to be, if there is none of that name yet; else there must be one.
    pub create: Option<NewDatabase>,
    /// Sets its visibility, where given.
    pub visibility: Option<Visibility>,
    /// Which side may be changed.
    pub direction: Direction,
    /// The revision to bring the directory to; the current one, where none is given. For a pull.
    pub at: Option<Revision>,
    /// What decides conflicts.
    pub strategy: Strategy,
    /// Which paths it is about.
    pub filter: Filter,
    /// Whether mass deletions go through.
    pub brake: Brake,
    /// The most that conflict copies may take, in bytes; at the limit conflicts stay open.
    pub conflict_limit: u64,
    /// Only says what would be done.
    pub dry_run: bool,
}

impl SyncOptions {
    /// Whether nothing is to be done where both sides are in step.
    pub(super) fn asks_for_nothing_else(&self) -> bool {
        self.at.is_none() && self.visibility.is_none() && !self.dry_run
    }
}

/// What a new database is called.
#[derive(Debug, Clone)]
pub struct NewDatabase {
    /// Its name for people.
    pub name: String,
}

/// What a run did, or would do.
#[derive(Debug)]
pub struct SyncReport {
    /// What was, or would be, done; files that were changed while the run was at work are among its conflicts.
    pub plan: Plan,
    /// What is for a run the other way.
    pub left: Left,
    /// How both sides differ; of a dry run.
    pub diff: Option<SyncDiff>,
    /// How many contents had to be sent.
    pub contents_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
    /// Bytes received.
    pub bytes_received: u64,
    /// The revision both sides are at now, but for conflicts; where the remote numbers them.
    pub revision: Option<Revision>,
    /// What in the directory is not published.
    pub skipped: Vec<Skipped>,
    /// Where somebody wrote to a file in the moment it was replaced, in this run or before: what they wrote is kept, and waits for
    /// a person.
    pub set_aside: Vec<DbPath>,
    /// Files of the database whose names stay put on either side: not written here.
    pub not_pulled: Vec<DbPath>,
}

impl SyncReport {
    /// Both sides were in step, and are.
    pub(super) fn of_nothing(revision: Option<Revision>, skipped: Vec<Skipped>) -> Self {
        Self {
            plan: Plan::default(),
            left: Left::default(),
            diff: None,
            contents_sent: 0,
            bytes_sent: 0,
            bytes_received: 0,
            revision,
            skipped,
            set_aside: Vec::new(),
            not_pulled: Vec::new(),
        }
    }

    /// What this run did and the one before, which was about some of its files.
    pub(super) fn and_before(mut self, before: Self) -> Self {
        let (plan, earlier) = (&mut self.plan, before.plan);
        plan.upload.extend(earlier.upload);
        plan.delete_there.extend(earlier.delete_there);
        plan.download.extend(earlier.download);
        plan.delete_here.extend(earlier.delete_here);
        plan.agreed.extend(earlier.agreed);
        // What is undecided still is in the plan for all.
        for (path, conflict) in earlier.conflicts.into_iter().filter(|(_, conflict)| conflict.keeps.is_some())
        {
            plan.conflicts.entry(path).or_insert(conflict);
        }
        self.contents_sent += before.contents_sent;
        self.bytes_sent += before.bytes_sent;
        self.bytes_received += before.bytes_received;
        self
    }

    /// Whether something is left to a person: a conflict to decide, or a file that was set aside.
    pub fn needs_a_person(&self) -> bool {
        self.plan.undecided().next().is_some() || !self.set_aside.is_empty()
    }

    /// What is left to a person needs a decision; everything else is done.
    pub fn exit_code(&self) -> ExitCode {
        if self.needs_a_person() { ExitCode::NeedsDecision } else { ExitCode::Done }
    }
}
