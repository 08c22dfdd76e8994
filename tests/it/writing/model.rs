//! A directory as it should be, in memory; random operations on it and on the real one; and whether the two agree.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use rustix::fs::FallocateFlags;

use crate::harness::{Random, noise};

/// A directory's files, by the file that each name leads to, and its directories.
#[derive(Debug, Clone, Default)]
pub struct Model {
    names: BTreeMap<String, usize>,
    contents: BTreeMap<usize, Vec<u8>>,
    dirs: BTreeSet<String>,
    next: usize,
}

/// One operation on it.
#[derive(Debug, Clone)]
pub enum Op {
    Create(String),
    Write(String, usize, Vec<u8>),
    Append(String, Vec<u8>),
    SetLen(String, usize),
    Punch(String, usize, usize),
    /// Written through a mapping.
    Map(String, usize, Vec<u8>),
    /// From one file to another, without being read: from where, to where, how much.
    Copy(String, usize, String, usize, usize),
    /// Written anew beside it, and renamed over it.
    Save(String, Vec<u8>),
    Rename(String, String),
    Exchange(String, String),
    Link(String, String),
    Unlink(String),
    MakeDir(String),
    RemoveDir(String),
    RenameDir(String, String),
}

/// What a workload likes to do: of each kind of operation, how often.
#[derive(Debug, Clone, Copy)]
pub struct Likes {
    pub write: usize,
    pub append: usize,
    pub set_len: usize,
    pub punch: usize,
    pub map: usize,
    pub copy: usize,
    pub save: usize,
    pub names: usize,
    pub dirs: usize,
}

/// To begin with, when most of it is not liked.
pub const NOTHING: Likes =
    Likes { write: 0, append: 0, set_len: 0, punch: 0, map: 0, copy: 0, save: 0, names: 0, dirs: 0 };

const LONGEST: usize = 300_000;

impl Model {
    pub fn with(files: &[(String, Vec<u8>)]) -> Self {
        let mut model = Self::default();
        for (name, content) in files {
            model.put(name, content.clone());
            let mut parent = name.as_str();
            while let Some((dir, _)) = parent.rsplit_once('/') {
                model.dirs.insert(dir.to_owned());
                parent = dir;
            }
        }
        model
    }

    /// As a real directory is.
    pub fn of(root: &Path) -> Self {
        let mut model = Self::default();
        let mut files: BTreeMap<u64, usize> = BTreeMap::new();
        for entry in walkdir::WalkDir::new(root).min_depth(1) {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().is_dir() {
                model.dirs.insert(name);
                continue;
            }
            match files.get(&entry.metadata().unwrap().ino()) {
                Some(file) => {
                    model.names.insert(name, *file);
                }
                None => {
                    model.put(&name, fs::read(entry.path()).unwrap());
                    files.insert(entry.metadata().unwrap().ino(), model.next);
                }
            }
        }
        model
    }

    fn put(&mut self, name: &str, content: Vec<u8>) {
        self.next += 1;
        self.names.insert(name.to_owned(), self.next);
        self.contents.insert(self.next, content);
    }

    fn some_name(&self, chance: &mut Random) -> Option<String> {
        self.names.keys().nth(chance.index(self.names.len())).cloned()
    }

    fn some_dir(&self, chance: &mut Random) -> Option<String> {
        self.dirs.iter().nth(chance.index(self.dirs.len())).cloned()
    }

    fn free_name(&self, chance: &mut Random, kind: &str) -> String {
        let dir = match self.some_dir(chance) {
            Some(dir) if chance.index(2) == 0 && dir.matches('/').count() < 3 => format!("{dir}/"),
            _ => String::new(),
        };
        loop {
            let name = format!("{dir}{kind}{}", chance.index(1000));
            if !self.names.contains_key(&name) && !self.dirs.contains(&name) {
                return name;
            }
        }
    }

