//! Changing attributes, and extended attributes. They are local and never travel (rule 22).

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use super::adopt::Number;
use super::attr::Attr;
use super::revisions::Shown;
use super::{Vfs, VfsError};
use crate::namespace::Ino;
use crate::state::{Change, Kind, NodeId, now};

/// Attributes that are changed; the others stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Setting {
    /// Permission bits.
    pub mode: Option<u32>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Size in bytes.
    pub size: Option<u64>,
    /// When it was read last, in nanoseconds since 1970.
    pub accessed: Option<i64>,
    /// When its content last changed.
    pub modified: Option<i64>,
    /// Whoever changes the size may not keep set-id bits.
    pub drops_set_ids: bool,
}

/// Whether an extended attribute may be there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XattrMode {
    /// It may.
    Set,
    /// It must not.
    Create,
    /// It must.
    Replace,
}

/// The longest value, as Linux has it.
const LONGEST_VALUE: usize = 64 << 10;
/// The mount's own attributes.
const OWN: &str = "user.parquedb.";

/// A mode without the bits that a change of owner or content takes away.
fn without_set_ids(mode: u32) -> u32 {
    let group_executes = mode & libc::S_IXGRP != 0;
    mode & !libc::S_ISUID & !if group_executes { libc::S_ISGID } else { 0 }
}

impl Vfs {
    fn adopt(&self, shown: &mut Shown, ino: Ino) -> Result<NodeId, VfsError> {
        if ino.is_beside() {
            return Err(VfsError::ReadOnly);
        }
        if shown.tree.is_directory(ino) {
            // One that has no name any more has attributes all the same.
            if let Some((id, _)) = shown.tree.local(ino) {
                return Ok(id);
            }
            return self.adopt_directory(shown, ino);
        }
        self.adopt_file(shown, ino, Number::Same)
    }

    /// Changes attributes.
    pub fn set_attributes(&self, ino: Ino, setting: &Setting) -> Result<Attr, VfsError> {
        self.overlay()?;
        let mut shown = self.write_shown();
        let id = self.adopt(&mut shown, ino)?;
        self.set_attributes_of(&mut shown, id, setting)
    }

    pub(super) fn set_attributes_of(
        &self,
        shown: &mut Shown,
        id: NodeId,
        setting: &Setting,
    ) -> Result<Attr, VfsError> {
        let overlay = self.overlay()?;
        let node = shown.tree.upper.node(id).ok_or(VfsError::NotFound)?;
        if setting.size.is_some() {
            self.refuse_outdated(id, node)?;
        }
        let is_file = node.row.kind == Kind::File;
        let file = node.file.clone();
        let mut row = node.row.clone();
        let now = now();
        if let Some(size) = setting.size {
            let file = file.as_ref().ok_or(VfsError::Invalid)?;
            if i64::try_from(size).is_err() {
                return Err(VfsError::Invalid);
            }
            file.set_size(overlay, size)?;
            overlay.may_be_written(file);
            overlay.stirred();
            if setting.modified.is_none() && !file.set_modified(overlay, now)? {
                row.modified = now;
            }
            if setting.drops_set_ids && is_file {
                row.mode = without_set_ids(row.mode);
            }
        }
        if setting.uid.is_some() || setting.gid.is_some() {
            row.uid = setting.uid.unwrap_or(row.uid);
            row.gid = setting.gid.unwrap_or(row.gid);
            if is_file {
                row.mode = without_set_ids(row.mode);
            }
        }
        if let Some(mode) = setting.mode {
            row.mode = mode & 0o7777;
        }
        row.accessed = setting.accessed.unwrap_or(row.accessed);
        if let Some(modified) = setting.modified {
            row.modified = modified;
            if let Some(file) = &file {
                file.set_modified(overlay, modified)?;
            }
        }
        row.changed = now;
        row.touched = true;
        self.change(shown, vec![Change::Node(id, row)])?;
        self.owner.local_attr(&shown.tree, id, Some(overlay))
    }

