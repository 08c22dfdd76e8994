//! One revision, by precondition (rule 2), under an id that is saved before it is sent (rule 3).

use super::SyncError;
use super::reconcile::Plan;
use super::workdir::Workdir;
use crate::model::Revision;
use crate::remote::{Remote, RemoteError};
use crate::wire::CommitResponse;

/// Publishes what the plan has for the remote; its contents are there.
pub(super) async fn publish(
    remote: &Remote,
    workdir: &mut Workdir,
    id: &str,
    base: Revision,
    plan: &Plan,
) -> Result<CommitResponse, SyncError> {
    let request = workdir.note_commit(id, base, plan)?;
    let committed = remote.commit_from(id, &request).await;
    if let Err(RemoteError::Moved { .. }) = committed {
        // The remote knows commits by their ids: this one is not among them, and will not be.
        workdir.forget_commit()?;
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
