//! From three trees to what is to be done. Pure: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::manifest::Entry;
use crate::model::DbPath;

/// Files by path, of one side.
pub type Files = BTreeMap<DbPath, Entry>;

/// How one path stands between base, local and remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PathState {
    /// Local and remote are the same, whatever the base was.
    Same,
    /// Only the local side has changed since the base.
    LocalChanged,
    /// Only the remote side has changed since the base.
    RemoteChanged,
    /// Both have changed, differently.
    Conflict,
}

/// Compares one path's three states; an absent file is a state like any other.
pub fn classify(base: Option<&Entry>, local: Option<&Entry>, remote: Option<&Entry>) -> PathState {
    let same = |a: Option<&Entry>, b: Option<&Entry>| match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.same_content(b),
        _ => false,
    };
    if same(local, remote) {
        PathState::Same
    } else if same(base, remote) {
        PathState::LocalChanged
    } else if same(base, local) {
        PathState::RemoteChanged
    } else {
        PathState::Conflict
    }
}

/// What a push would do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PushPlan {
    /// New or changed here.
    pub put: Files,
    /// Deleted here.
    pub delete: BTreeSet<DbPath>,
    /// Changed on both sides: left alone.
    pub conflicts: BTreeSet<DbPath>,
    /// Changed on the remote only: for a pull.
    pub newer_on_remote: BTreeSet<DbPath>,
}

/// What a pull would do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PullPlan {
    /// New or changed on the remote.
    pub put: Files,
    /// Deleted on the remote.
    pub delete: BTreeSet<DbPath>,
    /// Changed on both sides: left alone.
    pub conflicts: BTreeSet<DbPath>,
    /// Changed here only: for a push.
    pub changed_here: BTreeSet<DbPath>,
}

impl PushPlan {
    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }
}

impl PullPlan {
    /// Whether there is nothing to apply.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty()
    }
}

fn states<'a>(
    base: &'a Files,
    local: &'a Files,
    remote: &'a Files,
) -> impl Iterator<Item = (&'a DbPath, PathState)> {
    let paths: BTreeSet<&DbPath> = base.keys().chain(local.keys()).chain(remote.keys()).collect();
    paths.into_iter().map(|path| (path, classify(base.get(path), local.get(path), remote.get(path))))
}

/// Plans a push. `overwrite` makes conflicts local changes: the remote's version stays in its history.
pub fn plan_push(base: &Files, local: &Files, remote: &Files, overwrite: Overwrite) -> PushPlan {
    let mut plan = PushPlan::default();
    for (path, state) in states(base, local, remote) {
        match (state, overwrite) {
            (PathState::Same, _) => {}
            (PathState::RemoteChanged, _) => {
                plan.newer_on_remote.insert(path.clone());
            }
            (PathState::Conflict, Overwrite::No) => {
                plan.conflicts.insert(path.clone());
            }
            (PathState::LocalChanged, _) | (PathState::Conflict, Overwrite::Remote) => {
                match local.get(path) {
                    Some(entry) => {
                        plan.put.insert(path.clone(), entry.clone());
                    }
                    None => {
                        plan.delete.insert(path.clone());
                    }
                }
            }
        }
    }
    plan
}

/// What a push does about conflicts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overwrite {
    /// Leaves them.
    #[default]
    No,
    /// Publishes the local version over the remote's.
    Remote,
}

