//! The six lists: how two sides differ, before anybody decides anything.

use std::iter::Peekable;

use super::changes::{Changes, Files, SideView};
use super::conflict::{Conflict, Policy};
use super::filter::Filter;
use super::reconcile::{PathState, changed_paths, same};
use crate::manifest::Entry;
use crate::model::DbPath;

/// How two sides differ, and where they do not.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SyncDiff {
    /// New or changed here, and not there.
    pub to_upload: Vec<(DbPath, Entry)>,
    /// New or changed there, and not here.
    pub to_download: Vec<(DbPath, Entry)>,
    /// Changed on both sides, differently.
    pub conflicts: Vec<(DbPath, Conflict)>,
    /// The same on both sides.
    pub unchanged: Vec<DbPath>,
    /// Deleted here, and as it was there.
    pub deleted_locally: Vec<DbPath>,
    /// Deleted there, and as it was here.
    pub deleted_remotely: Vec<DbPath>,
}

impl SyncDiff {
    /// How the two sides differ that differ so from `base`.
    pub fn between(
        base: &Files,
        local: &Changes,
        remote: &Changes,
        policy: &Policy,
        filter: &Filter,
    ) -> Self {
        let mut diff = Self::default();
        for (path, state, [base, here, there]) in changed_paths(base, local, remote, filter) {
            match (state, here, there) {
                (PathState::Same, ..) => {}
                (PathState::LocalChanged, Some(entry), _) => {
                    diff.to_upload.push((path.clone(), entry.clone()))
                }
                (PathState::LocalChanged, None, _) => diff.deleted_locally.push(path.clone()),
                (PathState::RemoteChanged, _, Some(entry)) => {
                    diff.to_download.push((path.clone(), entry.clone()));
                }
                (PathState::RemoteChanged, _, None) => diff.deleted_remotely.push(path.clone()),
                (PathState::Conflict, ..) => {
                    diff.conflicts.push((path.clone(), policy.judge(base, here, there)));
                }
            }
        }
        let (here, there) = (SideView { base, changes: local }, SideView { base, changes: remote });
        let same = |path: &DbPath| here.get(path).is_some() && same(here.get(path), there.get(path));
        let paths = merged(base.keys(), merged(local.keys(), remote.keys()));
        diff.unchanged = paths.filter(|path| filter.takes(path) && same(path)).cloned().collect();
        diff
    }
}

/// The paths of two sorted lists, sorted, each once.
pub(super) fn merged<'a>(
    a: impl Iterator<Item = &'a DbPath>,
    b: impl Iterator<Item = &'a DbPath>,
) -> impl Iterator<Item = &'a DbPath> {
    let (mut a, mut b) = (a.peekable(), b.peekable());
    std::iter::from_fn(move || next_of(&mut a, &mut b))
}

fn next_of<'a>(
    a: &mut Peekable<impl Iterator<Item = &'a DbPath>>,
    b: &mut Peekable<impl Iterator<Item = &'a DbPath>>,
) -> Option<&'a DbPath> {
    let (Some(left), Some(right)) = (a.peek(), b.peek()) else { return a.next().or_else(|| b.next()) };
    match left.cmp(right) {
        std::cmp::Ordering::Less => a.next(),
        std::cmp::Ordering::Greater => b.next(),
        std::cmp::Ordering::Equal => {
            b.next();
            a.next()
        }
    }
}
