//! One revision, by precondition (rule 2), under an id that is saved before it is sent (rule 3).

use super::SyncError;
use super::reconcile::Plan;
use super::state::PendingCommit;
use super::workdir::Workdir;
use crate::disk::random_hex;
use crate::model::Revision;
use crate::remote::{Remote, RemoteError};
use crate::wire::{CommitRequest, CommitResponse, PutEntry};

/// Publishes what the plan has for the remote; its contents are there.
pub(super) async fn publish(
    remote: &Remote,
    workdir: &mut Workdir,
    id: &str,
    base: Revision,
    plan: &Plan,
) -> Result<CommitResponse, SyncError> {
    let put = plan.upload.iter().map(|(path, entry)| PutEntry { path: path.clone(), entry: entry.clone() });
    let pending = PendingCommit {
        commit_id: random_hex::<16>(),
        base,
        put: put.collect(),
        delete: plan.delete_there.iter().cloned().collect(),
    };
    let PendingCommit { commit_id, base, put, delete } = workdir.save_pending(id, pending)?;
    let request = CommitRequest { commit_id, base, put, delete, message: None };
    let committed = remote.commit(id, &request).await;
    if let Err(RemoteError::Moved { .. }) = committed {
        // The remote knows commits by their ids: this one is not among them, and will not be.
        workdir.forget_pending(id)?;
    }
    Ok(committed?)
}

/// The number of a revision that something is to be published after.
pub(super) fn numbered(remote: &Remote, revision: Option<Revision>) -> Result<Revision, SyncError> {
    let unnumbered = || RemoteError::WrongAnswer {
        remote: remote.url().to_owned(),
        reason: "it does not number its revisions, so nothing can be published to it".into(),
    };
    revision.ok_or_else(|| unnumbered().into())
}
