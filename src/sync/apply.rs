//! What the remote has changed comes here: every content staged and checked first, then names changed one by one, each file
//! whole, and nothing that was edited meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SyncError;
use super::changes::Files;
use super::download::Downloads;
use super::kept::Kept;
use super::near::Near;
use super::reconcile::Plan;
use crate::model::{ContentHash, DbPath};
use crate::tree::{Applied, Aside, Durability, Root, Staged};

/// Up to so many files are made durable one by one; more, all at once.
const FEW_FILES: usize = 64;

/// Contents that are here, checked, and not yet in place.
#[derive(Default)]
pub(super) struct Received {
    /// Something of it is not on the disk yet: all of it is made durable at once.
    later: bool,
    staged: BTreeMap<DbPath, (ContentHash, Staged)>,
    /// Bytes that came over the network.
    pub(super) bytes: u64,
}

impl Received {
    /// How durable each single file of a plan is made: where there are many, all of them at once; and once it was so, it
    /// stays so, for a plan that is made again keeps what is here.
    pub(super) fn durability(&mut self, plan: &Plan) -> Durability {
        self.later |= plan.download.len() + plan.delete_here.len() > FEW_FILES;
        if self.later { Durability::Later } else { Durability::Now }
    }

    /// Receives what the plan brings and is not here yet: a plan may be made again.
    pub(super) async fn receive(&mut self, plan: &Plan, downloads: &Downloads<'_>) -> Result<(), SyncError> {
        self.staged
            .retain(|path, (hash, _)| plan.download.get(path).is_some_and(|entry| entry.hash == *hash));
        let missing = plan.download.iter().filter(|(path, _)| !self.staged.contains_key(*path));
        let missing = missing.map(|(path, entry)| (path.clone(), entry.clone())).collect();
        for (path, staged) in downloads.receive_all(&missing).await? {
            let Some(entry) = missing.get(&path) else { continue };
            self.bytes = self.bytes.saturating_add(entry.size);
            self.staged.insert(path, (entry.hash, staged));
        }
        Ok(())
    }
}

/// Carries out what a plan has for the directory. Files that were changed meanwhile are told, and left as they are.
pub(super) async fn apply(
    root: &Arc<Root>,
    base: &Files,
    plan: &Plan,
    near: &mut Near,
    mut received: Received,
) -> Result<Vec<DbPath>, SyncError> {
    let durability = received.durability(plan);
    if durability == Durability::Later {
        sync_everything(root).await?;
    }
    // Everything is here, checked and durable: from now on only names change.
    let removed = plan.delete_here.iter().filter_map(|path| {
        let believed = near.believed(base, path)?;
        Some(Aside::removed(path.clone(), believed))
    });
    let mut asides: Vec<Aside> = removed.collect();
    let removals = asides.len();
    let (mut replacements, mut newcomers) = (Vec::new(), Vec::new());
    for (path, (hash, staged)) in received.staged {
        match near.believed(base, &path) {
            Some(believed) => {
                asides.push(Aside::replaced(path, believed, staged.inode(), hash));
                replacements.push((hash, staged));
            }
            None => newcomers.push((path, hash, staged)),
        }
    }
    if !asides.is_empty() {
        root.note_asides(&asides).map_err(SyncError::directory(root.path().display()))?;
    }
    let mut overtaken = Vec::new();
    for aside in &asides[..removals] {
        let path = aside.path();
        match root.remove(aside, durability).map_err(SyncError::directory(path))? {
            Applied::Done => near.gone(path),
            Applied::Overtaken => overtaken.push(path.clone()),
        }
    }
    for (aside, (hash, staged)) in asides[removals..].iter().zip(replacements) {
        let (path, sealed) = (aside.path(), staged.sealed());
        match root.replace(staged, aside, durability).map_err(SyncError::directory(path))? {
            Applied::Done => near.placed(root, path, sealed, hash),
            Applied::Overtaken => overtaken.push(path.clone()),
        }
    }
    for (path, hash, staged) in newcomers {
        let sealed = staged.sealed();
        match root.place(staged, &path, durability).map_err(SyncError::directory(&path))? {
            Applied::Done => near.placed(root, &path, sealed, hash),
            Applied::Overtaken => overtaken.push(path),
        }
    }
    if durability == Durability::Later {
        sync_everything(root).await?;
    }
    if !asides.is_empty() {
        recover(root)?;
    }
    root.sweep_received().map_err(SyncError::directory(root.path().display()))?;
    Ok(overtaken)
}

