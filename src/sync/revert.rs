//! Revert: an earlier revision's files, published again as a new one. Their contents are there already.

use super::changes::Files;
use super::conflict::Side;
use super::publish::numbered;
use super::{Brake, SyncError};
use crate::disk::random_hex;
use crate::model::{DbRef, Revision};
use crate::remote::{Remote, RemoteError};
use crate::wire::{CommitRequest, FileToUpload, MAX_UPLOAD_URLS, PutEntry, UploadUrlsRequest};

/// How often it plans again because others published.
const MAX_PLANS: usize = 5;

/// What to revert, and to what.
#[derive(Debug, Clone)]
pub struct RevertOptions {
    /// The database.
    pub reference: DbRef,
    /// The revision whose files are to be current again.
    pub to: Revision,
    /// Whether mass deletions go through.
    pub brake: Brake,
    /// Only says what would be done.
    pub dry_run: bool,
}

/// What differs between two revisions.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Difference {
    /// In the second only.
    pub added: Files,
    /// In both, with other bytes in the second.
    pub changed: Files,
    /// In the first only.
    pub removed: Files,
}

/// What a revert did, or would do.
#[derive(Debug, Clone)]
pub struct RevertReport {
    /// What it changes.
    pub difference: Difference,
    /// The current revision: a new one, unless there was nothing to do, or this was a dry run.
    pub revision: Revision,
}

impl Difference {
    /// What leads from `from` to `to`.
    pub fn between(from: &Files, to: &Files) -> Self {
        let mut difference = Self::default();
        for (path, entry) in to {
            let put = match from.get(path) {
                None => &mut difference.added,
                Some(before) if !before.same_content(entry) => &mut difference.changed,
                Some(_) => continue,
            };
            put.insert(path.clone(), entry.clone());
        }
        let removed = from.iter().filter(|(path, _)| !to.contains_key(*path));
        difference.removed = removed.map(|(path, entry)| (path.clone(), entry.clone())).collect();
        difference
    }

    /// Whether both are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }

    fn put(&self) -> impl Iterator<Item = PutEntry> + '_ {
        let put = self.added.iter().chain(&self.changed);
        put.map(|(path, entry)| PutEntry { path: path.clone(), entry: entry.clone() })
    }
}

/// What leads from one revision's files to another's.
pub async fn diff(
    remote: &Remote,
    reference: &DbRef,
    from: Revision,
    to: Revision,
) -> Result<Difference, SyncError> {
    let files = |revision| async move {
        if revision == Revision::NONE {
            return Ok(Files::new());
        }
        remote.manifest_at(reference, revision).await.map(|fetched| fetched.manifest.files)
    };
    Ok(Difference::between(&files(from).await?, &files(to).await?))
}

/// Publishes an earlier revision's files as a new revision.
pub async fn revert(remote: &Remote, options: &RevertOptions) -> Result<RevertReport, SyncError> {
    let id = remote.describe(&options.reference).await?.id;
    let then = remote.manifest_at(&options.reference, options.to).await?.manifest.files;
    for _ in 0..MAX_PLANS {
        let fetched = remote.manifest(&options.reference).await?;
        let (now, revision) = (fetched.manifest.files, numbered(remote, fetched.revision)?);
        let difference = Difference::between(&now, &then);
        options
            .brake
            .check(difference.removed.len(), now.len(), then.len(), 0)
            .map_err(|counts| SyncError::Halted { counts, side: Side::Remote })?;
        if options.dry_run || difference.is_empty() {
            return Ok(RevertReport { difference, revision });
        }
        claim_contents(remote, &id, &difference).await?;
        let request = CommitRequest {
            commit_id: random_hex::<16>(),
            base: revision,
            put: difference.put().collect(),
            delete: difference.removed.keys().cloned().collect(),
            message: Some(format!("revert to revision {}", options.to)),
        };
        match remote.commit(&id, &request).await {
            Ok(published) => return Ok(RevertReport { difference, revision: published.revision }),
            Err(RemoteError::Moved { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(SyncError::KeptChanging)
}

/// Tells the remote that these contents will be named again. It has them: a kept revision names them.
async fn claim_contents(remote: &Remote, id: &str, difference: &Difference) -> Result<(), SyncError> {
    let files: Vec<FileToUpload> = difference
        .put()
        .map(|put| FileToUpload {
            hash: put.entry.hash.sha256(),
            size: put.entry.size,
            content_type: None,
            path: put.path,
        })
        .collect();
    for batch in files.chunks(MAX_UPLOAD_URLS) {
        let request = UploadUrlsRequest { database_id: id.to_owned(), files: batch.to_vec() };
        let answer = remote.upload_urls(&request).await?;
        if let Some(missing) = answer.urls.into_iter().find(|target| !target.exists) {
            return Err(SyncError::Lost { path: missing.path });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Entry;

    #[test]
    fn a_difference_leads_from_one_to_the_other_and_back() {
        let (from, to) = (
            Entry::versions(&[("same", 1), ("edited", 1), ("gone", 1)]),
            Entry::versions(&[("same", 1), ("edited", 2), ("new", 1)]),
        );
        let difference = Difference::between(&from, &to);
        let names = |files: &Files| files.keys().map(|path| path.as_str().to_owned()).collect::<Vec<_>>();
        assert_eq!(names(&difference.added), ["new"]);
        assert_eq!(names(&difference.changed), ["edited"]);
        assert_eq!(names(&difference.removed), ["gone"]);
        let back = Difference::between(&to, &from);
        assert_eq!((&back.added, &back.removed), (&difference.removed, &difference.added));
        assert!(Difference::between(&to, &to).is_empty());
    }
}
