//! What a side has that the base has not. Planning looks at these, so it costs what has changed, and not what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use crate::manifest::Entry;
use crate::model::DbPath;

/// Files by path, of one side.
pub type Files = BTreeMap<DbPath, Entry>;

/// How one side differs from the base, by path: the entry it has there, or none where the base's file is gone.
pub type Changes = BTreeMap<DbPath, Option<Entry>>;

/// What leads from `base` to `side`.
pub fn changes_between(base: &Files, side: &Files) -> Changes {
    let mut changes: Changes =
        base.keys().filter(|path| !side.contains_key(*path)).map(|path| (path.clone(), None)).collect();
    for (path, entry) in side {
        if !base.get(path).is_some_and(|base| base.same_content(entry)) {
            changes.insert(path.clone(), Some(entry.clone()));
        }
    }
    changes
}

/// Puts files beside others, or in their places. Says whether there were any.
pub(super) fn put_all(files: &mut Files, put: Vec<(DbPath, Entry)>) -> bool {
    let any = !put.is_empty();
    // One by one, a map takes nearly twice the memory; to make it anew takes the time of all that is there.
    if put.len() > files.len() / 8 {
        files.append(&mut put.into_iter().collect());
    } else {
        files.extend(put);
    }
    any
}

/// A side as it is: the base, and how the side differs from it.
#[derive(Clone, Copy)]
pub(super) struct SideView<'a> {
    pub(super) base: &'a Files,
    pub(super) changes: &'a Changes,
}

impl<'a> SideView<'a> {
    pub(super) fn get(&self, path: &DbPath) -> Option<&'a Entry> {
        match self.changes.get(path) {
            Some(changed) => changed.as_ref(),
            None => self.base.get(path),
        }
    }

    /// How many files there are.
    pub(super) fn count(&self) -> usize {
        let new =
            self.changes.iter().filter(|(path, entry)| entry.is_some() && !self.base.contains_key(*path));
        let gone =
            self.changes.iter().filter(|(path, entry)| entry.is_none() && self.base.contains_key(*path));
        self.base.len() + new.count() - gone.count()
    }

    /// How many collections there are.
    pub(super) fn collections(&self) -> usize {
        let Ok(data) = DbPath::parse("data") else { return 0 };
        collections(self.below(&data))
    }

    /// The files below the directory `path`.
    pub(super) fn below(&self, path: &DbPath) -> impl Iterator<Item = &'a DbPath> + use<'a> {
        let prefix = format!("{}/", path.as_str());
        let from = (Bound::Included(prefix.as_str()), Bound::Unbounded);
        let changes = self.changes;
        let in_base = self.base.range::<str, _>(from).map(|(path, _)| path);
        let changed = changes.range::<str, _>(from).map(|(path, entry)| (path, entry.is_some()));
        let is_below = move |path: &&DbPath| path.as_str().starts_with(&prefix);
        let in_base = in_base.take_while(is_below.clone()).filter(|path| !changes.contains_key(*path));
        let changed = changed.take_while(move |(path, _)| is_below(path));
        in_base.chain(changed.filter(|(_, is_there)| *is_there).map(|(path, _)| path))
    }
}

/// How many names have a file below `data/`.
pub(super) fn collections<'a>(paths: impl Iterator<Item = &'a DbPath>) -> usize {
    paths.filter_map(DbPath::collection).collect::<BTreeSet<&str>>().len()
}
