//! Random trees: two or three directories that are edited and synced with one remote by random strategies. Whatever
//! happens, nobody's bytes are lost, what was deleted stays deleted, and in the end all are the same.

use std::collections::{BTreeMap, BTreeSet};

use super::changes::{Files, changes_between};
use super::conflict::{ConflictKind, Policy, Side, Strategy};
use super::filter::Filter;
use super::reconcile::{Plan, reconcile};
use crate::manifest::Entry;
use crate::model::{ContentHash, DbPath, Sha256};

/// Names that meet: alone, as directories of each other, and but for case.
const NAMES: [&str; 12] =
    ["a", "b", "c", "d", "d/x", "d/y", "d/x/z", "D", "e/1", "E/1", "caf\u{e9}", "cafe\u{301}"];
const TREES: u64 = 20_000;
const STEPS: u64 = 8;
/// After so many rounds in which nobody edits anything, all are the same.
const ROUNDS: usize = 4;
/// So many values are written by several.
const SHARED: u64 = 4;

struct Chance(u64);

impl Chance {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    fn name(&mut self) -> DbPath {
        DbPath::parse(NAMES[self.below(NAMES.len() as u64) as usize]).unwrap()
    }
}

/// A directory that is synced.
#[derive(Default)]
struct Replica {
    base: Files,
    local: Files,
}

#[derive(Default)]
struct World {
    remote: Files,
    replicas: Vec<Replica>,
    /// What was ever published.
    published: BTreeSet<(DbPath, ContentHash)>,
    /// What was published and deleted since, and nobody wrote again.
    deleted: BTreeSet<(DbPath, ContentHash)>,
    /// How often each thing happened, for a run in which nothing happens proves nothing.
    seen: BTreeMap<&'static str, u64>,
}

fn value(n: u64) -> Entry {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_le_bytes());
    let mut entry = Entry::of(Sha256(hash), n);
    entry.modified_at = format!("2026-01-01T00:{:02}:{:02}Z", n / 60 % 60, n % 60).into();
    entry
}

fn is_a_tree(files: &Files) -> bool {
    files.keys().all(|path| path.ancestors().all(|above| !files.contains_key(above)))
}

impl World {
    /// Somebody edits a directory: a file takes the place of whatever stands in its way.
    fn edit(&mut self, chance: &mut Chance, who: usize, next: &mut u64) {
        let path = chance.name();
        let local = &mut self.replicas[who].local;
        if chance.below(3) == 0 {
            local.remove(&path);
            return;
        }
        // Now and then two write the same.
        let entry = if chance.below(8) == 0 {
            value(chance.below(SHARED))
        } else {
            *next += 1;
            value(*next + SHARED)
        };
        local.retain(|other, _| {
            !other.ancestors().any(|above| above == path.as_str())
                && !path.ancestors().any(|above| above == other.as_str())
        });
        self.deleted.remove(&(path.clone(), entry.hash));
        local.insert(path, entry);
    }

    fn plan(&self, who: usize, strategy: Strategy) -> Plan {
        let Replica { base, local } = &self.replicas[who];
        let (here, there) = (changes_between(base, local), changes_between(base, &self.remote));
        let policy = Policy { strategy, latest: "2027-01-01T00:00:00Z".parse().unwrap() };
        reconcile(base, &here, &there, &policy, &Filter::default())
    }

    fn sync(&mut self, who: usize, strategy: Strategy) {
        let plan = self.plan(who, strategy);
        self.check(who, &plan, strategy);
        let replica = &mut self.replicas[who];
        for path in &plan.delete_there {
            let gone = self.remote.remove(path).unwrap();
            // Of the others somebody may have written the same, independently.
            if gone.size > SHARED {
                self.deleted.insert((path.clone(), gone.hash));
            }
        }
        for (path, entry) in &plan.upload {
            let returns = self.deleted.contains(&(path.clone(), entry.hash));
            assert!(!returns, "{path} was deleted, and is back: {plan:?}");
            self.published.insert((path.clone(), entry.hash));
            self.remote.insert(path.clone(), entry.clone());
        }
        replica.local.retain(|path, _| !plan.delete_here.contains(path));
        replica.local.extend(plan.download.clone());
        plan.settle(&mut replica.base);
        assert!(is_a_tree(&self.remote) && is_a_tree(&replica.local), "{plan:?}");
        // What was left alone is left alone again, and there is nothing else to do.
        let again = self.plan(who, strategy);
        assert!(again.is_empty() && again.agreed.is_empty(), "{plan:?}\nand again {again:?}");
        let undecided = |plan: &Plan| plan.undecided().map(|(path, _)| path.clone()).collect::<BTreeSet<_>>();
        assert_eq!(undecided(&plan), undecided(&again));
    }

