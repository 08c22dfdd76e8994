//! Paths that cannot stand beside each other: a file and a directory of one name; and, where neither side has both, names
//! that many systems take for one. Neither is brought to the other side; a person decides (rule 9).

use std::collections::{BTreeMap, BTreeSet};

use icu_casemap::CaseMapper;
use icu_normalizer::DecomposingNormalizerBorrowed;

use super::changes::{Files, SideView};
use super::conflict::{Conflict, ConflictKind, Suggestion};
use super::reconcile::Plan;
use crate::model::DbPath;

/// Two paths that are in each other's way, and how.
type Found = BTreeMap<DbPath, (ConflictKind, BTreeSet<DbPath>)>;

/// Holds what would create a collision on either side. Holding back creates none: what is held leaves both sides as they
/// are, and each of them has no file in the place of a directory.
pub(super) fn hold_colliding(plan: &mut Plan, base: &Files, [local, remote]: [SideView<'_>; 2]) {
    let mut found = Found::new();
    for path in plan.upload.keys().filter(|path| remote.get(path).is_none()) {
        find_shape(path, remote, &plan.delete_there, &mut found);
    }
    for path in plan.download.keys().filter(|path| local.get(path).is_none()) {
        find_shape(path, local, &plan.delete_here, &mut found);
    }
    let changed = local.changes.keys().chain(remote.changes.keys());
    let here = |path: &&DbPath| local.get(path).is_some() && !plan.delete_here.contains(*path);
    let only_here = changed.filter(here).filter(|path| remote.get(path).is_none()).collect();
    find_names(only_here, plan, [local, remote], &mut found);
    hold(plan, base, [local, remote], found);
}

/// The same for files that stand here and were not looked at: `beside`, in order.
pub(super) fn hold_beside(
    plan: &mut Plan,
    base: &Files,
    [local, remote]: [SideView<'_>; 2],
    beside: &[DbPath],
) {
    if beside.is_empty() {
        return;
    }
    let mut found = Found::new();
    for path in plan.download.keys().filter(|path| local.get(path).is_none()) {
        let above = path.ancestors().filter_map(|above| {
            let at = beside.binary_search_by(|other| other.as_str().cmp(above)).ok()?;
            Some(&beside[at])
        });
        let prefix = format!("{path}/");
        let from = beside.partition_point(|other| other.as_str() < prefix.as_str());
        let below = beside[from..].iter().take_while(|other| other.as_str().starts_with(&prefix));
        for other in above.chain(below) {
            note(&mut found, ConflictKind::FileDirectory, path, other);
        }
    }
    find_names(beside.iter().collect(), plan, [local, remote], &mut found);
    hold(plan, base, [local, remote], found);
}

fn hold(plan: &mut Plan, base: &Files, [local, remote]: [SideView<'_>; 2], found: Found) {
    for (path, (kind, against)) in found {
        // What the sync is not about may be in the way, too: it stays, and has nothing to be held.
        if !plan.brings(&path) && !plan.conflicts.contains_key(&path) {
            continue;
        }
        plan.hold(&path);
        let conflict = plan.conflicts.entry(path.clone()).or_insert_with(|| {
            Conflict::for_a_person(kind, [base.get(&path), local.get(&path), remote.get(&path)])
        });
        if conflict.against.is_empty() {
            conflict.kind = kind;
        }
        conflict.suggestion = Suggestion::Manual;
        conflict.against.extend(against);
    }
}

/// A file that would be created on a side: does one stand where it needs a directory, or a directory in its own place?
fn find_shape(path: &DbPath, side: SideView<'_>, deleted: &BTreeSet<DbPath>, found: &mut Found) {
    let stays = |other: &DbPath| side.get(other).is_some() && !deleted.contains(other);
    let above = path.ancestors().filter_map(|above| DbPath::parse(above).ok()).filter(stays);
    let below = side.below(path).filter(|below| !deleted.contains(*below)).cloned();
    for other in above.chain(below) {
        note(found, ConflictKind::FileDirectory, path, &other);
    }
}

/// Files that only the remote has, and that stay there, whether the sync is about them or not. Names that one side has both of
/// are that side's business.
fn only_there<'a>(plan: &Plan, [local, remote]: [SideView<'a>; 2]) -> Vec<&'a DbPath> {
    let changed = local.changes.keys().chain(remote.changes.keys());
    let there = |path: &&DbPath| remote.get(path).is_some() && !plan.delete_there.contains(*path);
    changed.filter(there).filter(|path| local.get(path).is_none()).collect()
}

/// Of files that only one side has: is one's name another's of the other side, but for case and encoding?
fn find_names(only_here: Vec<&DbPath>, plan: &Plan, sides: [SideView<'_>; 2], found: &mut Found) {
    if only_here.is_empty() {
        return;
    }
    let only_there = only_there(plan, sides);
    if only_there.is_empty() {
        return;
    }
    let mut names: BTreeMap<String, Vec<&DbPath>> = BTreeMap::new();
    let mut directories: BTreeMap<String, Vec<&DbPath>> = BTreeMap::new();
    for path in only_there {
        let folded = fold(path);
        for (at, _) in folded.match_indices('/') {
            directories.entry(folded[..at].to_owned()).or_default().push(path);
        }
        names.entry(folded).or_default().push(path);
    }
    for path in only_here {
        let folded = fold(path);
        let above = folded.match_indices('/').filter_map(|(at, _)| names.get(&folded[..at]));
        let met = names.get(&folded).into_iter().chain(directories.get(&folded)).chain(above);
        for other in met.flatten().filter(|other| **other != path) {
            let related = |a: &DbPath, b: &DbPath| a.ancestors().any(|above| above == b.as_str());
            // Those that are a file and a directory to the letter are found already.
            if !related(path, other) && !related(other, path) {
                note(found, ConflictKind::Names, path, other);
            }
        }
    }
}

fn note(found: &mut Found, kind: ConflictKind, a: &DbPath, b: &DbPath) {
    for (path, other) in [(a, b), (b, a)] {
        found.entry(path.clone()).or_insert_with(|| (kind, BTreeSet::new())).1.insert(other.clone());
    }
}

/// What two names have in common that differ in nothing but case or encoding (Unicode's canonical caseless matching).
fn fold(path: &DbPath) -> String {
    let text = path.as_str();
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    let decomposed = DecomposingNormalizerBorrowed::new_nfd();
    let folded = CaseMapper::new().fold_string(&decomposed.normalize(text)).into_owned();
    decomposed.normalize(&folded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_folded_as_unicode_says() {
        let fold = |text: &str| fold(&DbPath::parse(text).unwrap());
        assert_eq!(fold("Data/README"), "data/readme");
        assert_eq!(fold("caf\u{e9}"), fold("CAFE\u{301}"));
        assert_eq!(fold("Straße"), fold("STRASSE"));
        assert_eq!(fold("ΜΆΪΟΣ"), fold("μάϊος"));
        assert_ne!(fold("a"), fold("á"));
    }
}
