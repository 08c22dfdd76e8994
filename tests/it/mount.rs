//! `parquedb-mount` as programs and people meet it: a real mount of a database on a real server.

mod answers;
mod block_hashes;
mod cache;
mod engines;
mod following;
mod life;
mod listing;
mod manifests;
mod many;
mod outages;
mod plain_user;
mod proxy;
mod reading;
mod refusals;
mod relay;
mod restarts;
mod revisions;
mod scans;
mod shared_cache;
mod starting;
mod static_host;
mod troubles;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::harness::{Mounting, Server, noise};

/// A server with a public database `alice/d` of files of these sizes, each of noise.
fn database_of(sizes: &[(&str, usize)]) -> (Server, Vec<(String, Vec<u8>)>) {
    let server = Server::start();
    let id = server.register("d", "public");
    let content = |(n, (name, size)): (usize, &(&str, usize))| (name.to_string(), noise(n as u64 + 1, *size));
    let files: Vec<(String, Vec<u8>)> = sizes.iter().enumerate().map(content).collect();
    let borrowed: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&**name, &**bytes)).collect();
    server.publish(&id, &borrowed);
    (server, files)
}

/// A mounting of `alice/d` that waits two seconds for the remote.
fn impatient(url: &str) -> Mounting {
    Mounting::at(url, "alice/d").args(&["--read-timeout", "2"])
}

/// Reads past the kernel's own pages, so that it is the daemon that answers.
fn read_directly(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    let mut bytes = vec![0; length];
    let count = file.read_at(&mut bytes, offset)?;
    bytes.truncate(count);
    Ok(bytes)
}

/// Reads a file in another process; nothing where that fails.
fn read_elsewhere(path: &Path) -> Vec<u8> {
    let ended =
        std::process::Command::new("cat").arg(path).stderr(std::process::Stdio::null()).output().unwrap();
    if ended.status.success() { ended.stdout } else { Vec::new() }
}

/// What `bytes` has at that place, cut at its end.
fn slice(bytes: &[u8], offset: u64, length: usize) -> &[u8] {
    let start = bytes.len().min(usize::try_from(offset).unwrap_or(usize::MAX));
    &bytes[start..bytes.len().min(start.saturating_add(length))]
}

/// Fails unless all of these files read as they were published.
#[track_caller]
fn assert_right(dir: &Path, files: &[(String, Vec<u8>)]) {
    for (name, bytes) in files {
        let read = std::fs::read(dir.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(read == *bytes, "{name} reads wrong");
    }
}

/// The error's number, where there is one.
fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}
