//! From three trees to what is to be done, path by path (rule 8). Pure: no I/O, no clock.

use std::collections::{BTreeMap, BTreeSet};

use super::SyncError;
use super::changes::{Changes, Files, SideView, put_all};
use super::conflict::{Conflict, Policy, Side};
use super::filter::Filter;
use super::{collisions, diff};
use crate::manifest::Entry;
pub(super) use crate::manifest::same;
use crate::model::DbPath;

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

/// What is to be done so that both sides become the same.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// To be published.
    pub upload: Files,
    /// To be deleted on the remote.
    pub delete_there: BTreeSet<DbPath>,
    /// To be brought here.
    pub download: Files,
    /// To be deleted here.
    pub delete_here: BTreeSet<DbPath>,
    /// What both sides have changed. Those that are decided are among the above, too.
    pub conflicts: BTreeMap<DbPath, Conflict>,
    /// What both sides have changed alike: only the base does not know yet.
    pub agreed: Changes,
}

impl Plan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.upload.is_empty()
            && self.delete_there.is_empty()
            && self.download.is_empty()
            && self.delete_here.is_empty()
    }

    /// Conflicts that nothing decides: they stay as they are on both sides.
    pub fn undecided(&self) -> impl Iterator<Item = (&DbPath, &Conflict)> {
        self.conflicts.iter().filter(|(_, conflict)| conflict.keeps.is_none())
    }

    /// Whether a content is to go to the other side under this path.
    pub(super) fn brings(&self, path: &DbPath) -> bool {
        self.upload.contains_key(path) || self.download.contains_key(path)
    }

    /// Leaves a path alone.
    pub(super) fn hold(&mut self, path: &DbPath) {
        self.upload.remove(path);
        self.delete_there.remove(path);
        self.download.remove(path);
        self.delete_here.remove(path);
        if let Some(conflict) = self.conflicts.get_mut(path) {
            conflict.keeps = None;
        }
    }

    /// Decides a conflict that nobody has decided, as a person wants it.
    pub(super) fn decide(&mut self, path: &DbPath, keeps: Side) -> Result<(), SyncError> {
        let none = || SyncError::NoConflict { path: path.clone() };
        let conflict = self.conflicts.get_mut(path).filter(|conflict| conflict.keeps.is_none());
        let conflict = conflict.ok_or_else(none)?;
        if !conflict.against.is_empty() {
            return Err(SyncError::InTheWay { path: path.clone() });
        }
        conflict.keeps = Some(keeps);
        let path = path.clone();
        match (keeps, conflict.local.clone(), conflict.remote.clone()) {
            (Side::Local, Some(entry), _) => drop(self.upload.insert(path, entry)),
            (Side::Local, None, _) => drop(self.delete_there.insert(path)),
            (Side::Remote, _, Some(entry)) => drop(self.download.insert(path, entry)),
            (Side::Remote, _, None) => drop(self.delete_here.insert(path)),
        }
        Ok(())
    }

    /// Moves the base of every path that has been settled (rule 8). Says whether there was any.
    pub fn settle(&self, base: &mut Files) -> bool {
        let gone = self.delete_there.iter().chain(&self.delete_here);
        let gone = gone.chain(self.agreed.iter().filter(|(_, entry)| entry.is_none()).map(|(path, _)| path));
        let agreed = self.agreed.iter().filter_map(|(path, entry)| Some((path, entry.as_ref()?)));
        let put = self.upload.iter().chain(&self.download).chain(agreed);
        let mut any = false;
        for path in gone {
            base.remove(path);
            any = true;
        }
        let put = put.map(|(path, entry)| (path.clone(), entry.clone()));
        any | put_all(base, put.collect())
    }
}

