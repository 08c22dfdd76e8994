//! Garbage collection: contents that no kept revision names go, once nobody can be about to publish them (rule 6).
//!
//! First candidates are condemned, for everybody to see; then claims and revisions are looked at once more, and what
//! was claimed or published meanwhile stays. A publisher claims first and looks at what is condemned afterwards: of the
//! two, one sees the other. A run that stops anywhere leaves nothing that the next one does not take up.

use futures::{StreamExt, TryStreamExt};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};

use super::AT_ONCE;
use super::expiry::Keep;
use super::named::Named;
use crate::store::claims::RESPECTED_FOR;
use crate::store::condemned::StoredContent;
use crate::store::objects::time_of;
use crate::store::{Database, StoreError, keys};

/// Contents condemned by one entry of the log.
const SENTENCE: usize = 10_000;

/// What to do.
#[derive(Debug, Clone, Copy, Default)]
pub struct CollectOptions {
    /// Lets older revisions expire first; everything is kept where nothing is said.
    pub keep: Option<Keep>,
    /// Only tells what would be removed.
    pub dry_run: bool,
}

/// What was done, or would be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CollectReport {
    /// Revisions that expired.
    pub expired: u64,
    /// Contents that were removed.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Contents that no kept revision names, and that stay because somebody may be about to publish them.
    pub claimed: u64,
    /// Contents that kept revisions name.
    pub named: u64,
}

/// A content as it was listed.
pub(super) struct Listed {
    pub(super) content: StoredContent,
    pub(super) size: u64,
    written: Timestamp,
}

impl Database {
    /// Removes what no kept revision names and nobody has claimed for a week.
    pub async fn collect(&self, options: CollectOptions) -> Result<CollectReport, StoreError> {
        // Only who removes something needs the store's own clock, which is told by writing there.
        let now = if options.dry_run { Timestamp::now() } else { self.objects.now().await? };
        self.collect_at(options, now).await
    }

    pub(in crate::store) async fn collect_at(
        &self,
        options: CollectOptions,
        now: Timestamp,
    ) -> Result<CollectReport, StoreError> {
        self.refresh().await?;
        let oldest = self.oldest_kept(self.revision().0).await?;
        let horizon = match options.keep {
            Some(keep) => self.horizon(keep, oldest, now).await?,
            None => oldest,
        };
        let mut report = CollectReport { expired: horizon.0 - oldest.0, ..CollectReport::default() };
        if !options.dry_run {
            self.expire_before(horizon).await?;
        }
        let mut named = self.named_contents_from(horizon).await?;
        let listed = self.listed_contents().await?;
        let (unwanted, claimed) = self.unwanted(&named, listed, now).await?;
        report.claimed = claimed;
        let doomed = if options.dry_run {
            unwanted
        } else {
            self.condemn_live(&unwanted, now).await?;
            named.catch_up(self).await?;
            let (doomed, claimed) = self.unwanted(&named, unwanted, now).await?;
            report.claimed += claimed;
            for each in &doomed {
                self.remove_content(&each.content).await?;
            }
            self.remove_leftovers(now).await?;
            doomed
        };
        report.named = named.contents.len() as u64;
        report.removed = doomed.len() as u64;
        report.removed_bytes = doomed.iter().map(|each| each.size).sum();
        Ok(report)
    }

    pub(super) async fn listed_contents(&self) -> Result<Vec<Listed>, StoreError> {
        let listed = self.objects.list(Some(&keys::contents(self.id())));
        let read = |object: ObjectMeta| {
            let content = object.location.filename()?.parse().ok()?;
            Some(Listed { content, size: object.size, written: time_of(&object) })
        };
        let read = listed.try_filter_map(|object| std::future::ready(Ok(read(object))));
        read.try_collect().await.map_err(StoreError::unavailable("list contents"))
    }