    /// Some operation that can be done now.
    pub fn choose(&self, likes: &Likes, chance: &mut Random) -> Op {
        let Likes { write, append, set_len, punch, map, copy, save, names, dirs } = *likes;
        loop {
            let mut kind = chance.index(write + append + set_len + punch + map + copy + save + names + dirs);
            let mut is = |weight: usize| {
                let taken = kind < weight;
                kind = kind.saturating_sub(weight);
                taken
            };
            let bytes = |chance: &mut Random, most: usize| {
                noise(chance.index(1 << 30) as u64, 1 + chance.index(most))
            };
            let name = self.some_name(chance);
            let length = name.as_ref().map_or(0, |name| self.contents[&self.names[name]].len());
            let op = if is(write) {
                name.map(|name| Op::Write(name, chance.index(length + 5000), bytes(chance, 9000)))
            } else if is(append) {
                name.filter(|_| length < LONGEST).map(|name| Op::Append(name, bytes(chance, 3000)))
            } else if is(set_len) {
                name.map(|name| Op::SetLen(name, chance.index(length + 10_000).min(LONGEST)))
            } else if is(punch) {
                name.map(|name| Op::Punch(name, chance.index(length + 1), 1 + chance.index(20_000)))
            } else if is(map) {
                name.filter(|_| length > 0).map(|name| {
                    let at = chance.index(length);
                    Op::Map(name, at, bytes(chance, (length - at).min(9000)))
                })
            } else if is(copy) {
                let to = self.some_name(chance);
                let (from_at, to_at) = (chance.index(length + 1), chance.index(LONGEST));
                match (name, to) {
                    (Some(from), Some(to)) if self.names[&from] != self.names[&to] => {
                        Some(Op::Copy(from, from_at, to, to_at, 1 + chance.index(70_000)))
                    }
                    _ => None,
                }
            } else if is(save) {
                name.map(|name| Op::Save(name, bytes(chance, 20_000)))
            } else if is(names) {
                let other = self.some_name(chance);
                match (chance.index(7), name, other) {
                    (0 | 1, _, _) => (self.names.len() < 60).then(|| Op::Create(self.free_name(chance, "f"))),
                    (2, Some(name), _) => Some(Op::Unlink(name)),
                    (3, Some(name), _) => Some(Op::Rename(name, self.free_name(chance, "f"))),
                    (4, Some(name), Some(other)) if name != other => Some(Op::Rename(name, other)),
                    (5, Some(name), Some(other)) if name != other => Some(Op::Exchange(name, other)),
                    (6, Some(name), _) => Some(Op::Link(name, self.free_name(chance, "l"))),
                    _ => None,
                }
            } else {
                let dir = self.some_dir(chance);
                match (chance.index(4), dir) {
                    (0, _) => (self.dirs.len() < 12).then(|| Op::MakeDir(self.free_name(chance, "d"))),
                    (1, Some(dir)) if self.is_empty(&dir) => Some(Op::RemoveDir(dir)),
                    (2, Some(dir)) => {
                        let to = self.free_name(chance, "d");
                        (!format!("{to}/").starts_with(&format!("{dir}/"))).then_some(Op::RenameDir(dir, to))
                    }
                    _ => None,
                }
            };
            // Two names of one file change nothing when one is given to the other.
            let same = matches!(&op, Some(Op::Rename(a, b) | Op::Exchange(a, b))
                if self.names.get(a).is_some_and(|file| self.names.get(b) == Some(file)));
            if let Some(op) = op.filter(|_| !same) {
                return op;
            }
            if self.names.is_empty() {
                return Op::Create(self.free_name(chance, "f"));
            }
        }
    }

    fn is_empty(&self, dir: &str) -> bool {
        let below = format!("{dir}/");
        !self.names.keys().chain(&self.dirs).any(|name| name.starts_with(&below))
    }

    fn content(&mut self, name: &str) -> &mut Vec<u8> {
        self.contents.get_mut(&self.names[name]).unwrap()
    }

