//! Looking at what is kept of conflicts, and throwing it away.

use std::path::Path;
use std::sync::Arc;

use super::SyncError;
use super::kept::Kept;
use super::record::{Outcome, Record, Version};
use super::workdir::{Intent, Workdir};
use crate::manifest::PRIVATE_DIR;
use crate::model::DbPath;
use crate::tree::Root;

/// What a directory keeps of conflicts, the earliest first.
pub fn conflicts(directory: &Path) -> Result<Vec<Record>, SyncError> {
    let root = Root::open(directory).map_err(SyncError::directory(directory.display()))?;
    Ok(Kept::open(&Arc::new(root))?.into_records())
}

/// What to dismiss.
#[derive(Debug, Clone, Copy)]
pub enum Dismissed<'a> {
    /// Everything that is decided.
    Decided,
    /// What is kept of one path, if it is decided, or was set aside.
    Path(&'a DbPath),
}

/// Removes what is kept of conflicts that are decided. Returns the paths.
pub fn dismiss(directory: &Path, what: Dismissed<'_>) -> Result<Vec<DbPath>, SyncError> {
    if !directory.join(PRIVATE_DIR).is_dir() {
        return Ok(Vec::new());
    }
    let workdir = Workdir::open(directory, Intent::Work)?;
    let kept = Kept::open(workdir.root())?;
    let mut dismissed = Vec::new();
    for mut record in kept.records().to_vec() {
        let (go, stay): (Vec<_>, Vec<_>) =
            record.conflicts.clone().into_iter().partition(|recorded| match what {
                Dismissed::Decided => !matches!(recorded.outcome, Outcome::Open | Outcome::SetAside),
                Dismissed::Path(path) => recorded.path == *path && recorded.outcome != Outcome::Open,
            });
        if go.is_empty() {
            continue;
        }
        for recorded in &go {
            for version in Version::ALL {
                let copy = record.copy(&recorded.path, version);
                workdir.root().remove_own(&copy).map_err(SyncError::directory(&copy))?;
            }
            dismissed.push(recorded.path.clone());
        }
        record.conflicts = stay;
        if record.conflicts.is_empty() {
            kept.remove(&record)?;
        } else {
            kept.write(&record)?;
        }
    }
    dismissed.sort();
    dismissed.dedup();
    Ok(dismissed)
}
