//! Where each inode that the kernel knows is, and its file if it is open.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

const ROOT: u64 = 1;

/// Inode numbers are ours and used once: the disk's are used again while the kernel still knows what had them before.
pub(crate) struct Tree {
    nodes: HashMap<u64, Node>,
    last: u64,
}

#[derive(Default)]
struct Node {
    /// Times the kernel was told of it, less those it forgot.
    lookups: u64,
    /// The directory it is in and its name there, unless it was removed.
    place: Option<(u64, OsString)>,
    children: HashMap<OsString, u64>,
    open: Option<(Arc<File>, usize)>,
}

impl Default for Tree {
    fn default() -> Self {
        Self { nodes: HashMap::from([(ROOT, Node::default())]), last: ROOT }
    }
}

impl Tree {
    /// Below the backing directory; nothing for what was removed.
    pub(crate) fn path(&self, mut ino: u64) -> Option<PathBuf> {
        let mut names = Vec::new();
        while ino != ROOT {
            let (parent, name) = self.nodes.get(&ino)?.place.as_ref()?;
            names.push(name);
            ino = *parent;
        }
        // An empty path is none to the kernel.
        if names.is_empty() { Some(PathBuf::from(".")) } else { Some(names.into_iter().rev().collect()) }
    }

    pub(crate) fn opened(&self, ino: u64) -> Option<Arc<File>> {
        self.nodes.get(&ino)?.open.as_ref().map(|(file, _)| file.clone())
    }

    /// The inode of a name that is there, which the kernel is told once more.
    pub(crate) fn enter(&mut self, parent: u64, name: &OsStr) -> u64 {
        let known = self.nodes.get(&parent).and_then(|node| node.children.get(name)).copied();
        let ino = known.unwrap_or_else(|| {
            self.last += 1;
            self.place(self.last, parent, name);
            self.last
        });
        self.nodes.entry(ino).or_default().lookups += 1;
        ino
    }

    fn place(&mut self, ino: u64, parent: u64, name: &OsStr) {
        self.nodes.entry(ino).or_default().place = Some((parent, name.to_owned()));
        if let Some(parent) = self.nodes.get_mut(&parent) {
            parent.children.insert(name.to_owned(), ino);
        }
    }

    /// Counts one more handle; `file` is for the first.
    pub(crate) fn open(&mut self, ino: u64, file: File) {
        if let Some(node) = self.nodes.get_mut(&ino) {
            node.open.get_or_insert_with(|| (Arc::new(file), 0)).1 += 1;
        }
    }

    /// Counts one handle less, and gives the file with the last.
    pub(crate) fn close(&mut self, ino: u64) -> Option<Arc<File>> {
        let open = &mut self.nodes.get_mut(&ino)?.open;
        let (_, handles) = open.as_mut()?;
        *handles -= 1;
        if *handles == 0 { open.take().map(|(file, _)| file) } else { None }
    }

    pub(crate) fn remove(&mut self, parent: u64, name: &OsStr) {
        self.take(parent, name);
    }

    fn take(&mut self, parent: u64, name: &OsStr) -> Option<u64> {
        let ino = self.nodes.get_mut(&parent)?.children.remove(name)?;
        self.nodes.get_mut(&ino)?.place = None;
        Some(ino)
    }

    pub(crate) fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) {
        let moved = self.take(from.0, from.1);
        self.take(to.0, to.1);
        if let Some(ino) = moved {
            self.place(ino, to.0, to.1);
        }
    }

    pub(crate) fn forget(&mut self, ino: u64, lookups: u64) {
        let Some(node) = self.nodes.get_mut(&ino) else { return };
        node.lookups = node.lookups.saturating_sub(lookups);
        if node.lookups > 0 || ino == ROOT {
            return;
        }
        if let Some((parent, name)) = self.nodes.remove(&ino).and_then(|node| node.place)
            && let Some(parent) = self.nodes.get_mut(&parent)
        {
            parent.children.remove(&name);
        }
    }
}