    pub fn apply(&mut self, op: &Op) {
        match op {
            Op::Create(name) => self.put(name, Vec::new()),
            Op::Write(name, at, bytes) | Op::Map(name, at, bytes) => {
                let content = self.content(name);
                content.resize(content.len().max(at + bytes.len()), 0);
                content[*at..at + bytes.len()].copy_from_slice(bytes);
            }
            Op::Copy(from, from_at, to, at, length) => {
                let from = &self.contents[&self.names[from]];
                let bytes = from[*from_at..(from_at + length).min(from.len())].to_vec();
                if !bytes.is_empty() {
                    self.apply(&Op::Write(to.clone(), *at, bytes));
                }
            }
            Op::Append(name, bytes) => self.content(name).extend_from_slice(bytes),
            Op::SetLen(name, length) => self.content(name).resize(*length, 0),
            Op::Punch(name, at, length) => {
                let content = self.content(name);
                let end = (at + length).min(content.len());
                content[(*at).min(end)..end].fill(0);
            }
            Op::Save(name, bytes) => self.put(name, bytes.clone()),
            Op::Rename(from, to) => {
                let file = self.names.remove(from).unwrap();
                self.names.insert(to.clone(), file);
            }
            Op::Exchange(one, other) => {
                let (a, b) = (self.names[one], self.names[other]);
                self.names.insert(one.clone(), b);
                self.names.insert(other.clone(), a);
            }
            Op::Link(from, to) => {
                let file = self.names[from];
                self.names.insert(to.clone(), file);
            }
            Op::Unlink(name) => {
                self.names.remove(name);
            }
            Op::MakeDir(name) => {
                self.dirs.insert(name.clone());
            }
            Op::RemoveDir(name) => {
                self.dirs.remove(name);
            }
            Op::RenameDir(from, to) => {
                let moved = |name: &String| match name.strip_prefix(from.as_str()) {
                    Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{to}{rest}"),
                    _ => name.clone(),
                };
                self.names = self.names.iter().map(|(name, file)| (moved(name), *file)).collect();
                self.dirs = self.dirs.iter().map(moved).collect();
            }
        }
    }

    /// What keeps a real directory from being as this says, if anything does.
    pub fn differs(&self, root: &Path) -> Option<String> {
        let mut found = BTreeSet::new();
        let mut inodes: BTreeMap<usize, u64> = BTreeMap::new();
        for entry in walkdir::WalkDir::new(root).min_depth(1) {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => return Some(format!("{error}")),
            };
            let name = entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            if entry.file_type().is_dir() {
                if !self.dirs.contains(&name) {
                    return Some(format!("directory {name} should not be there"));
                }
            } else {
                let Some(file) = self.names.get(&name) else {
                    return Some(format!("{name} should not be there"));
                };
                let bytes = match fs::read(entry.path()) {
                    Ok(bytes) => bytes,
                    Err(error) => return Some(format!("{name}: {error}")),
                };
                if let Some(what) = differs(&bytes, &self.contents[file]) {
                    return Some(format!("{name}: {what}"));
                }
                let inode = fs::metadata(entry.path()).unwrap().ino();
                if *inodes.entry(*file).or_insert(inode) != inode {
                    return Some(format!("{name} is a file of its own and should be a link"));
                }
            }
            found.insert(name);
        }
        let missing = self.names.keys().chain(&self.dirs).find(|name| !found.contains(*name));
        missing.map(|name| format!("{name} is missing"))
    }

    /// The same where `op` may have been done, or may not, or in part if it writes.
    pub fn differs_but_for(&self, op: &Op, root: &Path) -> Option<String> {
        let before = self.differs(root)?;
        let mut done = self.clone();
        done.apply(op);
        let after = done.differs(root)?;
        let partly = match op {
            Op::Save(name, bytes) => {
                // The file beside it, of which any part may be there.
                let new = root.join(format!("{name}.new"));
                let part = fs::read(&new).unwrap_or_default();
                let _ = fs::remove_file(&new);
                bytes.starts_with(&part) && self.differs(root).is_none()
            }
            Op::Write(name, _, _) | Op::Append(name, _) | Op::Punch(name, _, _) => {
                let (old, new) = (&self.contents[&self.names[name]], &done.contents[&done.names[name]]);
                let bytes = fs::read(root.join(name)).unwrap_or_default();
                let each = bytes.len() >= old.len()
                    && bytes.len() <= new.len()
                    && bytes
                        .iter()
                        .enumerate()
                        .all(|(at, byte)| Some(byte) == old.get(at) || new.get(at) == Some(byte));
                let mut part = self.clone();
                part.content(name).clone_from(&bytes);
                each && part.differs(root).is_none()
            }
            _ => false,
        };
        (!partly).then(|| format!("without {op:.200?}: {before}; with it: {after}"))
    }
}

