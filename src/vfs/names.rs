//! Making, moving and removing names. Each is one record: it happened or it did not. No bytes move.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::adopt::Number;
use super::attr::Attr;
use super::attributes::Setting;
use super::read::Opened;
use super::revisions::Shown;
use super::scans::Pid;
use super::{Vfs, VfsError};
use crate::manifest::PRIVATE_DIR;
use crate::model::MAX_COMPONENT_BYTES;
use crate::namespace::{Ino, Place};
use crate::overlay::Access;
use crate::state::{Change, Kind, NodeId, NodeRow, now};

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

/// What making a file does about one that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Create {
    /// It fails.
    New,
    /// That one is opened.
    Open,
    /// That one is emptied and opened.
    Empty,
}

/// A name in a directory that may be made, moved or removed: none of the mount's own directory.
pub(super) fn checked(parent: Ino, name: &OsStr) -> Result<(), VfsError> {
    if parent.is_beside() || (parent == Ino::ROOT && name == PRIVATE_DIR) {
        return Err(VfsError::ReadOnly);
    }
    if name.len() > MAX_COMPONENT_BYTES {
        return Err(VfsError::NameTooLong);
    }
    Ok(())
}

pub(super) fn named(parent: NodeId, name: &OsStr, node: NodeId) -> Change {
    Change::Name { parent, name: name.as_bytes().to_vec(), node }
}

pub(super) fn unnamed(parent: NodeId, name: &OsStr) -> Change {
    Change::NameGone { parent, name: name.as_bytes().to_vec() }
}

impl Shown {
    /// A directory in which something was made or removed.
    pub(super) fn touched_directory(&self, id: NodeId, now: i64, touched: bool) -> Result<Change, VfsError> {
        let mut row = self.tree.upper.node(id).ok_or(VfsError::NotFound)?.row.clone();
        (row.modified, row.changed) = (now, now);
        row.touched |= touched;
        Ok(Change::Node(id, row))
    }

    /// A directory from which a name is about to go; if it is the last, the directory stays all the same.
    pub(super) fn left_directory(&self, id: NodeId, name: &OsStr, now: i64) -> Result<Change, VfsError> {
        let stays_shown = self.tree.has_other_than(id, name);
        self.touched_directory(id, now, !stays_shown)
    }

    pub(super) fn changed_node(&self, id: NodeId, now: i64) -> Result<Change, VfsError> {
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

    /// A directory that is not shown, for nobody made it and nothing is in it, gives way to what takes its name.
    pub(super) fn hidden(&self, shown: &mut Shown, directory: NodeId, name: &OsStr) -> Vec<Change> {
        let Some(id) = shown.tree.upper.child(directory, name) else { return Vec::new() };
        if shown.tree.is_shown(id) {
            return Vec::new();
        }
        let mut changes = self.removal(shown, id);
        changes.push(unnamed(directory, name));
        changes.push(Change::NodeGone(id));
        shown.tree.leave_place(id);
        changes
    }

    /// Makes something that is no regular file.
    fn make(&self, parent: Ino, name: &OsStr, kind: Kind, mode: u32, maker: Maker) -> Result<Attr, VfsError> {
        checked(parent, name)?;
        let mut shown = self.write_shown();
        if shown.tree.child(parent, name).is_some() {
            return Err(VfsError::Exists);
        }
        let directory = self.adopt_directory(&mut shown, parent)?;
        let row = self.new_row(&shown, directory, kind, mode, maker)?;
        let id = self.overlay()?.new_node();
        let is_directory = row.kind == Kind::Directory;
        let mut changes = self.hidden(&mut shown, directory, name);
        changes.extend([
            shown.touched_directory(directory, row.modified, false)?,
            Change::Node(id, row),
            named(directory, name, id),
        ]);
        self.change(&mut shown, changes)?;
        if is_directory {
            shown.tree.put_under_below(directory);
        }
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
                self.overlay()?.stirred();
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
        checked(parent, name)?;
        if shown.tree.child(parent, name).is_some() {
            return Err(VfsError::Exists);
        }
        let directory = self.adopt_directory(shown, parent)?;
        let row = self.new_row(shown, directory, Kind::File, mode, maker)?;
        let touched = shown.touched_directory(directory, row.modified, false)?;
        let overlay = self.overlay()?;
        let id = overlay.new_node();
        let content = overlay.new_file()?;
        let mut changes = self.hidden(shown, directory, name);
        changes.extend([
            touched,
            Change::Node(id, row),
            Change::Content(id, content.clone()),
            named(directory, name, id),
        ]);
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
        how: Create,
        maker: Maker,
    ) -> Result<(Attr, Opened), VfsError> {
        checked(parent, name)?;
        let mut shown = self.write_shown();
        let was_there = shown.tree.child(parent, name);
        let id = match was_there {
            Some(_) if how == Create::New => return Err(VfsError::Exists),
            Some(Place::Base(ino)) => self.adopt_file(&mut shown, ino, Number::Same)?,
            Some(Place::Local(id)) => id,
            None => self.make_file(&mut shown, parent, name, mode, maker)?,
        };
        if was_there.is_some() && how == Create::Empty {
            // The kernel takes it for new, and will not ask for it.
            let setting = Setting { size: Some(0), drops_set_ids: maker.uid != 0, ..Setting::default() };
            self.set_attributes_of(&mut shown, id, &setting)?;
        }
        let node = shown.tree.upper.node(id).ok_or(VfsError::NotFound)?;
        let file = node.file.clone().ok_or(VfsError::IsADirectory)?;
        let opened = self.open_local(&shown, shown.tree.ino(id), node, maker.pid, Access::Write)?;
        self.overlay()?.may_be_written(&file);
        let told = self.tell(&shown, id);
        drop(shown);
        match told {
            Ok(attr) => Ok((attr, opened)),
            Err(error) => {
                self.release(opened.handle);
                Err(error)
            }
        }
    }

    /// Removes a name of what is no directory.
    pub fn unlink(&self, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        checked(parent, name)?;
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
        self.overlay()?.stirred();
        if let Some(id) = lost {
            self.reap(id);
        }
        Ok(())
    }

    /// Removes an empty directory.
    pub fn remove_directory(&self, parent: Ino, name: &OsStr) -> Result<(), VfsError> {
        checked(parent, name)?;
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
    pub(super) fn removal(&self, shown: &Shown, id: NodeId) -> Vec<Change> {
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
        checked(parent, name)?;
        if ino.is_beside() {
            return Err(VfsError::ReadOnly);
        }
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
        let mut changes = self.hidden(&mut shown, directory, name);
        changes.extend([
            shown.touched_directory(directory, now, false)?,
            shown.changed_node(id, now)?,
            named(directory, name, id),
        ]);
        self.change(&mut shown, changes)?;
        self.overlay()?.stirred();
        self.tell(&shown, id)
    }
}
