//! Writing to the mount: what is written stays here, lasts, and costs the network nothing.

mod another_boot;
mod beside;
mod caches;
mod changes;
mod copy_on_write;
mod full_disk;
mod kills;
mod lasting;
mod model;
mod opens;
mod posix;
mod power;
mod programs;
mod status;
mod throw_away;

use std::fs::{File, OpenOptions};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::harness::{Mount, Mounting, Server, noise, until, xattr};

/// A server with a public database `alice/d`: a small text, a file of 3 MiB, and two in a directory.
fn database() -> (Server, String) {
    let server = Server::start();
    let id = server.register("d", "public");
    let large = noise(7, 3 << 20);
    server.publish(
        &id,
        &[
            ("text", b"hello\n"),
            ("large", &large),
            ("dir/one", b"1"),
            ("dir/two", b"two"),
            ("only/one", b"x"),
        ],
    );
    (server, id)
}

fn mounting(server: &Server) -> Mounting {
    Mounting::at(&server.url(), "alice/d").args(&["--poll", "0.3"])
}

/// Reads the file of 3 MiB until it is complete and checked: then the kernel reads it by itself.
fn complete(mount: &Mount) {
    let large = noise(7, 3 << 20);
    until(|| {
        assert!(mount.read("large").unwrap() == large);
        xattr(&mount.at("large"), "user.parquedb.reads").is_ok()
    });
}

/// Opens a file that others may read by themselves, so that it has another inode for who writes: the kernel looks again once,
/// and a program, too.
fn open_again(options: &OpenOptions, path: &Path) -> File {
    let mut opened = options.open(path);
    for _ in 0..5 {
        if opened.as_ref().is_err_and(|error| error.raw_os_error() == Some(libc::ESTALE)) {
            opened = options.open(path);
        }
    }
    opened.unwrap()
}

/// Does something while a file is read all the time that is larger than the mount's cache; how many bytes that evicted.
fn while_evicting(mount: &Mount, (name, bytes): (&str, &[u8]), work: impl FnOnce()) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                assert!(mount.read(name).unwrap() == bytes);
            }
        });
        // Whatever comes of it, the reader has to end.
        let worked = catch_unwind(AssertUnwindSafe(work));
        done.store(true, Ordering::Relaxed);
        worked.unwrap_or_else(|panic| resume_unwind(panic));
    });
    let evicted = mount.stats().bytes_evicted;
    assert!(evicted > 0, "nothing was evicted");
    evicted
}

/// What the remote has: paths and sizes.
fn remote(server: &Server, id: &str) -> std::collections::BTreeMap<String, u64> {
    let manifest = server.manifest(id).expect(200).json();
    let files = manifest["files"].as_object().unwrap().iter();
    files.map(|(path, entry)| (path.clone(), entry["size"].as_u64().unwrap())).collect()
}
