//! Checking a store: the chain of every database from its first revision on, what it names, and what lies beside it.
//! Mending touches only what can be made anew from what is sound.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use futures::{StreamExt, TryStreamExt};

use super::AT_ONCE;
use super::collect::Listed;
use super::findings::{Finding, FindingKind};
use super::named::{NamedAt, note};
use crate::manifest::Entry;
use crate::model::{BlockTreeBuilder, ByteRange, DbPath, Revision, Sha256, has_tree};
use crate::store::block_trees::store_tree;
use crate::store::checkpoints::{Checkpoint, overlay};
use crate::store::condemned::StoredContent;
use crate::store::log::NumberedLog;
use crate::store::{Database, RevisionRecord, Store, StoreError, keys};

/// How to check.
#[derive(Debug, Clone, Copy, Default)]
pub struct FsckOptions {
    /// Reads every content and computes its hash. Without it, contents are looked for only.
    pub deep: bool,
    /// Mends what can be mended.
    pub repair: bool,
}

/// What was looked at, and what was found.
#[derive(Debug, Clone, Default)]
pub struct FsckReport {
    /// Databases.
    pub databases: u64,
    /// Kept revisions.
    pub revisions: u64,
    /// Contents that kept revisions name.
    pub contents: u64,
    /// Contents that none names: collection takes them when it is time.
    pub orphans: u64,
    /// Bytes of contents read.
    pub bytes_read: u64,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
}

impl FsckReport {
    /// Whether something that was published cannot be had any more.
    pub fn lost_data(&self) -> bool {
        self.findings.iter().any(|finding| finding.kind.loses_data() && !finding.repaired)
    }
}

impl Store {
    /// Checks every database.
    pub async fn fsck(&self, options: FsckOptions) -> Result<FsckReport, StoreError> {
        let mut report = FsckReport::default();
        let named = self.named_ids().await?;
        let ids: BTreeSet<String> =
            self.stored_ids().await?.into_iter().chain(named.keys().cloned()).collect();
        for id in ids {
            report.databases += 1;
            let log = NumberedLog { objects: &self.objects, prefix: keys::settings(&id) };
            let found =
                if log.has(1).await? { Database::new(self.objects.clone(), &id).await } else { Ok(None) };
            let finding = |kind, place: &str| Finding {
                database: id.clone(),
                kind,
                place: place.to_owned(),
                repaired: false,
            };
            let database = match found {
                Ok(Some(database)) => database,
                Ok(None) => {
                    // Only a name tells that there should be one.
                    let name = named.get(&id).map(|name| finding(FindingKind::DanglingName, name));
                    report.findings.extend(name);
                    continue;
                }
                Err(StoreError::Damaged { key, .. }) => {
                    report.findings.push(finding(FindingKind::UnreadableSettings, &key));
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !named.contains_key(&id) {
                report.findings.push(finding(FindingKind::Unnamed, &id));
            }
            Check { database: &database, options, report: &mut report }.run().await?;
        }
        Ok(report)
    }

    /// Ids that names lead to, and the names.
    async fn named_ids(&self) -> Result<BTreeMap<String, String>, StoreError> {
        let names = self.names().await?;
        let ids = futures::stream::iter(names).map(|key| async move {
            Ok::<_, StoreError>(self.id_of(&key).await?.map(|id| (id, key.to_string())))
        });
        ids.buffered(AT_ONCE).try_filter_map(|found| std::future::ready(Ok(found))).try_collect().await
    }

    async fn stored_ids(&self) -> Result<Vec<String>, StoreError> {
        let listed = self.objects.list_with_delimiter(Some(&keys::databases())).await;
        let listed = listed.map_err(StoreError::unavailable("list databases"))?;
        Ok(listed.common_prefixes.iter().filter_map(|prefix| prefix.filename().map(str::to_owned)).collect())
    }
}

/// The check of one database.
struct Check<'a> {
    database: &'a Database,
    options: FsckOptions,
    report: &'a mut FsckReport,
}

impl Check<'_> {
    fn found(&mut self, kind: FindingKind, place: impl Into<String>, repaired: bool) {
        let database = self.database.id().to_owned();
        self.report.findings.push(Finding { database, kind, place: place.into(), repaired });
    }

