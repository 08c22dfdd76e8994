//! Giving something another name. No bytes move; a directory takes along what the remote has in it now, and nothing that comes
//! later (rule 10).

use std::ffi::OsStr;

use super::adopt::Number;
use super::names::{checked, named, unnamed};
use super::revisions::Shown;
use super::{Vfs, VfsError};
use crate::namespace::{Ino, Place};
use crate::state::{Change, NodeId, now};

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

impl Vfs {
    /// Gives something another name in place of one it has.
    pub fn rename(
        &self,
        parent: Ino,
        name: &OsStr,
        new_parent: Ino,
        new_name: &OsStr,
        how: Rename,
    ) -> Result<(), VfsError> {
        checked(parent, name)?;
        checked(new_parent, new_name)?;
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
            None => changes.extend(self.hidden(&mut shown, to, new_name)),
        }
        changes.push(unnamed(from, name));
        changes.push(named(to, new_name, moved));
        let file = shown.tree.upper.node(moved).and_then(|node| node.file.clone());
        match (&file, target) {
            (Some(file), Some(_)) => self.overlay()?.record_replacing(changes.clone(), [&**file])?,
            _ => self.overlay()?.record(changes.clone())?,
        }
        for left in lost.into_iter().chain([moved]) {
            shown.tree.leave_place(left);
        }
        shown.tree.apply(&changes);
        shown.tree.put_under_below(to);
        drop(shown);
        self.overlay()?.stirred();
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
        let files = [one, other].map(|id| shown.tree.upper.node(id).and_then(|node| node.file.clone()));
        self.overlay()?.record_replacing(changes.clone(), files.iter().flatten().map(|file| &**file))?;
        for left in [one, other] {
            shown.tree.leave_place(left);
        }
        shown.tree.apply(&changes);
        shown.tree.put_under_below(from);
        shown.tree.put_under_below(to);
        self.overlay()?.stirred();
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
