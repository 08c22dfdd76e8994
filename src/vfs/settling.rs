//! What both sides agree on: the bases of paths move (rule 8), and what is local about them no more is given up, in one step with
//! the revision that has it. Inode numbers, attributes and what is open stay as they are (rule 22); what was changed since is the
//! next one's.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::File;
use std::sync::atomic::Ordering;

use super::freezing::is_content;
use super::names::unnamed;
use super::revisions::{Shown, nanoseconds};
use super::{Vfs, VfsError};
use crate::manifest::Entry;
use crate::model::{DbPath, Revision};
use crate::namespace::{Difference, FileEntry, FlipStep, Outdated, Whose};
use crate::overlay::{LocalFile, Overlay, Rest};
use crate::remote::ContentKey;
use crate::state::{BaseEntry, Change, Content, Kind, NodeId, NodeRow};

/// Whoever writes waits no longer than so many files take that are not local any more.
pub(super) const AT_ONCE: usize = 64;

/// What is settled.
#[derive(Debug, Default)]
pub struct Settled {
    /// What both sides have by now: files, or that there is none.
    pub agreed: Vec<(DbPath, Option<Entry>)>,
    /// The revision in which they have it; if it is none, the one shown then.
    pub agreed_in: Option<Revision>,
    /// Where the remote's version stays and the local one goes. It has been kept elsewhere.
    pub given_up: Vec<GivenUp>,
    /// The revision to show: the one that this mount has published, or one that follows it.
    pub published: Option<(Difference, Revision)>,
}

/// What is local of a path and goes, as it was when it was frozen.
#[derive(Debug)]
pub struct GivenUp {
    /// The path.
    pub path: DbPath,
    /// What was there; if nothing, the remote's file was removed.
    pub local: Option<Entry>,
    /// What had been changed, or removed.
    pub base: Option<Entry>,
}

impl Vfs {
    /// Settles paths. The kernel has to be told what this returns; until [`Vfs::settled`] is called, what it finds by what it
    /// remembers makes it look again.
    pub fn settle(&self, settled: &Settled) -> Result<Outdated, VfsError> {
        let overlay = self.overlay()?;
        self.settling.store(true, Ordering::SeqCst);
        let mut shown = self.write_shown();
        let revision = settled.published.as_ref().map_or(shown.revision, |(_, revision)| Some(*revision));
        let agreed_in = settled.agreed_in.or(revision);
        let mut changes = Vec::new();
        for (path, entry) in &settled.agreed {
            changes.push(match entry {
                Some(entry) => Change::Cover(base_of(path, entry, agreed_in)),
                None => Change::CoverGone(path.clone()),
            });
        }
        let (mut besides, mut left) = (Vec::new(), Vec::new());
        for given_up in &settled.given_up {
            if let Some((id, gone)) = shown.without(given_up, overlay)? {
                changes.extend(gone);
                besides.push(given_up.path.clone());
                left.push(id);
            }
        }
        let nothing = Difference::default();
        let (difference, last) = match &settled.published {
            Some((difference, _)) => (difference, shown.revision),
            None => (&nothing, None),
        };
        overlay.record(changes.clone())?;
        let step = FlipStep { difference, published: 0, last, whose: Whose::Ours };
        let outdated = shown.tree.flip(&step, &besides, &changes);
        shown.revision = revision;
        let left: Vec<NodeId> = left.into_iter().flatten().collect();
        self.were_left(&left);
        if agreed_in != revision {
            // What others have done to it since is still to be shown.
            self.behind.store(true, Ordering::Relaxed);
        }
        drop(shown);
        let put: Vec<&DbPath> =
            settled.agreed.iter().filter(|(_, entry)| entry.is_some()).map(|(path, _)| path).collect();
        for some in put.chunks(AT_ONCE) {
            let mut shown = self.write_shown();
            for path in some {
                if let Err(error) = self.give_bytes_up(&mut shown, path) {
                    tracing::warn!(%path, %error, "what was published stays local for now");
                }
            }
        }
        left.into_iter().for_each(|id| self.reap(id));
        Ok(outdated)
    }

    /// The bytes of a file that are just those of the remote's entry below it need not be local, unless somebody has it open. Its
    /// attributes stay.
    fn give_bytes_up(&self, shown: &mut Shown, path: &DbPath) -> Result<(), VfsError> {
        let overlay = self.overlay()?;
        let Some(id) = shown.leads_to_local(path) else { return Ok(()) };
        let (Some(node), Some(entry)) = (shown.tree.upper.node(id), shown.tree.upper.cover(path).cloned())
        else {
            return Ok(());
        };
        let Some(file) = node.file.clone().filter(|file| is_content(&file.content(), file, &entry)) else {
            return Ok(());
        };
        let mut row = node.row.clone();
        match file.rest(overlay)? {
            // It has been moved.
            Rest::Remote(base) if base.path != *path => {
                row.touched = !node.xattrs.is_empty() || self.is_custom(&row);
                self.change(shown, vec![Change::Node(id, row), Change::Content(id, Content::Base(entry))])
            }
            Rest::Local(rest) => {
                if let Some((modified, changed)) = file.state(overlay)?.times {
                    (row.modified, row.changed) = (modified, row.changed.max(changed));
                }
                row.touched =
                    !node.xattrs.is_empty() || self.is_custom(&row) || row.modified != entry.modified;
                if let Some(changes) = file.give_up(overlay, &rest, entry, vec![Change::Node(id, row)])? {
                    shown.tree.apply(&changes);
                }
                Ok(())
            }
            Rest::Remote(_) | Rest::Lacking | Rest::Written => Ok(()),
        }
    }

