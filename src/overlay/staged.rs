//! The files that hold local bytes, one for each file that has any, below `staged/` in the state directory. They are
//! named by number, so renaming what they are for does not touch them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::disk::{point, sync_dir};
use crate::state::StagedId;

/// Files in one directory.
const IN_ONE: u64 = 1024;

/// The directory of staged files.
#[derive(Debug)]
pub(super) struct StagedFiles(PathBuf);

impl StagedFiles {
    pub(super) fn below(state_dir: &Path) -> io::Result<Self> {
        let dir = state_dir.join("staged");
        std::fs::create_dir_all(&dir)?;
        sync_dir(state_dir)?;
        Ok(Self(dir))
    }

    /// The same, to look at.
    pub(super) fn at(state_dir: &Path) -> Self {
        Self(state_dir.join("staged"))
    }

    /// Where a file lies below the state directory.
    pub(super) fn place(id: StagedId) -> String {
        format!("staged/{}/{}", id.0 / IN_ONE, id.0)
    }

    fn dir(&self, id: StagedId) -> PathBuf {
        self.0.join((id.0 / IN_ONE).to_string())
    }

    pub(super) fn path(&self, id: StagedId) -> PathBuf {
        self.dir(id).join(id.0.to_string())
    }

    /// A new, empty file.
    pub(super) fn create(&self, id: StagedId) -> io::Result<File> {
        point()?;
        let mut options = OpenOptions::new();
        options.read(true).write(true).create_new(true).mode(0o600);
        match options.open(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                std::fs::create_dir_all(self.dir(id))?;
                sync_dir(&self.0)?;
                options.open(self.path(id))
            }
            opened => opened,
        }
    }

    pub(super) fn open(&self, id: StagedId) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).open(self.path(id))
    }

    pub(super) fn remove(&self, id: StagedId) -> io::Result<()> {
        point()?;
        match std::fs::remove_file(self.path(id)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }

    /// Makes the file's name durable.
    pub(super) fn sync_name(&self, id: StagedId) -> io::Result<()> {
        sync_dir(&self.dir(id))
    }

    /// All files there are.
    pub(super) fn all(&self) -> io::Result<Vec<StagedId>> {
        let mut found = Vec::new();
        for dir in std::fs::read_dir(&self.0)? {
            for file in std::fs::read_dir(dir?.path())? {
                let name = file?.file_name();
                found.extend(name.to_str().and_then(|name| name.parse().ok()).map(StagedId));
            }
        }
        Ok(found)
    }
}
