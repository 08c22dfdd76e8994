//! What a remote's log says of what this directory remembers: did the commit whose answer was lost land (rule 3), and
//! is this still the history we know (rule 4)?

use super::SyncError;
use super::changes::Changes;
use super::noted::PendingCommit;
use super::workdir::Workdir;
use crate::model::{Revision, Sha256};
use crate::remote::{Remote, RemoteError};
use crate::wire::{DatabaseDescription, LogEntry};

/// Revisions asked for at a time.
const PAGE: u64 = 1000;

/// What the commit published that this directory sent to database `id` without hearing back, if the remote has it. Asked before
/// anything is planned: that is settled, whatever others have published since.
pub(super) async fn landed_commit(
    remote: &Remote,
    workdir: &Workdir,
    id: &str,
) -> Result<Option<Changes>, SyncError> {
    let Some(pending) = workdir.pending(id) else { return Ok(None) };
    match in_log(remote, id, pending).await? {
        Some(_) => PendingCommit::changes(workdir.root()).map(Some),
        None => Ok(None),
    }
}

/// The revision that a commit has become, if the remote's log has it.
pub(super) async fn in_log(
    remote: &Remote,
    id: &str,
    pending: &PendingCommit,
) -> Result<Option<LogEntry>, RemoteError> {
    let mut before = None;
    loop {
        let page = remote.log(id, before, PAGE).await?;
        let since_base = || page.log.iter().filter(|entry| entry.revision > pending.base);
        if let Some(found) = since_base().find(|entry| entry.commit_id == pending.commit_id) {
            return Ok(Some(found.clone()));
        }
        match since_base().next_back() {
            Some(last) if page.has_more && before.is_none_or(|before| last.revision < before) => {
                before = Some(last.revision);
            }
            _ => return Ok(None),
        }
    }
}

/// Halts where the remote's chain does not contain `anchor`, the revision both last agreed on and its hash: a backup was
/// restored there, or it is another store. The hash of a revision names everything before it.
pub(super) async fn check_same_history(
    remote: &Remote,
    anchor: Option<(Revision, Sha256)>,
    found: &DatabaseDescription,
) -> Result<(), SyncError> {
    let Some((revision, hash)) = anchor else { return Ok(()) };
    if found.revision < revision {
        return Err(SyncError::RolledBack { here: revision, there: found.revision });
    }
    let there = if found.revision == revision {
        found.revision_hash
    } else {
        hash_of(remote, &found.id, revision).await?
    };
    // A remote that does not tell hashes has nothing to compare.
    match there {
        Some(there) if there != hash => Err(SyncError::OtherHistory { revision }),
        _ => Ok(()),
    }
}

/// A revision of the remote's and its hash, to know its history by: the one that was taken in, and no earlier one.
pub(super) async fn anchor_at(
    remote: &Remote,
    found: &DatabaseDescription,
    revision: Option<Revision>,
) -> Result<Option<(Revision, Sha256)>, RemoteError> {
    let Some(revision) = revision.filter(|revision| *revision != Revision::NONE) else { return Ok(None) };
    // A remote that does not tell the one hash does not tell the other.
    let hash = match found.revision_hash {
        None => None,
        Some(hash) if found.revision == revision => Some(hash),
        Some(_) => hash_of(remote, &found.id, revision).await?,
    };
    Ok(hash.map(|hash| (revision, hash)))
}

async fn hash_of(remote: &Remote, id: &str, revision: Revision) -> Result<Option<Sha256>, RemoteError> {
    let page = remote.log(id, Some(revision.next()), 1).await?;
    Ok(page.log.first().filter(|entry| entry.revision == revision).map(|entry| entry.hash))
}
