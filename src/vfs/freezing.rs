//! What is local at a moment, ready to be planned with: the base of each path that was changed here (rule 8), what is here, and
//! what the revision shown has. Files that somebody has open for writing are left out (rule 21), and so is what belongs
//! with them. Names are looked at under a lock that readers share; bytes are read, which takes longer, without any.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use jiff::Timestamp;

use super::handles::Handle;
use super::revisions::Shown;
use super::{Vfs, VfsError};
use crate::manifest::{Entry, family, same, stays_put};
use crate::model::{ContentHash, DbPath, Revision};
use crate::namespace::{Ino, NodeKind};
use crate::overlay::{Access, AtRest, Digest, LocalFile, OverlayError, Rest, UpperNode};
use crate::state::{BaseEntry, Content, NodeId};
use crate::tree::hash_file;
use crate::wire::content_type_of;

/// What is local and travels, of one moment.
#[derive(Debug, Default)]
pub struct Frozen {
    /// The revision it lies over.
    pub revision: Option<Revision>,
    /// What each path was when it was changed here.
    pub base: BTreeMap<DbPath, Entry>,
    /// What it is here.
    pub local: BTreeMap<DbPath, Option<Entry>>,
    /// What it is in the revision shown, where that is another than the base; and what there is in the way.
    pub remote: BTreeMap<DbPath, Option<Entry>>,
    /// Where the bytes lie that are here, below the replica's directory.
    pub places: BTreeMap<DbPath, DbPath>,
    /// Where files of the remote's are that were moved here: from, to.
    pub moved: Vec<(DbPath, DbPath)>,
    /// What is the same here as its base, though its bytes are still local.
    pub same: Vec<(DbPath, Entry)>,
    /// What is not ready.
    pub held: Vec<(DbPath, Held)>,
    /// How many files the revision has; counted where some of them were removed here.
    pub files: usize,
}

/// Why a change is not published yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Somebody has it open for writing, or what belongs with it.
    Written,
    /// Some of its bytes are only with the remote: they are on their way.
    Lacking,
    /// What belongs with it does not travel.
    Beside,
    /// Its bytes cannot be put on the disk.
    Failing,
}

/// A local file under one of its names.
struct Named {
    path: DbPath,
    file: Arc<LocalFile>,
    stands: Rest,
    cover: Option<BaseEntry>,
}

impl Frozen {
    /// Whether there is nothing to be planned.
    pub fn is_empty(&self) -> bool {
        self.local.is_empty()
    }

    fn hold(&mut self, path: DbPath, why: Held) {
        self.local.remove(&path);
        self.base.remove(&path);
        self.places.remove(&path);
        self.held.push((path, why));
    }

    /// What belongs with something that is not ready waits with it.
    fn hold_families(&mut self) {
        let held: BTreeSet<String> = self.held.iter().map(|(path, _)| family(path).to_owned()).collect();
        let with: Vec<DbPath> =
            self.local.keys().filter(|path| held.contains(family(path))).cloned().collect();
        for path in with {
            self.hold(path, Held::Written);
        }
    }

    /// What lies in staged files that cannot be put on the disk waits: a machine that stops would come back with less.
    pub fn hold_failing(&mut self, failing: &[String]) {
        let held: Vec<DbPath> = self
            .places
            .iter()
            .filter(|(_, place)| failing.iter().any(|one| one == place.as_str()))
            .map(|(path, _)| path.clone())
            .collect();
        for path in held {
            self.hold(path, Held::Failing);
        }
        self.hold_families();
    }

    /// Whether something waits for bytes that are only with the remote.
    pub fn lacks(&self) -> bool {
        self.held.iter().any(|(_, why)| *why == Held::Lacking)
    }
}

