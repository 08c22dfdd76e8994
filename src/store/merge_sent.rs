//! What a whole manifest that was sent changes (rule 5). Pure.

use std::collections::BTreeMap;

use crate::manifest::Entry;
use crate::model::DbPath;
use crate::wire::PutEntry;

/// Paths and what they have.
pub type Files = BTreeMap<DbPath, Entry>;

/// The change to publish.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Merged {
    /// Added or replaced.
    pub put: Vec<PutEntry>,
    /// Removed.
    pub delete: Vec<DbPath>,
    /// Sent, but others had changed the same path: theirs stays, and this is kept beside.
    pub set_aside: Vec<PutEntry>,
}

impl Merged {
    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.put.is_empty() && self.delete.is_empty() && self.set_aside.is_empty()
    }
}

/// What becomes of `current` when somebody who knew `base` sends `sent`. What others changed since stays. Whoever
/// knew nothing may add and replace, and not delete: what is missing may never have been seen.
pub fn merge_sent(base: Option<&Files>, sent: &Files, current: &Files) -> Merged {
    let mut merged = Merged::default();
    let same = |one: Option<&Entry>, other: Option<&Entry>| match (one, other) {
        (Some(one), Some(other)) => one.same_content(other),
        (None, None) => true,
        _ => false,
    };
    for (path, entry) in sent {
        let (now, then) = (current.get(path), base.map(|base| base.get(path)));
        if same(Some(entry), now) {
            continue;
        }
        let put = PutEntry { path: path.clone(), entry: entry.clone() };
        match then {
            Some(then) if same(Some(entry), then) => {}
            Some(then) if !same(now, then) => merged.set_aside.push(put),
            _ => merged.put.push(put),
        }
    }
    let Some(base) = base else { return merged };
    let missing = current.iter().filter(|(path, _)| !sent.contains_key(*path));
    // Edited since: an edit beats a deletion (rule 9). Not in the base: added by others.
    let deleted = missing.filter(|(path, entry)| same(base.get(*path), Some(entry)));
    merged.delete = deleted.map(|(path, _)| path.clone()).collect();
    merged
}

/// Whether `sent` shows that whoever made it knew `earlier` and not `later`: where the two differ, it has something of
/// the earlier one's, or lacks what only the later one has.
pub fn knows_only(sent: &Files, earlier: &Files, later: &Files) -> bool {
    let hash = |files: &Files, path: &DbPath| files.get(path).map(|entry| (entry.hash, entry.size));
    earlier.keys().chain(later.keys()).any(|path| {
        let (then, now) = (hash(earlier, path), hash(later, path));
        then != now && hash(sent, path) == then
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(put: &[PutEntry]) -> Vec<&str> {
        put.iter().map(|put| put.path.as_str()).collect()
    }

    #[test]
    fn rule_5_every_state_of_base_sent_and_current() {
        let versions = [None, Some(1), Some(2), Some(3)];
        let one = |version: Option<u8>| {
            Entry::versions(&version.map(|version| ("f", version)).into_iter().collect::<Vec<_>>())
        };
        for base in versions {
            for sent in versions {
                for current in versions {
                    let merged = merge_sent(Some(&one(base)), &one(sent), &one(current));
                    let place = format!("{base:?} {sent:?} {current:?}");
                    let (they_changed, others_changed) = (sent != base, current != base);
                    let expected = match (they_changed && sent != current, others_changed, sent) {
                        (false, ..) => (0, 0, 0),
                        (true, false, Some(_)) => (1, 0, 0),
                        (true, false, None) => (0, 1, 0),
                        // What others did stays; a version that was sent is not lost by it.
                        (true, true, Some(_)) => (0, 0, 1),
                        (true, true, None) => (0, 0, 0),
                    };
                    let found = (merged.put.len(), merged.delete.len(), merged.set_aside.len());
                    assert_eq!(found, expected, "{place}");
                }
            }
        }
    }

    #[test]
    fn rule_5_what_was_sent_tells_what_it_was_made_from() {
        let (earlier, later) =
            (Entry::versions(&[("a", 1), ("b", 1)]), Entry::versions(&[("a", 2), ("b", 1), ("c", 1)]));
        for (sent, only) in [
            (Entry::versions(&[("a", 1), ("b", 1)]), true),
            (Entry::versions(&[("a", 2), ("b", 1)]), true),
            (Entry::versions(&[("a", 1), ("b", 1), ("c", 1)]), true),
            (Entry::versions(&[("a", 2), ("b", 9), ("c", 1)]), false),
            (Entry::versions(&[("a", 3), ("b", 1), ("c", 2)]), false),
            (Entry::versions(&[("b", 1), ("c", 1)]), false),
        ] {
            assert_eq!(knows_only(&sent, &earlier, &later), only, "{sent:?}");
        }
    }

    #[test]
    fn rule_5_without_a_base_nothing_is_deleted() {
        let (sent, current) = (
            Entry::versions(&[("new", 1), ("edited", 2), ("same", 1)]),
            Entry::versions(&[("edited", 1), ("same", 1), ("theirs", 1)]),
        );
        let merged = merge_sent(None, &sent, &current);
        assert_eq!(names(&merged.put), ["edited", "new"]);
        assert!(merged.delete.is_empty() && merged.set_aside.is_empty());
    }
}
