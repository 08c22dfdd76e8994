//! What conflicts leave behind: versions that lost, and those a person has to choose from. They lie beside the database,
//! in `.parquedb/conflicts/WHEN/PATH.{base,local,remote}.conflict`, until somebody dismisses them (rule 13).

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::changes::Files;
use super::conflict::{Conflict, ConflictKind, Side, Suggestion};
use super::download::Downloads;
use super::filter::Filter;
use super::reconcile::Plan;
use super::{SyncError, Workdir};
use crate::manifest::{Entry, PRIVATE_DIR};
use crate::model::{DbPath, Revision};
use crate::tree::{Applied, Durability, Occupant, Root, Staged, Stamp};
use crate::wire::PutEntry;

const FORMAT: u64 = 1;
const DIR: &str = "conflicts";
const RECORD: &str = "record.json";
/// How the names of copies end.
const COPY: &str = ".conflict";
/// What all conflict copies together may take, unless the caller says otherwise.
pub const CONFLICT_LIMIT: u64 = 10 << 30;

/// What became of a conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Nobody has decided it.
    Open,
    /// The version that was here stays.
    KeptLocal,
    /// The remote's version stays.
    KeptRemote,
    /// Another version was put in the place of both.
    Replaced,
    /// The two sides have changed since, or are the same by now.
    Over,
}

/// One conflict, as it was met.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// Where.
    pub path: DbPath,
    /// How.
    pub kind: ConflictKind,
    /// What it cannot stand beside.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub against: Vec<DbPath>,
    /// What the dates say.
    pub suggestion: Suggestion,
    /// What became of it.
    pub outcome: Outcome,
    /// What both sides had agreed on.
    pub base: Option<PutEntry>,
    /// What was here.
    pub local: Option<PutEntry>,
    /// What the remote had.
    pub remote: Option<PutEntry>,
}

/// The conflicts of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    format: u64,
    /// When, which is also what its directory is called.
    pub when: String,
    /// The revision of the remote that was met.
    pub revision: Option<Revision>,
    /// The conflicts, by path.
    pub conflicts: Vec<Recorded>,
}

/// One of the three versions of a file in conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// What both sides had agreed on.
    Base,
    /// What was here.
    Local,
    /// What the remote had.
    Remote,
}

impl Version {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Base, Self::Local, Self::Remote];

    /// Its name in the names of copies.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Base => "base",
            Self::Local => "local",
            Self::Remote => "remote",
        }
    }
}

impl Record {
    /// Where the copy of a version lies below the directory, if it was kept.
    pub fn copy(&self, path: &DbPath, version: Version) -> DbPath {
        let suffix = format!(".{}{COPY}", version.as_str());
        let whole = format!("{PRIVATE_DIR}/{DIR}/{}/{path}{suffix}", self.when, path = path.as_str());
        // A name that is too long with its suffix: told by its hash, beside the others.
        DbPath::parse(&whole).unwrap_or_else(|_| {
            let digest = ring::digest::digest(&ring::digest::SHA256, path.as_str().as_bytes());
            let short =
                format!("{PRIVATE_DIR}/{DIR}/{}/{}{suffix}", self.when, hex::encode(&digest.as_ref()[..16]));
            DbPath::parse(&short).unwrap_or_else(|_| path.clone())
        })
    }
}

impl Recorded {
    fn of(path: &DbPath, conflict: &Conflict) -> Self {
        let at = |entry: &Option<Entry>| {
            entry.as_ref().map(|entry| PutEntry { path: path.clone(), entry: entry.clone() })
        };
        Self {
            path: path.clone(),
            kind: conflict.kind,
            against: conflict.against.iter().cloned().collect(),
            suggestion: conflict.suggestion,
            outcome: match conflict.keeps {
                None => Outcome::Open,
                Some(Side::Local) => Outcome::KeptLocal,
                Some(Side::Remote) => Outcome::KeptRemote,
            },
            base: at(&conflict.base),
            local: at(&conflict.local),
            remote: at(&conflict.remote),
        }
    }

    /// Whether it is about the same versions.
    fn is_same(&self, other: &Self) -> bool {
        let hash = |put: &Option<PutEntry>| put.as_ref().map(|put| (put.entry.size, put.entry.hash));
        self.path == other.path
            && self.kind == other.kind
            && hash(&self.base) == hash(&other.base)
            && hash(&self.local) == hash(&other.local)
            && hash(&self.remote) == hash(&other.remote)
    }
}