/// Plans what makes both sides the same, of which `local` and `remote` tell how they differ from `base`. Where nothing
/// changed, nothing is done; what one side changed, the other gets; what both did, the policy decides, or nobody.
/// A path that `filter` does not take is left as it is on either side.
pub fn reconcile(base: &Files, local: &Changes, remote: &Changes, policy: &Policy, filter: &Filter) -> Plan {
    let mut plan = Plan::default();
    // Collected in order and made maps of at the end: made one by one, maps take nearly twice the memory.
    let (mut upload, mut download) = (Vec::new(), Vec::new());
    for (path, state, [base, here, there]) in changed_paths(base, local, remote, filter) {
        let mut to = |side: Side, entry: Option<&Entry>| match (side, entry) {
            (Side::Remote, Some(entry)) => upload.push((path.clone(), entry.clone())),
            (Side::Remote, None) => drop(plan.delete_there.insert(path.clone())),
            (Side::Local, Some(entry)) => download.push((path.clone(), entry.clone())),
            (Side::Local, None) => drop(plan.delete_here.insert(path.clone())),
        };
        match state {
            PathState::Same if same(base, there) => {}
            PathState::Same => drop(plan.agreed.insert(path.clone(), there.cloned())),
            PathState::LocalChanged => to(Side::Remote, here),
            PathState::RemoteChanged => to(Side::Local, there),
            PathState::Conflict => {
                let conflict = policy.judge(base, here, there);
                match conflict.keeps {
                    Some(Side::Local) => to(Side::Remote, here),
                    Some(Side::Remote) => to(Side::Local, there),
                    None => {}
                }
                plan.conflicts.insert(path.clone(), conflict);
            }
        }
    }
    plan.upload = upload.into_iter().collect();
    plan.download = download.into_iter().collect();
    let sides = [SideView { base, changes: local }, SideView { base, changes: remote }];
    collisions::hold_colliding(&mut plan, base, sides);
    plan
}

