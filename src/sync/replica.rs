//! Publishing what is local in a mount: the same plan, brake, conflict copies and commits as for a directory. What the local side
//! is, how it is frozen and how it moves on is the caller's; here is what is known of the remote, and what survives a kill.
//!
//! Before a commit is sent it is written down (rule 3). Until its fate is known and what it has published is settled, nothing
//! else is published: it is sent again as it was, and the remote knows by its id whether it has it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;

use super::brake::{Brake, Deletions};
use super::changes::{Changes, Files};
use super::conflict::{Policy, Side, Strategy};
use super::download::Downloads;
use super::families::{hold_torn, torn_with};
use super::filter::Filter;
use super::kept::{Keeping, Kept};
use super::landed::{check_same_history, in_log};
use super::noted::PendingCommit;
use super::reconcile::{Plan, reconcile};
use super::record::DIR;
use super::state::{Anchor, SyncState, Waits};
use super::upload::{Places, upload_contents};
use super::{Reporter, SyncError};
use crate::disk::{make_private_dirs, random_hex};
use crate::manifest::PRIVATE_DIR;
use crate::model::{DbPath, DbRef, Revision, Sha256};
use crate::remote::{Remote, RemoteError};
use crate::tree::{Durability, Root};
use crate::wire::CommitResponse;

/// How a mount is synced.
#[derive(Debug, Clone)]
pub struct ReplicaOptions {
    /// The database.
    pub database: DbRef,
    /// What decides conflicts.
    pub strategy: Strategy,
    /// Which paths it is about.
    pub filter: Filter,
    /// Whether mass deletions go through.
    pub brake: Brake,
    /// The most that conflict copies may take, in bytes.
    pub conflict_limit: u64,
}

/// What is local, of one moment: paths that were changed here, and what they were and are.
#[derive(Debug, Default)]
pub struct LocalSide {
    /// What each was when it was changed here.
    pub base: Files,
    /// What it is here.
    pub local: Changes,
    /// What the remote has, where that is another than the base.
    pub remote: Changes,
    /// The revision in which the remote has that.
    pub revision: Option<Revision>,
    /// Where the bytes lie that are here, below the replica's directory.
    pub places: BTreeMap<DbPath, DbPath>,
    /// Files of the remote's that have another name here: from, to.
    pub moved: Vec<(DbPath, DbPath)>,
    /// How many files the remote has.
    pub files: usize,
    /// What is not ready: nothing is said of it here.
    pub held: BTreeSet<DbPath>,
}

/// A commit that the remote has.
#[derive(Debug, Clone)]
pub struct Landed {
    /// Its id.
    pub commit_id: String,
    /// The revision it is.
    pub revision: Revision,
    /// The entity tag of the manifest at that revision, if the remote has said.
    pub etag: Option<String>,
    /// What it has published.
    pub changes: Changes,
}

/// What publishing came to.
#[derive(Debug, Default)]
pub struct PublishReport {
    /// What was decided. Of what is to be brought here nothing is done: the caller shows it.
    pub plan: Plan,
    /// What was published; none where there was nothing.
    pub landed: Option<Landed>,
    /// Files of the remote's that were moved and do not arrive for now; until their bytes are local, they stay where they were, too.
    pub stranded: BTreeSet<DbPath>,
    /// What does not travel because what belongs with it does not.
    pub torn: BTreeSet<DbPath>,
    /// How many contents had to be sent.
    pub contents_sent: u64,
    /// Bytes sent.
    pub bytes_sent: u64,
}

/// What is remembered of one replica's syncs, in its directory.
#[derive(Debug)]
pub struct Replica {
    root: Arc<Root>,
    state: SyncState,
    pending: Option<PendingCommit>,
    /// That the remote's history is the one we know was found out in this life.
    history_checked: bool,
    /// How many files the last commit takes from the remote.
    lost: usize,
    /// That, once it has landed, and the hash of its revision.
    sent: Option<(Deletions, Option<Anchor>)>,
}

