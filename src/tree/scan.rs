//! What files a directory has.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;

use walkdir::WalkDir;

use super::{Root, Stamp};
use crate::manifest::{is_protected, stays_put};
use crate::model::DbPath;

/// Something that is not published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skipped {
    /// Where.
    pub path: PathBuf,
    /// Why.
    pub reason: SkipReason,
}

/// Why something is not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SkipReason {
    /// Looks like a secret or another tool's own (rule 11).
    Protected,
    /// A symbolic link.
    SymbolicLink,
    /// A device, socket or fifo.
    NotAFile,
    /// The name is not UTF-8, or too long for a manifest.
    Name,
}

impl SkipReason {
    /// For people.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Protected => "protected name",
            Self::SymbolicLink => "symbolic link",
            Self::NotAFile => "not a regular file",
            Self::Name => "name cannot be published",
        }
    }
}

/// The result of a scan.
#[derive(Debug, Default)]
pub struct Scan {
    /// Regular files that were found, and what they were then. They have not been read.
    pub files: BTreeMap<DbPath, Stamp>,
    /// What was left out and is worth telling; the tools' own files are not.
    pub skipped: Vec<Skipped>,
}

/// Lists the directory's files. An unreadable directory is an error: its files must not pass for deleted
/// (rule 15).
pub fn scan(root: &Root) -> io::Result<Scan> {
    let mut scan = Scan::default();
    let mut walk = WalkDir::new(root.path()).min_depth(1).follow_links(false).into_iter();
    while let Some(entry) = walk.next() {
        // What goes while it is looked at is absent; whatever else is wrong is an error.
        let vanished = |error: &walkdir::Error| {
            error.depth() > 0 && error.io_error().is_some_and(|error| error.kind() == io::ErrorKind::NotFound)
        };
        if entry.as_ref().is_err_and(vanished) {
            continue;
        }
        let entry = entry.map_err(|error| {
            let path = error.path().map(|path| path.display().to_string()).unwrap_or_default();
            let cause = error.io_error().map_or_else(|| error.to_string(), ToString::to_string);
            io::Error::other(format!("{path}: {cause}"))
        })?;
        let kind = entry.file_type();
        let relative = entry.path().strip_prefix(root.path()).unwrap_or(entry.path());
        let mut skip = |reason| scan.skipped.push(Skipped { path: relative.to_owned(), reason });
        if entry.file_name().to_str().is_some_and(is_protected) {
            if kind.is_dir() {
                walk.skip_current_dir();
            } else {
                skip(SkipReason::Protected);
            }
            continue;
        }
        if kind.is_dir() {
            continue;
        }
        if kind.is_symlink() {
            skip(SkipReason::SymbolicLink);
            continue;
        }
        if !kind.is_file() {
            skip(SkipReason::NotAFile);
            continue;
        }
        let Some(path) = relative.to_str().and_then(|text| DbPath::parse(text).ok()) else {
            skip(SkipReason::Name);
            continue;
        };
        if stays_put(&path) {
            continue;
        }
        let metadata = match entry.metadata() {
            Err(error) if vanished(&error) => continue,
            metadata => metadata.map_err(io::Error::from)?,
        };
        scan.files.insert(path, Stamp::of_metadata(&metadata));
    }
    Ok(scan)
}
