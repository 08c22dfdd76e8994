//! What conflicts leave behind: versions that lost, and those a person has to choose from. They lie beside the database,
//! in `.parquedb/conflicts/WHEN/PATH.{base,local,remote}.conflict`, until somebody dismisses them (rule 13).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::SyncError;
use super::changes::Files;
use super::conflict::{Conflict, Side};
use super::download::Downloads;
use super::near::entry_of;
use super::reconcile::{Plan, same};
use super::record::{COPY, DIR, FORMAT, Outcome, Record, Recorded, Version};
use crate::manifest::{Entry, PRIVATE_DIR};
use crate::model::{ContentHash, DbPath, Revision};
use crate::tree::{Applied, Aside, Durability, Occupant, Root, Staged, hash_file};
use crate::wire::PutEntry;

const RECORD: &str = "record.json";
/// What all conflict copies together may take, unless the caller says otherwise.
pub const CONFLICT_LIMIT: u64 = 10 << 30;

/// What is needed to keep something.
#[derive(Clone, Copy)]
pub(super) struct Keeping<'a> {
    /// The revision of the remote that was met.
    pub(super) revision: Option<Revision>,
    /// The most that all copies may take, in bytes.
    pub(super) limit: u64,
    /// Where the remote's versions come from; each is made durable by itself.
    pub(super) downloads: &'a Downloads<'a>,
}

/// The directory's conflicts, of all runs.
pub(super) struct Kept {
    root: Arc<Root>,
    records: Vec<Record>,
    /// What the copies take, in bytes.
    bytes: u64,
}

