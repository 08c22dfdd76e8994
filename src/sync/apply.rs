//! What the remote has changed comes here: every content staged and checked first, then names changed one by one, each file
//! whole, and nothing that was edited meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::SyncError;
use super::download::Downloads;
use super::near::Near;
use super::reconcile::Plan;
use crate::model::{ContentHash, DbPath};
use crate::tree::{Applied, Durability, Root, Staged};

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
            self.bytes += entry.size;
            self.staged.insert(path, (entry.hash, staged));
        }
        Ok(())
    }
}

/// Carries out what a plan has for the directory. Files that were changed meanwhile are held: they are conflicts now.
pub(super) async fn apply(
    root: &Arc<Root>,
    plan: &Plan,
    near: &mut Near,
    mut received: Received,
) -> Result<Vec<DbPath>, SyncError> {
    let durability = received.durability(plan);
    if durability == Durability::Later {
        sync_everything(root).await?;
    }
    // Everything is here, checked and durable: from now on only names change.
    let mut overtaken = Vec::new();
    for path in &plan.delete_here {
        let Some(seen) = near.stamps.get(path) else { continue };
        match root.remove(path, *seen, durability).map_err(SyncError::directory(path))? {
            Applied::Done => near.gone(path),
            Applied::Overtaken => overtaken.push(path.clone()),
        }
    }
    for (path, (hash, staged)) in received.staged {
        let inode = staged.inode();
        let placed = root.place(staged, &path, near.stamps.get(&path).copied(), durability);
        match placed.map_err(SyncError::directory(&path))? {
            Applied::Done => near.placed(root, &path, inode, hash),
            Applied::Overtaken => overtaken.push(path),
        }
    }
    if durability == Durability::Later {
        sync_everything(root).await?;
    }
    Ok(overtaken)
}

async fn sync_everything(root: &Arc<Root>) -> Result<(), SyncError> {
    let (root, shown) = (root.clone(), root.path().display().to_string());
    let synced = tokio::task::spawn_blocking(move || root.sync_everything()).await;
    synced.map_err(std::io::Error::other).and_then(|synced| synced).map_err(SyncError::directory(shown))
}
