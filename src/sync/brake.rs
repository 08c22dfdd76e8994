//! The brake on mass deletion (rule 14). Pure.

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use super::conflict::Side;

/// Fewer deletions than this never halt anything.
const FEW: usize = 10;
/// Deletions are counted together that are no further apart.
const TOGETHER: SignedDuration = SignedDuration::from_hours(24);

/// Whether mass deletions go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Brake {
    /// They halt the run.
    #[default]
    On,
    /// The user has said they are meant.
    Released,
}

/// How much a run deletes, or several within a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Deletions {
    /// When; of several, the last one.
    pub(super) time: Timestamp,
    /// Files deleted here.
    pub(super) here: usize,
    /// Files deleted on the remote.
    pub(super) there: usize,
}

impl Deletions {
    /// What was deleted within a day before `now`.
    pub(super) fn within_a_day(all: &[Self], now: Timestamp) -> Self {
        let recent = all.iter().filter(|one| one.is_recent(now));
        recent.fold(Self { time: now, here: 0, there: 0 }, |sum, one| Self {
            time: now,
            here: sum.here.saturating_add(one.here),
            there: sum.there.saturating_add(one.there),
        })
    }

    /// A clock that was set back must not forget.
    fn is_recent(&self, now: Timestamp) -> bool {
        now.duration_since(self.time) < TOGETHER
    }

    /// Remembers these, and forgets what is older than a day.
    pub(super) fn add_to(self, all: &mut Vec<Self>) {
        all.retain(|one| one.is_recent(self.time));
        if self.any() {
            all.push(self);
        }
    }

    pub(super) fn any(&self) -> bool {
        self.here > 0 || self.there > 0
    }

    pub(super) fn on(&self, side: Side) -> usize {
        match side {
            Side::Local => self.here,
            Side::Remote => self.there,
        }
    }
}

/// More would be deleted than anyone usually means to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MassDeletion {
    /// How many files would go.
    pub deletions: usize,
    /// Of how many.
    pub files: usize,
    /// How many went within the last day: they count too.
    pub before: usize,
}

impl Brake {
    /// Halts the deletion of more than a quarter of the files, if that is ten or more, `before` counted, which went within
    /// the last day; and of so many that none are `left` afterwards: an emptied root is more often an accident than a wish.
    pub fn check(
        self,
        deletions: usize,
        files: usize,
        left: usize,
        before: usize,
    ) -> Result<(), MassDeletion> {
        let (all, of) = (deletions.saturating_add(before), files.saturating_add(before));
        let many = all >= FEW && all.saturating_mul(4) > of;
        let halts = deletions > 0 && (many || left == 0);
        if halts && self == Self::On { Err(MassDeletion { deletions, files, before }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rule_14_a_quarter_and_at_least_ten() {
        for (deletions, files, left, halts) in [
            (9, 9, 1, false),
            (9, 9, 0, true),
            (1, 1, 0, true),
            (1, 1, 1, false),
            (10, 10, 5, true),
            (10, 40, 30, false),
            (11, 40, 29, true),
            (0, 0, 0, false),
        ] {
            assert_eq!(Brake::On.check(deletions, files, left, 0).is_err(), halts, "{deletions} of {files}");
            assert!(Brake::Released.check(deletions, files, left, 0).is_ok());
        }
    }

    #[test]
    fn rule_14_what_went_within_a_day_counts() {
        assert!(Brake::On.check(9, 20, 11, 0).is_ok());
        let halted = Brake::On.check(1, 11, 10, 9).unwrap_err();
        assert_eq!(halted, MassDeletion { deletions: 1, files: 11, before: 9 });
        assert!(Brake::On.check(0, 11, 11, 9).is_ok(), "nothing is deleted by this run");
        let at = |hours: i64, here| Deletions {
            time: Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours),
            here,
            there: 1,
        };
        let mut all = vec![at(0, 5), at(20, 3), at(40, 1)];
        let sum = Deletions::within_a_day(&all, at(41, 0).time);
        assert_eq!((sum.here, sum.there), (4, 2));
        at(44, 7).add_to(&mut all);
        assert_eq!(all, [at(40, 1), at(44, 7)]);
    }
}
