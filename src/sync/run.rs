//! One run: what both sides have, a plan, its brake, contents, one revision, the directory, and what both agree on now.

use jiff::Timestamp;

use super::apply::{Received, apply};
use super::brake::Deletions;
use super::changes::{Changes, Files, SideView, changes_between, collections};
use super::collisions::hold_beside;
use super::conflict::{Conflict, ConflictKind, Policy, Side};
use super::diff::SyncDiff;
use super::direction::{Direction, Left};
use super::download::Downloads;
use super::far::{self, Far, Named};
use super::kept::{Keeping, Kept};
use super::landed::{anchor_at, landed_commit};
use super::near::{self, Looked, Near};
use super::noted::Arriving;
use super::options::{SyncOptions, SyncReport};
use super::publish::{numbered, publish};
use super::reconcile::{Plan, reconcile, same};
use super::upload::{Places, Sent, upload_contents};
use super::workdir::{Identity, Intent, Log, Reached, Unread, Workdir};
use super::{Event, Reporter, SyncError};
use crate::manifest::{Entry, stays_put};
use crate::model::{DbPath, Revision};
use crate::remote::{News, Remote, RemoteError};
use crate::tree::{Durability, Moment, Occupant};
use crate::wire::{CommitResponse, DatabaseDescription, RegisterRequest};

/// How often a run plans again because others publish.
const MAX_PLANS: usize = 5;

/// Makes a directory and a database the same, as far as the options allow.
pub async fn sync(
    remote: &Remote,
    options: &SyncOptions,
    reporter: &dyn Reporter,
) -> Result<SyncReport, SyncError> {
    if options.direction == Direction::Pull && !options.directory.exists() {
        // Made once it is known that there is something to put there.
        let found = remote.describe(&options.database).await?;
        if options.dry_run {
            return look_from_nowhere(remote, options, found, reporter).await;
        }
        let made = std::fs::create_dir_all(&options.directory);
        made.map_err(SyncError::directory(options.directory.display()))?;
    }
    let intent = if options.dry_run { Intent::Look } else { Intent::Work };
    let unread = Unread::open(&options.directory, intent)?;
    let moment = unread.moment()?;
    let (root, in_step) = (unread.root().clone(), unread.in_step(&options.database));
    let asked = async {
        match &in_step {
            Some((known, _)) if options.at.is_none() => Some(remote.news(known).await),
            _ => None,
        }
    };
    let (looked, news) = tokio::join!(near::look(&root, moment), asked);
    let looked = looked?;
    if let (Some((known, summary)), Some(Ok(News::Nothing))) = (&in_step, &news)
        && looked.is_all_of(unread.stamp())
        && options.asks_for_nothing_else()
        && !Kept::open(&root)?.has_open()
        && Arriving::read(&root)?.is_none()
    {
        let collections = collections(looked.paths());
        reporter.report(Event::Found {
            reference: &options.database.to_string(),
            name: &summary.name,
            visibility: summary.visibility,
            collections,
        });
        return Ok(SyncReport::of_nothing(known.revision, looked.into_skipped()));
    }
    let mut run =
        Run { remote, options, reporter, workdir: unread.read()?, sent: Sent::default(), asked_again: false };
    run.finish(looked, news, moment).await
}

/// What a pull would bring into a directory that does not exist.
async fn look_from_nowhere(
    remote: &Remote,
    options: &SyncOptions,
    found: DatabaseDescription,
    reporter: &dyn Reporter,
) -> Result<SyncReport, SyncError> {
    let revision = options.at.unwrap_or(found.revision);
    let there = match revision {
        Revision::NONE => Files::new(),
        _ => remote.manifest_at(&options.database, revision).await?.manifest.files,
    };
    let nothing = (Files::new(), Changes::new());
    let changes = changes_between(&nothing.0, &there);
    let policy = Policy { strategy: options.strategy, latest: remote.latest_date() };
    reporter.report(Event::Found {
        reference: &options.database.to_string(),
        name: &found.name,
        visibility: found.visibility,
        collections: SideView { base: &nothing.0, changes: &changes }.collections(),
    });
    Ok(SyncReport {
        plan: reconcile(&nothing.0, &nothing.1, &changes, &policy, &options.filter),
        left: Left::default(),
        diff: Some(SyncDiff::between(&nothing.0, &nothing.1, &changes, &policy, &options.filter)),
        contents_sent: 0,
        bytes_sent: 0,
        bytes_received: 0,
        revision: Some(revision),
        skipped: Vec::new(),
        set_aside: Vec::new(),
        not_pulled: changes.into_keys().filter(stays_put).collect(),
    })
}

