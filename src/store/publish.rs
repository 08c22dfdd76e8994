//! Publishing: one revision, whole or not at all, decided by creating the object that bears its number.

use std::collections::{HashMap, HashSet};
use std::ops::Bound;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::claims::{Claim, PUBLISHED_WITHIN};
use super::database::State;
use super::log::{Append, encode};
use super::{Database, RevisionRecord, StoreError};
use crate::model::{DbPath, Revision, Sha256};
use crate::wire::{CommitRequest, CommitResponse, PutEntry};

/// Claims looked for at once before publishing.
const LOOKS_AT_ONCE: usize = 32;
/// Records read at once where a commit is looked for.
const READ_AT_ONCE: usize = 16;
/// Why entries are refused whose content nobody has uploaded, or asked for, lately.
const NOT_STORED: &str = "the content of these entries is not stored: ask for upload URLs again";

/// What is to be published, and by whom.
#[derive(Debug, Clone)]
pub struct Change {
    /// The account that publishes.
    pub author: String,
    /// The change.
    pub request: CommitRequest,
    /// Versions that are kept without being published (rule 5).
    pub set_aside: Vec<PutEntry>,
}

/// Why a change was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The base is not current any more; plan again from this revision.
    #[error("the database has moved on to revision {current}")]
    Moved {
        /// The current revision.
        current: Revision,
    },
    /// The change itself cannot be: nothing was published.
    #[error("{reason}")]
    Rejected {
        /// What is wrong.
        reason: String,
        /// The paths concerned.
        paths: Vec<DbPath>,
    },
    /// The store failed; whether the revision exists can be asked again with the same commit id.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn rejected(reason: &str, paths: Vec<DbPath>) -> PublishError {
    PublishError::Rejected { reason: reason.to_owned(), paths }
}

impl Database {
    /// Publishes `change` as the revision after its base, or says why not. Publishing the same commit id again
    /// gives the same answer and no second revision (rule 3).
    pub async fn publish(self: &Arc<Self>, change: Change) -> Result<CommitResponse, PublishError> {
        let request = &change.request;
        if !matches!(request.commit_id.len(), 8..=128)
            || !request.commit_id.bytes().all(|b| b.is_ascii_graphic())
        {
            return Err(rejected("commitId must be 8 to 128 printable characters", Vec::new()));
        }
        check_request(request)?;
        self.refresh().await?;
        let looked_through = self.revision().0;
        if let Some(answer) = self.settled(request).await? {
            return Ok(answer);
        }
        let put = self.check_contents(&change).await?;
        let _turn = self.turn.lock().await;
        loop {
            self.catch_up().await?;
            // All up to there was looked through without holding anybody up; what has come since is at hand.
            if let Some(answer) = self.settled_since(request, looked_through.max(request.base)).await? {
                return Ok(answer);
            }
            let record = {
                let state = self.read();
                if request.base != state.revision {
                    return Err(PublishError::Moved { current: state.revision });
                }
                check_against(&state, request)?;
                RevisionRecord {
                    format: 1,
                    revision: state.revision.next(),
                    parent: state.record_hash,
                    commit_id: request.commit_id.clone(),
                    author: change.author.clone(),
                    time: Timestamp::now().to_string(),
                    message: request.message.clone(),
                    put: put.clone(),
                    delete: request.delete.clone(),
                    set_aside: change.set_aside.clone(),
                    expired: None,
                }
            };
            let body = encode(&record);
            let hash = Sha256::of(&body);
            let revision = record.revision;
            match self.revisions().append(revision.0, body).await? {
                // Someone else has that number, or our own write was repeated by the client library: look.
                Append::Taken => continue,
                Append::Done => {}
            }
            self.apply(record, hash)?;
            self.store_checkpoint_if_due().await;
            return Ok(CommitResponse { revision, etag: self.manifest_etag(), hash: Some(hash) });
        }
    }

    /// The answer this commit already got, if it is among the revisions since its base.
    async fn settled(&self, request: &CommitRequest) -> Result<Option<CommitResponse>, StoreError> {
        self.settled_since(request, request.base).await
    }