    async fn run(mut self) -> Result<(), StoreError> {
        self.database.catch_up_condemned().await?;
        let named = self.walk().await?;
        self.look_at_contents(named).await
    }

    /// Follows the chain. Gives the contents that kept revisions name.
    async fn walk(&mut self) -> Result<HashMap<Sha256, NamedAt>, StoreError> {
        let checkpoints = self.database.stored_checkpoints().await?;
        let mut files: BTreeMap<DbPath, Entry> = BTreeMap::new();
        let mut named = HashMap::new();
        let mut last_whole: Option<Checkpoint> = None;
        let mut parent = None;
        let mut kept_from: Option<Revision> = None;
        let mut number = Revision(1);
        loop {
            let (record, hash) = match self.database.record(number).await {
                Ok(Some(found)) => found,
                Ok(None) => break,
                Err(StoreError::Damaged { key, .. }) => {
                    self.found(FindingKind::UnreadableRevision, key, false);
                    return Ok(named);
                }
                Err(error) => return Err(error),
            };
            if record.revision != number || record.parent != parent {
                self.found(FindingKind::BrokenChain, format!("revision {number}"), false);
            }
            parent = Some(hash);
            match record.expired {
                Some(expired) => kept_from = kept_from.max(Some(expired.kept_from)),
                // An expiry was cut off: what is between its markers and its end goes as well.
                None if kept_from.is_some_and(|kept_from| number < kept_from) => {}
                None => {
                    if kept_from == Some(number) {
                        match self.database.checkpoint(number).await? {
                            Some(beginning) if beginning.since.is_none() => {
                                files.clear();
                                overlay(&mut files, beginning.files);
                                for (path, entry) in &files {
                                    note(&mut named, path.clone(), entry, number);
                                }
                            }
                            _ => {
                                self.found(FindingKind::MissingBeginning, format!("revision {number}"), false)
                            }
                        }
                    }
                    self.report.revisions += 1;
                    follow(&mut files, &mut named, record.clone());
                    if checkpoints.contains(&number) {
                        self.look_at_checkpoint(number, &files, &record, hash, &mut last_whole).await?;
                    }
                }
            }
            number = number.next();
        }
        // It may have been published since.
        if self.last_listed().await? >= number && !self.database.revisions().has(number.0).await? {
            self.found(FindingKind::Gap, format!("revision {number}"), false);
        }
        Ok(named)
    }

    /// The highest number that a revision is stored under. A listing may be late, so one is never too many.
    async fn last_listed(&self) -> Result<Revision, StoreError> {
        let listed = self.database.objects.list(Some(&self.database.revisions().prefix));
        let number = |object: object_store::ObjectMeta| {
            let name = object.location.filename()?.strip_suffix(".json")?;
            name.parse().ok().map(Revision)
        };
        let listed = listed.try_fold(Revision::NONE, |last, object| {
            std::future::ready(Ok(last.max(number(object).unwrap_or_default())))
        });
        listed.await.map_err(StoreError::unavailable("list revisions"))
    }

    async fn look_at_checkpoint(
        &mut self,
        revision: Revision,
        files: &BTreeMap<DbPath, Entry>,
        record: &RevisionRecord,
        record_hash: Sha256,
        last_whole: &mut Option<Checkpoint>,
    ) -> Result<(), StoreError> {
        let checkpoint = self.database.checkpoint(revision).await?;
        if let Some(Checkpoint { since: Some(whole), .. }) = &checkpoint
            && last_whole.as_ref().is_none_or(|known| known.revision != *whole)
        {
            *last_whole = self.database.checkpoint(*whole).await?;
        }
        let says = match (&checkpoint, &last_whole) {
            (Some(Checkpoint { since: None, files, .. }), _) => Some(vec![files]),
            (Some(Checkpoint { since: Some(_), files, .. }), Some(whole)) => Some(vec![&whole.files, files]),
            _ => None,
        };
        let says = says.map(|layers| {
            let mut all = BTreeMap::new();
            layers.into_iter().for_each(|layer| overlay(&mut all, layer.clone()));
            all
        });
        let right = says.as_ref() == Some(files)
            && checkpoint.as_ref().is_some_and(|checkpoint| checkpoint.time == record.time);
        if right {
            if let Some(whole) = checkpoint.filter(|checkpoint| checkpoint.since.is_none()) {
                *last_whole = Some(whole);
            }
            return Ok(());
        }
        if self.options.repair {
            let (files, time) = (files.clone(), record.time.clone());
            self.database.store_whole_checkpoint(revision, files, time, record_hash).await?;
        }
        self.found(FindingKind::WrongCheckpoint, format!("revision {revision}"), self.options.repair);
        Ok(())
    }