    /// Puts what was published into the cache, as far as its bytes are here and stay as they are: what is settled then is read on
    /// as before, with the remote or without it. Takes as long as copying them.
    pub fn keep_in_cache(&self, published: &[(DbPath, Option<Entry>)]) {
        let put = published.iter().filter_map(|(path, entry)| Some((path, entry.as_ref()?)));
        for (path, entry) in put {
            let Some((key, file)) = self.at_rest(path, entry) else { continue };
            match self.fetcher.take_in(&key, &file) {
                Ok(kept) => tracing::debug!(%path, kept, "published, and in the cache"),
                Err(error) => tracing::debug!(%path, %error, "published, and not in the cache"),
            }
        }
    }

    /// The bytes of a local file that are those of a published entry.
    fn at_rest(&self, path: &DbPath, entry: &Entry) -> Option<(ContentKey, File)> {
        let overlay = self.overlay.as_ref()?;
        let shown = self.read_shown();
        let base = base_of(path, entry, shown.revision);
        let file = shown.tree.upper.node(shown.leads_to_local(path)?)?.file.clone()?;
        let key = shown.key(&self.database, &base);
        drop(shown);
        match file.rest(overlay) {
            Ok(Rest::Local(rest)) if is_content(&file.content(), &file, &base) => {
                Some((key, file.open_at_rest(overlay, &rest).ok()?))
            }
            _ => None,
        }
    }

    /// Files that were moved here from paths which the remote does not have any more, and were not settled as what they are now,
    /// become local as a whole: what they show is in no revision to come.
    pub fn make_left_own(&self, gone: &BTreeSet<DbPath>) -> Result<(), VfsError> {
        if gone.is_empty() {
            return Ok(());
        }
        let overlay = self.overlay()?;
        for file in self.local_files() {
            let is_left = |base: BaseEntry| gone.contains(&base.path);
            if matches!(file.content(), Content::Base(_)) && file.base().is_some_and(is_left) {
                file.make_own(overlay)?;
            }
        }
        Ok(())
    }

    /// Whether somebody has given a file attributes that the remote's would not have.
    fn is_custom(&self, row: &NodeRow) -> bool {
        let usual = (u32::from(self.owner.file_mode()), self.owner.uid, self.owner.gid);
        row.kind != Kind::File || (row.mode, row.uid, row.gid) != usual
    }

    /// The last reader of a file that has been published has closed it.
    pub(super) fn give_bytes_up_late(&self, file: &LocalFile) {
        if file.digest().is_none() {
            return;
        }
        let mut shown = self.write_shown();
        let paths = match shown.tree.upper.node(file.node()) {
            Some(node) => shown.paths_of(node),
            _ => return,
        };
        for path in paths {
            if let Err(error) = self.give_bytes_up(&mut shown, &path) {
                tracing::debug!(%error, "a published file stays local for now");
            }
        }
    }

    /// What a flip changes above: files whose bytes nobody here has changed show the remote's new ones, with the attributes they
    /// have here, under another number.
    pub(super) fn follow_above(
        &self,
        shown: &Shown,
        difference: &Difference,
        revision: Option<Revision>,
    ) -> Above {
        let mut above = Above::default();
        let Some(overlay) = &self.overlay else { return above };
        for (path, entry) in difference.files() {
            let Some(id) = shown.leads_to_local(path) else { continue };
            let (Some(node), Some(cover)) = (shown.tree.upper.node(id), shown.tree.upper.cover(path)) else {
                continue;
            };
            let Some(file) = &node.file else { continue };
            let is_as_it_was = is_content(&file.content(), file, cover);
            let same = |entry: &FileEntry| (entry.size, entry.hash) == (cover.size, cover.hash);
            if !is_as_it_was || entry.is_some_and(same) {
                continue;
            }
            if file.rest(overlay).is_ok_and(|rest| rest == Rest::Written) {
                // Whoever has opened it may or may not write: it is looked at again when he has closed it.
                self.behind.store(true, Ordering::Relaxed);
                continue;
            }
            let Some((parent, name)) = place_of(shown, path) else { continue };
            let changes = &mut above.changes;
            changes.push(unnamed(parent, OsStr::new(&name)));
            above.left.push(id);
            let keeps = node.row.touched || !node.xattrs.is_empty();
            let Some(entry) = entry.filter(|_| keeps) else {
                changes.push(Change::CoverGone(path.clone()));
                continue;
            };
            let fresh = overlay.new_node();
            above.fresh.push(fresh);
            let base = BaseEntry {
                path: path.clone(),
                size: entry.size,
                hash: entry.hash,
                blocks: entry.blocks,
                revision,
                modified: entry.modified,
            };
            let row = NodeRow { modified: entry.modified, changed: entry.modified, ..node.row.clone() };
            changes.extend([
                Change::Node(fresh, row),
                Change::Content(fresh, Content::Base(base.clone())),
                Change::Name { parent, name: name.into_bytes(), node: fresh },
                Change::Cover(base),
            ]);
            changes.extend(node.xattrs.iter().map(|(name, value)| Change::Xattr {
                node: fresh,
                name: name.as_encoded_bytes().to_vec(),
                value: value.clone(),
            }));
        }
        above
    }
}

