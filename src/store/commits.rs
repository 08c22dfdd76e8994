//! The commit ids of the latest revisions, so that a commit which is sent again is known without reading the log
//! (rule 3).

use std::collections::{HashMap, VecDeque};

use crate::model::{Revision, Sha256};

/// Ids kept: some megabytes of them.
const KEPT: usize = 65_536;

/// Ids of revisions that follow one another, up to the current one.
#[derive(Debug, Default)]
pub(super) struct RecentCommits {
    /// The revision of the first one kept.
    first: Revision,
    ids: VecDeque<String>,
    found: HashMap<String, (Revision, Sha256)>,
}

impl RecentCommits {
    /// Takes in the next revision. After a jump, what was before it is not known any more.
    pub(super) fn add(&mut self, revision: Revision, commit_id: &str, record_hash: Sha256) {
        if self.ids.is_empty() || Revision(self.first.0 + self.ids.len() as u64) != revision {
            *self = Self { first: revision, ..Self::default() };
        }
        self.ids.push_back(commit_id.to_owned());
        self.found.insert(commit_id.to_owned(), (revision, record_hash));
        if self.ids.len() > KEPT
            && let Some(oldest) = self.ids.pop_front()
        {
            self.found.remove(&oldest);
            self.first = self.first.next();
        }
    }

    /// The revision that a commit became, and its hash.
    pub(super) fn get(&self, commit_id: &str) -> Option<(Revision, Sha256)> {
        self.found.get(commit_id).copied()
    }

    /// Those before this revision are not known here; nothing is known of a log without new entries.
    pub(super) fn first(&self) -> Option<Revision> {
        (!self.ids.is_empty()).then_some(self.first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_commits_are_known_and_a_jump_forgets() {
        let mut recent = RecentCommits::default();
        let hash = Sha256([1; 32]);
        assert_eq!(recent.first(), None);
        for number in 5..5 + KEPT as u64 + 3 {
            recent.add(Revision(number), &format!("commit-{number}"), hash);
        }
        assert_eq!(recent.first(), Some(Revision(8)));
        assert_eq!(recent.get("commit-7"), None);
        assert_eq!(recent.get("commit-8"), Some((Revision(8), hash)));
        recent.add(Revision(1_000_000), "later", hash);
        assert_eq!((recent.first(), recent.get("commit-8")), (Some(Revision(1_000_000)), None));
    }
}