impl Kept {
    /// Reads them.
    pub(super) fn open(root: &Arc<Root>) -> Result<Self, SyncError> {
        let shown = root.path().join(PRIVATE_DIR).join(DIR);
        let failed = |error| SyncError::directory(shown.display())(error);
        let mut records = Vec::new();
        for name in root.list_private(DIR).map_err(failed)? {
            let Ok(path) = record_path(&name) else { continue };
            // A run that was killed before it had written anything there.
            let Some((bytes, _)) = root.read_own(&path).map_err(SyncError::directory(&path))? else {
                continue;
            };
            let mut record: Record = serde_json::from_slice(&bytes)
                .map_err(|error| SyncError::directory(&path)(io::Error::other(error)))?;
            if record.format != FORMAT || record.when != name {
                let text = format!("it is of format {}, which this program does not know", record.format);
                return Err(SyncError::directory(&path)(io::Error::other(text)));
            }
            record.conflicts.sort_by(|a, b| a.path.cmp(&b.path));
            records.push(record);
        }
        records.sort_by(|a, b| a.when.cmp(&b.when));
        let bytes = root.bytes_below(&[PRIVATE_DIR, DIR], COPY).map_err(failed)?;
        Ok(Self { root: root.clone(), records, bytes })
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Whether there is anything that a person has not decided or looked at.
    pub(super) fn has_open(&self) -> bool {
        let mut all = self.records.iter().flat_map(|record| &record.conflicts);
        all.any(|one| matches!(one.outcome, Outcome::Open | Outcome::SetAside))
    }

    /// Where files were set aside that nobody has dismissed.
    pub(super) fn set_aside(&self) -> Vec<DbPath> {
        let all = self.records.iter().flat_map(|record| &record.conflicts);
        let set_aside: BTreeSet<_> =
            all.filter(|one| one.outcome == Outcome::SetAside).map(|one| one.path.clone()).collect();
        set_aside.into_iter().collect()
    }

    pub(super) fn into_records(self) -> Vec<Record> {
        self.records
    }

    /// Keeps what the plan's conflicts are about, before any of it is carried out: the versions that lose, and of those that
    /// nobody decides the two that are not in the tree. Where the limit does not allow for it, a conflict stays open. A plan
    /// that is made again, in this run or after it was killed, finds what it has kept. `here` says where what is here of a path
    /// lies below the root.
    pub(super) async fn keep(
        &mut self,
        plan: &mut Plan,
        here: &(dyn Fn(&DbPath) -> Option<DbPath> + Sync),
        keeping: Keeping<'_>,
    ) -> Result<(), SyncError> {
        let Keeping { revision, limit, downloads } = keeping;
        self.close_spoilt(plan)?;
        let new = self.record_new(plan.conflicts.iter(), revision)?;
        // What loses comes first: it must have room. What is only to be looked at takes what is left.
        let (mut losers, mut moved) = (BTreeMap::<String, Files>::new(), BTreeMap::<String, Files>::new());
        let mut local_losers = Vec::new();
        for (path, conflict) in plan.conflicts.clone() {
            let Some(keeps) = conflict.keeps else { continue };
            let (version, loser) = match keeps {
                Side::Local => (Version::Remote, &conflict.remote),
                Side::Remote => (Version::Local, &conflict.local),
            };
            let home = self.home_of(&Recorded::open(&path, &conflict));
            let (Some(loser), Some(home)) = (loser, home) else { continue };
            if self.has(&home.copy(&path, version)) {
                continue;
            }
            if self.bytes.saturating_add(loser.size) > limit {
                plan.hold(&path);
                continue;
            }
            let when = home.when.clone();
            self.bytes += loser.size;
            match keeps {
                Side::Local => drop(losers.entry(when).or_default().insert(path, loser.clone())),
                Side::Remote => match here(&path) {
                    Some(place) => local_losers.push((when, path, place)),
                    // It was moved here, and the remote has its bytes elsewhere.
                    None => drop(moved.entry(when).or_default().insert(path, loser.clone())),
                },
            }
        }
        for (when, files) in losers {
            let received = downloads.receive_all(&files).await?;
            self.put_away(&when, Version::Remote, received)?;
        }
        for (when, files) in moved {
            let received = downloads.receive_what_is_left(&files).await?;
            let here: BTreeSet<&DbPath> = received.iter().map(|(path, _)| path).collect();
            // What cannot be kept is not decided.
            files.keys().filter(|path| !here.contains(path)).for_each(|path| plan.hold(path));
            self.put_away(&when, Version::Local, received)?;
        }
        for (when, path, place) in &local_losers {
            let to = Record::copy_of(when, path, Version::Local);
            self.root.keep(place, &to).map_err(SyncError::directory(&to))?;
        }
        self.keep_choices(plan, new.as_deref(), keeping).await
    }

    /// The same for what turned out to be in conflict when it was about to be changed: all else is carried out.
    pub(super) async fn keep_overtaken(
        &mut self,
        plan: &Plan,
        keeping: Keeping<'_>,
    ) -> Result<(), SyncError> {
        let new = self.record_new(plan.undecided(), keeping.revision)?;
        self.keep_choices(plan, new.as_deref(), keeping).await
    }

    /// Keeps what a person has to choose from. What there was no room for when it was met may have it now; `new` is the record of
    /// what is met for the first time.
    async fn keep_choices(
        &mut self,
        plan: &Plan,
        new: Option<&str>,
        keeping: Keeping<'_>,
    ) -> Result<(), SyncError> {
        for n in 0..self.records.len() {
            let is_new = Some(self.records[n].when.as_str()) == new;
            let versions = if is_new { &[Version::Remote, Version::Base][..] } else { &[Version::Remote] };
            for version in versions {
                let wanted = self.room_for(n, *version, plan, keeping.limit);
                let received = keeping.downloads.receive_what_is_left(&wanted).await?;
                self.put_away(&self.records[n].when, *version, received)?;
            }
        }
        Ok(())
    }

    /// Writes down the conflicts that are met for the first time. Says where.
    fn record_new<'a>(
        &mut self,
        met: impl Iterator<Item = (&'a DbPath, &'a Conflict)>,
        revision: Option<Revision>,
    ) -> Result<Option<String>, SyncError> {
        let met = met.map(|(path, conflict)| Recorded::open(path, conflict));
        let conflicts: Vec<_> = met.filter(|recorded| self.home_of(recorded).is_none()).collect();
        if conflicts.is_empty() {
            return Ok(None);
        }
        let record = Record { format: FORMAT, when: self.name_of_now(), revision, conflicts };
        self.write(&record)?;
        let when = record.when.clone();
        self.records.push(record);
        Ok(Some(when))
    }

    /// The record that has an open conflict already.
    fn home_of(&self, met: &Recorded) -> Option<&Record> {
        self.records.iter().find(|record| {
            // By path, in order.
            let at = record.conflicts.binary_search_by(|old| old.path.cmp(&met.path));
            at.is_ok_and(|at| {
                record.conflicts[at].outcome == Outcome::Open && record.conflicts[at].is_same(met)
            })
        })
    }

    /// Whether there is such a copy.
    pub(super) fn has(&self, copy: &DbPath) -> bool {
        matches!(self.root.occupant(copy), Ok(Occupant::File(_)))
    }

