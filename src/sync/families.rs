//! What belongs together goes together, or stays (rule 21): a database of which the remote gets one file, and not the log that was
//! written with it, is another one.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::Changes;
use super::reconcile::Plan;
use crate::manifest::family;
use crate::model::DbPath;

/// Of files that were changed here and belong together, leaves all alone where one of them does not travel: because of a filter,
/// or because the remote's version of it is to stay. Says which would have travelled.
pub(super) fn hold_torn(plan: &mut Plan, local: &Changes) -> BTreeSet<DbPath> {
    let travels = |path: &DbPath| {
        plan.upload.contains_key(path) || plan.delete_there.contains(path) || plan.agreed.contains_key(path)
    };
    let mut families: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for path in local.keys() {
        let (members, travelling) = families.entry(family(path)).or_default();
        *members += 1;
        *travelling += usize::from(travels(path));
    }
    families.retain(|_, (members, travelling)| *members > 1 && travelling != members);
    let torn: Vec<&DbPath> = local.keys().filter(|path| families.contains_key(family(path))).collect();
    let held = torn.iter().filter(|path| travels(path)).map(|path| (*path).clone()).collect();
    for path in torn {
        plan.hold(path);
    }
    held
}

/// Whether a conflict stays open because of what belongs with the file.
pub(super) fn torn_with(plan: &Plan, path: &DbPath, local: &Changes) -> bool {
    let is_open = plan.conflicts.get(path).is_some_and(|conflict| conflict.keeps.is_none());
    is_open && local.keys().any(|other| other != path && family(other) == family(path))
}

#[cfg(test)]
mod tests {
    use super::super::conflict::{Policy, Side, Strategy};
    use super::super::filter::Filter;
    use super::super::reconcile::reconcile;
    use super::*;
    use crate::manifest::Entry;
    use crate::model::Sha256;

    fn entry(content: &str) -> Option<Entry> {
        Some(Entry {
            size: content.len() as u64,
            hash: Sha256::of(content.as_bytes()).into(),
            modified_at: "2024-01-01T00:00:00Z".into(),
            etag: None,
            content_type: None,
            blocks: None,
            unknown: None,
        })
    }

    fn changes(of: &[(&str, &str)]) -> Changes {
        of.iter().map(|(path, content)| (DbPath::parse(path).unwrap(), entry(content))).collect()
    }

    #[test]
    fn rule_21_a_log_stays_where_its_database_does() {
        let local = changes(&[("x.db", "here"), ("x.db-wal", "log"), ("other", "o"), ("y.db-wal", "alone")]);
        let policy = Policy { strategy: Strategy::RemoteWins, latest: jiff::Timestamp::MAX };
        let texts = |paths: &BTreeSet<DbPath>| paths.iter().map(ToString::to_string).collect::<Vec<_>>();
        let plan_with = |remote: &Changes, exclude: &[String]| {
            let filter = Filter::new(&[], exclude).unwrap();
            let mut plan = reconcile(&[].into(), &local, remote, &policy, &filter);
            let held = hold_torn(&mut plan, &local);
            (texts(&plan.upload.keys().cloned().collect()), texts(&held), plan)
        };
        let (uploads, held, _) = plan_with(&Changes::new(), &[]);
        assert_eq!((uploads.len(), held.len()), (4, 0));

        let (uploads, held, plan) = plan_with(&changes(&[("x.db", "there")]), &[]);
        assert_eq!(
            (uploads, held),
            (vec!["other".to_owned(), "y.db-wal".into()], vec!["x.db-wal".to_owned()])
        );
        let conflict = &plan.conflicts[&DbPath::parse("x.db").unwrap()];
        assert_eq!(conflict.keeps, None, "the remote's would meet a log that is not its own");
        assert!(plan.download.is_empty());

        let (uploads, held, _) = plan_with(&Changes::new(), &["*.db".into()]);
        assert_eq!(
            (uploads, held),
            (vec!["other".to_owned(), "y.db-wal".into()], vec!["x.db-wal".to_owned()])
        );

        let (_, held, plan) = plan_with(&changes(&[("other", "there")]), &[]);
        assert_eq!(plan.conflicts[&DbPath::parse("other").unwrap()].keeps, Some(Side::Remote));
        assert!(held.is_empty());
    }
}