fn differs(found: &[u8], expected: &[u8]) -> Option<String> {
    if found == expected {
        return None;
    }
    let at = found.iter().zip(expected).position(|(a, b)| a != b);
    let (found_length, length) = (found.len(), expected.len());
    let zeros = at.is_some_and(|at| found[at..].iter().take(16).all(|byte| *byte == 0));
    Some(format!("{found_length} bytes, should be {length}; the first that differs: {at:?}, zeros: {zeros}"))
}

impl Op {
    /// Does it for real.
    pub fn run(&self, root: &Path) -> io::Result<()> {
        let at = |name: &String| root.join(name);
        let open = |name: &String| File::options().read(true).write(true).open(at(name));
        match self {
            Self::Create(name) => File::create_new(at(name)).map(drop),
            Self::Write(name, offset, bytes) => open(name)?.write_all_at(bytes, *offset as u64),
            Self::Append(name, bytes) => {
                io::Write::write_all(&mut File::options().append(true).open(at(name))?, bytes)
            }
            Self::SetLen(name, length) => open(name)?.set_len(*length as u64),
            Self::Punch(name, offset, length) => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                Ok(rustix::fs::fallocate(open(name)?, flags, *offset as u64, *length as u64)?)
            }
            Self::Map(name, offset, bytes) => write_mapped(&open(name)?, *offset, bytes),
            Self::Copy(from, from_at, to, at, length) => {
                let (from, to) = (open(from)?, open(to)?);
                let (mut from_at, mut at) = (*from_at as u64, *at as u64);
                let end = from_at + *length as u64;
                loop {
                    let left = (end - from_at) as usize;
                    let copied =
                        rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut at), left)?;
                    if copied == 0 || from_at == end {
                        return Ok(());
                    }
                }
            }
            Self::Save(name, bytes) => {
                let new = at(&format!("{name}.new"));
                fs::write(&new, bytes)?;
                fs::rename(&new, at(name))
            }
            Self::Rename(from, to) | Self::RenameDir(from, to) => fs::rename(at(from), at(to)),
            Self::Exchange(one, other) => Ok(rustix::fs::renameat_with(
                rustix::fs::CWD,
                at(one),
                rustix::fs::CWD,
                at(other),
                rustix::fs::RenameFlags::EXCHANGE,
            )?),
            Self::Link(from, to) => fs::hard_link(at(from), at(to)),
            Self::Unlink(name) => fs::remove_file(at(name)),
            Self::MakeDir(name) => fs::create_dir(at(name)),
            Self::RemoveDir(name) => fs::remove_dir(at(name)),
        }
    }
}

fn write_mapped(file: &File, offset: usize, bytes: &[u8]) -> io::Result<()> {
    let length = offset + bytes.len();
    let prot = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping of an open file, of which no more is written than the file has, and which ends here.
    unsafe {
        let start = libc::mmap(std::ptr::null_mut(), length, prot, libc::MAP_SHARED, file.as_raw_fd(), 0);
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), start.cast::<u8>().add(offset), bytes.len());
        libc::munmap(start, length);
    }
    Ok(())
}