/// The paths that may differ between the three, each with its state and its entries in base, local and remote.
pub(super) fn changed_paths<'a>(
    base: &'a Files,
    local: &'a Changes,
    remote: &'a Changes,
    filter: &'a Filter,
) -> impl Iterator<Item = (&'a DbPath, PathState, [Option<&'a Entry>; 3])> {
    let (here, there) = (SideView { base, changes: local }, SideView { base, changes: remote });
    diff::merged(local.keys(), remote.keys()).filter(|path| filter.takes(path)).map(move |path| {
        let entries = [base.get(path), here.get(path), there.get(path)];
        (path, classify(entries[0], entries[1], entries[2]), entries)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sync::changes::changes_between;
    use crate::sync::conflict::{ConflictKind, Strategy};
    use crate::sync::diff::SyncDiff;

    const STRATEGIES: [Strategy; 4] =
        [Strategy::Newest, Strategy::LocalWins, Strategy::RemoteWins, Strategy::Manual];

    fn policy(strategy: Strategy) -> Policy {
        Policy { strategy, latest: "2030-01-01T00:00:00Z".parse().unwrap() }
    }

    fn plan(base: &[(&str, u8)], local: &[(&str, u8)], remote: &[(&str, u8)], strategy: Strategy) -> Plan {
        let [base, local, remote] = [base, local, remote].map(Entry::versions);
        reconcile_trees(&base, &local, &remote, strategy)
    }

    fn reconcile_trees(base: &Files, local: &Files, remote: &Files, strategy: Strategy) -> Plan {
        let (here, there) = (changes_between(base, local), changes_between(base, remote));
        reconcile(base, &here, &there, &policy(strategy), &Filter::default())
    }

    fn names<'a>(paths: impl IntoIterator<Item = &'a DbPath>) -> Vec<&'a str> {
        paths.into_iter().map(DbPath::as_str).collect()
    }

    fn kinds(plan: &Plan) -> Vec<(&str, ConflictKind)> {
        plan.conflicts.iter().map(|(path, conflict)| (path.as_str(), conflict.kind)).collect()
    }

    type Version = Option<u8>;

    /// What a path's three versions ask for, said once more and otherwise.
    fn expected(base: Version, local: Version, remote: Version, strategy: Strategy) -> &'static str {
        if local == remote {
            return if base == local { "nothing" } else { "agreed" };
        }
        if base == remote {
            return if local.is_some() { "upload" } else { "delete there" };
        }
        if base == local {
            return if remote.is_some() { "download" } else { "delete here" };
        }
        match (strategy, local, remote) {
            (Strategy::Manual, ..) => "nothing",
            (_, Some(_), None) => "upload",
            (_, None, Some(_)) => "download",
            (Strategy::LocalWins, ..) => "upload",
            (Strategy::RemoteWins, ..) => "download",
            // All of one date: the larger hash.
            (Strategy::Newest, local, remote) if local > remote => "upload",
            (Strategy::Newest, ..) => "download",
        }
    }

    /// In which of the six lists such a path is.
    fn list_of(base: Version, local: Version, remote: Version) -> Option<usize> {
        match (local, remote) {
            (None, None) => None,
            _ if local == remote => Some(3),
            (Some(_), _) if base == remote => Some(0),
            (None, _) if base == remote => Some(4),
            (_, Some(_)) if base == local => Some(1),
            (_, None) if base == local => Some(5),
            _ => Some(2),
        }
    }

    fn states() -> Vec<[Version; 3]> {
        let versions = [None, Some(1), Some(2), Some(3)];
        let mut all = Vec::new();
        for base in versions {
            for local in versions {
                all.extend(versions.map(|remote| [base, local, remote]));
            }
        }
        all
    }

    fn tree(version: Version) -> Files {
        version.map(|version| Entry::versions(&[("f", version)])).unwrap_or_default()
    }

    #[test]
    fn f11_every_state_of_base_local_and_remote_is_planned_as_it_should_be() {
        let mut seen = BTreeSet::new();
        for state @ [base, local, remote] in states() {
            let trees = state.map(tree);
            for strategy in STRATEGIES {
                let told = format!("{base:?} {local:?} {remote:?} {strategy}");
                let plan = reconcile_trees(&trees[0], &trees[1], &trees[2], strategy);
                let done = [
                    ("upload", !plan.upload.is_empty()),
                    ("delete there", !plan.delete_there.is_empty()),
                    ("download", !plan.download.is_empty()),
                    ("delete here", !plan.delete_here.is_empty()),
                    ("agreed", !plan.agreed.is_empty()),
                ];
                let done: Vec<&str> = done.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
                let expected = expected(base, local, remote, strategy);
                assert_eq!(done, if expected == "nothing" { vec![] } else { vec![expected] }, "{told}");
                let conflict = local != remote && base != local && base != remote;
                assert_eq!(!plan.conflicts.is_empty(), conflict, "{told}");
                // What is done settles the path: both sides and the base are the same.
                let [mut settled, mut here, mut there] = trees.clone();
                plan.settle(&mut settled);
                there.extend(plan.upload.clone());
                here.extend(plan.download.clone());
                there.retain(|path, _| !plan.delete_there.contains(path));
                here.retain(|path, _| !plan.delete_here.contains(path));
                if plan.undecided().next().is_none() {
                    assert_eq!((&here, &there), (&settled, &settled), "{told}");
                } else {
                    assert_eq!([settled, here, there], trees, "{told}");
                }
                seen.insert(expected);
            }
        }
        assert_eq!(seen.len(), 6, "every outcome was met: {seen:?}");
    }

    #[test]
    fn f11_every_path_is_in_the_right_one_of_the_six_lists() {
        for state @ [base, local, remote] in states() {
            let trees = state.map(tree);
            let (here, there) =
                (changes_between(&trees[0], &trees[1]), changes_between(&trees[0], &trees[2]));
            let policy = policy(Strategy::Newest);
            let diff = SyncDiff::between(&trees[0], &here, &there, &policy, &Filter::default());
            let lists = [
                diff.to_upload.len(),
                diff.to_download.len(),
                diff.conflicts.len(),
                diff.unchanged.len(),
                diff.deleted_locally.len(),
                diff.deleted_remotely.len(),
            ];
            let wanted = list_of(base, local, remote);
            let expected = std::array::from_fn(|list| usize::from(Some(list) == wanted));
            assert_eq!(lists, expected, "{base:?} {local:?} {remote:?}");
        }
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_is_a_conflict_that_no_strategy_decides() {
        for strategy in STRATEGIES {
            let plan = plan(&[], &[("d", 1), ("mine", 1)], &[("d/g", 2), ("theirs", 1)], strategy);
            let conflict = ConflictKind::FileDirectory;
            assert_eq!(kinds(&plan), [("d", conflict), ("d/g", conflict)]);
            assert_eq!(plan.undecided().count(), 2);
            assert_eq!(names(plan.upload.keys()), ["mine"]);
            assert_eq!(names(plan.download.keys()), ["theirs"]);
        }
    }

    #[test]
    fn a_file_may_become_a_directory_where_nobody_touched_it() {
        let base = [("d", 1), ("e/x", 1), ("e/y", 1)];
        let plan = plan(&base, &base, &[("d/g", 1), ("e", 2)], Strategy::Manual);
        assert!(plan.conflicts.is_empty(), "{plan:?}");
        assert_eq!(names(plan.download.keys()), ["d/g", "e"]);
        assert_eq!(names(&plan.delete_here), ["d", "e/x", "e/y"]);
    }

    #[test]
    fn an_edit_keeps_a_directory_from_taking_a_files_place() {
        for strategy in STRATEGIES {
            let plan = plan(&[("d", 1)], &[("d", 2)], &[("d/g", 1)], strategy);
            let conflict = ConflictKind::FileDirectory;
            assert_eq!(kinds(&plan), [("d", conflict), ("d/g", conflict)], "{strategy}");
            assert!(plan.is_empty() && plan.undecided().count() == 2);
        }
    }

    #[test]
    fn rule_9_names_alike_on_either_side_are_a_conflict_and_on_one_side_are_none() {
        let conflict = ConflictKind::Names;
        let newest = |base: &[(&str, u8)], local: &[(&str, u8)], remote: &[(&str, u8)]| {
            plan(base, local, remote, Strategy::Newest)
        };
        let between = newest(&[], &[("README", 1)], &[("readme", 1)]);
        assert_eq!(kinds(&between), [("README", conflict), ("readme", conflict)]);
        assert!(between.is_empty());
        let encoded = newest(&[], &[("caf\u{e9}", 1)], &[("cafe\u{301}", 1)]);
        assert_eq!(encoded.undecided().count(), 2);
        let directory = newest(&[], &[("Data", 1)], &[("data/x", 1)]);
        assert_eq!(kinds(&directory), [("Data", conflict), ("data/x", conflict)]);
        let one_side = newest(&[("README", 1)], &[("README", 1), ("readme", 1)], &[("README", 2)]);
        assert!(one_side.conflicts.is_empty(), "{one_side:?}");
        let renamed = newest(&[("README", 1)], &[("readme", 1)], &[("README", 1)]);
        assert!(renamed.conflicts.is_empty(), "{renamed:?}");
        let renamed_and_edited = newest(&[("README", 1)], &[("readme", 1)], &[("README", 2)]);
        assert_eq!(kinds(&renamed_and_edited), [("README", conflict), ("readme", conflict)]);
        assert!(renamed_and_edited.is_empty());
        // Whichever of the two the sync is about.
        let [here, there] = [&[("README", 1)], &[("readme", 1)]]
            .map(|files| changes_between(&Files::new(), &Entry::versions(files)));
        for name in ["README", "readme"] {
            let filter = Filter::new(&[name.to_owned()], &[]).unwrap();
            let plan = reconcile(&Files::new(), &here, &there, &policy(Strategy::Newest), &filter);
            assert_eq!((kinds(&plan), plan.is_empty()), (vec![(name, conflict)], true));
        }
    }

    #[test]
    fn rule_10_a_newcomer_in_a_directory_that_was_removed_here_arrives() {
        let base = [("d/a", 1), ("d/b", 1)];
        let plan = plan(&base, &[], &[("d/a", 1), ("d/b", 1), ("d/new", 1)], Strategy::Newest);
        assert_eq!(names(&plan.delete_there), ["d/a", "d/b"]);
        assert_eq!(names(plan.download.keys()), ["d/new"]);
    }

    #[test]
    fn rule_11_what_is_filtered_passes_through() {
        let [base, local, remote] = [
            &[("x.tmp", 1), ("gone.tmp", 1), ("f", 1)][..],
            &[("x.tmp", 2), ("f", 2), (".env", 1)],
            &[("x.tmp", 3), ("gone.tmp", 1), ("f", 1), ("new.tmp", 1), (".env", 2)],
        ]
        .map(Entry::versions);
        let plan = |local: &Files, include: &[&str], exclude: &[&str]| {
            let owned = |list: &[&str]| list.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
            let filter = Filter::new(&owned(include), &owned(exclude)).unwrap();
            let (here, there) = (changes_between(&base, local), changes_between(&base, &remote));
            reconcile(&base, &here, &there, &policy(Strategy::Manual), &filter)
        };
        let passed = plan(&local, &[], &["*.tmp"]);
        assert_eq!(names(passed.upload.keys()), ["f"]);
        assert!(passed.conflicts.is_empty() && passed.download.is_empty() && passed.delete_there.is_empty());
        // It is there all the same: nothing takes its place.
        let in_its_place = Entry::versions(&[("x.tmp/below", 1), ("f", 1), ("gone.tmp", 1)]);
        let held = plan(&in_its_place, &["x.tmp/below"], &[]);
        assert!(held.is_empty(), "{held:?}");
        assert_eq!(kinds(&held), [("x.tmp/below", ConflictKind::FileDirectory)]);
    }

    #[test]
    fn without_a_base_nothing_is_deleted() {
        for strategy in STRATEGIES {
            let plan = plan(&[], &[("a", 1), ("l", 1)], &[("a", 2), ("r", 1)], strategy);
            assert!(plan.delete_here.is_empty() && plan.delete_there.is_empty());
            assert_eq!(plan.conflicts.len(), 1);
        }
    }

    #[test]
    fn the_same_bytes_are_the_same_whatever_else_an_entry_says() {
        let (mut local, remote) = (Entry::versions(&[("f", 1)]), Entry::versions(&[("f", 1)]));
        for entry in local.values_mut() {
            entry.modified_at = "another time".into();
        }
        let plan = reconcile_trees(&Files::new(), &local, &remote, Strategy::Manual);
        assert_eq!(plan.agreed.len(), 1);
        assert!(plan.is_empty() && plan.conflicts.is_empty());
    }
}
