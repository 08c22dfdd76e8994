//! Copies of a store: everything that its kept revisions name, then the revisions, then the names that lead to them;
//! so the copy is a store at any moment, with all that it shows. Copying again brings what is new, and what was lost.

use std::collections::HashMap;

use futures::{StreamExt, TryStreamExt};
use object_store::PutMode;
use object_store::path::Path;

use super::AT_ONCE;
use super::named::NamedAt;
use crate::model::{ByteRange, Revision, Sha256};
use crate::store::keys::CheckpointKind;
use crate::store::log::{NumberedLog, get_optional};
use crate::store::{Database, Store, StoreError, UploadError, keys};

/// What was copied: what was there already does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BackupReport {
    /// Databases looked at.
    pub databases: u64,
    /// Revisions.
    pub revisions: u64,
    /// Contents.
    pub contents: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Brings `to` up to date with `from`. What `to` has and `from` has not stays; two histories that part are refused.
pub async fn backup(from: &Store, to: &Store) -> Result<BackupReport, StoreError> {
    let mut report = BackupReport::default();
    for name in from.names().await? {
        let Some(id) = from.id_of(&name).await? else { continue };
        let Some(database) = from.open(&id).await? else {
            return Err(StoreError::Damaged { key: name.to_string(), reason: "it leads nowhere".into() });
        };
        report.databases += 1;
        if to.id_of(&name).await?.is_some_and(|there| there != id) {
            let settings = database.settings();
            return Err(StoreError::NameTaken { database: format!("{}/{}", settings.owner, settings.slug) });
        }
        Copy { from, to, database: &database, report: &mut report }.run().await?;
        copy_object(from, to, &name).await?;
    }
    for prefix in [keys::accounts(), keys::tokens()] {
        let listed = from.objects.list(Some(&prefix)).map_ok(|object| object.location);
        let all: Vec<_> = listed.try_collect().await.map_err(StoreError::unavailable("list accounts"))?;
        for key in all {
            copy_object(from, to, &key).await?;
        }
    }
    Ok(report)
}

/// Copies a small object that is never changed, if the copy has none.
async fn copy_object(from: &Store, to: &Store, key: &Path) -> Result<(), StoreError> {
    let Some(bytes) = get_optional(&*from.objects, key).await? else { return Ok(()) };
    match to.objects.put_opts(key, bytes.into(), PutMode::Create.into()).await {
        Ok(_) | Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
        Err(error) => Err(StoreError::unavailable("write the copy")(error)),
    }
}

/// The copy of one database.
struct Copy<'a> {
    from: &'a Store,
    to: &'a Store,
    database: &'a Database,
    report: &'a mut BackupReport,
}

impl Copy<'_> {
    async fn run(mut self) -> Result<(), StoreError> {
        // Settings first: a database without a name is in nobody's way.
        self.copy_settings().await?;
        let id = self.database.id();
        let Some(target) = Database::new(self.to.objects.clone(), id).await? else {
            return Err(StoreError::Damaged {
                key: id.to_owned(),
                reason: "its settings were not copied".into(),
            });
        };
        let target = std::sync::Arc::new(target);
        target.catch_up_condemned().await?;
        let through = self.database.revision().0;
        let has = Revision(target.revisions().last(0).await?);
        self.check_same_history(&target, has.min(through)).await?;
        let oldest = self.database.oldest_kept(through).await?;
        let named = self.database.named_contents_from(oldest).await?;
        self.copy_contents(&target, named.contents).await?;
        self.copy_checkpoints(&target, through).await?;
        for number in has.0 + 1..=through.0 {
            copy_object(self.from, self.to, &self.database.revisions().key(number)).await?;
            // Somebody may publish there meanwhile.
            self.check_same_history(&target, Revision(number)).await?;
            self.report.revisions += 1;
        }
        Ok(())
    }

    async fn copy_settings(&self) -> Result<(), StoreError> {
        let prefix = keys::settings(self.database.id());
        let log = |objects| NumberedLog { objects, prefix: prefix.clone() };
        let (from, to) = (log(&self.from.objects), log(&self.to.objects));
        for number in 1..=from.last(0).await? {
            copy_object(self.from, self.to, &to.key(number)).await?;
        }
        Ok(())
    }

    /// A revision's hash names everything before it, so the last one that both have is enough.
    async fn check_same_history(&self, target: &Database, common: Revision) -> Result<(), StoreError> {
        if common == Revision::NONE {
            return Ok(());
        }
        let (_, here) = self.database.present_record(common).await?;
        let (_, there) = target.present_record(common).await?;
        if here == there {
            return Ok(());
        }
        let settings = self.database.settings();
        Err(StoreError::OtherHistory {
            database: format!("{}/{}", settings.owner, settings.slug),
            revision: common,
        })
    }

    async fn copy_contents(
        &mut self,
        target: &std::sync::Arc<Database>,
        named: HashMap<Sha256, NamedAt>,
    ) -> Result<(), StoreError> {
        let listed = target.listed_contents().await?;
        let stored: HashMap<_, _> = listed.into_iter().map(|each| (each.content, each.size)).collect();
        let missing = named.into_iter().filter(|(hash, at)| stored.get(&target.live(hash)) != Some(&at.size));
        let database = self.database;
        let copies = missing.map(|(hash, at)| async move {
            copy_content(database, target, hash, &at).await?;
            Ok::<_, StoreError>(at.size)
        });
        let mut copies = futures::stream::iter(copies).buffer_unordered(AT_ONCE);
        while let Some(size) = copies.try_next().await? {
            self.report.contents += 1;
            self.report.bytes += size;
        }
        Ok(())
    }

    /// They only save time, but where older revisions have expired.
    async fn copy_checkpoints(&self, target: &Database, through: Revision) -> Result<(), StoreError> {
        let there = target.stored_checkpoints().await?;
        let missing = self.database.stored_checkpoints().await?.into_iter();
        for revision in missing.filter(|revision| *revision <= through && !there.contains(revision)) {
            for kind in [CheckpointKind::Whole, CheckpointKind::Since] {
                copy_object(self.from, self.to, &keys::checkpoint(self.database.id(), revision, kind))
                    .await?;
            }
        }
        Ok(())
    }
}

