//! A host that serves the seed's layout as plain files: it has entity tags and ranges, no revisions, and no bytes of
//! what was replaced.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use serde_json::json;

use super::cache::taken;
use super::modes::forget_pages;
use super::{errno, read_directly, read_elsewhere};
use crate::harness::{Mounting, Reply, Request, Responder, answer, noise, put_entry, sha256, until};

type Files = BTreeMap<String, Vec<u8>>;

pub struct StaticHost {
    files: Arc<Mutex<Files>>,
    pub responder: Responder,
}

impl StaticHost {
    pub fn with(files: &[(&str, &[u8])]) -> Self {
        let shared: Arc<Mutex<Files>> = Arc::default();
        let served = shared.clone();
        let host =
            Self { files: shared, responder: Responder::start(move |request| serve(&served, request)) };
        host.replace(files);
        host
    }

    /// Serves these files and no others from now on.
    pub fn replace(&self, files: &[(&str, &[u8])]) {
        *self.files.lock().unwrap() =
            files.iter().map(|(name, bytes)| (name.to_string(), bytes.to_vec())).collect();
    }
}

fn serve(files: &Mutex<Files>, request: &Request) -> Reply {
    let files = files.lock().unwrap().clone();
    let path = request.target.split('?').next().unwrap();
    let Some(name) = path.strip_prefix("/db/alice/d/") else { return answer(404, &[], b"no such file") };
    let manifest;
    let bytes = if name == "_meta/manifest.json" {
        let entries: serde_json::Map<_, _> =
            files.iter().map(|(name, bytes)| (name.clone(), put_entry(name, bytes))).collect();
        let document = json!({
            "version": 1, "databaseId": "db_static", "name": "d", "lastSyncedAt": "2024-01-01T00:00:00Z",
            "files": entries,
        });
        manifest = document.to_string().into_bytes();
        &manifest
    } else {
        match files.get(name) {
            Some(bytes) => bytes,
            None => return answer(404, &[], b"no such file"),
        }
    };
    let etag = format!("\"{}\"", sha256(bytes));
    if request.header("if-none-match") == Some(&etag) {
        return answer(304, &[("ETag", &etag)], b"");
    }
    if request.header("if-match").is_some_and(|tag| tag != etag) {
        return answer(412, &[], b"another version");
    }
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let Some((start, end)) = range else { return answer(200, &[("ETag", &etag)], bytes) };
    let (start, end): (usize, usize) = (start.parse().unwrap(), end.parse().unwrap());
    let Some(part) = bytes.get(start..=end) else { return answer(416, &[], b"no such range") };
    let content_range = format!("bytes {start}-{end}/{}", bytes.len());
    answer(206, &[("ETag", &etag), ("Content-Range", &content_range)], part)
}

#[test]
fn f04_what_a_static_host_has_replaced_is_stale_and_the_mount_follows_it() {
    let (old, new) = (noise(1, 5 << 20), noise(2, 5 << 20));
    let host = StaticHost::with(&[("kept", b"kept"), ("replaced", &old), ("deleted", b"soon gone")]);
    let mounting = Mounting::at(&host.responder.url(), "alice/d").args(&["--poll", "0.3"]);
    let mount = mounting.mount();
    let open = File::open(mount.at("replaced")).unwrap();
    let mut cached = vec![0; 4096];
    open.read_exact_at(&mut cached, 0).unwrap();
    assert_eq!(errno(std::fs::metadata(mount.at("added"))), Some(libc::ENOENT));
    assert_eq!(errno(std::fs::metadata(mount.at(".parquedb/revisions"))), Some(libc::ENOENT));

    host.replace(&[("kept", b"kept"), ("replaced", &new), ("added", b"brand new")]);
    // Another process: one that holds the old revision's file is not given the new one's.
    until(|| read_elsewhere(&mount.at("added")) == b"brand new");
    assert!(read_elsewhere(&mount.at("replaced")) == new && mount.read("kept").unwrap() == b"kept");
    assert_eq!(errno(mount.read("added")), Some(libc::ESTALE));
    // Nor is it told that the old one's neighbours never were; others are told so.
    assert_eq!(errno(mount.read("deleted")), Some(libc::ESTALE));
    let found = std::process::Command::new("test").arg("-e").arg(mount.at("deleted")).status().unwrap();
    assert!(!found.success());
    let mut buffer = vec![0; 4096];
    open.read_exact_at(&mut buffer, 0).unwrap();
    assert!(buffer == cached, "what was fetched reads on");
    assert_eq!(errno(open.read_at(&mut buffer, 4 << 20)), Some(libc::ESTALE), "the rest is gone");
    assert_eq!(mount.stats().flips, 1);
    drop(open);
    mount.unmount();
}

