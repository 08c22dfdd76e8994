//! What must hold in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::Fired;
use super::world::{PATHS, World, path_of};
use crate::model::{DbPath, Revision, Sha256};

impl World {
    /// Everything that was ever published: in order, revision by revision.
    async fn published(&self) -> Vec<Vec<(DbPath, Option<Sha256>)>> {
        let mut all = Vec::new();
        loop {
            let page = self.remote.changes(&self.id, Revision(all.len() as u64)).await.unwrap();
            for change in page.changes {
                let put = change.put.into_iter().map(|put| (put.path, put.entry.hash.sha256()));
                all.push(put.chain(change.delete.into_iter().map(|path| (path, None))).collect());
            }
            if all.len() as u64 == page.revision.0 {
                return all;
            }
        }
    }

    pub(super) async fn check(mut self, seed: u64) -> (String, Fired) {
        self.settle().await;
        let published = self.published().await;
        let (mut now, mut ever, mut brought) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        let mut deleted: BTreeMap<&str, u32> = BTreeMap::new();
        for (path, hash) in published.iter().flatten() {
            match hash {
                Some(hash) => {
                    let is_new = brought.insert((path.clone(), *hash)) || *hash == Sha256::of(b"");
                    assert!(is_new, "seed {seed}: {path} has come back");
                    ever.insert(*hash);
                    now.insert(path.clone(), *hash);
                }
                None => {
                    now.remove(path);
                    *deleted.entry(path.as_str()).or_default() += 1;
                }
            }
        }
        for (path, count) in deleted {
            let removals = self.removals.get(path).copied().unwrap_or_default();
            assert!(
                count <= removals,
                "seed {seed}: {path} has gone {count} times, removed {removals} times"
            );
        }
        for (path, hash) in self.removed.iter().filter(|(_, hash)| *hash != Sha256::of(b"")) {
            let there = now.get(&DbPath::parse(path).unwrap());
            assert!(there != Some(hash), "seed {seed}: {path} was removed, and is there");
        }
        for half in &self.halves {
            assert!(!ever.contains(half), "seed {seed}: a file was published while it was written");
        }
        let mut network = BTreeMap::new();
        for player in &self.players {
            for (name, count) in player.network.fired.lock().unwrap().iter() {
                *network.entry(name.clone()).or_default() += count;
            }
        }
        let store = self.objects.fired().values().sum();
        let fired = Fired { network, store, disk: self.room.refused() };
        for (who, player) in self.players.iter_mut().enumerate() {
            let mount = player.mount.as_mut().unwrap();
            assert_eq!(mount.pending(), 0, "seed {seed}: {who} has published all");
            for (path, hash) in &now {
                let read = mount.read(path.as_str()).await;
                let read = read.unwrap_or_else(|error| panic!("seed {seed}: {path} on {who}: {error}"));
                assert_eq!(Sha256::of(read.as_bytes()), *hash, "seed {seed}: {path} on {who} is {read}");
            }
            for n in 0..PATHS {
                let path = path_of(n);
                let there = now.contains_key(&DbPath::parse(&path).unwrap());
                assert_eq!(mount.has(&path), there, "seed {seed}: {path} on {who}");
            }
            let kept = copies(&player.dir.path().join("state"));
            for (path, text) in &player.wrote {
                let hash = Sha256::of(text.as_bytes());
                assert!(
                    ever.contains(&hash) || kept.contains(&hash),
                    "seed {seed}: what {who} wrote to {path} is lost: {text}"
                );
            }
        }
        (format!("{} {}", published.len(), Sha256::of(format!("{published:?}").as_bytes())), fired)
    }
}

/// The contents of all conflict copies below a directory.
fn copies(dir: &Path) -> BTreeSet<Sha256> {
    let (mut open, mut found) = (vec![dir.to_owned()], BTreeSet::new());
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry.extension().is_some_and(|end| end == "conflict") {
                found.insert(Sha256::of(&std::fs::read(&entry).unwrap()));
            }
        }
    }
    found
}