impl Vfs {
    /// Freezes what is local. Reads files that have not been read since they last changed, so it may take a while.
    pub fn freeze(&self) -> Result<Frozen, VfsError> {
        let overlay = self.overlay()?;
        // Those that are all here by now are made so first: it may take the disk a moment.
        for file in self.local_files() {
            if file.base().is_some() && file.staged().is_some() {
                file.rest(overlay)?;
            }
        }
        let (named, gone, mut frozen) = self.look()?;
        for named in named {
            self.take_named(named, &mut frozen)?;
        }
        for entry in gone {
            frozen.base.insert(entry.path.clone(), entry_of(&entry));
            frozen.local.insert(entry.path, None);
        }
        frozen.hold_families();
        self.look_at_the_remote(&mut frozen);
        Ok(frozen)
    }

    /// Files that somebody may be writing to.
    pub fn being_written(&self) -> Result<Vec<DbPath>, VfsError> {
        let (named, ..) = self.look()?;
        Ok(named.into_iter().filter(|named| named.stands == Rest::Written).map(|named| named.path).collect())
    }

    /// The processes that have opened a file, or what belongs with it: those that write, if there are any.
    pub fn openers(&self, path: &DbPath) -> Vec<u32> {
        let shown = self.read_shown();
        let files: Vec<_> = shown
            .tree
            .upper
            .nodes()
            .filter(|(_, node)| shown.paths_of(node).iter().any(|other| family(other) == family(path)))
            .filter_map(|(_, node)| node.file.clone())
            .collect();
        drop(shown);
        let open = self.handles.all();
        let of = |access: Access| -> BTreeSet<u32> {
            let has = |handle: &&Arc<Handle>| {
                let local = handle.local.get();
                local.is_some_and(|(file, how)| {
                    *how == access && files.iter().any(|one| Arc::ptr_eq(one, file))
                })
            };
            open.iter().filter(has).filter_map(|handle| handle.used.process()).collect()
        };
        let writers = of(Access::Write);
        let found = if writers.is_empty() { of(Access::Read) } else { writers };
        found.into_iter().collect()
    }

    /// What was moved here and does not travel, or not now, becomes local as a whole, so that the remote may forget it.
    pub fn make_own(&self, paths: &BTreeSet<DbPath>) -> Result<(), VfsError> {
        let overlay = self.overlay()?;
        for path in paths {
            let shown = self.read_shown();
            let node = shown.leads_to_local(path).and_then(|id| shown.tree.upper.node(id));
            let file = node.and_then(|node| node.file.clone());
            drop(shown);
            if let Some(file) = file.filter(|file| matches!(file.content(), Content::Base(_))) {
                file.make_own(overlay)?;
            }
        }
        Ok(())
    }

    /// Files that were written to and that need the remote for some of their bytes.
    pub fn lacking(&self) -> Vec<Arc<LocalFile>> {
        self.local_files().into_iter().filter(|file| file.missing(0).is_some()).collect()
    }

    pub(super) fn local_files(&self) -> Vec<Arc<LocalFile>> {
        self.read_shown().tree.upper.nodes().filter_map(|(_, node)| node.file.clone()).collect()
    }

    /// All local files with a name that travels, and the remote's files that were removed here.
    fn look(&self) -> Result<(Vec<Named>, Vec<BaseEntry>, Frozen), VfsError> {
        let overlay = self.overlay()?;
        let shown = self.read_shown();
        let upper = &shown.tree.upper;
        let mut all = Vec::new();
        for (_, node) in upper.nodes() {
            let Some(file) = &node.file else { continue };
            for path in shown.paths_of(node) {
                let cover = upper.cover(&path).cloned();
                // Looked at while no name can change: it is of this moment.
                all.push(Named { path, file: file.clone(), stands: file.rest(overlay)?, cover });
            }
        }
        // A directory or a link in a file's place is none: the file is gone.
        let is_file = |id: NodeId| upper.node(id).is_some_and(|node| node.file.is_some());
        let is_named = |path: &DbPath| shown.leads_to_local(path).is_some_and(is_file);
        let gone = upper.covers().filter(|entry| !is_named(&entry.path) && !stays_put(&entry.path));
        let gone: Vec<BaseEntry> = gone.cloned().collect();
        let files = if gone.is_empty() { 0 } else { shown.tree.base.count_files() };
        Ok((all, gone, Frozen { revision: shown.revision, files, ..Frozen::default() }))
    }

