//! After a lost answer: did the commit land (rule 3)?

use super::workdir::{PendingCommit, Workdir};
use crate::remote::{Remote, RemoteError};

/// The commit this directory sent to database `id` without hearing back, if the remote has it. Asked before
/// anything is planned: what it published is settled, whatever others have published since.
pub(super) async fn landed_commit(
    remote: &Remote,
    workdir: &Workdir,
    id: &str,
) -> Result<Option<PendingCommit>, RemoteError> {
    let Some(pending) = workdir.pending(id) else { return Ok(None) };
    let mut since = pending.base;
    loop {
        let page = remote.changes(id, since).await?;
        if page.changes.iter().any(|change| change.commit_id == pending.commit_id) {
            return Ok(Some(pending.clone()));
        }
        match page.changes.last() {
            Some(last) if page.has_more && last.revision > since => since = last.revision,
            _ => return Ok(None),
        }
    }
}
