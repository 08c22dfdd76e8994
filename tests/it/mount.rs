//! `parquedb-mount` as programs and people meet it: a real mount of a database on a real server.

mod answers;
mod block_hashes;
mod cache;
mod engines;
mod faults;
mod following;
mod foresight;
mod foresight_directories;
mod kept;
mod life;
mod listing;
mod long_run;
mod manifests;
mod many;
mod memory;
mod modes;
mod outages;
mod pins;
mod plain_user;
mod proxy;
mod random_reads;
mod reading;
mod refusals;
mod relay;
mod restarts;
mod revisions;
mod rot;
mod scans;
mod shared_cache;
mod small_contents;
mod starting;
mod static_host;
mod troubles;
mod versions;

use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::harness::{Mounting, Server, errno, noise};

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

/// Reads past the kernel's own pages: it is the daemon that answers, or the cached file.
fn read_directly(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path)?;
    read_at_directly(&file, offset, length)
}

/// The same for a file that is open. What the kernel reads by itself it reads as the cache's disk wants it read: in
/// whole blocks and into aligned memory.
fn read_at_directly(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    const ALIGNED: usize = 4096;
    let mut bytes = vec![0; length];
    match file.read_at(&mut bytes, offset) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
        read => {
            bytes.truncate(read?);
            return Ok(bytes);
        }
    }
    let before = (offset % ALIGNED as u64) as usize;
    let whole = (before + length).next_multiple_of(ALIGNED);
    let mut memory = vec![0; whole + ALIGNED];
    let start = memory.as_ptr().align_offset(ALIGNED);
    let window = &mut memory[start..start + whole];
    let count = file.read_at(window, offset - before as u64)?;
    Ok(window[before.min(count)..(before + length).min(count)].to_vec())
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
        if read != *bytes {
            let right = read.iter().zip(bytes).take_while(|(read, byte)| read == byte).count();
            panic!("{name} reads wrong from byte {right} of {} on: {} bytes came", bytes.len(), read.len());
        }
    }
}
