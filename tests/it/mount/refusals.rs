//! F01: a mount that cannot be made says why in one line, has the status for it, and leaves nothing mounted.
//! What comes from the remote is found out by the daemon, in the background, and told all the same.

use std::fs;
use std::net::TcpListener;

use super::database_of;
use crate::harness::{Mounting, Responder, allow_account, answer, mount_entry};

/// Fails to start with this status, for a reason that names all of `words`.
#[track_caller]
pub fn refused(mounting: &Mounting, code: i32, words: &[&str]) {
    let outcome = mounting.run().expect(code);
    for word in words {
        assert!(outcome.stderr.contains(word), "{word:?} is in the reason: {}", outcome.stderr);
    }
    assert_eq!(outcome.stdout, "");
    assert_eq!(mount_entry(&mounting.path()), None);
    assert!(mounting.serving().is_empty(), "nobody is left");
}

#[test]
fn f01_a_mountpoint_that_cannot_be_one_is_wrong_usage() {
    let (server, _) = database_of(&[("x", 1)]);
    let mounting = Mounting::at(&server.url(), "alice/d");
    let path = mounting.path();
    fs::write(path.join("file"), "kept").unwrap();
    refused(&mounting, 2, &["not empty", path.to_str().unwrap()]);
    assert_eq!(fs::read(path.join("file")).unwrap(), b"kept");
    fs::remove_file(path.join("file")).unwrap();
    fs::remove_dir(&path).unwrap();
    refused(&mounting, 2, &["does not exist", "mkdir"]);
    fs::write(&path, "a file").unwrap();
    refused(&mounting, 2, &["not a directory"]);
    fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink("nowhere", &path).unwrap();
    refused(&mounting, 2, &["does not exist"]);
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    let mount = mounting.mount();
    let again = mounting.run().expect(2).stderr;
    assert!(again.contains("already") && again.contains("fusermount3 -u"), "{again}");
    assert_eq!(mounting.serving(), [mount.pid()], "the first one serves on");
    assert_eq!(mount.read("x").unwrap().len(), 1);
    mount.unmount();
}

#[test]
fn f01_what_is_typed_wrong_is_wrong_usage() {
    let (server, _) = database_of(&[("x", 1)]);
    for reference in
        ["alice", "alice/", "/d", "alice/d/x", "Alice/d", "alice/D", "../d", "alice/d d", "alice/%64"]
    {
        refused(&Mounting::at(&server.url(), reference), 2, &["'"]);
    }
    for url in ["not a url", "ftp://127.0.0.1/", "http://"] {
        refused(&Mounting::at(url, "alice/d"), 2, &[]);
    }
    let mounting = || Mounting::at(&server.url(), "alice/d");
    for args in [
        ["--cache-size", "ten"],
        ["--read-timeout", "0"],
        ["--read-timeout", "soon"],
        ["--no-such", "x"],
        ["-o", "rw,noatim"],
        ["-o", "sync"],
    ] {
        refused(&mounting().args(&args), 2, &[args[0]]);
    }
    let blocked = mounting();
    let file = blocked.beside().join("file");
    fs::write(&file, "").unwrap();
    for cache in [file.join("cache"), file.clone()] {
        refused(&blocked.clone().cache_in(&cache), 2, &["cache", file.to_str().unwrap()]);
    }
    refused(
        &blocked.clone().env("HOME", "").args(&["--token-file", "/no/such/token"]),
        2,
        &["/no/such/token"],
    );
    let stateless = mounting();
    fs::write(stateless.beside().join("state"), "").unwrap();
    refused(&stateless, 2, &["state"]);
}

#[test]
fn rule_29_absent_and_forbidden_are_one_answer() {
    let (server, _) = database_of(&[("x", 1)]);
    let id = server.register("hidden", "private");
    server.publish(&id, &[("x", b"secret")]);
    let told = ["alice/hidden", "alice/none", "nobody/none"].map(|reference| {
        let outcome = Mounting::at(&server.url(), reference).run().expect(4);
        assert!(outcome.stderr.contains("log in"), "{}", outcome.stderr);
        outcome.stderr.replace(reference, "")
    });
    assert!(told[0] == told[1] && told[1] == told[2], "{told:?}");
    let eve = allow_account(&server.store(), "eve");
    for reference in ["alice/hidden", "alice/none"] {
        refused(&Mounting::at(&server.url(), reference).env("PARQUEDB_TOKEN", &eve), 5, &["check the name"]);
    }
    refused(&Mounting::owner(&server, "alice/none"), 5, &[]);
    refused(&Mounting::at(&server.url(), "alice/hidden").env("PARQUEDB_TOKEN", "pqt_wrong"), 4, &[]);
    let mount = Mounting::owner(&server, "alice/hidden").mount();
    assert_eq!(mount.read("x").unwrap(), b"secret");
    assert!(!mount.log().contains(&server.token), "the token is in no log");
}

#[test]
fn f01_a_server_that_does_not_answer_is_unreachable() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = format!("http://{}", listener.local_addr().unwrap());
    refused(&Mounting::at(&silent, "alice/d").args(&["--read-timeout", "0.5"]), 6, &["no answer in time"]);
    drop(listener);
    refused(&Mounting::at(&silent, "alice/d"), 6, &["cannot be reached", "--remote"]);
    refused(&Mounting::at("http://no-such-host.invalid", "alice/d"), 6, &["cannot be reached"]);
    let trouble = Responder::start(|_| answer(503, &[], b"down for repair"));
    refused(&Mounting::at(&trouble.url(), "alice/d"), 6, &["503", "down for repair"]);
}