/// What is needed to keep something.
#[derive(Clone, Copy)]
pub(super) struct Keeping<'a> {
    /// The most that all copies may take, in bytes.
    pub(super) limit: u64,
    /// Where the remote's versions come from; each is made durable by itself.
    pub(super) downloads: &'a Downloads<'a>,
    /// The files that are here.
    pub(super) stamps: &'a BTreeMap<DbPath, Stamp>,
    /// Which paths the run is about.
    pub(super) filter: &'a Filter,
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
            let Ok(path) = DbPath::parse(&format!("{PRIVATE_DIR}/{DIR}/{name}/{RECORD}")) else { continue };
            // A run that was killed before it had written down what it kept: nothing was replaced by it.
            let Some((bytes, _)) = root.read_own(&path).map_err(SyncError::directory(&path))? else {
                continue;
            };
            let record: Record = serde_json::from_slice(&bytes)
                .map_err(|error| SyncError::directory(&path)(io::Error::other(error)))?;
            if record.format != FORMAT || record.when != name {
                let text = format!("it is of format {}, which this program does not know", record.format);
                return Err(SyncError::directory(&path)(io::Error::other(text)));
            }
            records.push(record);
        }
        records.sort_by(|a, b| a.when.cmp(&b.when));
        let bytes = root.bytes_below(&[PRIVATE_DIR, DIR], COPY).map_err(failed)?;
        Ok(Self { root: root.clone(), records, bytes })
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Keeps what the plan's conflicts are about, before any of it is carried out: the versions that lose, and of those that
    /// nobody decides the two that are not in the tree. Where the limit does not allow for it, a conflict stays open.
    pub(super) async fn keep(
        &mut self,
        plan: &mut Plan,
        revision: Option<Revision>,
        Keeping { limit, downloads, stamps, filter }: Keeping<'_>,
    ) -> Result<(), SyncError> {
        let mut record = Record { format: FORMAT, when: self.name_of_now(), revision, conflicts: Vec::new() };
        // What loses comes first: it must have room. What is only to be looked at takes what is left.
        let mut losers = Files::new();
        let mut local_losers = Vec::new();
        for (path, conflict) in plan.conflicts.clone() {
            let Some(keeps) = conflict.keeps else { continue };
            let loser = if keeps == Side::Local { &conflict.remote } else { &conflict.local };
            let size = loser.as_ref().map_or(0, |loser| loser.size);
            if self.bytes.saturating_add(size) > limit {
                plan.hold(&path);
                continue;
            }
            self.bytes += size;
            match loser {
                Some(loser) if keeps == Side::Local => drop(losers.insert(path.clone(), loser.clone())),
                Some(_) => local_losers.push(path.clone()),
                None => {}
            }
            record.conflicts.push(Recorded::of(&path, &conflict));
        }
        for (path, conflict) in plan.undecided() {
            let recorded = Recorded::of(path, conflict);
            if !self.is_open(&recorded) {
                record.conflicts.push(recorded);
            }
        }
        let lost = downloads.receive_all(&losers).await?;
        self.put_away(&record, Version::Remote, lost)?;
        for version in [Version::Remote, Version::Base] {
            let wanted = self.room_for(&record, version, limit);
            let received = downloads.receive_what_is_left(&wanted).await?;
            self.put_away(&record, version, received)?;
        }
        for path in local_losers.iter().filter(|path| stamps.contains_key(*path)) {
            self.link_local(&record, path)?;
        }
        self.close_others(plan, filter)?;
        if !record.conflicts.is_empty() {
            self.write(&record)?;
            self.records.push(record);
        }
        // What there was no room for when it was met, and there is now.
        for n in 0..self.records.len() {
            let record = self.records[n].clone();
            let wanted = self.room_for(&record, Version::Remote, limit);
            let received = downloads.receive_what_is_left(&wanted).await?;
            self.put_away(&record, Version::Remote, received)?;
        }
        Ok(())
    }

    fn is_open(&self, new: &Recorded) -> bool {
        let mut all = self.records.iter().flat_map(|record| &record.conflicts);
        all.any(|old| old.outcome == Outcome::Open && old.is_same(new))
    }

    fn has(&self, copy: &DbPath) -> bool {
        matches!(self.root.occupant(copy), Ok(Occupant::File(_)))
    }

    /// Of a record's open conflicts, that version of those that there is room for. The room is taken.
    fn room_for(&mut self, record: &Record, version: Version, limit: u64) -> Files {
        let mut files = Files::new();
        for recorded in record.conflicts.iter().filter(|recorded| recorded.outcome == Outcome::Open) {
            let put = if version == Version::Base { &recorded.base } else { &recorded.remote };
            let Some(PutEntry { path, entry }) = put else { continue };
            if !self.has(&record.copy(path, version)) && self.bytes.saturating_add(entry.size) <= limit {
                self.bytes += entry.size;
                files.insert(path.clone(), entry.clone());
            }
        }
        files
    }

    /// Puts versions that were received beside the database.
    fn put_away(
        &self,
        record: &Record,
        version: Version,
        received: Vec<(DbPath, Staged)>,
    ) -> Result<(), SyncError> {
        for (path, staged) in received {
            let to = record.copy(&path, version);
            match self.root.place(staged, &to, None, Durability::Now).map_err(SyncError::directory(&to))? {
                Applied::Done => {}
                Applied::Overtaken => {
                    let text = "something else is in its place";
                    return Err(SyncError::directory(&to)(io::Error::other(text)));
                }
            }
        }
        Ok(())
    }

    /// Keeps what stands at a path, under another name: the same file, so whoever writes to it still does.
    pub(super) fn keep_local(&mut self, record: &Record, path: &DbPath) -> Result<(), SyncError> {
        self.bytes += self.link_local(record, path)?;
        Ok(())
    }

    fn link_local(&self, record: &Record, path: &DbPath) -> Result<u64, SyncError> {
        let to = record.copy(path, Version::Local);
        self.root.keep(path, &to).map_err(SyncError::directory(&to))
    }

    /// Writes down what became of an open conflict.
    pub(super) fn decide(&mut self, when: &str, path: &DbPath, outcome: Outcome) -> Result<(), SyncError> {
        for n in 0..self.records.len() {
            if self.records[n].when == when {
                for recorded in self.records[n].conflicts.iter_mut().filter(|one| one.path == *path) {
                    recorded.outcome = outcome;
                }
                self.write(&self.records[n])?;
            }
        }
        Ok(())
    }

    /// Open conflicts about versions that are not the ones in conflict any more are over.
    fn close_others(&mut self, plan: &Plan, filter: &Filter) -> Result<(), SyncError> {
        for n in 0..self.records.len() {
            let mut record = self.records[n].clone();
            let open =
                |recorded: &&mut Recorded| recorded.outcome == Outcome::Open && filter.takes(&recorded.path);
            for recorded in record.conflicts.iter_mut().filter(open) {
                let now = plan.conflicts.get(&recorded.path).filter(|conflict| conflict.keeps.is_none());
                if !now.is_some_and(|now| Recorded::of(&recorded.path, now).is_same(recorded)) {
                    recorded.outcome = Outcome::Over;
                }
            }
            if record != self.records[n] {
                self.write(&record)?;
                self.records[n] = record;
            }
        }
        Ok(())
    }

    /// Writes a record down, durably: what it names is there.
    pub(super) fn write(&self, record: &Record) -> Result<(), SyncError> {
        let dir = DbPath::parse(&format!("{PRIVATE_DIR}/{DIR}/{}/{RECORD}", record.when));
        let path = dir.map_err(|error| SyncError::directory(&record.when)(io::Error::other(error)))?;
        let bytes = serde_json::to_vec_pretty(record).unwrap_or_default();
        self.root.replace_own(&path, &[&bytes], Durability::Now).map_err(SyncError::directory(&path))
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

/// What a directory keeps of conflicts, the earliest first.
pub fn conflicts(directory: &std::path::Path) -> Result<Vec<Record>, SyncError> {
    let root = Root::open(directory).map_err(SyncError::directory(directory.display()))?;
    Ok(Kept::open(&Arc::new(root))?.records)
}

/// What to dismiss.
#[derive(Debug, Clone, Copy)]
pub enum Dismissed<'a> {
    /// Everything that is decided.
    Decided,
    /// What is kept of one path, if it is decided.
    Path(&'a DbPath),
}

/// Removes what is kept of conflicts that are decided. Returns the paths.
pub fn dismiss(directory: &std::path::Path, what: Dismissed<'_>) -> Result<Vec<DbPath>, SyncError> {
    let workdir = Workdir::open(directory, super::workdir::Intent::Work)?;
    let kept = Kept::open(workdir.root())?;
    let mut dismissed = Vec::new();
    for mut record in kept.records.clone() {
        let (go, stay): (Vec<_>, Vec<_>) = record.conflicts.clone().into_iter().partition(|recorded| {
            let meant = match what {
                Dismissed::Decided => true,
                Dismissed::Path(path) => recorded.path == *path,
            };
            meant && recorded.outcome != Outcome::Open
        });
        if go.is_empty() {
            continue;
        }
        for recorded in &go {
            for version in Version::ALL {
                let copy = record.copy(&recorded.path, version);
                kept.root.remove_own(&copy).map_err(SyncError::directory(&copy))?;
            }
            dismissed.push(recorded.path.clone());
        }
        record.conflicts = stay;
        if record.conflicts.is_empty() {
            let path = format!("{PRIVATE_DIR}/{DIR}/{}/{RECORD}", record.when);
            if let Ok(path) = DbPath::parse(&path) {
                kept.root.remove_own(&path).map_err(SyncError::directory(&path))?;
            }
        } else {
            kept.write(&record)?;
        }
    }
    dismissed.sort();
    dismissed.dedup();
    Ok(dismissed)
}
