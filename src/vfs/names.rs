//! Making, moving and removing names. Each is one record: it happened or it did not. No bytes move.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::SystemTime;

use super::adopt::{Number, locality};
use super::attr::Attr;
use super::read::{Locality, Opened};
use super::revisions::Shown;
use super::scans::Pid;
use super::{Vfs, VfsError};
use crate::model::MAX_COMPONENT_BYTES;
use crate::namespace::{Ino, Place};
use crate::state::{Change, Kind, NodeId, NodeRow};

/// The longest target of a symbolic link.
const LONGEST_TARGET: usize = 4095;

/// Who makes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maker {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// The process.
    pub pid: Pid,
}

/// What a rename does about a name that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rename {
    /// What bore it is gone.
    Replace,
    /// It fails.
    NoReplace,
    /// Both change places.
    Exchange,
}

/// Now, in nanoseconds since 1970.
pub(super) fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_nanos()).unwrap_or(i64::MAX)
}

fn checked(name: &OsStr) -> Result<&OsStr, VfsError> {
    if name.len() > MAX_COMPONENT_BYTES {
        return Err(VfsError::NameTooLong);
    }
    Ok(name)
}

fn named(parent: NodeId, name: &OsStr, node: NodeId) -> Change {
    Change::Name { parent, name: name.as_bytes().to_vec(), node }
}

fn unnamed(parent: NodeId, name: &OsStr) -> Change {
    Change::NameGone { parent, name: name.as_bytes().to_vec() }
}

impl Shown {
    /// A directory in which something was made or removed.
    fn touched_directory(&self, id: NodeId, now: i64, touched: bool) -> Result<Change, VfsError> {
        let mut row = self.tree.upper.node(id).ok_or(VfsError::NotFound)?.row.clone();
        (row.modified, row.changed) = (now, now);
        row.touched |= touched;
        Ok(Change::Node(id, row))
    }

    /// A directory from which a name is about to go; if it is the last, the directory stays all the same.
    fn left_directory(&self, id: NodeId, name: &OsStr, now: i64) -> Result<Change, VfsError> {
        let stays_shown = self.tree.has_other_than(id, name);
        self.touched_directory(id, now, !stays_shown)
    }

    fn changed_node(&self, id: NodeId, now: i64) -> Result<Change, VfsError> {
        let mut row = self.tree.upper.node(id).ok_or(VfsError::NotFound)?.row.clone();
        row.changed = now;
        row.touched = true;
        Ok(Change::Node(id, row))
    }
}

impl Vfs {
    fn new_row(
        &self,
        shown: &Shown,
        parent: NodeId,
        kind: Kind,
        mode: u32,
        maker: Maker,
    ) -> Result<NodeRow, VfsError> {
        let above = &shown.tree.upper.node(parent).ok_or(VfsError::NotFound)?.row;
        let now = now();
        let (mut gid, mut mode) = (maker.gid, mode & 0o7777);
        // What is made in a directory with the set-group-id bit is of its group.
        if above.mode & libc::S_ISGID != 0 {
            gid = above.gid;
            if kind == Kind::Directory {
                mode |= libc::S_ISGID;
            }
        }
        Ok(NodeRow {
            kind,
            mode,
            uid: maker.uid,
            gid,
            accessed: now,
            modified: now,
            changed: now,
            touched: true,
        })
    }

    /// Makes something that is no regular file.
    fn make(&self, parent: Ino, name: &OsStr, kind: Kind, mode: u32, maker: Maker) -> Result<Attr, VfsError> {
        let name = checked(name)?;
        let mut shown = self.write_shown();
        if shown.tree.child(parent, name).is_some() {
            return Err(VfsError::Exists);
        }
        let directory = self.adopt_directory(&mut shown, parent)?;
        let row = self.new_row(&shown, directory, kind, mode, maker)?;
        let id = self.overlay()?.new_node();
        let changes = vec![
            shown.touched_directory(directory, row.modified, false)?,
            Change::Node(id, row),
            named(directory, name, id),
        ];
        self.change(&mut shown, changes)?;
        self.tell(&shown, id)
    }