    /// Whether a copy holds just that.
    pub(super) fn holds(&self, copy: &DbPath, hash: &ContentHash) -> Result<bool, SyncError> {
        let read = self.root.open_file(copy).and_then(|file| hash_file(&file, Some(hash)));
        read.map(|(found, _)| found == *hash).map_err(SyncError::directory(copy))
    }

    /// Of a record's conflicts that the plan has and nobody decides, that version of those that there is room for. The room is
    /// taken.
    fn room_for(&mut self, n: usize, version: Version, plan: &Plan, limit: u64) -> Files {
        let mut files = Files::new();
        let (record, mut bytes) = (&self.records[n], self.bytes);
        let open = |one: &&Recorded| {
            let met = plan.conflicts.get(&one.path).filter(|conflict| conflict.keeps.is_none());
            one.outcome == Outcome::Open && met.is_some_and(|met| Recorded::open(&one.path, met).is_same(one))
        };
        for recorded in record.conflicts.iter().filter(open) {
            let put = if version == Version::Base { &recorded.base } else { &recorded.remote };
            let Some(PutEntry { path, entry }) = put else { continue };
            if !self.has(&record.copy(path, version)) && bytes.saturating_add(entry.size) <= limit {
                bytes += entry.size;
                files.insert(path.clone(), entry.clone());
            }
        }
        self.bytes = bytes;
        files
    }

    /// Puts versions that were received beside the database.
    fn put_away(
        &self,
        when: &str,
        version: Version,
        received: Vec<(DbPath, Staged)>,
    ) -> Result<(), SyncError> {
        for (path, staged) in received {
            let to = Record::copy_of(when, &path, version);
            match self.root.place(staged, &to, Durability::Now).map_err(SyncError::directory(&to))? {
                Applied::Done => {}
                Applied::Overtaken => {
                    let text = "something else is in its place";
                    return Err(SyncError::directory(&to)(io::Error::other(text)));
                }
            }
        }
        Ok(())
    }

    /// Keeps files that lie aside because something else has taken their places. What a run that was killed has written down of
    /// one is not written down again.
    pub(super) fn keep_stranded(&mut self, stranded: &[Aside]) -> Result<(), SyncError> {
        let (mut places, mut new) = (Vec::new(), Vec::new());
        for aside in stranded {
            let path = aside.path();
            let (hash, stamp) = self.root.read_aside(aside).map_err(SyncError::directory(path))?;
            let entry = entry_of(path, hash, stamp);
            let noted = self.records.iter().find(|record| {
                let is_it = |one: &Recorded| {
                    let local = one.local.as_ref().map(|put| &put.entry);
                    one.outcome == Outcome::SetAside && one.path == *path && same(local, Some(&entry))
                };
                record.conflicts.iter().any(is_it) && !self.has(&record.copy(path, Version::Local))
            });
            let when = noted.map(|record| record.when.clone());
            if when.is_none() {
                new.push(Recorded::of_local(path, entry, Outcome::SetAside));
            }
            places.push((aside, when));
        }
        let now = self.add(new)?;
        for (aside, when) in places {
            let to = Record::copy_of(when.as_ref().unwrap_or(&now), aside.path(), Version::Local);
            self.root.take_aside(aside, &to).map_err(SyncError::directory(&to))?;
        }
        Ok(())
    }

    /// Keeps the file at `path`, which is about to be replaced, and holds what `entry` says. Its place in the record `when` may be
    /// taken by another version.
    pub(super) fn keep_here(&mut self, when: &str, path: &DbPath, entry: Entry) -> Result<(), SyncError> {
        let mut to = Record::copy_of(when, path, Version::Local);
        if self.has(&to) {
            if self.holds(&to, &entry.hash)? {
                return Ok(());
            }
            let now = self.add(vec![Recorded::of_local(path, entry, Outcome::Replaced)])?;
            to = Record::copy_of(&now, path, Version::Local);
        }
        self.root.keep(path, &to).map(drop).map_err(SyncError::directory(&to))
    }

    /// Writes down one more record of what happened now. Says which.
    fn add(&mut self, conflicts: Vec<Recorded>) -> Result<String, SyncError> {
        let record = Record { format: FORMAT, when: self.name_of_now(), revision: None, conflicts };
        let when = record.when.clone();
        if !record.conflicts.is_empty() {
            self.write(&record)?;
            self.records.push(record);
        }
        Ok(when)
    }

