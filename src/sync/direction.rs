//! Which way a run may change things. What it may not do is left for a run the other way.

use std::collections::BTreeSet;

use super::conflict::Side;
use super::reconcile::Plan;
use crate::model::DbPath;

/// What a run changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The remote.
    Push,
    /// The directory.
    Pull,
    /// Both.
    Both,
}

/// What a run has left alone because it is for another direction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// New, changed or deleted on the remote: for a pull.
    pub newer_there: BTreeSet<DbPath>,
    /// New, changed or deleted here: for a push.
    pub changed_here: BTreeSet<DbPath>,
}

impl Direction {
    /// Whether a run changes that side.
    pub fn changes(self, side: Side) -> bool {
        match side {
            Side::Local => self != Self::Push,
            Side::Remote => self != Self::Pull,
        }
    }

    /// Takes out of the plan what is not for this direction. A conflict that is decided for a side which the run may not
    /// change is not decided by it.
    pub(super) fn restrict(self, plan: &mut Plan) -> Left {
        let mut left = Left::default();
        if self == Self::Pull {
            // What was edited there and deleted here comes back, whoever decides: nothing is lost by it (rule 9).
            let gone = plan.conflicts.iter().filter(|(_, c)| c.local.is_none() && c.against.is_empty());
            let back: Vec<_> = gone.filter_map(|(path, c)| Some((path.clone(), c.remote.clone()?))).collect();
            for (path, _) in &back {
                plan.conflicts.remove(path);
            }
            plan.download.extend(back);
        }
        for side in [Side::Local, Side::Remote] {
            if self.changes(side) {
                continue;
            }
            let (put, delete, into) = match side {
                Side::Local => (&mut plan.download, &mut plan.delete_here, &mut left.newer_there),
                Side::Remote => (&mut plan.upload, &mut plan.delete_there, &mut left.changed_here),
            };
            into.extend(std::mem::take(put).into_keys());
            into.append(delete);
            for (path, conflict) in &mut plan.conflicts {
                if conflict.keeps == Some(side.other()) {
                    conflict.keeps = None;
                    into.remove(path);
                }
            }
        }
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Entry;
    use crate::sync::changes::changes_between;
    use crate::sync::conflict::{Policy, Strategy};
    use crate::sync::filter::Filter;
    use crate::sync::reconcile::reconcile;

    fn restricted(direction: Direction, strategy: Strategy) -> (Plan, Left) {
        let base = Entry::versions(&[
            ("same", 1),
            ("mine", 1),
            ("theirs", 1),
            ("gone-here", 1),
            ("gone-there", 1),
            ("both", 1),
            ("deleted", 1),
        ]);
        let local = Entry::versions(&[
            ("same", 1),
            ("mine", 2),
            ("theirs", 1),
            ("gone-there", 1),
            ("both", 2),
            ("new-here", 1),
        ]);
        let remote = Entry::versions(&[
            ("same", 1),
            ("mine", 1),
            ("theirs", 2),
            ("gone-here", 1),
            ("both", 3),
            ("new-there", 1),
            ("deleted", 2),
        ]);
        let (here, there) = (changes_between(&base, &local), changes_between(&base, &remote));
        let policy = Policy { strategy, latest: "2030-01-01T00:00:00Z".parse().unwrap() };
        let mut plan = reconcile(&base, &here, &there, &policy, &Filter::default());
        let left = direction.restrict(&mut plan);
        (plan, left)
    }

    fn names<'a>(paths: impl IntoIterator<Item = &'a DbPath>) -> Vec<&'a str> {
        paths.into_iter().map(DbPath::as_str).collect()
    }

    #[test]
    fn a_push_changes_nothing_here() {
        let (plan, left) = restricted(Direction::Push, Strategy::Manual);
        assert_eq!(
            (names(plan.upload.keys()), names(&plan.delete_there)),
            (vec!["mine", "new-here"], vec!["gone-here"])
        );
        assert!(plan.download.is_empty() && plan.delete_here.is_empty());
        assert_eq!(names(plan.conflicts.keys()), ["both", "deleted"]);
        assert_eq!(names(&left.newer_there), ["gone-there", "new-there", "theirs"]);
        let (forced, left) = restricted(Direction::Push, Strategy::LocalWins);
        assert_eq!(names(forced.upload.keys()), ["both", "mine", "new-here"]);
        assert_eq!(names(forced.undecided().map(|(path, _)| path)), ["deleted"], "an edit beats a deletion");
        assert_eq!(names(&left.newer_there), ["gone-there", "new-there", "theirs"]);
    }

    #[test]
    fn a_pull_changes_nothing_there() {
        let (plan, left) = restricted(Direction::Pull, Strategy::Manual);
        assert_eq!(
            (names(plan.download.keys()), names(&plan.delete_here)),
            (vec!["deleted", "new-there", "theirs"], vec!["gone-there"])
        );
        assert!(plan.upload.is_empty() && plan.delete_there.is_empty());
        assert_eq!(names(plan.conflicts.keys()), ["both"]);
        assert_eq!(names(&left.changed_here), ["gone-here", "mine", "new-here"]);
        let (forced, _) = restricted(Direction::Pull, Strategy::RemoteWins);
        assert!(forced.download.contains_key("both") && forced.undecided().next().is_none());
        let (newest, _) = restricted(Direction::Pull, Strategy::LocalWins);
        assert!(!newest.download.contains_key("both") && newest.undecided().count() == 1);
    }
}