    /// Those that nobody names, nor may be about to; and how many there are of the latter.
    async fn unwanted(
        &self,
        named: &Named,
        contents: Vec<Listed>,
        now: Timestamp,
    ) -> Result<(Vec<Listed>, u64), StoreError> {
        let looks = contents.into_iter().map(|each| async move {
            let wanted = self.wanted(named, &each, now).await?;
            Ok::<_, StoreError>((each, wanted))
        });
        let mut looks = futures::stream::iter(looks).buffered(AT_ONCE);
        let (mut unwanted, mut claimed) = (Vec::new(), 0);
        while let Some((each, wanted)) = looks.try_next().await? {
            match wanted {
                Wanted::No => unwanted.push(each),
                Wanted::Claimed => claimed += 1,
                Wanted::Named => {}
            }
        }
        Ok((unwanted, claimed))
    }

    async fn wanted(&self, named: &Named, each: &Listed, now: Timestamp) -> Result<Wanted, StoreError> {
        let hash = &each.content.hash;
        if named.contents.contains_key(hash) {
            // Stored anew since: readers find the later one first.
            for generation in each.content.generation + 1..=self.live(hash).generation {
                if self.is_stored(&StoredContent { hash: *hash, generation }, each.size).await? {
                    return Ok(Wanted::No);
                }
            }
            return Ok(Wanted::Named);
        }
        let young = |time: Timestamp| now.duration_since(time) < RESPECTED_FOR;
        // Claims are looked at one by one: a listing may be of a while ago.
        if young(each.written) || self.claim_on(hash).await?.is_some_and(|(_, made)| young(made)) {
            return Ok(Wanted::Claimed);
        }
        Ok(Wanted::No)
    }

    async fn condemn_live(&self, unwanted: &[Listed], now: Timestamp) -> Result<(), StoreError> {
        let live: Vec<_> = unwanted
            .iter()
            .map(|each| each.content)
            .filter(|content| content.generation >= self.live(&content.hash).generation)
            .collect();
        for sentence in live.chunks(SENTENCE) {
            self.condemn(sentence, now.to_string()).await?;
        }
        Ok(())
    }

    async fn remove_content(&self, content: &StoredContent) -> Result<(), StoreError> {
        // The tree last: it is what a proof of the content's blocks is read from.
        for key in [keys::content(self.id(), content), keys::block_tree(self.id(), content)] {
            self.remove(&key).await?;
        }
        Ok(())
    }

    /// Removes an object; one that is gone already is no failure.
    pub(super) async fn remove(&self, key: &Path) -> Result<(), StoreError> {
        match self.objects.delete(key).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(StoreError::unavailable("remove an object")(error)),
        }
    }

    /// Removes old claims on what is not stored any more, and uploads that were never finished. A claim on what is
    /// stored may be made anew at any moment.
    async fn remove_leftovers(&self, now: Timestamp) -> Result<(), StoreError> {
        for object in self.old_objects(&keys::claims(self.id()), now).await? {
            let hash = object.location.filename().and_then(|name| name.parse().ok());
            let stored = match hash {
                Some(hash) => self.objects.has(&keys::content(self.id(), &self.live(&hash))).await?,
                None => false,
            };
            if !stored {
                self.remove(&object.location).await?;
            }
        }
        for object in self.old_objects(&keys::all_incoming(self.id()), now).await? {
            self.remove(&object.location).await?;
        }
        Ok(())
    }

    async fn old_objects(&self, prefix: &Path, now: Timestamp) -> Result<Vec<ObjectMeta>, StoreError> {
        let listed = self.objects.list(Some(prefix));
        let old = |object: &ObjectMeta| now.duration_since(time_of(object)) >= RESPECTED_FOR;
        let old = listed.try_filter(|object| std::future::ready(old(object)));
        old.try_collect().await.map_err(StoreError::unavailable("list leftovers"))
    }
}

enum Wanted {
    /// A kept revision has it.
    Named,
    /// Somebody may be about to publish it.
    Claimed,
    No,
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::expiry::Keep;
    use super::*;
    use crate::model::{ByteRange, DbPath, Revision, Sha256};
    use crate::store::publish::tests::{change, database, put};
    use crate::store::{PublishError, Store};

    async fn later(database: &Database, days: i64) -> Timestamp {
        database.objects.now().await.unwrap() + SignedDuration::from_hours(24 * days)
    }