    async fn settled_since(
        &self,
        request: &CommitRequest,
        since: Revision,
    ) -> Result<Option<CommitResponse>, StoreError> {
        let (recent, unread) = {
            let state = self.read();
            let first = state.commits.first().unwrap_or(state.revision.next());
            (state.commits.get(&request.commit_id), since.0.saturating_add(1)..first.0)
        };
        let mut found = recent.filter(|(revision, _)| *revision > request.base);
        let records = futures::stream::iter(unread).map(|number| self.present_record(Revision(number)));
        let mut records = records.buffered(READ_AT_ONCE);
        while found.is_none()
            && let Some((record, hash)) = records.try_next().await?
        {
            found = (record.commit_id == request.commit_id).then_some((record.revision, hash));
        }
        Ok(found.map(|(revision, hash)| {
            let etag = self.read().manifest_etag_at(Some(hash));
            CommitResponse { revision, etag, hash: Some(hash) }
        }))
    }

    /// Refuses entries, set aside or not, whose content is not claimed here, with that size: not stored, or not known any more to be.
    /// Gives the entries as they are to be published: with the block hashes that were computed here.
    async fn check_contents(&self, change: &Change) -> Result<Vec<PutEntry>, PublishError> {
        let mut wanted = HashMap::new();
        let request = &change.request;
        for put in request.put.iter().chain(&change.set_aside) {
            let Some(hash) = put.entry.hash.sha256() else {
                return Err(rejected("entries must carry a SHA-256", vec![put.path.clone()]));
            };
            wanted.entry((hash, put.entry.size)).or_insert_with(Vec::new).push(put.path.clone());
        }
        let now = self.objects.now().await?;
        let looks = wanted.into_iter().map(|((hash, size), paths)| async move {
            let holds = |(claim, made): &(Claim, Timestamp)| {
                claim.size == size && now.duration_since(*made) < PUBLISHED_WITHIN
            };
            let claim = self.claim_on(&hash).await?.filter(holds).map(|(claim, _)| claim);
            Ok::<_, StoreError>((hash, claim, paths))
        });
        let mut looks = futures::stream::iter(looks).buffer_unordered(LOOKS_AT_ONCE);
        let (mut missing, mut claims) = (Vec::new(), HashMap::new());
        while let Some(look) = looks.next().await {
            match look? {
                (hash, Some(claim), _) => drop(claims.insert(hash, claim)),
                (_, None, paths) => missing.extend(paths),
            }
        }
        drop(looks);
        // Only now, for what is condemned before a claim is seen by whoever condemns, and after it by us (rule 6).
        self.refresh().await?;
        let live =
            |hash: &Sha256| claims.get(hash).filter(|claim| claim.generation == self.live(hash).generation);
        missing.extend(request.put.iter().chain(&change.set_aside).filter_map(|put| {
            let hash = put.entry.hash.sha256()?;
            (claims.contains_key(&hash) && live(&hash).is_none()).then(|| put.path.clone())
        }));
        missing.sort();
        if !missing.is_empty() {
            return Err(rejected(NOT_STORED, missing));
        }
        let root_of = |put: &PutEntry| live(&put.entry.hash.sha256()?)?.blocks();
        let with_root = |put: &PutEntry| PutEntry {
            path: put.path.clone(),
            entry: put.entry.clone().with_blocks(root_of(put)),
        };
        Ok(request.put.iter().map(with_root).collect())
    }
}

/// What can be refused without looking at the database.
fn check_request(request: &CommitRequest) -> Result<(), PublishError> {
    let mut paths = HashSet::new();
    let named = request.put.iter().map(|put| &put.path).chain(&request.delete);
    match named.into_iter().find(|path| !paths.insert(*path)) {
        Some(twice) => Err(rejected("a path is named twice", vec![twice.clone()])),
        None => Ok(()),
    }
}