/// F26: of what was replaced, a static host has nothing more to give; so what was fetched of it is not evicted while
/// it is open, however little room is left for anything else. The last to close it lets it go.
fn what_was_fetched_of_it_stays(limit: u64) {
    const PART: usize = 64 << 10;
    let (partly, whole) = (noise(1, 12 << 20), noise(2, 2 << 20));
    let others: Vec<(String, Vec<u8>)> = (0..3).map(|n| (format!("{n}"), noise(10 + n, 4 << 20))).collect();
    let mut files: Vec<(&str, &[u8])> = vec![("partly", &partly), ("whole", &whole)];
    files.extend(others.iter().map(|(name, bytes)| (&**name, &bytes[..])));
    let host = StaticHost::with(&files);
    let mounting =
        Mounting::at(&host.responder.url(), "alice/d").args(&["--poll", "0.3", "--no-passthrough"]);
    let mounting = mounting.args(&["--cache-size", &limit.to_string()]);
    let mount = mounting.mount();
    until(|| {
        let before = mount.stats().reads;
        assert!(read_elsewhere(&mount.at("whole")) == whole);
        mount.stats().reads == before
    });
    let open = ["partly", "whole"].map(|name| File::open(mount.at(name)).unwrap());
    let places: Vec<usize> = (0..20).map(|n| 300_000 + n * 500_000).collect();
    let check = |when: &str| {
        let mut buffer = vec![0; PART];
        for place in &places {
            forget_pages(&open[0]);
            let read = open[0].read_exact_at(&mut buffer, *place as u64);
            assert!(read.is_ok() && buffer == partly[*place..place + PART], "{read:?} at {place}, {when}");
        }
        forget_pages(&open[1]);
        let mut buffer = vec![0; whole.len()];
        let read = open[1].read_exact_at(&mut buffer, 0);
        assert!(read.is_ok() && buffer == whole, "{read:?}, {when}");
    };
    check("at first");
    let fetched = mount.stats().bytes_fetched;
    check("from the cache");
    assert_eq!(mount.stats().bytes_fetched, fetched);

    files[0].1 = b"another";
    files[1].1 = b"another";
    host.replace(&files);
    until(|| mount.stats().flips == 1);
    // Longer than anything is spared for having been read just now.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    for round in 0..3 {
        for (name, bytes) in &others {
            assert!(read_elsewhere(&mount.at(name)) == *bytes, "{name} in round {round}");
        }
        let taken = taken(mounting.cache());
        assert!(taken <= limit + 20 * 4096, "{taken} bytes are taken");
        check(&format!("in round {round}"));
    }
    let stale = open[0].read_at(&mut [0; 100], (12 << 20) - 1000);
    assert_eq!(errno(stale), Some(libc::ESTALE), "what was not fetched is gone");
    assert!(mount.stats().bytes_evicted > 0 || limit < 6_000_000, "there was no room for all");

    drop(open);
    // So much of the others finds room now.
    let fits = &others[..usize::from(limit > 10_000_000) + 1];
    until(|| {
        let before = mount.stats().bytes_fetched;
        for (name, bytes) in fits {
            assert!(read_elsewhere(&mount.at(name)) == *bytes, "{name}, when it is closed");
        }
        mount.stats().bytes_fetched == before
    });
    mount.unmount();
}

#[test]
fn f26_what_a_static_host_has_replaced_is_not_evicted_while_it_is_open() {
    what_was_fetched_of_it_stays(12_000_000);
}

#[test]
fn f26_a_cache_full_of_what_cannot_be_had_again_keeps_nothing_else() {
    what_was_fetched_of_it_stays(5_000_000);
}

/// The answer to `?revision=N` of a host that does not look at the query is the current version: never shown as the
/// old one.
#[test]
fn a_host_that_ignores_the_revision_asked_for_does_not_pass_for_one_that_has_it() {
    let (old, new) = (noise(1, 3 << 20), noise(2, 3 << 20));
    let host = StaticHost::with(&[("x", &old)]);
    let files = host.files.clone();
    // It numbers its manifests, ignores conditions and the query.
    let careless = Responder::start(move |request| {
        let mut request = request.clone();
        request.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("if-match"));
        match serve(&files, &request) {
            Reply::Bytes(bytes) if request.target.contains("manifest.json") => {
                let end = bytes.windows(2).position(|two| two == b"\r\n").unwrap() + 2;
                Reply::Bytes([&bytes[..end], b"X-ParqueDB-Revision: 3\r\n", &bytes[end..]].concat())
            }
            reply => reply,
        }
    });
    let mount =
        Mounting::at(&careless.url(), "alice/d").args(&["--poll", "0", "--read-timeout", "2"]).mount();
    let _open = File::open(mount.at("x")).unwrap();
    host.replace(&[("x", &new)]);
    for offset in [0, 2 << 20] {
        assert_eq!(errno(read_directly(&mount.at("x"), offset, 4096)), Some(libc::EIO));
    }
    assert_eq!(mount.stats().bytes_read, 0);
    host.replace(&[("x", &old)]);
    assert!(mount.read("x").unwrap() == old);
}