    /// Writes down that the conflicts which the plan decides are done with, and that those are over which it has not: the two
    /// sides have changed since, or are the same by now. What the run is not about stays as it is.
    pub(super) fn carried_out(
        &mut self,
        plan: &Plan,
        is_about: impl Fn(&DbPath) -> bool,
    ) -> Result<(), SyncError> {
        self.rewrite(|_, recorded| {
            let now = plan.conflicts.get(&recorded.path);
            match now.filter(|now| Recorded::open(&recorded.path, now).is_same(recorded)) {
                Some(now) => now.keeps.map(|side| match side {
                    Side::Local => Outcome::KeptLocal,
                    Side::Remote => Outcome::KeptRemote,
                }),
                None => is_about(&recorded.path).then_some(Outcome::Over),
            }
        })
    }

    /// Writes down what became of open conflicts, told by when and where.
    pub(super) fn decide(&mut self, decided: &[(String, DbPath)], outcome: Outcome) -> Result<(), SyncError> {
        let decided: BTreeSet<(&str, &DbPath)> =
            decided.iter().map(|(when, path)| (when.as_str(), path)).collect();
        self.rewrite(|when, recorded| decided.contains(&(when, &recorded.path)).then_some(outcome))
    }

    /// Conflicts whose copy of what loses has become another version are over: it was the very file that was here, and somebody
    /// went on writing to that. It is kept as it is, and what loses gets another place.
    fn close_spoilt(&mut self, plan: &Plan) -> Result<(), SyncError> {
        let mut spoilt = BTreeSet::new();
        for record in &self.records {
            for recorded in record.conflicts.iter().filter(|one| one.outcome == Outcome::Open) {
                let keeps = plan.conflicts.get(&recorded.path).and_then(|conflict| conflict.keeps);
                let (version, loser) = match keeps {
                    Some(Side::Local) => (Version::Remote, &recorded.remote),
                    Some(Side::Remote) => (Version::Local, &recorded.local),
                    None => continue,
                };
                let copy = record.copy(&recorded.path, version);
                if let Some(loser) = loser
                    && self.has(&copy)
                    && !self.holds(&copy, &loser.entry.hash)?
                {
                    spoilt.insert((record.when.clone(), recorded.path.clone()));
                }
            }
        }
        self.rewrite(|when, recorded| {
            let is_spoilt = spoilt.contains(&(when.to_owned(), recorded.path.clone()));
            is_spoilt.then_some(Outcome::Over)
        })
    }

    /// Gives open conflicts the outcomes they have by now, where they have one.
    fn rewrite(&mut self, outcome: impl Fn(&str, &Recorded) -> Option<Outcome>) -> Result<(), SyncError> {
        for n in 0..self.records.len() {
            let mut any = false;
            let open = |recorded: &&mut Recorded| recorded.outcome == Outcome::Open;
            let Record { when, conflicts, .. } = &mut self.records[n];
            for recorded in conflicts.iter_mut().filter(open) {
                if let Some(outcome) = outcome(when, recorded) {
                    (recorded.outcome, any) = (outcome, true);
                }
            }
            if any {
                self.write(&self.records[n])?;
            }
        }
        Ok(())
    }

    /// Writes a record down, durably.
    pub(super) fn write(&self, record: &Record) -> Result<(), SyncError> {
        let path = record_path(&record.when)?;
        let bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
        self.root.replace_own(&path, &[&bytes], Durability::Now).map_err(SyncError::directory(&path))
    }

    /// Removes a record.
    pub(super) fn remove(&self, record: &Record) -> Result<(), SyncError> {
        let path = record_path(&record.when)?;
        self.root.remove_own(&path).map_err(SyncError::directory(&path))
    }

    fn name_of_now(&self) -> String {
        let mut now = Timestamp::now();
        loop {
            let name = now.strftime("%Y-%m-%dT%H-%M-%S.%3fZ").to_string();
            if !self.records.iter().any(|record| record.when == name) {
                return name;
            }
            now += jiff::SignedDuration::from_millis(1);
        }
    }
}

fn record_path(when: &str) -> Result<DbPath, SyncError> {
    DbPath::parse(&format!("{PRIVATE_DIR}/{DIR}/{when}/{RECORD}"))
        .map_err(|error| SyncError::directory(when)(io::Error::other(error)))
}