/// Copies a content as an upload is stored: checked against its hash, with its block tree.
async fn copy_content(
    from: &Database,
    to: &std::sync::Arc<Database>,
    hash: Sha256,
    at: &NamedAt,
) -> Result<(), StoreError> {
    let damaged = |reason: String| StoreError::Damaged { key: format!("{} ({hash})", at.path), reason };
    let failed = |error| match error {
        UploadError::Store(error) => error,
        wrong => damaged(wrong.to_string()),
    };
    let mut upload = to.upload(at.size, Some(hash)).await?;
    let mut bytes = from.read_content(&hash, ByteRange::new(0, at.size)).await?;
    while let Some(piece) = bytes.try_next().await? {
        if let Err(error) = upload.write(&piece).await {
            upload.abort().await;
            return Err(failed(error));
        }
    }
    upload.finish().await.map(drop).map_err(failed)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::ObjectStoreExt;

    use super::*;
    use crate::store::log::encode;
    use crate::store::publish::tests::{change, database, put};
    use crate::store::{CollectOptions, Expired, FsckOptions, Registration, RevisionRecord};

    #[tokio::test]
    async fn a_copy_has_everything_and_brings_only_what_is_new() {
        let (store, database) = database().await;
        for n in 0..5 {
            let entry = put(&database, &format!("f{}", n % 2), &n.to_string()).await;
            database.publish(change(n, &format!("commit{n}"), vec![entry], &[])).await.unwrap();
        }
        put(&database, "orphan", "nobody names this").await;
        let copy = Store::in_memory().await;
        let report = backup(&store, &copy).await.unwrap();
        assert_eq!((report.databases, report.revisions, report.contents, report.bytes), (1, 5, 5, 5));
        assert_eq!(backup(&store, &copy).await.unwrap(), BackupReport { databases: 1, ..Default::default() });
        let found = copy.find(&"alice/x".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(found.manifest_etag(), database.manifest_etag());
        let entry = put(&database, "f9", "new").await;
        database.publish(change(5, "commit-six", vec![entry], &[])).await.unwrap();
        let report = backup(&store, &copy).await.unwrap();
        assert_eq!((report.revisions, report.contents), (1, 1));
        let checked = copy.fsck(Default::default()).await.unwrap();
        assert_eq!((checked.findings.len(), checked.revisions, checked.contents), (0, 6, 6));
    }

    #[tokio::test]
    async fn a_copy_of_another_history_is_refused_and_not_touched() {
        let (store, database) = database().await;
        let first = put(&database, "f", "1").await;
        database.publish(change(0, "first", vec![first], &[])).await.unwrap();
        let copy = Store::in_memory().await;
        backup(&store, &copy).await.unwrap();
        let other = copy.open(database.id()).await.unwrap().unwrap();
        for (database, text) in [(&database, "here"), (&other, "there")] {
            let entry = put(database, "f", text).await;
            let id = format!("second-{text}");
            database.publish(change(1, &id, vec![entry], &[])).await.unwrap();
        }
        let refused = backup(&store, &copy).await;
        assert!(
            matches!(refused, Err(StoreError::OtherHistory { revision: Revision(2), .. })),
            "{refused:?}"
        );
    }

    #[tokio::test]
    async fn a_copy_of_a_store_whose_past_has_expired_begins_where_that_does() {
        let (store, database) = database().await;
        for n in 0..9 {
            let entry = put(&database, "f", &n.to_string()).await;
            database.publish(change(n, &format!("commit{n}"), vec![entry], &[])).await.unwrap();
        }
        let keep = CollectOptions { keep: Some("3".parse().unwrap()), dry_run: false };
        assert_eq!(database.collect(keep).await.unwrap().expired, 6);
        let copy = Store::in_memory().await;
        let report = backup(&store, &copy).await.unwrap();
        assert_eq!((report.revisions, report.contents), (9, 3));
        assert!(copy.fsck(Default::default()).await.unwrap().findings.is_empty());
        let found = copy.find(&"alice/x".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(found.manifest_etag(), database.manifest_etag());
        assert!(matches!(found.files_at(Revision(6)).await, Err(StoreError::Expired { .. })));
        assert_eq!(found.files_at(Revision(7)).await.unwrap().len(), 1);
    }

    /// Publishes `count` revisions of a file each, from revision `from` on.
    async fn publish_on(database: &Arc<Database>, from: u64, count: u64) {
        for n in from..from + count {
            let entry = put(database, &format!("f{n}"), &n.to_string()).await;
            database.publish(change(n, &format!("commit{n}"), vec![entry], &[])).await.unwrap();
        }
    }

    #[tokio::test]
    async fn a_copy_made_more_seldom_than_revisions_expire_has_all_that_is_current() {
        let (store, database) = database().await;
        publish_on(&database, 0, 10).await;
        let copy = Store::in_memory().await;
        backup(&store, &copy).await.unwrap();
        publish_on(&database, 10, 10).await;
        let keep = CollectOptions { keep: Some("3".parse().unwrap()), dry_run: false };
        assert_eq!(database.collect(keep).await.unwrap().expired, 17);
        backup(&store, &copy).await.unwrap();
        // What was put by revisions of which the copy has markers only is current, and named.
        let copied = copy.open(database.id()).await.unwrap().unwrap();
        let now = copied.objects.now().await.unwrap() + jiff::SignedDuration::from_hours(24 * 9);
        let collected = copied.collect_at(CollectOptions::default(), now).await.unwrap();
        assert_eq!((collected.removed, collected.named), (0, 20));
        let again = Store::in_memory().await;
        assert_eq!(backup(&copy, &again).await.unwrap().contents, 20);
        for store in [&copy, &again] {
            let checked = store.fsck(FsckOptions { deep: true, repair: false }).await.unwrap();
            assert!(checked.findings.is_empty(), "{:?}", checked.findings);
        }
    }

    #[tokio::test]
    async fn an_expiry_that_was_cut_off_is_known_to_everyone_and_finished_by_the_next() {
        let (store, database) = database().await;
        publish_on(&database, 0, 140).await;
        let markers = |through: u64| {
            let database = database.clone();
            async move {
                // As far as a run came that meant to go to 139.
                let files = database.files_at(Revision(139)).await.unwrap();
                let (record, hash) = database.present_record(Revision(139)).await.unwrap();
                database.store_whole_checkpoint(Revision(139), files, record.time, hash).await.unwrap();
                for number in 1..=through {
                    let (record, record_hash) = database.present_record(Revision(number)).await.unwrap();
                    let expired = Some(Expired { record_hash, kept_from: Revision(139) });
                    let marker = RevisionRecord { put: Vec::new(), delete: Vec::new(), expired, ..record };
                    let key = database.revisions().key(number);
                    database.objects.put(&key, encode(&marker).into()).await.unwrap();
                }
            }
        };
        markers(50).await;
        for repair in [false, true] {
            let checked = store.fsck(FsckOptions { deep: true, repair }).await.unwrap();
            assert!(checked.findings.is_empty(), "{:?}", checked.findings);
        }
        let anew = Store::attach(store.objects.clone()).await.unwrap();
        let anew = anew.open(database.id()).await.unwrap().unwrap();
        assert_eq!(anew.manifest_etag(), database.manifest_etag());
        assert_eq!(anew.files_at(Revision(139)).await.unwrap().len(), 139);
        assert_eq!(backup(&store, &Store::in_memory().await).await.unwrap().contents, 140);
        let report = anew.collect(CollectOptions::default()).await.unwrap();
        assert_eq!((report.removed, report.named), (0, 140));
        assert!(anew.present_record(Revision(138)).await.unwrap().0.expired.is_some(), "it is finished");
        assert!(store.fsck(FsckOptions { deep: true, repair: false }).await.unwrap().findings.is_empty());
    }

    #[tokio::test]
    async fn a_copy_over_a_store_that_goes_on_by_itself_is_refused_before_the_two_are_mixed() {
        let (store, database) = database().await;
        publish_on(&database, 0, 3).await;
        let copy = Store::in_memory().await;
        backup(&store, &copy).await.unwrap();
        publish_on(&database, 3, 3).await;
        let other = copy.open(database.id()).await.unwrap().unwrap();
        let entry = put(&other, "theirs", "theirs").await;
        other.publish(change(3, "theirs-4", vec![entry], &[])).await.unwrap();
        let refused = backup(&store, &copy).await;
        assert!(
            matches!(refused, Err(StoreError::OtherHistory { revision: Revision(4), .. })),
            "{refused:?}"
        );
        other.refresh().await.unwrap();
        assert!(copy.fsck(FsckOptions::default()).await.unwrap().findings.is_empty());
        // Nor do names lead elsewhere than they did.
        let fresh = Store::in_memory().await;
        let reference = "alice/x".parse().unwrap();
        let registration = Registration { reference, name: "x".into(), visibility: None };
        fresh.register(&registration).await.unwrap();
        assert!(matches!(backup(&store, &fresh).await, Err(StoreError::NameTaken { .. })));
    }
}