    /// Makes a directory.
    pub fn make_directory(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        maker: Maker,
    ) -> Result<Attr, VfsError> {
        self.make(parent, name, Kind::Directory, mode, maker)
    }

    /// Makes a symbolic link.
    pub fn make_symlink(
        &self,
        parent: Ino,
        name: &OsStr,
        target: &OsStr,
        maker: Maker,
    ) -> Result<Attr, VfsError> {
        if target.len() > LONGEST_TARGET {
            return Err(VfsError::NameTooLong);
        }
        self.make(parent, name, Kind::Symlink(target.as_bytes().to_vec()), 0o777, maker)
    }

    /// Where a symbolic link leads.
    pub fn read_link(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        let shown = self.read_shown();
        match shown.tree.local(ino).map(|(_, node)| &node.row.kind) {
            Some(Kind::Symlink(target)) => Ok(target.clone()),
            _ => Err(VfsError::Invalid),
        }
    }

    /// Makes an empty file, or a fifo, socket or device.
    pub fn make_node(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        device: u32,
        maker: Maker,
    ) -> Result<Attr, VfsError> {
        match mode & libc::S_IFMT {
            0 | libc::S_IFREG => {
                let mut shown = self.write_shown();
                let id = self.make_file(&mut shown, parent, name, mode, maker)?;
                self.tell(&shown, id)
            }
            kind @ (libc::S_IFIFO | libc::S_IFSOCK | libc::S_IFCHR | libc::S_IFBLK) => {
                self.make(parent, name, Kind::Special { kind, device }, mode, maker)
            }
            _ => Err(VfsError::Invalid),
        }
    }

    fn make_file(
        &self,
        shown: &mut Shown,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        maker: Maker,
    ) -> Result<NodeId, VfsError> {
        let name = checked(name)?;
        if shown.tree.child(parent, name).is_some() {
            return Err(VfsError::Exists);
        }
        let directory = self.adopt_directory(shown, parent)?;
        let row = self.new_row(shown, directory, Kind::File, mode, maker)?;
        let touched = shown.touched_directory(directory, row.modified, false)?;
        let overlay = self.overlay()?;
        let id = overlay.new_node();
        let content = overlay.new_file()?;
        let changes = vec![
            touched,
            Change::Node(id, row),
            Change::Content(id, content.clone()),
            named(directory, name, id),
        ];
        if let Err(error) = self.change(shown, changes) {
            overlay.drop_new_file(&content);
            return Err(error);
        }
        Ok(id)
    }

    /// Makes a file and opens it, for reading and writing. One that is there by now is opened, unless it must not be there.
    pub fn create(
        &self,
        parent: Ino,
        name: &OsStr,
        mode: u32,
        must_be_new: bool,
        maker: Maker,
    ) -> Result<(Attr, Opened), VfsError> {
        let mut shown = self.write_shown();
        let id = match shown.tree.child(parent, name) {
            Some(_) if must_be_new => return Err(VfsError::Exists),
            Some(Place::Base(ino)) => self.adopt_file(&mut shown, ino, Number::Same)?,
            Some(Place::Local(id)) => id,
            None => self.make_file(&mut shown, parent, name, mode, maker)?,
        };
        let node = shown.tree.upper.node(id).ok_or(VfsError::NotFound)?;
        let file = node.file.clone().ok_or(VfsError::IsADirectory)?;
        let opened = self.open_local(&shown, shown.tree.ino(id), node, maker.pid)?;
        self.overlay()?.may_be_written(&file);
        let opened = Opened { locality: locality(&file), ..opened };
        debug_assert!(opened.locality != Locality::Remote);
        Ok((self.tell(&shown, id)?, opened))
    }