/// Brings back what lies aside and is somebody's: of a run that was killed, or of this one, where somebody wrote to a file in
/// the very moment it was replaced. What cannot be brought back is kept beside the database.
pub(super) fn recover(root: &Arc<Root>) -> Result<(), SyncError> {
    let failed = |error| SyncError::directory(root.path().display())(error);
    let stranded = root.bring_back_asides().map_err(failed)?;
    if !stranded.is_empty() {
        Kept::open(root)?.keep_stranded(&stranded)?;
    }
    root.forget_asides().map_err(failed)
}

async fn sync_everything(root: &Arc<Root>) -> Result<(), SyncError> {
    let (root, shown) = (root.clone(), root.path().display().to_string());
    let synced = tokio::task::spawn_blocking(move || root.sync_everything()).await;
    synced.map_err(std::io::Error::other).and_then(|synced| synced).map_err(SyncError::directory(shown))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::model::Sha256;
    use crate::sync::record::{Outcome, Version};
    use crate::tree::{Believed, Occupant};

    fn hash(text: &str) -> ContentHash {
        ContentHash::Sha256(Sha256::of(text.as_bytes()))
    }

    #[test]
    fn rule_23_an_edit_that_cannot_be_brought_back_is_kept_beside_the_database() {
        let dir = tempfile::tempdir().unwrap();
        let root = Arc::new(Root::open(dir.path()).unwrap());
        let (path, at) = (DbPath::parse("d/f").unwrap(), dir.path().join("d/f"));
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(&at, "mine").unwrap();
        // A run that takes it for another content, and is killed right after it has replaced it.
        let Occupant::File(stamp) = root.occupant(&path).unwrap() else { panic!() };
        let mut died_there = false;
        for number in 0..8 {
            let mut staged = root.stage().unwrap();
            staged.write(b"theirs").unwrap();
            staged.seal(None, Durability::Now).unwrap();
            let believed = Believed { stamp, hash: Some(hash("base")), shows: false };
            let aside = Aside::replaced(path.clone(), believed, staged.inode(), hash("theirs"));
            root.note_asides(std::slice::from_ref(&aside)).unwrap();
            drop(crate::disk::dying_at(number, || root.replace(staged, &aside, Durability::Now)));
            died_there = fs::read_to_string(&at).unwrap() == "theirs";
            if died_there {
                break;
            }
        }
        assert!(died_there);
        // Somebody goes on with what is there.
        fs::remove_file(&at).unwrap();
        fs::write(&at, "newer").unwrap();
        // Whoever keeps it may be killed, too.
        let died =
            (0..8).take_while(|number| crate::disk::dying_at(*number, || recover(&root)).0.is_err()).count();
        assert!(died > 2, "{died}");
        assert_eq!(fs::read_to_string(&at).unwrap(), "newer");
        let kept = Kept::open(&root).unwrap();
        let [record] = kept.records() else { panic!("{:?}", kept.records()) };
        assert_eq!(
            (record.conflicts[0].path.as_str(), record.conflicts[0].outcome),
            ("d/f", Outcome::SetAside)
        );
        let copy = dir.path().join(record.copy(&path, Version::Local).as_str());
        assert_eq!(fs::read_to_string(copy).unwrap(), "mine");
        recover(&root).unwrap();
        assert_eq!(Kept::open(&root).unwrap().records().len(), 1, "once");
        assert!(kept.has_open() && kept.set_aside() == [path]);
    }
}