/// Refuses deletions of what is not there, and names that would be both a file and a directory. Costs in
/// proportion to the change, not to the database.
fn check_against(state: &State, request: &CommitRequest) -> Result<(), PublishError> {
    let deleted: HashSet<&DbPath> = request.delete.iter().collect();
    let absent: Vec<_> =
        request.delete.iter().filter(|path| !state.files.contains_key(*path)).cloned().collect();
    if !absent.is_empty() {
        return Err(rejected("these paths cannot be deleted: they are not there", absent));
    }
    let put: HashSet<&str> = request.put.iter().map(|put| put.path.as_str()).collect();
    let stays = |path: &str| state.files.get_key_value(path).is_some_and(|(path, _)| !deleted.contains(path));
    let clashing = request.put.iter().filter(|entry| {
        let below = format!("{}/", entry.path.as_str());
        let from = (Bound::Included(below.as_str()), Bound::Unbounded);
        let mut beneath =
            state.files.range::<str, _>(from).take_while(|(path, _)| path.as_str().starts_with(&below));
        entry.path.ancestors().any(|ancestor| put.contains(ancestor) || stays(ancestor))
            || beneath.any(|(path, _)| !deleted.contains(path))
    });
    let clashing: Vec<_> = clashing.map(|entry| entry.path.clone()).collect();
    if clashing.is_empty() {
        Ok(())
    } else {
        Err(rejected("these paths would be both a file and a directory", clashing))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::checkpoints::CHECKPOINT_EVERY;
    use super::super::{Registration, Store};
    use super::*;
    use crate::manifest::{Entry, Manifest};
    use crate::model::ContentHash;
    use crate::wire::PutEntry;

    pub(in super::super) async fn database() -> (Store, Arc<Database>) {
        let store = Store::in_memory().await;
        let reference = "alice/x".parse().unwrap();
        let registration = Registration { reference, name: "x".into(), visibility: None };
        let database = store.register(&registration).await.unwrap();
        (store, database)
    }

    pub(in super::super) async fn put(database: &Arc<Database>, path: &str, text: &str) -> PutEntry {
        let hash = Sha256::of(text.as_bytes());
        let mut upload = database.upload(text.len() as u64, Some(hash)).await.unwrap();
        upload.write(text.as_bytes()).await.unwrap();
        upload.finish().await.unwrap();
        let entry = Entry::of(hash, text.len() as u64);
        PutEntry { path: DbPath::parse(path).unwrap(), entry }
    }

    pub(in super::super) fn change(base: u64, id: &str, put: Vec<PutEntry>, delete: &[&str]) -> Change {
        let delete = delete.iter().map(|path| DbPath::parse(path).unwrap()).collect();
        let request = CommitRequest {
            commit_id: format!("commit-{id}"),
            base: Revision(base),
            put,
            delete,
            message: None,
        };
        Change { author: "alice".into(), request, set_aside: Vec::new() }
    }

    #[tokio::test]
    async fn rule_3_a_repeated_commit_is_answered_again_and_published_once() {
        let (_store, database) = database().await;
        let one = change(0, "1", vec![put(&database, "a", "1").await], &[]);
        assert_eq!(database.publish(one.clone()).await.unwrap().revision, Revision(1));
        let two = change(1, "2", vec![put(&database, "a", "2").await], &[]);
        assert_eq!(database.publish(two).await.unwrap().revision, Revision(2));
        assert_eq!(
            database.publish(one).await.unwrap().revision,
            Revision(1),
            "found although the base moved"
        );
        assert_eq!(database.revision().0, Revision(2));
        let late = change(1, "3", vec![put(&database, "b", "3").await], &[]);
        assert!(matches!(database.publish(late).await, Err(PublishError::Moved { current: Revision(2) })));
    }

    #[tokio::test]
    async fn rule_2_two_processes_racing_for_a_revision_have_one_winner() {
        let (store, here) = database().await;
        let there = Store::attach(store.objects.clone()).await.unwrap();
        let there = there.open(here.id()).await.unwrap().unwrap();
        for round in 0..20 {
            let entry = put(&here, "a", &format!("{round}")).await;
            let (a, b) = tokio::join!(
                here.publish(change(round, &format!("here-{round}"), vec![entry.clone()], &[])),
                there.publish(change(round, &format!("there-{round}"), vec![entry], &[])),
            );
            assert!(a.is_ok() != b.is_ok(), "round {round}: {a:?} {b:?}");
        }
        here.refresh().await.unwrap();
        there.refresh().await.unwrap();
        assert_eq!(here.manifest_etag(), there.manifest_etag());
    }

    #[tokio::test]
    async fn what_cannot_be_is_refused_and_nothing_is_published() {
        let (_store, database) = database().await;
        let first = vec![put(&database, "d/x", "1").await, put(&database, "f", "2").await];
        database.publish(change(0, "base0", first, &[])).await.unwrap();
        let a = put(&database, "a", "1").await;
        let mut not_stored = a.clone();
        not_stored.entry.hash = ContentHash::Sha256(Sha256([7; 32]));
        let mut wrong_size = a.clone();
        wrong_size.entry.size += 1;
        let mut md5 = a.clone();
        md5.entry.hash = ContentHash::Md5([1; 16]);
        for (what, puts, deletes) in [
            ("content not stored", vec![not_stored], &[][..]),
            ("wrong size", vec![wrong_size], &[]),
            ("md5", vec![md5], &[]),
            ("twice", vec![a.clone(), a.clone()], &[]),
            ("put and deleted", vec![put(&database, "f", "1").await], &["f"]),
            ("delete of nothing", vec![], &["nope"]),
            ("below a file", vec![put(&database, "f/x", "1").await], &[]),
            ("over a directory", vec![put(&database, "d", "1").await], &[]),
            ("clash within", vec![put(&database, "n", "1").await, put(&database, "n/m", "1").await], &[]),
        ] {
            let refused = database.publish(change(1, "refused", puts, deletes)).await;
            assert!(matches!(refused, Err(PublishError::Rejected { .. })), "{what}: {refused:?}");
        }
        assert_eq!(database.revision().0, Revision(1));
        let swap = vec![put(&database, "d", "1").await, put(&database, "f/x", "1").await];
        database.publish(change(1, "swap-both", swap, &["d/x", "f"])).await.unwrap();
    }

    #[tokio::test]
    async fn a_process_starting_anew_reads_the_same_manifest() {
        let (store, database) = database().await;
        for n in 0..(2 * CHECKPOINT_EVERY + 5) {
            let entry = put(&database, &format!("f{}", n % 7), &n.to_string()).await;
            database.publish(change(n, &format!("commit{n}"), vec![entry], &[])).await.unwrap();
        }
        let anew = Store::attach(store.objects.clone()).await.unwrap();
        let anew = anew.open(database.id()).await.unwrap().unwrap();
        let (old, new) = (database.published().await.unwrap(), anew.published().await.unwrap());
        assert_eq!((old.etag, &old.json, old.revision), (new.etag, &new.json, new.revision));
        assert_eq!(Manifest::from_json(&new.json).unwrap().files.len(), 7);
    }

    #[tokio::test]
    async fn uploads_that_are_not_what_they_announce_leave_nothing() {
        let (_store, database) = database().await;
        for size in [10_u64, 3 << 20] {
            let bytes = vec![7; usize::try_from(size).unwrap()];
            let right = Sha256::of(&bytes);
            for (announced, hash, what) in
                [(size, Sha256([1; 32]), "hash"), (size + 1, right, "short"), (size - 1, right, "long")]
            {
                let mut upload = database.upload(announced, Some(hash)).await.unwrap();
                let written = upload.write(&bytes).await;
                assert!(written.is_err() || upload.finish().await.is_err(), "{what}");
                assert!(!database.claim(&hash, announced).await.unwrap(), "{what}");
            }
            let mut upload = database.upload(size, None).await.unwrap();
            upload.write(&bytes).await.unwrap();
            assert_eq!(upload.finish().await.unwrap(), right);
            assert!(database.claim(&right, size).await.unwrap());
        }
    }
}