    async fn look_at_contents(&mut self, named: HashMap<Sha256, NamedAt>) -> Result<(), StoreError> {
        let mut stored: HashMap<Sha256, Vec<Listed>> = HashMap::new();
        for each in self.database.listed_contents().await? {
            stored.entry(each.content.hash).or_default().push(each);
        }
        self.report.contents += named.len() as u64;
        self.report.orphans += stored.keys().filter(|hash| !named.contains_key(*hash)).count() as u64;
        for (hash, at) in &named {
            let place = format!("{} in revision {} ({hash})", at.path, at.revision);
            // The one that readers find first. Listed ones are there; one that is not may have been stored since.
            let listed = stored.remove(hash).unwrap_or_default();
            let newest = listed.iter().max_by_key(|each| each.content.generation);
            let content = newest.map_or(self.database.live(hash), |each| each.content);
            let size = match newest {
                Some(each) => Some(each.size),
                None => self.database.stored_size(&content).await?,
            };
            match size {
                None => self.found(FindingKind::MissingContent, place, false),
                Some(size) if size != at.size => self.found_wrong(&content, place).await?,
                Some(_) => self.look_into(&content, at.size, place).await?,
            }
        }
        Ok(())
    }

    /// Mending a content that is wrong means to give it up: whoever has the right bytes can then bring them.
    async fn found_wrong(&mut self, content: &StoredContent, place: String) -> Result<(), StoreError> {
        if self.options.repair && self.database.live(&content.hash) == *content {
            let now = self.database.objects.now().await?.to_string();
            self.database.condemn(std::slice::from_ref(content), now).await?;
        }
        self.found(FindingKind::WrongContent, place, false);
        Ok(())
    }

    async fn look_into(
        &mut self,
        content: &StoredContent,
        size: u64,
        place: String,
    ) -> Result<(), StoreError> {
        let has_sound_tree = !has_tree(size) || self.database.block_root(content, size).await.is_some();
        if !self.options.deep && (has_sound_tree || !self.options.repair) {
            if !has_sound_tree {
                self.found(FindingKind::WrongBlockTree, place, false);
            }
            return Ok(());
        }
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        let mut tree = has_tree(size).then(BlockTreeBuilder::default);
        let mut bytes = self.database.read_content(&content.hash, ByteRange::new(0, size)).await?;
        while let Some(piece) = bytes.try_next().await? {
            self.report.bytes_read += piece.len() as u64;
            digest.update(&piece);
            if let Some(tree) = &mut tree {
                tree.update(&piece);
            }
        }
        if Sha256::from_digest(&digest.finish()) != content.hash {
            return self.found_wrong(content, place).await;
        }
        let Some(tree) = tree.and_then(BlockTreeBuilder::finish) else { return Ok(()) };
        if has_sound_tree && self.database.has_tree_nodes(content, &tree.nodes).await? {
            return Ok(());
        }
        if self.options.repair {
            let key = keys::block_tree(self.database.id(), content);
            store_tree(&*self.database.objects, &key, tree, size).await?;
        }
        self.found(FindingKind::WrongBlockTree, place, self.options.repair);
        Ok(())
    }
}

/// Applies a revision to the files, and notes what it names.
fn follow(files: &mut BTreeMap<DbPath, Entry>, named: &mut HashMap<Sha256, NamedAt>, record: RevisionRecord) {
    for path in &record.delete {
        files.remove(path);
    }
    for put in record.put.iter().chain(&record.set_aside) {
        note(named, put.path.clone(), &put.entry, record.revision);
    }
    files.extend(record.put.into_iter().map(|put| (put.path, put.entry)));
}
