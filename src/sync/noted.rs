//! What a run writes down, durably, before it acts: the commit it is about to send (rule 3), and what it is about to bring into the
//! directory. A run that is killed in between leaves it to the next one, which takes what was done for done and for nobody's edit.
//!
//! Either file has a line that says what it is about, and then the changes. Those of a commit are the very bytes that are sent,
//! so that a million entries need not be in memory for it.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use super::SyncError;
use super::changes::{Changes, Files};
use super::reconcile::Plan;
use super::state::{damaged, own_path, read_format};
use crate::model::{DbPath, DbRef, Revision};
use crate::remote::RequestSource;
use crate::tree::{Durability, Root};
use crate::wire::PutEntry;

const FORMAT: u64 = 1;
const COMMIT: &str = ".parquedb/commit";
const ARRIVING: &str = ".parquedb/arriving";
/// More than a first line has.
const LONGEST_LINE: u64 = 64 << 10;

/// A commit that was sent, or was about to be, and whose answer has not been taken in (rule 3).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PendingCommit {
    format: u64,
    /// The database it is to.
    pub(super) database_id: String,
    pub(super) commit_id: String,
    pub(super) base: Revision,
}

/// The second line of either.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    commit_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<Revision>,
    #[serde(serialize_with = "as_list")]
    put: &'a Files,
    delete: &'a BTreeSet<DbPath>,
}

#[derive(Deserialize)]
struct ReadBody {
    put: Vec<PutEntry>,
    delete: Vec<DbPath>,
}

fn as_list<S: Serializer>(files: &Files, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(files.iter().map(|(path, entry)| entry.with_path(path)))
}

impl PendingCommit {
    pub(super) fn new(database_id: &str, commit_id: String, base: Revision) -> Self {
        Self { format: FORMAT, database_id: database_id.to_owned(), commit_id, base }
    }

    /// The one a directory has, if any.
    pub(super) fn read(root: &Root) -> Result<Option<Self>, SyncError> {
        Ok(read::<Self>(root, COMMIT)?.map(|(commit, _)| commit))
    }

    /// Writes it down, with what the plan has for the remote. Returns the request's body.
    pub(super) fn write(&self, root: &Arc<Root>, plan: &Plan) -> Result<RequestSource, SyncError> {
        let body = Body {
            commit_id: Some(&self.commit_id),
            base: Some(self.base),
            put: &plan.upload,
            delete: &plan.delete_there,
        };
        write(root, COMMIT, self, &body)?;
        self.source(root, plan.upload.len() + plan.delete_there.len())
    }

    /// The request as it was written down.
    pub(super) fn again(&self, root: &Arc<Root>) -> Result<RequestSource, SyncError> {
        self.source(root, Self::changes(root)?.len())
    }

    fn source(&self, root: &Arc<Root>, files: usize) -> Result<RequestSource, SyncError> {
        let (root, path) = (root.clone(), own_path(COMMIT)?);
        let start = first_line(self)?.len() as u64;
        let open = move || {
            let file = root.open_file(&path)?;
            let size = file.metadata()?.len().saturating_sub(start);
            Ok((file, start, size))
        };
        Ok(RequestSource { path: COMMIT.into(), open: Arc::new(open), files })
    }

    /// What it has published, if it landed.
    pub(super) fn changes(root: &Root) -> Result<Changes, SyncError> {
        let read = read::<Self>(root, COMMIT)?;
        read.map_or(Ok(Changes::new()), |(_, file)| read_changes(root, COMMIT, file))
    }

    /// Forgets it. It is not forgotten for good before the next file of the tools' own is durable.
    pub(super) fn forget(root: &Root) -> Result<(), SyncError> {
        forget(root, COMMIT)
    }
}

/// What a run is about to bring into the directory, or was. What of it stands there was not written by anybody here, but by that
/// run: published as an edit, it would undo what the remote has done since.
///
/// The next run looks at all of it before it does anything else, and forgets it: what it says is true of the base there was.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Arriving {
    format: u64,
    /// The database it comes from.
    pub(super) database_id: String,
    /// What that is called.
    pub(super) database: String,
    /// Whether both sides had never agreed on anything: there was no manifest.
    pub(super) first: bool,
}