    /// What a plan does away with is the base, which was published, or lost a conflict, whose loser is kept.
    fn check(&mut self, who: usize, plan: &Plan, strategy: Strategy) {
        let Replica { base, local } = &self.replicas[who];
        let mut count = |what: &'static str, by: usize| *self.seen.entry(what).or_default() += by as u64;
        let loses = |path: &DbPath, here: &Files, loser: Side| match here.get(path) {
            None => true,
            Some(lost) => {
                base.get(path).is_some_and(|base| base.same_content(lost))
                    || plan.conflicts.get(path).is_some_and(|conflict| {
                        let kept = if loser == Side::Local { &conflict.local } else { &conflict.remote };
                        conflict.keeps.is_some_and(|keeps| keeps != loser)
                            && kept.as_ref().is_some_and(|kept| kept.same_content(lost))
                    })
            }
        };
        for path in plan.download.keys().chain(&plan.delete_here) {
            assert!(loses(path, local, Side::Local), "{path} here is lost: {plan:?}");
        }
        for path in plan.upload.keys().chain(&plan.delete_there) {
            assert!(loses(path, &self.remote, Side::Remote), "{path} there is lost: {plan:?}");
        }
        for path in plan.delete_here.iter().chain(&plan.delete_there) {
            assert!(!plan.conflicts.contains_key(path), "a deletion wins nothing: {plan:?}");
        }
        for conflict in plan.conflicts.values() {
            count(
                match conflict.kind {
                    ConflictKind::EditEdit => "edit-edit",
                    ConflictKind::EditDelete => "edit-delete",
                    ConflictKind::CreateCreate => "create-create",
                    ConflictKind::FileDirectory => "file-directory",
                    ConflictKind::Names => "names",
                },
                1,
            );
            let alone = matches!(conflict.kind, ConflictKind::FileDirectory | ConflictKind::Names);
            let decided = strategy != Strategy::Manual && !alone;
            assert_eq!(conflict.keeps.is_some(), decided, "{strategy}: {plan:?}");
        }
        count("uploads", plan.upload.len());
        count("downloads", plan.download.len());
        count("deletions here", plan.delete_here.len());
        count("deletions there", plan.delete_there.len());
        count("agreements", plan.agreed.len());
    }
}

#[test]
fn random_trees_converge_and_nobodys_bytes_are_lost() {
    let number = |name: &str, otherwise| std::env::var(name).map_or(otherwise, |text| text.parse().unwrap());
    let (trees, seed) = (number("PARQUEDB_TEST_TREES", TREES), number("PARQUEDB_TEST_SEED", 1_000_003));
    let mut seen: BTreeMap<&'static str, u64> = BTreeMap::new();
    for tree in 0..trees {
        let seed = seed.wrapping_add(tree);
        let mut chance = Chance(seed);
        let mut world = World::default();
        world.replicas.resize_with(2 + chance.below(2) as usize, Replica::default);
        let mut next = 0;
        let everyone = 0..world.replicas.len();
        let steps = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for _ in 0..STEPS {
                let who = chance.below(world.replicas.len() as u64) as usize;
                for _ in 0..chance.below(4) {
                    world.edit(&mut chance, who, &mut next);
                }
                let strategies =
                    [Strategy::Newest, Strategy::LocalWins, Strategy::RemoteWins, Strategy::Manual];
                world.sync(who, strategies[chance.below(4) as usize]);
            }
            // What one publishes at last may let another one decide what it could not before.
            for _ in 0..ROUNDS {
                everyone.clone().for_each(|who| world.sync(who, Strategy::Newest));
            }
            // All are the same, but for what only a person can decide.
            for who in everyone.clone() {
                let plan = world.plan(who, Strategy::Newest);
                assert!(plan.is_empty(), "{who} has something left to do: {plan:?}");
                let (local, remote) = (&world.replicas[who].local, &world.remote);
                for path in local.keys().chain(remote.keys()) {
                    let same =
                        local.get(path).map(|entry| entry.hash) == remote.get(path).map(|entry| entry.hash);
                    assert!(same || plan.conflicts.contains_key(path), "{who} differs in {path}: {plan:?}");
                }
            }
        }));
        assert!(steps.is_ok(), "to see it again: PARQUEDB_TEST_TREES=1 PARQUEDB_TEST_SEED={seed}");
        for (what, count) in world.seen {
            *seen.entry(what).or_default() += count;
        }
    }
    println!("{trees} trees: {seen:?}");
    assert_eq!(seen.len(), 10, "{seen:?}");
    assert!(seen.values().all(|count| *count > trees / 100), "{seen:?}");
}
