//! The local side: which files there are, with their hashes.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};

use super::plan::Files;
use super::{Event, Reporter, SyncError};
use crate::manifest::Entry;
use crate::model::{ContentHash, DbPath};
use crate::tree::{Root, Scan, Stamp, hash_file};
use crate::wire::content_type_of;

/// The local files that were read, and their stamps at that moment.
pub(super) struct Local {
    pub(super) files: Files,
    pub(super) stamps: BTreeMap<DbPath, Stamp>,
}

/// Hashes `paths`, several at a time. `like` names the entry a file will be compared with, whose algorithm is
/// then used. Files that vanish meanwhile are absent.
pub(super) async fn read(
    root: &Arc<Root>,
    scan: &Scan,
    like: impl Fn(&DbPath) -> Option<ContentHash>,
    wanted: impl Fn(&DbPath) -> bool,
    reporter: &dyn Reporter,
) -> Result<Local, SyncError> {
    let wanted: Vec<_> = scan.files.iter().filter(|(path, _)| wanted(path)).collect();
    reporter.report(Event::Hashing { bytes: wanted.iter().map(|(_, file)| file.size).sum() });
    let hashed = wanted.into_iter().map(|(path, file)| {
        let (root, path, like, size) = (root.clone(), path.clone(), like(path), file.size);
        async move {
            let (path, read) = tokio::task::spawn_blocking(move || {
                let read = root.open_file(&path).and_then(|file| hash_file(&file, like.as_ref()));
                (path, read)
            })
            .await
            .map_err(|error| SyncError::directory("hashing")(std::io::Error::other(error)))?;
            reporter.report(Event::Progress { bytes: size });
            match read {
                Ok(found) => Ok(Some((path, found))),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(SyncError::directory(&path)(error)),
            }
        }
    });
    let at_once = std::thread::available_parallelism().map_or(2, |n| n.get());
    let found: Vec<_> = futures::stream::iter(hashed).buffer_unordered(at_once).try_collect().await?;
    reporter.report(Event::Finished);
    let mut local = Local { files: Files::new(), stamps: BTreeMap::new() };
    for (path, (hash, stamp)) in found.into_iter().flatten() {
        let entry = Entry {
            size: stamp.size(),
            hash,
            modified_at: stamp.modified().to_string().into(),
            etag: None,
            content_type: Some(content_type_of(path.as_str()).into()),
            blocks: None,
            unknown: None,
        };
        local.stamps.insert(path.clone(), stamp);
        local.files.insert(path, entry);
    }
    Ok(local)
}