/// What becomes of local nodes when the revision below them changes.
#[derive(Debug, Default)]
pub(super) struct Above {
    pub(super) changes: Vec<Change>,
    /// Nodes that lose a name, and perhaps the last.
    pub(super) left: Vec<NodeId>,
    /// Nodes that show what the flip brings.
    pub(super) fresh: Vec<NodeId>,
}

impl Vfs {
    /// What was left behind by flips, because somebody had it open for writing and then did not write, follows. The kernel has to
    /// be told what this returns.
    pub fn catch_up(&self) -> Option<Outdated> {
        let overlay = self.overlay.as_ref().filter(|_| self.behind.swap(false, Ordering::Relaxed))?;
        let mut shown = self.write_shown();
        let mut difference = Difference::default();
        for entry in shown.tree.upper.covers() {
            let there = shown.tree.base.find_path(&entry.path);
            let there = there.and_then(|ino| shown.tree.entry(ino, shown.revision));
            match there {
                Some(there) => difference.then([(entry.path.clone(), FileEntry::from(&there))], []),
                None => difference.then([], [entry.path.clone()]),
            }
        }
        let Above { changes, left, fresh } = self.follow_above(&shown, &difference, shown.revision);
        if changes.is_empty() {
            return None;
        }
        if let Err(error) = overlay.record(changes.clone()) {
            tracing::error!(%error, "files that are unchanged here stay as they were");
            self.behind.store(true, Ordering::Relaxed);
            return None;
        }
        let besides: Vec<DbPath> = difference.paths().cloned().collect();
        let nothing = Difference::default();
        let step = FlipStep { difference: &nothing, published: 0, last: None, whose: Whose::Ours };
        let outdated = shown.tree.flip(&step, &besides, &changes);
        shown.were_brought(&fresh);
        self.settling.store(true, Ordering::SeqCst);
        self.were_left(&left);
        drop(shown);
        left.into_iter().for_each(|id| self.reap(id));
        Some(outdated)
    }
}

/// A node that loses a name, if there is one, and what does it.
type LetGo = (Option<NodeId>, Vec<Change>);

impl Shown {
    /// What lets go of the local version of a path, and whose it was; none where it has been changed since it was frozen, or
    /// somebody may change it any moment.
    fn without(&self, given_up: &GivenUp, overlay: &Overlay) -> Result<Option<LetGo>, VfsError> {
        let GivenUp { path, local, base } = given_up;
        let gone = Change::CoverGone(path.clone());
        let found =
            self.leads_to_local(path).and_then(|id| Some((id, self.tree.upper.node(id)?.file.as_ref()?)));
        let (id, file, local) = match (found, local) {
            // Something that is no file may stand in its place, and stays. Another version that has come there, and was removed
            // or moved away since, is another matter.
            (None, None) => {
                let cover = self.tree.upper.cover(path).map(|cover| (cover.size, cover.hash));
                let base = base.as_ref().map(|base| (base.size, base.hash));
                return Ok((cover.is_none() || cover == base).then(|| (None, vec![gone])));
            }
            (Some((id, file)), Some(local)) => (id, file, local),
            _ => return Ok(None),
        };
        let Some((parent, name)) = place_of(self, path) else { return Ok(None) };
        let stays = is_content(&file.content(), file, &base_of(path, local, None));
        if !stays || file.rest(overlay)? == Rest::Written {
            return Ok(None);
        }
        Ok(Some((Some(id), vec![unnamed(parent, OsStr::new(&name)), gone])))
    }

    /// Notes that a flip has brought what these nodes show.
    pub(super) fn were_brought(&self, nodes: &[NodeId]) {
        for node in nodes.iter().filter_map(|id| self.tree.upper.node(*id)) {
            node.brought_by(self.tree.base.flip().0);
        }
    }
}

/// The local directory and the name of a path.
fn place_of(shown: &Shown, path: &DbPath) -> Option<(NodeId, String)> {
    let parent = match path.ancestors().next() {
        Some(above) => shown.leads_to_local(&DbPath::parse(above).ok()?)?,
        None => NodeId::ROOT,
    };
    Some((parent, path.name().to_owned()))
}

/// A manifest's entry as it is remembered.
fn base_of(path: &DbPath, entry: &Entry, revision: Option<Revision>) -> BaseEntry {
    BaseEntry {
        path: path.clone(),
        size: entry.size,
        hash: entry.hash,
        blocks: entry.blocks,
        revision,
        modified: nanoseconds(&entry.modified_at),
    }
}