    /// Removes a name of what is no directory.
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        let mut shown = self.write_shown();
        let place = shown.tree.child(parent, name).ok_or(VfsError::NotFound)?;
        if shown.tree.is_directory(shown.tree.ino_of(place)) {
            return Err(VfsError::IsADirectory);
        }
        let directory = self.adopt_directory(&mut shown, parent)?;
        let now = now();
        let mut changes = vec![shown.left_directory(directory, name, now)?];
        let mut lost = None;
        match place {
            Place::Base(ino) => changes.push(Change::Cover(self.shown_entry(&shown, ino)?)),
            Place::Local(id) => {
                changes.push(shown.changed_node(id, now)?);
                changes.push(unnamed(directory, name));
                lost = Some(id);
            }
        }
        self.change(&mut shown, changes)?;
        drop(shown);
        if let Some(id) = lost {
            self.reap(id);
        }
        Ok(())
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        let mut shown = self.write_shown();
        let place = shown.tree.child(parent, name).ok_or(VfsError::NotFound)?;
        let ino = shown.tree.ino_of(place);
        if !shown.tree.is_directory(ino) {
            return Err(VfsError::NotADirectory);
        }
        if !shown.tree.is_empty_directory(ino) {
            return Err(VfsError::NotEmpty);
        }
        // The remote's own are shown only because something in them is.
        let Place::Local(id) = place else { return Err(VfsError::NotEmpty) };
        let directory = self.adopt_directory(&mut shown, parent)?;
        let mut changes = vec![shown.left_directory(directory, name, now())?];
        changes.extend(self.removal(&shown, id));
        changes.push(unnamed(directory, name));
        self.overlay()?.record(changes.clone())?;
        shown.tree.leave_place(id);
        shown.tree.apply(&changes);
        drop(shown);
        self.reap(id);
        Ok(())
    }

    /// What lies unseen in a directory that is removed: others that nobody made.
    fn removal(&self, shown: &Shown, id: NodeId) -> Vec<Change> {
        let mut changes = Vec::new();
        for (name, child) in shown.tree.upper.node(id).iter().flat_map(|node| &node.children) {
            changes.extend(self.removal(shown, *child));
            changes.push(unnamed(id, name));
            changes.push(Change::NodeGone(*child));
        }
        changes
    }

    /// Gives a file another name beside those it has.
    pub fn link(&self, ino: Ino, parent: Ino, name: &OsStr) -> Result<Attr, VfsError> {
        let name = checked(name)?;
        let mut shown = self.write_shown();
        if shown.tree.is_directory(ino) {
            return Err(VfsError::NotPermitted);
        }
        if shown.tree.child(parent, name).is_some() {
            return Err(VfsError::Exists);
        }
        let id = self.adopt_file(&mut shown, ino, Number::Same)?;
        if shown.tree.upper.node(id).is_none_or(|node| node.names.is_empty()) {
            return Err(VfsError::NotFound);
        }
        let directory = self.adopt_directory(&mut shown, parent)?;
        let now = now();
        let changes = vec![
            shown.touched_directory(directory, now, false)?,
            shown.changed_node(id, now)?,
            named(directory, name, id),
        ];
        self.change(&mut shown, changes)?;
        self.tell(&shown, id)
    }

    /// Gives something another name in place of one it has.
    pub fn rename(
        &self,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        how: Rename,
    ) -> Result<(), VfsError> {
        checked(new_name)?;
        let mut shown = self.write_shown();
        let source = shown.tree.child(parent, name).ok_or(VfsError::NotFound)?;
        let target = shown.tree.child(new_parent, new_name);
        match (how, target) {
            (Rename::NoReplace, Some(_)) => return Err(VfsError::Exists),
            (Rename::Exchange, None) => return Err(VfsError::NotFound),
            // Two names of one file: nothing is to be done.
            (_, Some(target)) if target == source => return Ok(()),
            _ => {}
        }
        if how != Rename::Exchange
            && let Some(target) = target
        {
            let (from, to) = (shown.tree.ino_of(source), shown.tree.ino_of(target));
            match (shown.tree.is_directory(from), shown.tree.is_directory(to)) {
                (true, false) => return Err(VfsError::NotADirectory),
                (false, true) => return Err(VfsError::IsADirectory),
                (true, true) if !shown.tree.is_empty_directory(to) => return Err(VfsError::NotEmpty),
                _ => {}
            }
        }
        let moved = self.adopt_all(&mut shown, source)?;
        let from = self.adopt_directory(&mut shown, parent)?;
        let to = self.adopt_directory(&mut shown, new_parent)?;
        if how == Rename::Exchange {
            let Some(target) = target else { return Err(VfsError::NotFound) };
            let other = self.adopt_all(&mut shown, target)?;
            return self.exchange(&mut shown, (from, name, moved), (to, new_name, other));
        }
        let now = now();
        let mut changes = vec![shown.left_directory(from, name, now)?];
        if from != to {
            changes.push(shown.touched_directory(to, now, false)?);
        }
        changes.push(shown.changed_node(moved, now)?);
        let mut lost = None;
        match target {
            Some(Place::Base(ino)) => changes.push(Change::Cover(self.shown_entry(&shown, ino)?)),
            Some(Place::Local(id)) => {
                changes.extend(self.removal(&shown, id));
                changes.push(shown.changed_node(id, now)?);
                changes.push(unnamed(to, new_name));
                lost = Some(id);
            }
            None => {}
        }
        changes.push(unnamed(from, name));
        changes.push(named(to, new_name, moved));
        let file = shown.tree.upper.node(moved).and_then(|node| node.file.clone());
        match (&file, target) {
            (Some(file), Some(_)) => self.overlay()?.record_replacing(changes.clone(), file)?,
            _ => self.overlay()?.record(changes.clone())?,
        }
        for left in lost.into_iter().chain([moved]) {
            if shown.tree.upper.node(left).is_some_and(|node| node.is_directory()) {
                shown.tree.leave_place(left);
            }
        }
        shown.tree.apply(&changes);
        shown.tree.put_under_below(to);
        drop(shown);
        if let Some(id) = lost {
            self.reap(id);
        }
        Ok(())
    }

    fn exchange(
        &self,
        shown: &mut Shown,
        (from, name, one): (NodeId, &OsStr, NodeId),
        (to, new_name, other): (NodeId, &OsStr, NodeId),
    ) -> Result<(), VfsError> {
        let now = now();
        let mut changes = vec![shown.touched_directory(from, now, false)?];
        if from != to {
            changes.push(shown.touched_directory(to, now, false)?);
        }
        changes.push(shown.changed_node(one, now)?);
        changes.push(shown.changed_node(other, now)?);
        changes.push(unnamed(from, name));
        changes.push(unnamed(to, new_name));
        changes.push(named(to, new_name, one));
        changes.push(named(from, name, other));
        self.overlay()?.record(changes.clone())?;
        for left in [one, other] {
            if shown.tree.upper.node(left).is_some_and(|node| node.is_directory()) {
                shown.tree.leave_place(left);
            }
        }
        shown.tree.apply(&changes);
        shown.tree.put_under_below(from);
        shown.tree.put_under_below(to);
        Ok(())
    }

    /// What is about to be moved, as local: a directory with all that the remote has in it, for a newcomer that appears at its
    /// old place later is none of it (rule 10).
    fn adopt_all(&self, shown: &mut Shown, place: Place) -> Result<NodeId, VfsError> {
        let ino = shown.tree.ino_of(place);
        if !shown.tree.is_directory(ino) {
            return self.adopt_file(shown, ino, Number::Same);
        }
        let top = self.adopt_directory(shown, ino)?;
        let mut adopted = Vec::new();
        let mut changes = Vec::new();
        for directory in shown.tree.directories_below(top) {
            for file in shown.tree.base_files_in(directory) {
                let parent = self.adopt_directory(shown, directory)?;
                let (id, adoption) = self.adoption(self.shown_entry(shown, file)?, parent)?;
                adopted.push((file, id));
                changes.extend(adoption);
            }
        }
        if !changes.is_empty() {
            self.change(shown, changes)?;
            for (file, id) in adopted {
                self.go_on_as(shown, file, id, Number::Same);
            }
        }
        Ok(top)
    }
}
