//! The last manifest, on disk: a mount starts from it when the remote has no newer one, or cannot be reached.
//!
//! One file has the document as it came, and in a last line what is known of it; beside it lie the changes that
//! followed, a line each. Both are checked when they are read, and what is damaged counts as not there: the remote
//! has everything.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{Readers, replace_file};
use crate::manifest::Manifest;
use crate::model::{DbPath, DbRef, Revision, Sha256};
use crate::wire::{PublishedChange, PutEntry};

/// Changes are kept beside the document up to a quarter of its size, and this.
const MIN_CHANGES: u64 = 4 << 20;

/// Where the last manifest of one database of one origin lies.
#[derive(Debug, Clone)]
pub struct Remembered {
    document: PathBuf,
    changes: PathBuf,
}

/// A manifest as it was last seen.
#[derive(Debug)]
pub struct RememberedManifest {
    /// The document, with the changes that followed.
    pub manifest: Manifest,
    /// Its entity tag, with quotes; empty where the remote gave none.
    pub etag: String,
    /// Its number, where the remote has them.
    pub revision: Option<Revision>,
}

/// Whether a change was kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It lies beside the document.
    Beside,
    /// So much lies there that the document should be replaced.
    TooMuch,
}

/// The document's last line.
#[derive(Serialize, Deserialize)]
struct Seal {
    format: u64,
    etag: String,
    revision: Option<Revision>,
    crc32c: u32,
}

/// What follows the manifest with the tag `since`.
#[derive(Serialize, Deserialize)]
struct Following {
    since: String,
    etag: String,
    revision: Revision,
    time: String,
    put: Vec<PutEntry>,
    delete: Vec<DbPath>,
}

impl Remembered {
    /// The place below the cache's directory.
    pub fn below(cache_dir: &Path, origin: &str, database: &DbRef) -> Self {
        Self::named(cache_dir, &format!("{origin}\n{database}"))
    }

    /// The place of one revision of it, which stays as it is.
    pub fn at(cache_dir: &Path, origin: &str, database: &DbRef, revision: Revision) -> Self {
        Self::named(cache_dir, &format!("{origin}\n{database}\n{revision}"))
    }

    fn named(cache_dir: &Path, name: &str) -> Self {
        let digits = Sha256::of(name.as_bytes()).to_string();
        let dir = cache_dir.join("manifests-1");
        let file = |kind: &str| dir.join(format!("{}.{kind}", &digits[..32]));
        Self { document: file("manifest"), changes: file("changes") }
    }

    /// The manifest that was last seen, if a sound one is there.
    pub fn load(&self) -> Option<RememberedManifest> {
        let stored = fs::read(&self.document).ok()?;
        let end = stored.iter().rposition(|byte| *byte == b'\n')?;
        let seal: Seal = serde_json::from_slice(&stored[end + 1..]).ok()?;
        let body = &stored[..end];
        if seal.format != 1 || checksum(body, &seal.etag, seal.revision) != seal.crc32c {
            return None;
        }
        let manifest = Manifest::from_json(body).ok()?;
        let mut last = RememberedManifest { manifest, etag: seal.etag, revision: seal.revision };
        drop(stored);
        self.load_changes(&mut last);
        Some(last)
    }

    fn load_changes(&self, last: &mut RememberedManifest) {
        let stored = fs::read(&self.changes).unwrap_or_default();
        for line in stored.split(|byte| *byte == b'\n') {
            let (Some(digits), Some(json)) = (line.get(..8), line.get(9..)) else { continue };
            if format!("{:08x}", crc32c::crc32c(json)).as_bytes() != digits {
                continue;
            }
            let Ok(following) = serde_json::from_slice::<Following>(json) else { continue };
            // Those of an earlier document, or of another process that has come as far, lead nowhere.
            if following.since != last.etag || last.etag.is_empty() {
                continue;
            }
            for path in &following.delete {
                last.manifest.files.remove(path);
            }
            last.manifest.files.extend(following.put.into_iter().map(|put| (put.path, put.entry)));
            last.manifest.last_synced_at = following.time;
            (last.etag, last.revision) = (following.etag, Some(following.revision));
        }
    }