impl Replica {
    /// Opens the replica of database `id` that lies in a directory.
    pub fn open(directory: &Path, id: &str) -> Result<Self, SyncError> {
        let failed = |error| SyncError::directory(directory.display())(error);
        let root = Arc::new(Root::open(directory).map_err(failed)?);
        root.sweep_staged().map_err(failed)?;
        let state = SyncState::read(&root)?.filter(|state| state.database_id == id);
        let pending = PendingCommit::read(&root)?.filter(|pending| pending.database_id == id);
        let state = state.unwrap_or_else(|| SyncState::of(id));
        Ok(Self { root, state, pending, history_checked: false, lost: 0, sent: None })
    }

    /// Where versions are kept that conflicts are about; there is such a directory when this returns.
    pub fn make_conflicts_directory(directory: &Path) -> std::io::Result<PathBuf> {
        let place = directory.join(PRIVATE_DIR).join(DIR);
        make_private_dirs(&place)?;
        Ok(place)
    }

    /// What its syncs wait for.
    pub fn waits(&self) -> Waits {
        self.state.waits
    }

    /// Notes what they wait for from now on, durably.
    pub fn wait_for(&mut self, waits: Waits) -> Result<(), SyncError> {
        let state = SyncState { waits, ..self.state.clone() };
        state.write(&self.root)?;
        self.state = state;
        Ok(())
    }

    /// Whether there is a commit whose fate is not known, or which is not settled.
    pub fn has_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// The same of a replica that is not open.
    pub fn has_pending_in(directory: &Path, id: &str) -> bool {
        let pending = Root::open(directory).ok().and_then(|root| PendingCommit::read(&root).ok().flatten());
        pending.is_some_and(|pending| pending.database_id == id)
    }

    /// Finds out what became of the commit that was written down, by sending it again as it was; if that is refused, as to one
    /// who may only read any more, from the log. None: it was not published and will never be, and is forgotten; or there was none.
    pub async fn resolve_pending(&mut self, remote: &Remote) -> Result<Option<Landed>, SyncError> {
        let Some(pending) = &self.pending else { return Ok(None) };
        let (id, request) = (&self.state.database_id, pending.again(&self.root)?);
        match remote.commit_from(id, &request).await {
            Ok(CommitResponse { revision, etag, hash }) => self.has_landed(revision, Some(etag), hash),
            // Others have published after its base, or its contents are not there any more.
            Err(RemoteError::Moved { .. } | RemoteError::Refused { status: 400 | 409 | 413 | 422, .. }) => {
                self.forget_commit()?;
                Ok(None)
            }
            Err(error) if error.is_transient() => Err(error.into()),
            Err(error) => match in_log(remote, id, pending).await? {
                Some(found) => self.has_landed(found.revision, None, Some(found.hash)),
                None => Err(error.into()),
            },
        }
    }

    /// The commit of an earlier round, or life, has landed.
    fn has_landed(
        &mut self,
        revision: Revision,
        etag: Option<String>,
        hash: Option<Sha256>,
    ) -> Result<Option<Landed>, SyncError> {
        let changes = PendingCommit::changes(&self.root)?;
        self.lost = changes.values().filter(|entry| entry.is_none()).count();
        Ok(self.landed(revision, etag, hash, changes))
    }

    fn landed(
        &mut self,
        revision: Revision,
        etag: Option<String>,
        hash: Option<Sha256>,
        changes: Changes,
    ) -> Option<Landed> {
        let pending = self.pending.as_ref()?;
        let anchor = hash.map(|hash| Anchor { revision, hash });
        self.sent = Some((Deletions { time: Timestamp::now(), here: 0, there: self.lost }, anchor));
        Some(Landed { commit_id: pending.commit_id.clone(), revision, etag, changes })
    }