    fn take_named(&self, named: Named, frozen: &mut Frozen) -> Result<(), VfsError> {
        let Named { path, file, stands, cover } = named;
        let from = file.base().map(|base| base.path).filter(|from| *from != path);
        let moved = from.map(|from| (from, path.clone()));
        if stays_put(&path) {
            frozen.moved.extend(moved);
            return Ok(());
        }
        let is_known = |size: u64, hash: ContentHash| {
            cover.as_ref().is_some_and(|cover| (cover.size, cover.hash) == (size, hash))
        };
        let entry = match stands {
            Rest::Remote(base) if is_known(base.size, base.hash) => {
                self.follow_later(&path, cover.as_ref());
                return Ok(());
            }
            Rest::Lacking | Rest::Written => {
                let why = if stands == Rest::Lacking { Held::Lacking } else { Held::Written };
                frozen.moved.extend(moved);
                frozen.held.push((path, why));
                return Ok(());
            }
            Rest::Remote(base) => {
                Entry { content_type: Some(content_type_of(path.as_str()).into()), ..entry_of(&base) }
            }
            Rest::Local(rest) => match self.read_at_rest(&file, rest)? {
                Some(digest) if is_known(digest.size, digest.hash.into()) => {
                    if self.follow_later(&path, cover.as_ref()) {
                        return Ok(());
                    }
                    frozen.same.extend(cover.map(|cover| (path, entry_of(&cover))));
                    return Ok(());
                }
                Some(digest) => {
                    let place = DbPath::parse(&rest.place()).map_err(|_| VfsError::Invalid)?;
                    frozen.places.insert(path.clone(), place);
                    Entry {
                        size: digest.size,
                        hash: digest.hash.into(),
                        modified_at: date(digest.modified).into(),
                        etag: None,
                        content_type: Some(content_type_of(path.as_str()).into()),
                        blocks: None,
                        unknown: None,
                    }
                }
                None => {
                    frozen.held.push((path, Held::Written));
                    return Ok(());
                }
            },
        };
        frozen.moved.extend(moved);
        frozen.base.extend(cover.map(|cover| (path.clone(), entry_of(&cover))));
        frozen.local.insert(path, Some(entry));
        Ok(())
    }

    /// Whether the remote has moved on from what is unchanged here: then it is shown soon.
    fn follow_later(&self, path: &DbPath, cover: Option<&BaseEntry>) -> bool {
        let there = self.read_shown().remote_entry(path);
        let there = there.map(|there| (there.size, there.hash));
        let has_moved_on = there != cover.map(|cover| (cover.size, cover.hash));
        if has_moved_on {
            self.behind.store(true, Ordering::Relaxed);
        }
        has_moved_on
    }

