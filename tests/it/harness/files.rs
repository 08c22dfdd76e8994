//! Trees of files: written, read back, compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tempfile::TempDir;

/// A directory below a fresh one, so that what is written beside it shows too.
pub struct TempTree {
    outer: TempDir,
    path: PathBuf,
}

impl TempTree {
    /// An empty directory with a name of its own.
    pub fn new() -> Self {
        Self::named("tree")
    }

    /// An empty directory called `name`.
    pub fn named(name: &str) -> Self {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join(name);
        fs::create_dir(&path).unwrap();
        Self { outer, path }
    }

    /// A directory with these files.
    pub fn with(files: &[(&str, &str)]) -> Self {
        let tree = Self::new();
        tree.write(files);
        tree
    }

    /// The directory around it, in which nothing else should ever appear.
    pub fn outer(&self) -> &Path {
        self.outer.path()
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The path as an argument.
    pub fn arg(&self) -> &str {
        text(&self.path)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn write(&self, files: &[(&str, &str)]) {
        for (name, content) in files {
            write_files(&self.path, [(*name, content.as_bytes().to_vec())]);
        }
    }

    pub fn remove(&self, name: &str) {
        fs::remove_file(self.at(name)).unwrap();
    }

    /// A file's text; nothing where there is no file.
    pub fn read(&self, name: &str) -> Option<String> {
        fs::read_to_string(self.at(name)).ok()
    }

    /// The names of its data files, sorted.
    pub fn names(&self) -> Vec<String> {
        data_files(&self.path).into_keys().collect()
    }

    /// The manifest the tools keep in it.
    pub fn manifest(&self) -> serde_json::Value {
        serde_json::from_slice(&fs::read(self.at("_meta/manifest.json")).unwrap()).unwrap()
    }
}

/// The names in a directory, sorted.
#[track_caller]
pub fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Writes files, and the directories they need, below `dir`.
pub fn write_files<N: AsRef<Path>>(dir: &Path, files: impl IntoIterator<Item = (N, Vec<u8>)>) {
    for (name, content) in files {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

/// Copies a tree of plain files.
pub fn copy_tree(from: &Path, to: &Path) {
    for (name, content) in bytes_of(from) {
        write_files(to, [(name, content)]);
    }
}

/// Every file below `dir`, hidden ones and the tools' own included, by path; links are not followed.
pub fn bytes_of(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.unwrap());
    let files = files.filter(|entry| entry.file_type().is_file());
    files
        .map(|entry| {
            let name = entry.path().strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect()
}

/// The same without what the tools keep for themselves: the database's own files.
pub fn data_files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = bytes_of(dir);
    files.retain(|name, _| name != "_meta/manifest.json" && !name.starts_with(".parquedb/"));
    files
}

/// Everything that tells whether anything below `dir` was touched: names, kinds, inodes, times and bytes.
pub fn snapshot(dir: &Path) -> BTreeMap<PathBuf, Snapshot> {
    let entries = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.unwrap());
    entries
        .map(|entry| {
            let meta = entry.metadata().unwrap();
            let bytes = if meta.is_file() { fs::read(entry.path()).unwrap() } else { Vec::new() };
            let modified = (meta.mtime(), meta.mtime_nsec());
            (entry.into_path(), Snapshot { mode: meta.mode(), inode: meta.ino(), modified, bytes })
        })
        .collect()
}

/// One file or directory of a snapshot.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    mode: u32,
    inode: u64,
    modified: (i64, i64),
    bytes: Vec<u8>,
}

pub fn set_modified(path: &Path, time: SystemTime) {
    fs::File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}

/// Bytes that do not compress and do not repeat, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let words = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes()
    });
    words.flatten().take(length).collect()
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// One of the databases written by other programs.
pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples").join(name)
}