struct Run<'a> {
    remote: &'a Remote,
    options: &'a SyncOptions,
    reporter: &'a dyn Reporter,
    workdir: Workdir,
    sent: Sent,
    asked_again: bool,
}

impl Run<'_> {
    async fn finish(
        &mut self,
        looked: Looked,
        news: Option<Result<News, RemoteError>>,
        moment: Option<Moment>,
    ) -> Result<SyncReport, SyncError> {
        let mut far = self.look_far(news).await?;
        self.tell_found(&far);
        self.take_landed(&mut far).await?;
        let mut near = self.compare(looked, &mut far).await?;
        let mut received = Received::default();
        for _ in 0..MAX_PLANS {
            match self.carry_out(&far, &mut near, &mut received).await {
                // Others have published meanwhile: what they did is taken into account.
                Err(SyncError::Remote(RemoteError::Moved { .. })) => {}
                // A run that took more than a day: the first contents must be asked for again, not sent.
                Err(SyncError::Remote(RemoteError::Refused { status: 422, .. })) if !self.asked_again => {
                    self.asked_again = true;
                }
                other => return other,
            }
            far = self.look_far(None).await?;
            if far.anew {
                near = self.compare(near::look(self.workdir.root(), moment).await?, &mut far).await?;
            }
        }
        Err(SyncError::KeptChanging)
    }

    async fn compare(&mut self, looked: Looked, far: &mut Far) -> Result<Near, SyncError> {
        let root = self.workdir.root().clone();
        let arriving = self.arriving(far)?;
        let question = near::Question {
            root: &root,
            base: self.workdir.base(),
            remote: &far.changes,
            filter: &self.options.filter,
            newcomers: self.options.direction != Direction::Pull,
            arriving: &arriving,
        };
        let mut near = near::read(looked, question, self.reporter).await?;
        // A run that did not come to its end has brought it: it is nobody's edit.
        let arrived = near.take_arrived(&root, &self.options.filter, arriving).await?;
        if !arrived.is_empty() {
            self.settle_earlier(arrived, far, Log::NotAsked)?;
        }
        if !self.options.dry_run {
            Arriving::forget(&root)?;
        }
        Ok(near)
    }

    /// What an earlier run was bringing here that did not come to its end.
    fn arriving(&self, far: &Far) -> Result<Changes, SyncError> {
        let root = self.workdir.root();
        let Some(from) = Arriving::read(root)? else { return Ok(Changes::new()) };
        let is_it = far.database.as_ref().is_some_and(|named| named.id == from.database_id);
        match (self.workdir.manifest().is_some(), from.first) {
            // The directory starts anew: a person has removed the manifest.
            (false, false) => Ok(Changes::new()),
            // What is here is another database's, though no manifest says so yet.
            (false, true) if !is_it => Err(SyncError::HalfPulled { database: from.database }),
            _ if is_it => Arriving::changes(root),
            _ => Ok(Changes::new()),
        }
    }

    async fn look_far(&mut self, news: Option<Result<News, RemoteError>>) -> Result<Far, SyncError> {
        let question = far::Question {
            database: &self.options.database,
            at: self.options.at,
            may_be_absent: self.options.create.is_some(),
        };
        far::read(self.remote, question, news, &mut self.workdir).await
    }

    fn tell_found(&self, far: &Far) {
        let (new, named) = (self.options.create.as_ref(), far.database.as_ref());
        let known = named.map(|named| named.visibility);
        let base = self.workdir.base();
        self.reporter.report(Event::Found {
            reference: &self.options.database.to_string(),
            name: named
                .map(|named| named.name.as_str())
                .or(new.map(|new| new.name.as_str()))
                .unwrap_or_default(),
            visibility: self.options.visibility.or(known).unwrap_or_default(),
            collections: SideView { base, changes: &far.changes }.collections(),
        });
    }

    /// A commit of an earlier run whose answer was lost: what it published is settled, whatever others have published since.
    async fn take_landed(&mut self, far: &mut Far) -> Result<(), SyncError> {
        let Some(named) = &far.database else { return Ok(()) };
        match landed_commit(self.remote, &self.workdir, &named.id).await? {
            // Durably, before another commit takes the place of this one.
            Some(landed) => self.settle_earlier(landed, far, Log::Asked),
            None => Ok(()),
        }
    }

    /// Takes what earlier runs have done for agreed. The base on the disk moves, too: what was seen of the remote is told by how it
    /// differs from that.
    fn settle_earlier(&mut self, settled: Changes, far: &mut Far, log: Log) -> Result<(), SyncError> {
        self.workdir.settle_earlier(settled, &mut far.changes);
        let Some(named) = far.database.clone().filter(|_| !self.options.dry_run) else { return Ok(()) };
        let reached = Reached { revision: None, etag: None, anchor: None, log, changes: &Changes::new() };
        let none = Deletions { time: Timestamp::now(), here: 0, there: 0 };
        self.save_base(&named, &reached, none)
    }

    async fn carry_out(
        &mut self,
        far: &Far,
        near: &mut Near,
        received: &mut Received,
    ) -> Result<SyncReport, SyncError> {
        let options = self.options;
        let policy = Policy { strategy: options.strategy, latest: self.remote.latest_date() };
        let base = self.workdir.base();
        let mut plan = reconcile(base, &near.changes, &far.changes, &policy, &options.filter);
        let sides = [&near.changes, &far.changes].map(|changes| SideView { base, changes });
        hold_beside(&mut plan, base, sides, &near.beside);
        let diff = options
            .dry_run
            .then(|| SyncDiff::between(base, &near.changes, &far.changes, &policy, &options.filter));
        let mut left = options.direction.restrict(&mut plan);
        if options.direction == Direction::Pull {
            let unchanged_there = near.occupied.iter().filter(|path| !far.changes.contains_key(*path));
            left.changed_here.extend(unchanged_there.cloned());
        }
        self.hold_occupied(&mut plan, near, far)?;
        let deletions = self.brake(&plan, near, far)?;
        let changes_here = options.direction.changes(Side::Local);
        let stays = |(path, entry): &(&DbPath, &Option<Entry>)| entry.is_some() && stays_put(path);
        let not_pulled = far.changes.iter().filter(stays).map(|(path, _)| path.clone());
        let not_pulled = if changes_here { not_pulled.collect() } else { Vec::new() };
        let mut report = SyncReport {
            plan,
            left,
            diff,
            contents_sent: self.sent.contents,
            bytes_sent: self.sent.bytes,
            bytes_received: 0,
            revision: far.revision,
            skipped: near.skipped.clone(),
            set_aside: Vec::new(),
            not_pulled,
        };
        if options.dry_run {
            report.set_aside = Kept::open(self.workdir.root())?.set_aside();
            return Ok(report);
        }
        let named = self.named(far).await?;
        let root = self.workdir.root().clone();
        let downloads = Downloads {
            remote: self.remote,
            database: &options.database,
            id: &named.id,
            at: options.at,
            root: &root,
            durability: Durability::Now,
            reporter: self.reporter,
        };
        let mut kept = Kept::open(&root)?;
        let keeping =
            Keeping { revision: far.revision, limit: options.conflict_limit, downloads: &downloads };
        let here = |path: &DbPath| near.stamp(path).map(|_| path.clone());
        kept.keep(&mut report.plan, &here, keeping).await?;
        let downloads_of_plan = Downloads { durability: received.durability(&report.plan), ..downloads };
        received.receive(&report.plan, &downloads_of_plan).await?;
        let put = &report.plan.upload;
        self.sent += upload_contents(self.remote, &named.id, &root, Places::Own, put, self.reporter).await?;
        let published = self.publish(far, &named.id, &report.plan).await?;
        report.bytes_received = received.bytes;
        let first = self.workdir.manifest().is_none();
        Arriving::from(&named.id, &options.database, first).write(&root, &report.plan)?;
        let base = self.workdir.base();
        let overtaken = apply(&root, base, &report.plan, near, std::mem::take(received)).await?;
        for path in &overtaken {
            near.look_again(&root, base, path).await?;
            report.plan.conflicts.remove(path);
            self.hold(&mut report.plan, path, near, far);
            let there = SideView { base, changes: &far.changes }.get(path);
            if same(SideView { base, changes: &near.changes }.get(path), there) {
                report.plan.conflicts.remove(path);
                report.plan.agreed.insert(path.clone(), there.cloned());
            }
        }
        self.save(&named, near, far, &report.plan, published.as_ref(), deletions).await?;
        Arriving::forget(&root)?;
        // Whoever changed the directory may have set something aside.
        let mut kept = Kept::open(&root)?;
        kept.carried_out(&report.plan, |path| options.filter.takes(path))?;
        if !overtaken.is_empty()
            && let Err(error) = kept.keep_overtaken(&report.plan, keeping).await
        {
            // The work is done: the next run meets the same conflicts.
            tracing::warn!(%error, "not all versions of files in conflict could be kept");
        }
        report.set_aside = kept.set_aside();
        report.contents_sent = self.sent.contents;
        report.bytes_sent = self.sent.bytes;
        report.revision = published.map(|published| published.revision).or(far.revision);
        Ok(report)
    }

    /// Leaves a path alone that turns out to be somebody's, and makes it a conflict.
    fn hold(&self, plan: &mut Plan, path: &DbPath, near: &Near, far: &Far) {
        plan.hold(path);
        let base = self.workdir.base();
        let side = |changes| SideView { base, changes }.get(path);
        let kind = match (base.contains_key(path), side(&near.changes), side(&far.changes)) {
            (false, ..) => ConflictKind::CreateCreate,
            (true, Some(_), Some(_)) => ConflictKind::EditEdit,
            (true, ..) => ConflictKind::EditDelete,
        };
        plan.conflicts.entry(path.clone()).or_insert_with(|| {
            Conflict::for_a_person(kind, [base.get(path), side(&near.changes), side(&far.changes)])
        });
    }

    /// What stands in a file's place but is none, a link or a device, is somebody's: it is not replaced.
    fn hold_occupied(&self, plan: &mut Plan, near: &Near, far: &Far) -> Result<(), SyncError> {
        let mut occupied: Vec<DbPath> =
            plan.delete_here.iter().filter(|path| near.occupied.contains(*path)).cloned().collect();
        for path in plan.download.keys().filter(|path| near.stamp(path).is_none()) {
            let found = self.workdir.root().occupant(path).map_err(SyncError::directory(path))?;
            if matches!(found, Occupant::File(_) | Occupant::Obstacle) {
                occupied.push(path.clone());
            }
        }
        for path in occupied {
            self.hold(plan, &path, near, far);
        }
        Ok(())
    }

    /// Halts what deletes too much, on either side.
    fn brake(&self, plan: &Plan, near: &Near, far: &Far) -> Result<Deletions, SyncError> {
        if plan.upload.values().any(|entry| entry.hash.sha256().is_none()) {
            return Err(RemoteError::WrongAnswer {
                remote: self.remote.url().to_owned(),
                reason: "it lists files by MD5, which cannot be published again".into(),
            }
            .into());
        }
        let now = Timestamp::now();
        let before = match &far.database {
            Some(named) => self.workdir.deletions(&named.id, now),
            None => Deletions { time: now, here: 0, there: 0 },
        };
        let base = self.workdir.base();
        for (side, changes, delete, put) in [
            (Side::Local, &near.changes, &plan.delete_here, &plan.download),
            (Side::Remote, &far.changes, &plan.delete_there, &plan.upload),
        ] {
            let view = SideView { base, changes };
            let files = view.count();
            let new = put.keys().filter(|path| view.get(path).is_none()).count();
            let checked =
                self.options.brake.check(delete.len(), files, files - delete.len() + new, before.on(side));
            checked.map_err(|counts| SyncError::Halted { counts, side })?;
        }
        Ok(Deletions { time: now, here: plan.delete_here.len(), there: plan.delete_there.len() })
    }

    /// The database, made where there is none yet.
    async fn named(&self, far: &Far) -> Result<Named, SyncError> {
        let Some(new) = &self.options.create else {
            let gone = || RemoteError::Moved { revision: None };
            return far.database.clone().ok_or_else(|| gone().into());
        };
        let request = RegisterRequest {
            name: new.name.clone(),
            visibility: self.options.visibility,
            slug: Some(self.options.database.slug().to_owned()),
            owner: self.options.database.owner().to_owned(),
        };
        let id = self.remote.register(&request).await?.id;
        self.reporter.report(Event::Registered { id: &id });
        let known = far.database.as_ref().map(|named| named.visibility);
        Ok(Named {
            id,
            name: far.database.as_ref().map_or(&new.name, |named| &named.name).clone(),
            visibility: self.options.visibility.or(known).unwrap_or_default(),
        })
    }

    async fn publish(
        &mut self,
        far: &Far,
        id: &str,
        plan: &Plan,
    ) -> Result<Option<CommitResponse>, SyncError> {
        if plan.upload.is_empty() && plan.delete_there.is_empty() {
            return Ok(None);
        }
        let base = numbered(self.remote, far.revision)?;
        publish(self.remote, &mut self.workdir, id, base, plan).await.map(Some)
    }

    async fn save(
        &mut self,
        named: &Named,
        near: &mut Near,
        far: &Far,
        plan: &Plan,
        published: Option<&CommitResponse>,
        deletions: Deletions,
    ) -> Result<(), SyncError> {
        self.workdir.settle(plan);
        let mut changes = far.changes.clone();
        for path in plan.upload.keys().chain(&plan.delete_there) {
            changes.remove(path);
        }
        // An earlier revision that was brought here says nothing of what is current.
        let current = match (&far.found, self.options.at) {
            (Some(found), Some(_)) => Some(found.revision),
            _ => far.revision,
        };
        let revision = published.map(|published| published.revision).or(current);
        let anchor = match (published, &far.found) {
            (Some(CommitResponse { revision, hash: Some(hash), .. }), _) => Some((*revision, *hash)),
            (None, _) if far.hash.is_some() => revision.zip(far.hash),
            (_, Some(found)) => anchor_at(self.remote, found, revision).await?,
            _ => None,
        };
        let etag = published.map(|published| published.etag.as_str()).or(far.etag.as_deref());
        let reached = Reached { revision, etag, anchor, log: Log::Asked, changes: &changes };
        self.save_base(named, &reached, deletions)?;
        // Without it, the next run reads more than it must, and is right.
        if let Err(error) = near.save_index(self.workdir.root(), self.workdir.base(), self.workdir.stamp()) {
            tracing::warn!(%error, "what files hold could not be remembered");
        }
        Ok(())
    }

    /// Remembers what both sides agree on.
    fn save_base(
        &mut self,
        named: &Named,
        reached: &Reached<'_>,
        deletions: Deletions,
    ) -> Result<(), SyncError> {
        let synced_from = match self.options.direction {
            Direction::Pull => format!("remote:{}", self.remote.url()),
            Direction::Push => "local".to_owned(),
            Direction::Both => {
                let before = self.workdir.manifest().and_then(|manifest| manifest.synced_from.clone());
                before.unwrap_or_else(|| "local".to_owned())
            }
        };
        let identity = Identity {
            id: &named.id,
            name: &named.name,
            reference: &self.options.database,
            visibility: named.visibility,
            synced_from: &synced_from,
        };
        self.workdir.save(&identity, reached, deletions, self.options.brake)
    }
}