    /// What the last commit has published is settled: it is forgotten.
    pub fn settled(&mut self, landed: &Landed) -> Result<(), SyncError> {
        self.state.revision = self.state.revision.max(landed.revision);
        if let Some((deletions, anchor)) = self.sent.take() {
            deletions.add_to(&mut self.state.deletions);
            self.state.anchor = anchor.or(self.state.anchor);
        }
        // Forgotten for good with the state, whose directory is synced.
        self.forget_commit()?;
        self.state.write(&self.root)
    }

    fn forget_commit(&mut self) -> Result<(), SyncError> {
        PendingCommit::forget(&self.root)?;
        self.pending = None;
        Ok(())
    }

    /// Halts where the remote is not what this replica was synced with (rule 4).
    async fn check_history(&mut self, remote: &Remote, database: &DbRef) -> Result<(), SyncError> {
        if self.history_checked {
            return Ok(());
        }
        let found = remote.describe(database).await?;
        let (here, there) = (self.state.revision, found.revision);
        if found.id != self.state.database_id {
            let what = format!("{database} is another database now ({})", found.id);
            return Err(SyncError::NotAsSynced { what });
        }
        if there < here {
            let what =
                format!("the remote is at revision {there}, and this mount has seen revision {here} of it");
            return Err(SyncError::NotAsSynced { what });
        }
        let anchor = self.state.anchor.map(|anchor| (anchor.revision, anchor.hash));
        check_same_history(remote, anchor, &found).await.map_err(|error| match error {
            SyncError::OtherHistory { revision } => {
                let what =
                    format!("revision {revision} of the remote is another one than this mount has seen");
                SyncError::NotAsSynced { what }
            }
            other => other,
        })?;
        self.history_checked = true;
        Ok(())
    }

    /// Plans, keeps what loses, and publishes what is local as one revision. There must be no commit pending. `decided` is what a
    /// person has decided about one conflict. `Moved`: others have published since the revision that the caller has frozen.
    pub async fn publish(
        &mut self,
        remote: &Remote,
        side: &LocalSide,
        options: &ReplicaOptions,
        decided: Option<&(DbPath, Side)>,
        reporter: &dyn Reporter,
    ) -> Result<PublishReport, SyncError> {
        self.check_history(remote, &options.database).await?;
        let policy = Policy { strategy: options.strategy, latest: remote.latest_date() };
        let mut plan = reconcile(&side.base, &side.local, &side.remote, &policy, &options.filter);
        if let Some((path, keeps)) = decided {
            // Whatever the strategy would have it.
            plan.hold(path);
            plan.decide(path, *keeps)?;
        }
        let (mut stranded, mut torn) = (BTreeSet::new(), BTreeSet::new());
        side.hold_parts(&mut plan, &mut stranded, &mut torn);
        if let Some((path, _)) = decided
            && torn_with(&plan, path, &side.local)
        {
            return Err(SyncError::Together { path: path.clone() });
        }
        self.brake(&plan, side, options)?;
        let mut kept = Kept::open(&self.root)?;
        let id = self.state.database_id.clone();
        if !plan.conflicts.is_empty() {
            let downloads = Downloads {
                remote,
                database: &options.database,
                id: &id,
                at: None,
                root: &self.root,
                durability: Durability::Now,
                reporter,
            };
            let keeping =
                Keeping { revision: side.revision, limit: options.conflict_limit, downloads: &downloads };
            kept.keep(&mut plan, &|path| side.places.get(path).cloned(), keeping).await?;
            side.hold_parts(&mut plan, &mut stranded, &mut torn);
        }
        let mut report = PublishReport::default();
        if !plan.upload.is_empty() || !plan.delete_there.is_empty() {
            let places = Places::Some(&side.places);
            let sent = upload_contents(remote, &id, &self.root, places, &plan.upload, reporter).await?;
            (report.contents_sent, report.bytes_sent) = (sent.contents, sent.bytes);
            report.landed = self.commit(remote, &id, side, &plan).await?;
        }
        kept.carried_out(&plan, |path| options.filter.takes(path) && !side.held.contains(path))?;
        (report.plan, report.stranded, report.torn) = (plan, stranded, torn);
        Ok(report)
    }

