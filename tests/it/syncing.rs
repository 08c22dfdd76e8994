//! A mount syncs itself: what is written there is published, and nobody who reads or writes is held up by it.

mod conflicts;
mod dotdir;
mod from_inside;
mod publishing;
mod service;
mod storm;
mod together;
mod troubles;
mod waiting;
mod when;

use std::path::Path;
use std::time::{Duration, Instant};

use crate::harness::{Cli, Mount, Mounting, Outcome, Responder, Server, text};

/// A server with a public database `alice/d`, and its id.
fn database() -> (Server, String) {
    let server = Server::start();
    let id = server.register("d", "public");
    server.publish(
        &id,
        &[("one", b"1"), ("two", b"22"), ("dir/x", b"x"), ("dir/y", b"yy"), ("data/t/a.bin", b"PAR1")],
    );
    (server, id)
}

/// Its owner's mount, synced when it is told to.
fn by_hand(server: &Server) -> Mounting {
    Mounting::owner(server, "alice/d").args(&["--poll", "0.3", "--sync", "manual"])
}

/// Its owner's mount, synced when something was changed.
fn on_change(server: &Server) -> Mounting {
    Mounting::owner(server, "alice/d").args(&["--poll", "0.3", "--sync", "on-change"])
}

/// Its owner's mount by way of a proxy.
fn through(proxy: &Responder, server: &Server) -> Mounting {
    Mounting::at(&proxy.url(), "alice/d").env("PARQUEDB_TOKEN", &server.token)
}

/// Says something to a mount's daemon.
fn ctl(server: &Server, mount: &Mount, args: &[&str]) -> Outcome {
    let mut all = vec!["ctl"];
    all.extend(args);
    let path = mount.path();
    all.push(text(&path));
    Cli::owner(server).run(&all)
}

/// Syncs a mount; everything that is local must be published by it. The kernel tells of a close a moment after it: until then, the
/// file waits.
#[track_caller]
fn sync(server: &Server, mount: &Mount) {
    let began = Instant::now();
    loop {
        let done = ctl(server, mount, &["sync", "--json"]).expect(0).json();
        let held = done["status"]["held"].as_array().unwrap().len();
        if held == 0 || began.elapsed() > Duration::from_secs(5) {
            assert_eq!((done["status"]["pending"].as_u64(), held), (Some(0), 0), "{done}");
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// What the server has at a path now.
fn published(server: &Server, path: &str) -> Option<Vec<u8>> {
    let answer = crate::harness::get(&format!("/db/alice/d/{path}")).send(&server.address);
    (answer.status == 200).then_some(answer.body)
}

/// How a mount's syncs stand.
fn standing(server: &Server, mount: &Mount) -> serde_json::Value {
    let told = Cli::owner(server).run(&["status", text(&mount.path()), "--json"]).expect(0).json();
    told["replicas"][0]["sync"].clone()
}

/// How many local changes a mount has.
fn pending(server: &Server, mount: &Path) -> usize {
    let told = Cli::owner(server).run(&["status", text(mount), "--json"]).expect(0).json();
    let all = told["replicas"][0]["pending"].as_array().unwrap().clone();
    all.iter().filter(|one| one["change"] != "here only").count()
}