/// Plans a pull. What was edited there and deleted here arrives (rule 9): nothing of ours is lost by it, and it is
/// how a conflict is decided for the remote's version.
pub fn plan_pull(base: &Files, local: &Files, remote: &Files) -> PullPlan {
    let mut plan = PullPlan::default();
    for (path, state) in states(base, local, remote) {
        match state {
            PathState::Same => {}
            PathState::LocalChanged => {
                plan.changed_here.insert(path.clone());
            }
            PathState::Conflict if local.contains_key(path) => {
                plan.conflicts.insert(path.clone());
            }
            PathState::RemoteChanged | PathState::Conflict => match remote.get(path) {
                Some(entry) => {
                    plan.put.insert(path.clone(), entry.clone());
                }
                None => {
                    plan.delete.insert(path.clone());
                }
            },
        }
    }
    plan
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ContentHash, Sha256};

    fn entry(version: u8) -> Entry {
        Entry {
            size: 1,
            hash: ContentHash::Sha256(Sha256([version; 32])),
            modified_at: format!("time {version}").into(),
            etag: None,
            content_type: None,
            blocks: None,
            unknown: None,
        }
    }

    #[test]
    fn every_state_of_base_local_and_remote() {
        use PathState::*;
        let versions = [None, Some(entry(1)), Some(entry(2)), Some(entry(3))];
        for base in &versions {
            for local in &versions {
                for remote in &versions {
                    let hash = |e: &Option<Entry>| e.as_ref().map(|e| e.hash);
                    let (b, l, r) = (hash(base), hash(local), hash(remote));
                    let expected = match (l == r, b == r, b == l) {
                        (true, ..) => Same,
                        (_, true, _) => LocalChanged,
                        (_, _, true) => RemoteChanged,
                        _ => Conflict,
                    };
                    assert_eq!(classify(base.as_ref(), local.as_ref(), remote.as_ref()), expected);
                }
            }
        }
    }

    fn files(list: &[(&str, u8)]) -> Files {
        list.iter().map(|(path, version)| (DbPath::parse(path).unwrap(), entry(*version))).collect()
    }

    fn names<'a>(paths: impl IntoIterator<Item = &'a DbPath>) -> Vec<&'a str> {
        paths.into_iter().map(DbPath::as_str).collect()
    }

    #[test]
    fn a_push_sends_what_changed_here_and_touches_nothing_else() {
        let base =
            files(&[("same", 1), ("edited", 1), ("gone", 1), ("theirs", 1), ("both", 1), ("edit-del", 1)]);
        let local =
            files(&[("same", 1), ("edited", 2), ("theirs", 1), ("both", 2), ("new", 1), ("edit-del", 2)]);
        let remote =
            files(&[("same", 1), ("edited", 1), ("gone", 1), ("theirs", 2), ("both", 3), ("added", 1)]);
        let plan = plan_push(&base, &local, &remote, Overwrite::No);
        assert_eq!(names(plan.put.keys()), ["edited", "new"]);
        assert_eq!(names(&plan.delete), ["gone"]);
        assert_eq!(names(&plan.conflicts), ["both", "edit-del"]);
        assert_eq!(names(&plan.newer_on_remote), ["added", "theirs"]);
        let forced = plan_push(&base, &local, &remote, Overwrite::Remote);
        assert_eq!(names(forced.put.keys()), ["both", "edit-del", "edited", "new"]);
        assert!(forced.conflicts.is_empty());
    }

    #[test]
    fn a_pull_takes_what_changed_there_and_touches_nothing_else() {
        let mut base =
            files(&[("same", 1), ("mine", 1), ("gone", 1), ("theirs", 1), ("both", 1), ("deleted-here", 1)]);
        let local =
            files(&[("same", 1), ("mine", 2), ("gone", 1), ("theirs", 1), ("both", 2), ("untracked", 1)]);
        let mut remote =
            files(&[("same", 1), ("mine", 1), ("theirs", 2), ("both", 3), ("added", 1), ("deleted-here", 1)]);
        base.extend(files(&[("deleted-here-edited-there", 1)]));
        remote.extend(files(&[("deleted-here-edited-there", 2)]));
        let plan = plan_pull(&base, &local, &remote);
        assert_eq!(names(plan.put.keys()), ["added", "deleted-here-edited-there", "theirs"]);
        assert_eq!(names(&plan.delete), ["gone"]);
        assert_eq!(names(&plan.conflicts), ["both"]);
        assert_eq!(names(&plan.changed_here), ["deleted-here", "mine", "untracked"]);
    }

    #[test]
    fn without_a_base_nothing_is_deleted() {
        let (local, remote) = (files(&[("a", 1), ("l", 1)]), files(&[("a", 2), ("r", 1)]));
        let push = plan_push(&Files::new(), &local, &remote, Overwrite::Remote);
        assert_eq!((names(push.put.keys()), push.delete.len()), (vec!["a", "l"], 0));
        let pull = plan_pull(&Files::new(), &local, &remote);
        assert_eq!(
            (names(pull.put.keys()), pull.delete.len(), names(&pull.conflicts)),
            (vec!["r"], 0, vec!["a"])
        );
    }
}