    /// Somebody wrote who may not keep set-id bits.
    pub(super) fn drop_set_ids(&self, id: NodeId) -> Result<(), VfsError> {
        let has_any = |shown: &Shown| {
            let mode = shown.tree.upper.node(id).map_or(0, |node| node.row.mode);
            without_set_ids(mode) != mode
        };
        if !has_any(&self.read_shown()) {
            return Ok(());
        }
        let mut shown = self.write_shown();
        let Some(node) = shown.tree.upper.node(id) else { return Ok(()) };
        let mut row = node.row.clone();
        row.mode = without_set_ids(row.mode);
        row.changed = now();
        row.touched = true;
        self.change(&mut shown, vec![Change::Node(id, row)])
    }

    /// An extended attribute's value.
    pub fn xattr(&self, ino: Ino, name: &OsStr) -> Result<Option<Vec<u8>>, VfsError> {
        let shown = self.read_shown();
        shown.tree.resolve(ino).ok_or(VfsError::NotFound)?;
        let own = name.to_str().and_then(|name| self.own_xattr(&shown, ino, name));
        if let Some(own) = own {
            return Ok(Some(own.into_bytes()));
        }
        Ok(shown.tree.local(ino).and_then(|(_, node)| node.xattrs.get(name).cloned()))
    }

    /// The names of all extended attributes that people set. The mount's own are asked for by name and not listed, so that
    /// copying tools do not copy them.
    pub fn xattr_names(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        let shown = self.read_shown();
        shown.tree.resolve(ino).ok_or(VfsError::NotFound)?;
        let mut names = Vec::new();
        for name in shown.tree.local(ino).iter().flat_map(|(_, node)| node.xattrs.keys()) {
            names.extend_from_slice(name.as_bytes());
            names.push(0);
        }
        Ok(names)
    }

    /// Sets an extended attribute.
    pub fn set_xattr(&self, ino: Ino, name: &OsStr, value: &[u8], mode: XattrMode) -> Result<(), VfsError> {
        checked(name)?;
        if value.len() > LONGEST_VALUE {
            return Err(VfsError::OutOfRange);
        }
        let mut shown = self.write_shown();
        let id = self.adopt(&mut shown, ino)?;
        let node = shown.tree.upper.node(id).ok_or(VfsError::NotFound)?;
        match (mode, node.xattrs.contains_key(name)) {
            (XattrMode::Create, true) => return Err(VfsError::Exists),
            (XattrMode::Replace, false) => return Err(VfsError::NoAttribute),
            _ => {}
        }
        let changed = shown.changed_node(id, now())?;
        let set = Change::Xattr { node: id, name: name.as_bytes().to_vec(), value: value.to_vec() };
        self.change(&mut shown, vec![changed, set])
    }

    /// Removes an extended attribute.
    pub fn remove_xattr(&self, ino: Ino, name: &OsStr) -> Result<(), VfsError> {
        checked(name)?;
        self.overlay()?;
        let mut shown = self.write_shown();
        let Some((id, node)) = shown.tree.local(ino) else { return Err(VfsError::NoAttribute) };
        if !node.xattrs.contains_key(name) {
            return Err(VfsError::NoAttribute);
        }
        let changed = shown.changed_node(id, now())?;
        let gone = Change::XattrGone { node: id, name: name.as_bytes().to_vec() };
        self.change(&mut shown, vec![changed, gone])
    }
}

/// Only people's own attributes are kept, and none that the mount gives itself.
fn checked(name: &OsStr) -> Result<(), VfsError> {
    let name = name.as_bytes();
    if !name.starts_with(b"user.") {
        return Err(VfsError::NotSupported);
    }
    if name.starts_with(OWN.as_bytes()) {
        return Err(VfsError::NotPermitted);
    }
    Ok(())
}