    /// Keeps a document as it came, in place of everything kept before.
    pub fn save(&self, mut body: Vec<u8>, etag: &str, revision: Option<Revision>) -> io::Result<()> {
        self.make_dir()?;
        let crc32c = checksum(&body, etag, revision);
        let seal = Seal { format: 1, etag: etag.to_owned(), revision, crc32c };
        body.push(b'\n');
        body.extend(serde_json::to_vec(&seal)?);
        replace_file(&self.document, &body, Readers::OwnerOnly)?;
        match fs::remove_file(&self.changes) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Keeps what followed the manifest with the tag `since` and led to the one with `etag`.
    pub fn add(&self, since: &str, changes: &[PublishedChange], etag: &str) -> io::Result<Kept> {
        let Some(newest) = changes.last() else { return Ok(Kept::Beside) };
        let mut following = Following {
            since: since.to_owned(),
            etag: etag.to_owned(),
            revision: newest.revision,
            time: newest.time.clone(),
            put: Vec::new(),
            delete: Vec::new(),
        };
        // Later ones override: of each path only its last change counts.
        let mut net = std::collections::BTreeMap::new();
        for change in changes {
            net.extend(change.delete.iter().map(|path| (path, None)));
            net.extend(change.put.iter().map(|put| (&put.path, Some(&put.entry))));
        }
        for (path, entry) in net {
            match entry {
                Some(entry) => following.put.push(PutEntry { path: path.clone(), entry: entry.clone() }),
                None => following.delete.push(path.clone()),
            }
        }
        let json = serde_json::to_vec(&following)?;
        let mut line = format!("{:08x} ", crc32c::crc32c(&json)).into_bytes();
        line.extend(json);
        line.push(b'\n');
        self.make_dir()?;
        // One write: another process may add lines of its own.
        let mut file = File::options().append(true).create(true).mode(0o600).open(&self.changes)?;
        file.write_all(&line)?;
        let document = fs::metadata(&self.document).map_or(0, |document| document.len());
        let limit = MIN_CHANGES.max(document / 4);
        Ok(if file.metadata()?.len() > limit { Kept::TooMuch } else { Kept::Beside })
    }

    fn make_dir(&self) -> io::Result<()> {
        let dir = self.document.parent().unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
    }
}

/// Of the document and what is known of it.
fn checksum(body: &[u8], etag: &str, revision: Option<Revision>) -> u32 {
    let known = format!("{etag} {}", revision.unwrap_or(Revision::NONE));
    crc32c::crc32c_append(crc32c::crc32c(body), known.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::tree::tests::{entry, files};
    use super::*;

    fn manifest(of: &[(&str, &str)]) -> Manifest {
        let json = br#"{"version":1,"databaseId":"db_1","name":"n","lastSyncedAt":"2026-01-01T00:00:00Z","files":{}}"#;
        Manifest { files: files(of), ..Manifest::from_json(json).unwrap() }
    }

    fn change(revision: u64, put: &[(&str, &str)], delete: &[&str]) -> PublishedChange {
        let path = |text: &&str| DbPath::parse(text).unwrap();
        PublishedChange {
            revision: Revision(revision),
            commit_id: "c".into(),
            time: format!("2026-01-0{revision}T00:00:00Z"),
            put: put.iter().map(|(name, text)| PutEntry { path: path(name), entry: entry(text) }).collect(),
            delete: delete.iter().map(path).collect(),
        }
    }

    fn place(dir: &Path) -> Remembered {
        Remembered::below(dir, "https://x", &"a/b".parse().unwrap())
    }

    #[test]
    fn what_was_seen_is_found_with_what_followed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = place(dir.path());
        assert!(kept.load().is_none());
        kept.save(manifest(&[("a", "1"), ("b", "2")]).to_json_pretty(), "\"e1\"", Some(Revision(1))).unwrap();
        kept.add("\"e1\"", &[change(2, &[("a", "x")], &[]), change(3, &[("c", "3")], &["a"])], "\"e3\"")
            .unwrap();
        kept.add("\"other\"", &[change(9, &[], &["b"])], "\"e9\"").unwrap();
        kept.add("\"e3\"", &[change(4, &[("a", "back")], &["b"])], "\"e4\"").unwrap();
        let last = place(dir.path()).load().unwrap();
        assert_eq!(last.manifest.files, files(&[("a", "back"), ("c", "3")]));
        assert_eq!((last.etag.as_str(), last.revision), ("\"e4\"", Some(Revision(4))));
        assert_eq!(last.manifest.last_synced_at, "2026-01-04T00:00:00Z");
        kept.save(manifest(&[("z", "1")]).to_json(), "\"e5\"", None).unwrap();
        assert_eq!(kept.load().unwrap().manifest.files, files(&[("z", "1")]));
        let other = Remembered::below(dir.path(), "https://y", &"a/b".parse().unwrap());
        assert!(other.load().is_none(), "another origin's is not ours");
    }

    #[test]
    fn what_is_damaged_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let kept = place(dir.path());
        kept.save(manifest(&[("a", "1")]).to_json(), "\"e1\"", Some(Revision(1))).unwrap();
        kept.add("\"e1\"", &[change(2, &[("a", "2")], &[])], "\"e2\"").unwrap();
        kept.add("\"e2\"", &[change(3, &[("a", "3")], &[])], "\"e3\"").unwrap();
        let changes = fs::read(&kept.changes).unwrap();
        for cut in 0..changes.len() {
            fs::write(&kept.changes, &changes[..cut]).unwrap();
            let last = kept.load().unwrap();
            let n = last.revision.unwrap().0;
            assert_eq!(last.manifest.files, files(&[("a", &n.to_string())]), "cut at {cut}");
        }
        let mut document = fs::read(&kept.document).unwrap();
        for at in (0..document.len()).step_by(7) {
            document[at] ^= 1;
            fs::write(&kept.document, &document).unwrap();
            assert!(kept.load().is_none_or(|last| last.manifest == manifest(&[("a", "1")])), "byte {at}");
            document[at] ^= 1;
        }
        fs::write(&kept.document, &document[..document.len() / 2]).unwrap();
        assert!(kept.load().is_none());
    }

    #[test]
    fn much_that_followed_asks_for_a_new_document() {
        let dir = tempfile::tempdir().unwrap();
        let kept = place(dir.path());
        kept.save(manifest(&[]).to_json(), "\"e1\"", Some(Revision(1))).unwrap();
        let large = "x".repeat(200);
        let put: Vec<(String, &str)> = (0..15_000).map(|n| (format!("{large}{n}"), "1")).collect();
        let put: Vec<(&str, &str)> = put.iter().map(|(name, text)| (name.as_str(), *text)).collect();
        assert_eq!(kept.add("\"e1\"", &[change(2, &[("a", "1")], &[])], "\"e2\"").unwrap(), Kept::Beside);
        assert_eq!(kept.add("\"e2\"", &[change(3, &put, &[])], "\"e3\"").unwrap(), Kept::TooMuch);
    }
}
