//! A conflict is a value: what both sides have, what might be done about it, and what a strategy decides.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::manifest::Entry;
use crate::model::DbPath;

/// Two edits that are no further apart are nobody's to judge by their dates.
const TOO_CLOSE: Duration = Duration::from_secs(1);

/// One of the two that are synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// What is here.
    Local,
    /// What the remote has.
    Remote,
}

impl Side {
    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
        }
    }
}

/// What decides conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// The version that was changed last (rule 9).
    #[default]
    Newest,
    /// The version that is here.
    LocalWins,
    /// The remote's version.
    RemoteWins,
    /// A person.
    Manual,
}

impl Strategy {
    /// Its name, as people type it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Newest => "newest",
            Self::LocalWins => "local-wins",
            Self::RemoteWins => "remote-wins",
            Self::Manual => "manual",
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A text that names no strategy.
#[derive(Debug, thiserror::Error)]
#[error("a strategy is one of newest, local-wins, remote-wins and manual")]
pub struct UnknownStrategy;

impl std::str::FromStr for Strategy {
    type Err = UnknownStrategy;

    fn from_str(text: &str) -> Result<Self, UnknownStrategy> {
        let all = [Self::Newest, Self::LocalWins, Self::RemoteWins, Self::Manual];
        all.into_iter().find(|strategy| strategy.as_str() == text).ok_or(UnknownStrategy)
    }
}

/// How both sides have come into each other's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConflictKind {
    /// Both have edited the file, differently.
    EditEdit,
    /// One has edited it, the other has deleted it.
    EditDelete,
    /// Both have created it, differently.
    CreateCreate,
    /// One has a file where the other has a directory.
    FileDirectory,
    /// Names that differ in nothing but case or the way they are encoded, which many systems take for one.
    Names,
}

/// What the dates say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Suggestion {
    /// The version that is here was changed later, or the other side has none.
    KeepLocal,
    /// The remote's was.
    KeepRemote,
    /// They say nothing.
    Manual,
}

/// A path that both sides have changed, or must not both have.
#[derive(Debug, Clone, PartialEq)]
pub struct Conflict {
    /// How.
    pub kind: ConflictKind,
    /// What both last agreed on.
    pub base: Option<Entry>,
    /// What is here.
    pub local: Option<Entry>,
    /// What the remote has.
    pub remote: Option<Entry>,
    /// The paths of the other side that this one cannot stand beside; else none.
    pub against: BTreeSet<DbPath>,
    /// What the dates say.
    pub suggestion: Suggestion,
    /// Whose version stays, where the strategy decides. The other one is kept beside the database.
    pub keeps: Option<Side>,
}

impl Conflict {
    /// One that neither dates nor strategies decide.
    pub(super) fn for_a_person(kind: ConflictKind, [base, local, remote]: [Option<&Entry>; 3]) -> Self {
        Self {
            kind,
            base: base.cloned(),
            local: local.cloned(),
            remote: remote.cloned(),
            against: BTreeSet::new(),
            suggestion: Suggestion::Manual,
            keeps: None,
        }
    }
}

/// What is left to decide once it is known what has changed.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// What decides conflicts.
    pub strategy: Strategy,
    /// The latest moment that a date can be of: a later one is of a clock that is wrong, and loses (rule 9).
    pub latest: Timestamp,
}

impl Policy {
    /// A conflict about one path, both of whose sides differ from the base and from each other.
    pub(super) fn judge(
        &self,
        base: Option<&Entry>,
        local: Option<&Entry>,
        remote: Option<&Entry>,
    ) -> Conflict {
        let (kind, suggestion, newest) = match (local, remote) {
            (Some(local), Some(remote)) => {
                let kind = if base.is_some() { ConflictKind::EditEdit } else { ConflictKind::CreateCreate };
                (kind, self.suggest(local, remote), self.newest(local, remote))
            }
            (Some(_), None) => (ConflictKind::EditDelete, Suggestion::KeepLocal, Side::Local),
            (None, _) => (ConflictKind::EditDelete, Suggestion::KeepRemote, Side::Remote),
        };
        let keeps = match self.strategy {
            Strategy::Manual => None,
            // There is nothing to overwrite an edit with: it beats the deletion (rule 9).
            _ if kind == ConflictKind::EditDelete => Some(newest),
            Strategy::Newest => Some(newest),
            Strategy::LocalWins => Some(Side::Local),
            Strategy::RemoteWins => Some(Side::Remote),
        };
        Conflict { suggestion, keeps, ..Conflict::for_a_person(kind, [base, local, remote]) }
    }

