//! From the remote's to ours and back: what is about to change becomes local first, in a step of its own that shows
//! nothing new, and so does no harm if it is the last one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::attr::Attr;
use super::read::{Locality, Opened, told_of};
use super::revisions::Shown;
use super::scans::{Pid, process_of};
use super::settling::AT_ONCE;
use super::{Vfs, VfsError};
use crate::fetch::FetchError;
use crate::namespace::{Flip, Ino, Place};
use crate::overlay::{Access, LocalFile, Overlay, UpperNode};
use crate::state::{BaseEntry, Change, Content, Kind, NodeId, NodeRow};

/// Under which number a file of the remote's goes on when it becomes local.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Number {
    /// Under its own: everybody who has it open sees what is written (rule 16).
    Same,
    /// Under a new one: the kernel reads the old one by itself, and would not see it.
    New,
}

impl Vfs {
    pub(super) fn overlay(&self) -> Result<&Arc<Overlay>, VfsError> {
        self.overlay.as_ref().ok_or(VfsError::ReadOnly)
    }

    pub(super) fn write_shown(&self) -> std::sync::RwLockWriteGuard<'_, Shown> {
        self.shown.write().unwrap_or_else(|e| e.into_inner())
    }

    /// Records changes and takes them in.
    pub(super) fn change(&self, shown: &mut Shown, changes: Vec<Change>) -> Result<(), VfsError> {
        self.overlay()?.record(changes.clone())?;
        shown.tree.apply(&changes);
        Ok(())
    }

    /// A directory as a local one.
    pub(super) fn adopt_directory(&self, shown: &mut Shown, ino: Ino) -> Result<NodeId, VfsError> {
        let overlay = self.overlay()?;
        match shown.tree.resolve(ino).ok_or(VfsError::NotFound)? {
            Place::Local(id) => {
                let node = shown.tree.upper.node(id).ok_or(VfsError::NotFound)?;
                if !node.is_directory() {
                    return Err(VfsError::NotADirectory);
                }
                // What has no name any more takes nothing in.
                if node.names.is_empty() && id != NodeId::ROOT { Err(VfsError::NotFound) } else { Ok(id) }
            }
            Place::Base(ino) => {
                let node = shown.tree.base.node(ino).ok_or(VfsError::NotFound)?;
                if !node.is_directory() {
                    return Err(VfsError::NotADirectory);
                }
                if !node.is_shown() {
                    return Err(VfsError::NotFound);
                }
                let (name, modified) = (node.name().as_bytes().to_vec(), node.modified);
                let known = node.known_times();
                let above = shown.tree.base.parent(ino).ok_or(VfsError::NotFound)?;
                let parent = self.adopt_directory(shown, above)?;
                let id = overlay.new_node();
                let row = self.row(Kind::Directory, modified, u32::from(self.owner.directory_mode()));
                let changes = vec![Change::Node(id, row), Change::Name { parent, name, node: id }];
                self.change(shown, changes)?;
                shown.tree.show_directory_as(id, ino);
                if let Some(node) = shown.tree.upper.node(id) {
                    node.told(known);
                }
                shown.tree.put_under_below(id);
                Ok(id)
            }
        }
    }

    fn row(&self, kind: Kind, modified: i64, mode: u32) -> NodeRow {
        let (uid, gid) = (self.owner.uid, self.owner.gid);
        NodeRow { kind, mode, uid, gid, accessed: modified, modified, changed: modified, touched: false }
    }

    /// A file as a local one; nothing of it is local yet.
    pub(super) fn adopt_file(&self, shown: &mut Shown, ino: Ino, number: Number) -> Result<NodeId, VfsError> {
        match shown.tree.resolve(ino).ok_or(VfsError::LookAgain)? {
            Place::Local(id) => Ok(id),
            Place::Base(ino) => {
                let entry = self.shown_entry(shown, ino)?;
                if entry.hash.sha256().is_none() {
                    return Err(VfsError::NotPinned);
                }
                let above = shown.tree.base.parent(ino).ok_or(VfsError::NotFound)?;
                let parent = self.adopt_directory(shown, above)?;
                let (id, changes) = self.adoption(entry, parent)?;
                self.change(shown, changes)?;
                self.go_on_as(shown, ino, id, number);
                Ok(id)
            }
        }
    }

    /// The entry of a file that is shown.
    pub(super) fn shown_entry(&self, shown: &Shown, ino: Ino) -> Result<BaseEntry, VfsError> {
        let node = shown.tree.base.node(ino).ok_or(VfsError::LookAgain)?;
        if !node.is_shown() {
            // The name leads to another one by now, or will in a moment.
            return Err(VfsError::LookAgain);
        }
        shown.tree.entry(ino, shown.revision).ok_or(VfsError::IsADirectory)
    }

    pub(super) fn adoption(
        &self,
        entry: BaseEntry,
        parent: NodeId,
    ) -> Result<(NodeId, Vec<Change>), VfsError> {
        let id = self.overlay()?.new_node();
        let row = self.row(Kind::File, entry.modified, u32::from(self.owner.file_mode()));
        let name = entry.path.components().last().unwrap_or_default().as_bytes().to_vec();
        let changes = vec![
            Change::Node(id, row),
            Change::Content(id, Content::Base(entry.clone())),
            Change::Name { parent, name, node: id },
            Change::Cover(entry),
        ];
        Ok((id, changes))
    }

    /// Whoever knows the file by its number goes on with it.
    pub(super) fn go_on_as(&self, shown: &mut Shown, ino: Ino, id: NodeId, number: Number) {
        if number == Number::New {
            return;
        }
        shown.tree.show_as(id, ino);
        let (Some(base), Some(node)) = (shown.tree.base.node(ino), shown.tree.upper.node(id)) else { return };
        node.told(base.known_times());
        let (Some(file), Some(overlay)) = (&node.file, &self.overlay) else { return };
        // Of the many that move with their directory few are open.
        if !base.is_open() {
            return;
        }
        for handle in self.handles.all().into_iter().filter(|handle| handle.ino == ino) {
            if handle.local().is_none() && file.opened(overlay, Access::Read).is_ok() {
                node.opened();
                let _ = handle.local.set((file.clone(), Access::Read));
                base.closed();
            }
        }
    }

    /// Opens a local file.
    pub(super) fn open_local(
        &self,
        shown: &Shown,
        ino: Ino,
        node: &UpperNode,
        opener: Pid,
        access: Access,
    ) -> Result<Opened, VfsError> {
        let (Some(file), Some(overlay)) = (&node.file, &self.overlay) else {
            return Err(VfsError::IsADirectory);
        };
        self.refuse_outdated(file.node(), node)?;
        let now = Instant::now();
        let reads = access == Access::Read;
        if reads && self.scans.would_mix(opener, Flip(node.brought()), now, process_of) {
            return Err(FetchError::Stale.into());
        }
        if file.base().is_some_and(|base| base.hash.sha256().is_none()) {
            return Err(VfsError::NotPinned);
        }
        file.opened(overlay, access)?;
        node.opened();
        let content = file.base().map(|base| self.fetcher.open(&shown.key(&self.database, &base)));
        let used = self.scans.begin(shown.tree.base.flip(), opener, process_of(opener), now);
        let handle = self.handles.insert(ino, used, content, Some((file.clone(), access)));
        Ok(Opened { handle, locality: locality(file) })
    }

    /// The kernel may lead by a name to what a flip has just taken it from, until it has been told: what was written there would be
    /// nowhere.
    pub(super) fn refuse_outdated(&self, id: NodeId, node: &UpperNode) -> Result<(), VfsError> {
        let was_left = || self.left.lock().unwrap_or_else(|e| e.into_inner()).contains(&id);
        if node.names.is_empty() && was_left() { Err(VfsError::LookAgain) } else { Ok(()) }
    }

    /// Opens a file for writing, and perhaps for reading too. Nothing is fetched (rule 19).
    pub fn open_to_write(&self, ino: Ino, opener: Pid) -> Result<Opened, VfsError> {
        let mut shown = self.write_shown();
        let id = self.adopt_file(&mut shown, ino, Number::Same)?;
        let node = shown.tree.upper.node(id).ok_or(VfsError::NotFound)?;
        let file = node.file.clone().ok_or(VfsError::IsADirectory)?;
        let opened = self.open_local(&shown, ino, node, opener, Access::Write)?;
        self.overlay()?.may_be_written(&file);
        Ok(opened)
    }

    /// A file becomes local under a number of its own: whoever has the one it had keeps what it was.
    pub fn part_from_readers(&self, ino: Ino) -> Result<(), VfsError> {
        let mut shown = self.write_shown();
        let id = self.adopt_file(&mut shown, ino, Number::New)?;
        let old = shown.tree.ino(id);
        if let Some(node) = shown.tree.upper.node(id)
            && old == ino
        {
            // The kernel's memory is of the number.
            if let Some(base) = shown.tree.base.node(ino) {
                base.set_known(node.known_times());
            }
            node.forgotten(node.known_times());
            let fresh = self.overlay()?.new_node();
            shown.tree.renumber_local(id, fresh);
        }
        Ok(())
    }

    /// A local node to which nothing leads any more is given up, with its bytes.
    pub(super) fn reap(&self, id: NodeId) {
        let Some(overlay) = &self.overlay else { return };
        let mut shown = self.write_shown();
        let Some(node) = shown.tree.upper.node(id).filter(|node| node.is_lost() && id != NodeId::ROOT) else {
            return;
        };
        let staged = node.file.as_ref().and_then(|file| file.staged());
        let gone = vec![Change::NodeGone(id)];
        // What cannot be recorded now is swept at the next start.
        if overlay.record_removing(gone.clone(), staged).is_ok() {
            shown.tree.apply(&gone);
            overlay.forget(id);
        }
    }

    /// From now on nothing is given back. Of what is being published, and of what may have been, it must be known that it was here: a
    /// base that moves where nothing is left would be a removal.
    pub fn keep_all(&self) {
        self.keeps_all.store(true, Ordering::SeqCst);
    }

    /// It is settled what was published: what the kernel has forgotten meanwhile, or an earlier life has left, and is just what the
    /// remote has, is the remote's again.
    pub fn give_all_back(&self) {
        self.keeps_all.store(false, Ordering::SeqCst);
        let unused = |(id, node): (NodeId, &UpperNode)| {
            (!node.row.touched && node.file.is_some() && node.known_times() == 0).then_some(id)
        };
        let all: Vec<NodeId> = self.read_shown().tree.upper.nodes().filter_map(unused).collect();
        for some in all.chunks(AT_ONCE) {
            let mut shown = self.write_shown();
            some.iter().for_each(|id| self.give_back_in(&mut shown, *id));
        }
    }

    /// A file that was opened for writing and not changed is the remote's again.
    pub(super) fn give_back(&self, id: NodeId) {
        self.give_back_in(&mut self.write_shown(), id);
    }

    fn give_back_in(&self, shown: &mut Shown, id: NodeId) {
        if self.keeps_all.load(Ordering::SeqCst) {
            return;
        }
        let Some(node) = shown.tree.upper.node(id) else { return };
        let number = shown.tree.ino(id);
        let Some(changes) = shown.tree.upper.given_back(id, node) else { return };
        let entry = node.file.as_ref().and_then(|file| file.base());
        if entry.is_none_or(|entry| !shown.has_by_now(&entry)) {
            return;
        }
        // The kernel goes on with the number it knows, which must be that of what it finds.
        let below = node.file.as_ref().and_then(|file| shown.tree.base.find_path(&file.base()?.path));
        if below != Some(number) && node.known_times() > 0 {
            return;
        }
        let known = node.known_times();
        if self.change(shown, changes).is_ok()
            && let Some(base) = shown.tree.base.node(number)
        {
            base.set_known(known);
        }
    }

    /// The attributes of a local node that the kernel is being told of.
    pub(super) fn tell(&self, shown: &Shown, id: NodeId) -> Result<Attr, VfsError> {
        let attr = self.owner.local_attr(&shown.tree, id, self.overlay.as_deref())?;
        told_of(&shown.tree, attr.ino);
        Ok(attr)
    }
}

pub(super) fn locality(file: &LocalFile) -> Locality {
    match file.content() {
        Content::Staged { under: None, .. } => Locality::Local,
        _ => Locality::Partly,
    }
}