    /// What a file's bytes are, unless somebody begins to write meanwhile.
    fn read_at_rest(&self, file: &LocalFile, rest: AtRest) -> Result<Option<Digest>, VfsError> {
        if let Some(digest) = file.digest() {
            return Ok(Some(digest));
        }
        let open = match file.open_at_rest(self.overlay()?, &rest) {
            Ok(open) => open,
            // Nobody needs it any more.
            Err(error) if error.errno() == libc::ENOENT => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let ContentHash::Sha256(hash) = hash_file(&open, None).map_err(OverlayError::from)?.0 else {
            return Ok(None);
        };
        let found = open.metadata().map_err(OverlayError::from)?;
        let modified = found.modified().ok().and_then(|time| Timestamp::try_from(time).ok());
        let modified = modified.map_or(0, |time| i64::try_from(time.as_nanosecond()).unwrap_or(0));
        let digest = Digest { hash, size: found.len(), modified };
        Ok(file.was_read(rest, digest).then_some(digest))
    }

    /// How the revision shown differs from the base, at the paths that were changed here and where they lead.
    fn look_at_the_remote(&self, frozen: &mut Frozen) {
        let shown = self.read_shown();
        for (path, local) in &frozen.local {
            let there = shown.remote_entry(path);
            if !same(there.as_ref(), frozen.base.get(path)) {
                frozen.remote.insert(path.clone(), there.clone());
            }
            if there.is_none() && local.is_some() {
                for (other, entry) in shown.in_the_way(path) {
                    if !frozen.base.contains_key(&other) {
                        frozen.remote.insert(other, Some(entry));
                    }
                }
            }
        }
    }
}

impl Shown {
    /// The paths of a local file, as far as a manifest can have them.
    pub(super) fn paths_of(&self, node: &UpperNode) -> Vec<DbPath> {
        let path = |(parent, name): &(NodeId, std::ffi::OsString)| {
            let mut all = self.tree.upper.path(*parent)?;
            all.push(name);
            let text: Option<Vec<&str>> = all.into_iter().map(OsStr::to_str).collect();
            DbPath::parse(&text?.join("/")).ok()
        };
        node.names.iter().filter_map(path).collect()
    }

    /// The local node that a path leads to.
    pub(super) fn leads_to_local(&self, path: &DbPath) -> Option<NodeId> {
        path.components().try_fold(NodeId::ROOT, |at, name| self.tree.upper.child(at, OsStr::new(name)))
    }

    /// What the revision has at a path, shown or covered.
    pub(super) fn remote_entry(&self, path: &DbPath) -> Option<Entry> {
        let ino = self.tree.base.find_path(path)?;
        self.tree.entry(ino, self.revision).map(|entry| entry_of(&entry))
    }

    /// The revision's files that a new file at a path cannot stand beside: one in the place of a directory above it, and those below
    /// it.
    fn in_the_way(&self, path: &DbPath) -> Vec<(DbPath, Entry)> {
        let base = &self.tree.base;
        let mut found = Vec::new();
        for above in path.ancestors().filter_map(|above| DbPath::parse(above).ok()) {
            found.extend(self.remote_entry(&above).map(|entry| (above, entry)));
        }
        let mut open: Vec<Ino> = base.find_path(path).into_iter().collect();
        while let Some(ino) = open.pop() {
            let Some(node) = base.node(ino) else { continue };
            match &node.kind {
                NodeKind::Directory { children, .. } => {
                    open.extend(
                        (0..children.len()).filter_map(|at| base.child(children, at)).map(|(ino, _)| ino),
                    );
                }
                NodeKind::File { .. } => {
                    let entry = self.tree.entry(ino, self.revision);
                    found.extend(entry.map(|entry| (entry.path.clone(), entry_of(&entry))));
                }
            }
        }
        found
    }
}

/// A moment in nanoseconds since 1970, as manifests write it.
fn date(nanoseconds: i64) -> String {
    let time = Timestamp::from_nanosecond(nanoseconds.into());
    time.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// A remembered entry as a manifest's.
pub(super) fn entry_of(entry: &BaseEntry) -> Entry {
    Entry {
        size: entry.size,
        hash: entry.hash,
        modified_at: date(entry.modified).into(),
        etag: None,
        content_type: None,
        blocks: entry.blocks,
        unknown: None,
    }
}

/// Whether a file's bytes are those of an entry.
pub(super) fn is_content(content: &Content, file: &LocalFile, entry: &BaseEntry) -> bool {
    match content {
        Content::Base(base) => (base.size, base.hash) == (entry.size, entry.hash),
        Content::Staged { .. } => file.digest().is_some_and(|digest| {
            (digest.size, ContentHash::Sha256(digest.hash)) == (entry.size, entry.hash)
        }),
    }
}