    async fn commit(
        &mut self,
        remote: &Remote,
        id: &str,
        side: &LocalSide,
        plan: &Plan,
    ) -> Result<Option<Landed>, SyncError> {
        let base = super::publish::numbered(remote, side.revision)?;
        let pending = PendingCommit::new(id, random_hex::<16>(), base);
        let request = pending.write(&self.root, plan)?;
        self.pending = Some(pending);
        // What comes and goes within a day, as programs' own files do, adds nothing up.
        self.lost = side.lost(plan).saturating_sub(side.newcomers(plan));
        let committed = remote.commit_from(id, &request).await;
        if let Err(RemoteError::Moved { .. }) = committed {
            // The remote knows commits by their ids: this one is not among them, and will not be.
            self.forget_commit()?;
        }
        let put = plan.upload.iter().map(|(path, entry)| (path.clone(), Some(entry.clone())));
        let changes = put.chain(plan.delete_there.iter().map(|path| (path.clone(), None))).collect();
        let CommitResponse { revision, etag, hash } = committed?;
        Ok(self.landed(revision, Some(etag), hash, changes))
    }

    /// Halts what deletes too much on the remote (rule 14). Files that have moved are not lost.
    fn brake(&self, plan: &Plan, side: &LocalSide, options: &ReplicaOptions) -> Result<(), SyncError> {
        let lost = side.lost(plan);
        if lost == 0 {
            return Ok(());
        }
        let before = Deletions::within_a_day(&self.state.deletions, Timestamp::now());
        let left = side.files.saturating_sub(plan.delete_there.len()) + side.newcomers(plan);
        let checked = options.brake.check(lost, side.files, left, before.on(Side::Remote));
        checked.map_err(|counts| SyncError::Halted { counts, side: Side::Remote })
    }
}

impl LocalSide {
    /// How many of the files that the plan publishes the remote does not have.
    fn newcomers(&self, plan: &Plan) -> usize {
        let is_new = |path: &&DbPath| !self.base.contains_key(*path) && !self.remote.contains_key(*path);
        plan.upload.keys().filter(is_new).count()
    }

    /// How many files are deleted by the plan, those not counted that have moved.
    fn lost(&self, plan: &Plan) -> usize {
        let arrives =
            |(from, to): &&(DbPath, DbPath)| plan.delete_there.contains(from) && plan.upload.contains_key(to);
        // A file may have several names by now.
        let moved: BTreeSet<&DbPath> = self.moved.iter().filter(arrives).map(|(from, _)| from).collect();
        plan.delete_there.len().saturating_sub(moved.len())
    }

    /// Holds what would travel in parts: moves of which one end does not, and files without those that belong with them.
    fn hold_parts(&self, plan: &mut Plan, stranded: &mut BTreeSet<DbPath>, torn: &mut BTreeSet<DbPath>) {
        loop {
            let mut half = self.hold_half_moves(plan);
            let mut apart = hold_torn(plan, &self.local);
            if half.is_empty() && apart.is_empty() {
                return;
            }
            stranded.append(&mut half);
            torn.append(&mut apart);
        }
    }

    /// A file that was moved leaves its old place only together with its arrival at the new one: else its content would be nowhere.
    /// Returns those that do not arrive.
    fn hold_half_moves(&self, plan: &mut Plan) -> BTreeSet<DbPath> {
        let mut held = BTreeSet::new();
        for (from, to) in &self.moved {
            if !plan.upload.contains_key(to)
                && (plan.delete_there.contains(from) || plan.upload.contains_key(from))
            {
                plan.hold(from);
                held.insert(to.clone());
            }
        }
        held
    }
}