impl Arriving {
    pub(super) fn from(database_id: &str, database: &DbRef, first: bool) -> Self {
        Self { format: FORMAT, database_id: database_id.to_owned(), database: database.to_string(), first }
    }

    /// Where an earlier run was bringing something from, if it did not come to its end.
    pub(super) fn read(root: &Root) -> Result<Option<Self>, SyncError> {
        Ok(read::<Self>(root, ARRIVING)?.map(|(from, _)| from))
    }

    /// What it was bringing: files, and paths to be deleted.
    pub(super) fn changes(root: &Root) -> Result<Changes, SyncError> {
        let read = read::<Self>(root, ARRIVING)?;
        read.map_or(Ok(Changes::new()), |(_, file)| read_changes(root, ARRIVING, file))
    }

    /// Writes down what the plan is about to bring.
    pub(super) fn write(&self, root: &Root, plan: &Plan) -> Result<(), SyncError> {
        self.write_changes(root, &plan.download, &plan.delete_here)
    }

    fn write_changes(&self, root: &Root, put: &Files, delete: &BTreeSet<DbPath>) -> Result<(), SyncError> {
        if put.is_empty() && delete.is_empty() {
            return Self::forget(root);
        }
        write(root, ARRIVING, self, &Body { commit_id: None, base: None, put, delete })
    }

    /// Forgets it: the base knows.
    pub(super) fn forget(root: &Root) -> Result<(), SyncError> {
        forget(root, ARRIVING)
    }

    /// Forgets what was to come to these paths: a person has decided about them.
    pub(super) fn forget_some<'a>(
        root: &Root,
        paths: impl IntoIterator<Item = &'a DbPath>,
    ) -> Result<(), SyncError> {
        let Some(from) = Self::read(root)? else { return Ok(()) };
        let mut changes = Self::changes(root)?;
        for path in paths {
            changes.remove(path);
        }
        let delete = changes.iter().filter(|(_, entry)| entry.is_none()).map(|(path, _)| path.clone());
        let delete = delete.collect();
        let put = changes.into_iter().filter_map(|(path, entry)| Some((path, entry?))).collect();
        from.write_changes(root, &put, &delete)
    }
}

fn first_line(about: &impl Serialize) -> Result<Vec<u8>, SyncError> {
    let mut line = serde_json::to_vec(about).map_err(|error| SyncError::directory(COMMIT)(error.into()))?;
    line.push(b'\n');
    Ok(line)
}

fn write(root: &Root, name: &str, about: &impl Serialize, body: &Body<'_>) -> Result<(), SyncError> {
    let line = first_line(about)?;
    let written = root.replace_own_large(&own_path(name)?, Durability::Now, |to| {
        to.write_all(&line)?;
        Ok(serde_json::to_writer(to, body)?)
    });
    written.map_err(SyncError::directory(root.path().join(name).display()))
}

fn forget(root: &Root, name: &str) -> Result<(), SyncError> {
    root.remove_own(&own_path(name)?).map_err(SyncError::directory(root.path().join(name).display()))
}

/// Reads the first line of a file. The rest is still to be read from it.
fn read<T: DeserializeOwned>(root: &Root, name: &str) -> Result<Option<(T, File)>, SyncError> {
    let shown = root.path().join(name).display().to_string();
    let mut file = match root.open_file(&own_path(name)?) {
        Ok(file) => file,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(SyncError::directory(shown)(error)),
    };
    let failed = |error| SyncError::directory(&shown)(error);
    let mut line = Vec::new();
    BufReader::new(&file).take(LONGEST_LINE).read_until(b'\n', &mut line).map_err(failed)?;
    let about = read_format(&line, FORMAT, shown.clone())?;
    file.seek(SeekFrom::Start(line.len() as u64)).map_err(failed)?;
    Ok(Some((about, file)))
}

fn read_changes(root: &Root, name: &str, file: File) -> Result<Changes, SyncError> {
    let shown = || root.path().join(name).display().to_string();
    let read = serde_json::from_reader(BufReader::with_capacity(1 << 20, file));
    let ReadBody { put, delete } = read.map_err(|error| damaged(shown(), &error))?;
    let put = put.into_iter().map(|PutEntry { path, entry }| (path, Some(entry)));
    Ok(put.chain(delete.into_iter().map(|path| (path, None))).collect())
}
