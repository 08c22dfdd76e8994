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

use std::path::Path;

use crate::harness::{Mounting, Server, noise};

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

/// What the remote has: paths and sizes.
fn remote(server: &Server, id: &str) -> std::collections::BTreeMap<String, u64> {
    let manifest = server.manifest(id).expect(200).json();
    let files = manifest["files"].as_object().unwrap().iter();
    files.map(|(path, entry)| (path.clone(), entry["size"].as_u64().unwrap())).collect()
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