    async fn is_there(database: &Database, text: &str) -> bool {
        database
            .read_content(&Sha256::of(text.as_bytes()), ByteRange::new(0, text.len() as u64))
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn rule_6_only_what_nobody_names_or_claims_is_removed() {
        let (_store, database) = database().await;
        let old = put(&database, "f", "old").await;
        database.publish(change(0, "one", vec![old], &[])).await.unwrap();
        let new = put(&database, "f", "new").await;
        database.publish(change(1, "two", vec![new], &[])).await.unwrap();
        put(&database, "unpublished", "orphan").await;
        let everything = CollectOptions::default();
        let report = database.collect_at(everything, later(&database, 6).await).await.unwrap();
        assert_eq!((report.removed, report.claimed, report.named), (0, 1, 2), "the claim is young");
        let report = database.collect_at(everything, later(&database, 8).await).await.unwrap();
        assert_eq!((report.removed, report.removed_bytes), (1, 6));
        assert!(!is_there(&database, "orphan").await);
        assert!(is_there(&database, "old").await, "an old revision names it, and all are kept");
        let keep = CollectOptions { keep: Some(Keep::Revisions(1)), dry_run: true };
        let would = database.collect_at(keep, later(&database, 8).await).await.unwrap();
        assert_eq!((would.expired, would.removed), (1, 1));
        assert!(is_there(&database, "old").await, "a dry run removes nothing");
        let did = database
            .collect_at(CollectOptions { dry_run: false, ..keep }, later(&database, 8).await)
            .await
            .unwrap();
        assert_eq!((did.expired, did.removed), (1, 1));
        assert!(!is_there(&database, "old").await);
        assert!(is_there(&database, "new").await);
    }

    #[tokio::test]
    async fn rule_6_what_was_removed_can_be_stored_again_and_a_late_deletion_takes_nothing() {
        let (store, database) = database().await;
        let entry = put(&database, "f", "text").await;
        let first = database.live(&Sha256::of(b"text"));
        let time = later(&database, 8).await;
        assert_eq!(database.collect_at(CollectOptions::default(), time).await.unwrap().removed, 1);
        let refused = database.publish(change(0, "first-try", vec![entry.clone()], &[])).await;
        assert!(matches!(refused, Err(PublishError::Rejected { .. })), "{refused:?}");
        assert!(!database.claim(&Sha256::of(b"text"), 4).await.unwrap(), "it has to be sent again");
        let again = put(&database, "f", "text").await;
        database.publish(change(0, "second-try", vec![again], &[])).await.unwrap();
        // A collector that was asleep since it condemned the first one.
        database.remove_content(&first).await.unwrap();
        let anew = Store::attach(store.objects.clone()).await.unwrap();
        let anew = anew.open(database.id()).await.unwrap().unwrap();
        assert!(is_there(&anew, "text").await);
    }

    #[tokio::test]
    async fn rule_6_who_claims_while_contents_are_condemned_loses_nothing() {
        let (_store, database) = database().await;
        let entry = put(&database, "f", "text").await;
        let time = later(&database, 8).await;
        let named = database.named_contents_from(Revision(1)).await.unwrap();
        let listed = database.listed_contents().await.unwrap();
        let (unwanted, _) = database.unwanted(&named, listed, time).await.unwrap();
        assert_eq!(unwanted.len(), 1);
        // Before the collector condemns it, somebody claims it; by the collector's time that was just now.
        assert!(database.claim(&Sha256::of(b"text"), 4).await.unwrap());
        database.condemn_live(&unwanted, time).await.unwrap();
        let just_now = later(&database, 0).await;
        let (doomed, claimed) = database.unwanted(&named, unwanted, just_now).await.unwrap();
        assert_eq!((doomed.len(), claimed), (0, 1), "the collector sees the claim");
        let refused = database.publish(change(0, "first-try", vec![entry], &[])).await;
        assert!(
            matches!(refused, Err(PublishError::Rejected { .. })),
            "the publisher sees that it is condemned"
        );
        let again = put(&database, "f", "text").await;
        database.publish(change(0, "second-try", vec![again], &[])).await.unwrap();
        let path = DbPath::parse("f").unwrap();
        assert!(database.file(&path).is_some() && is_there(&database, "text").await);
        let report = database.collect_at(CollectOptions::default(), time).await.unwrap();
        assert_eq!(report.removed, 1, "the one stored first is not needed any more");
        assert!(is_there(&database, "text").await);
    }
}