    fn time(&self, entry: &Entry) -> Option<Timestamp> {
        entry.modified().filter(|time| *time <= self.latest)
    }

    fn suggest(&self, local: &Entry, remote: &Entry) -> Suggestion {
        let (Some(here), Some(there)) = (self.time(local), self.time(remote)) else {
            return Suggestion::Manual;
        };
        if here.duration_since(there).unsigned_abs() <= TOO_CLOSE {
            Suggestion::Manual
        } else if here > there {
            Suggestion::KeepLocal
        } else {
            Suggestion::KeepRemote
        }
    }

    /// The same on every machine: a date that is none, or is in the future, loses; a tie goes to the larger hash.
    fn newest(&self, local: &Entry, remote: &Entry) -> Side {
        let by_time = self.time(local).cmp(&self.time(remote));
        match by_time.then_with(|| local.hash.to_string().cmp(&remote.hash.to_string())) {
            Ordering::Less => Side::Remote,
            Ordering::Equal | Ordering::Greater => Side::Local,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Sha256;

    fn at(time: &str, version: u8) -> Entry {
        Entry { modified_at: time.into(), ..Entry::of(Sha256([version; 32]), 1) }
    }

    fn policy(strategy: Strategy) -> Policy {
        Policy { strategy, latest: "2026-06-01T00:00:00Z".parse().unwrap() }
    }

    #[test]
    fn rule_9_newest_takes_the_later_date_that_can_be_one() {
        for (local, remote, suggestion, keeps) in [
            ("2026-01-02T00:00:00Z", "2026-01-01T00:00:00Z", Suggestion::KeepLocal, Side::Local),
            ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", Suggestion::KeepRemote, Side::Remote),
            ("2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z", Suggestion::Manual, Side::Local),
            ("2026-01-01T00:00:00.5Z", "2026-01-01T00:00:01Z", Suggestion::Manual, Side::Remote),
            ("2026-01-01T00:00:01.1Z", "2026-01-01T00:00:00Z", Suggestion::KeepLocal, Side::Local),
            // A clock that is wrong, and no date at all.
            ("2027-01-01T00:00:00Z", "2026-01-01T00:00:00Z", Suggestion::Manual, Side::Remote),
            ("2026-01-01T00:00:00Z", "yesterday", Suggestion::Manual, Side::Local),
            // A tie: the larger hash.
            ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z", Suggestion::Manual, Side::Remote),
            ("never", "2028-01-01T00:00:00Z", Suggestion::Manual, Side::Remote),
        ] {
            let (local, remote) = (at(local, 1), at(remote, 2));
            let conflict = policy(Strategy::Newest).judge(None, Some(&local), Some(&remote));
            assert_eq!((conflict.suggestion, conflict.keeps), (suggestion, Some(keeps)), "{conflict:?}");
            // The other machine sees the sides the other way round, and decides the same.
            let there = policy(Strategy::Newest).judge(None, Some(&remote), Some(&local));
            assert_ne!(there.keeps, Some(keeps), "{there:?}");
        }
    }

    #[test]
    fn rule_9_an_edit_beats_a_deletion_whatever_the_strategy() {
        let (base, edit) = (at("2026-01-01T00:00:00Z", 1), at("2020-01-01T00:00:00Z", 2));
        for strategy in [Strategy::Newest, Strategy::LocalWins, Strategy::RemoteWins] {
            let here = policy(strategy).judge(Some(&base), Some(&edit), None);
            assert_eq!((here.kind, here.keeps), (ConflictKind::EditDelete, Some(Side::Local)));
            let there = policy(strategy).judge(Some(&base), None, Some(&edit));
            assert_eq!((there.kind, there.keeps), (ConflictKind::EditDelete, Some(Side::Remote)));
        }
        let manual = policy(Strategy::Manual).judge(Some(&base), Some(&edit), None);
        assert_eq!((manual.suggestion, manual.keeps), (Suggestion::KeepLocal, None));
    }

    #[test]
    fn strategies_have_names() {
        for name in ["newest", "local-wins", "remote-wins", "manual"] {
            assert_eq!(name.parse::<Strategy>().unwrap().as_str(), name);
        }
        assert!("theirs".parse::<Strategy>().is_err());
    }
}
