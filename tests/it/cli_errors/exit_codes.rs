//! The numbers of features.md, one by one, and the one line that goes with each.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{assert_untouched, fake_remote, manifest};
use crate::harness::{Cli, Responder, Server, TempTree, allow_account, answer, bytes_of, json_answer};

/// A server with alice's private database, and a directory that holds it.
fn private_database() -> (Server, TempTree) {
    let (server, tree) = (Server::start(), TempTree::with(&[("f", "1")]));
    Cli::owner(&server).push(tree.path(), &["--slug", "private-one"]).expect(0);
    (server, tree)
}

#[test]
fn rule_29_absent_and_private_cannot_be_told_apart() {
    let (server, _tree) = private_database();
    let bob = allow_account(&server.store(), "bob");
    let users = [(Cli::at(&server.url()), 4), (Cli::at(&server.url()).token(&bob), 5)];
    for (cli, code) in users {
        let copy = TempTree::new();
        let ask = |database: &str| cli.pull(database, copy.path(), &[]).expect(code);
        let private = ask("alice/private-one");
        for absent in ["alice/absent-one", "nobody/at-all"] {
            let absent = ask(absent);
            assert_eq!((&absent.stderr, &absent.stdout), (&private.stderr, &private.stdout));
        }
        assert_untouched(&copy);
        if code == 4 {
            assert!(
                private.stderr.contains("not found, or private")
                    || private.stderr.contains("Not found, or private")
            );
            assert!(private.stderr.contains("parquedb login"), "{private:?}");
        }
    }
    let mistyped =
        Cli::at(&server.url()).token("pqt_mistyped").pull("alice/private-one", server.store().as_path(), &[]);
    mistyped.expect(4);
}

#[test]
fn an_unreachable_remote_is_told_soon() {
    // Bound and dropped: nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (cli, tree) = (Cli::at(&format!("http://{free}")).token("pqt_x"), TempTree::with(&[("f", "1")]));
    let copy = TempTree::new();
    let runs: [&[&str]; 6] = [
        &["push", "--directory", tree.arg(), "--slug", "x"],
        &["push", "--directory", tree.arg(), "--slug", "x", "--dry-run"],
        &["pull", "alice/x", "--directory", copy.arg()],
        &["list"],
        &["whoami"],
        &["login", "--token", "pqt_x"],
    ];
    for args in runs {
        let begun = Instant::now();
        let failed = cli.run(args).expect(6);
        assert!(begun.elapsed() < Duration::from_secs(20), "{args:?} took {:?}", begun.elapsed());
        assert!(failed.stderr.contains(&free.to_string()), "{failed:?}");
    }
    assert_untouched(&copy);
    assert_eq!(tree.names(), ["f"]);
    assert!(!cli.config_dir().join("credentials.json").exists());
}

#[test]
fn a_remote_in_trouble_is_not_taken_for_an_empty_one() {
    for status in [500, 502, 503, 429] {
        let remote = Responder::start(move |request| match request.target.as_str() {
            "/me" => json_answer(200, &json!({"id": "user_1", "username": "alice"})),
            _ => answer(status, &[], b"trouble\n"),
        });
        let (cli, tree, copy) =
            (Cli::at(&remote.url()).token("pqt_of_no_one"), TempTree::with(&[("f", "1")]), TempTree::new());
        cli.pull("alice/x", copy.path(), &[]).expect(6);
        assert_untouched(&copy);
        cli.push(tree.path(), &["--slug", "x"]).expect(6);
        let asked = remote.asked();
        assert!(!asked.iter().any(|line| line.starts_with("POST")), "rule 15: {asked:?}");
    }
}

#[test]
fn wrong_usage() {
    let (server, tree) = (Server::start(), TempTree::with(&[("f", "1")]));
    let cli = Cli::owner(&server);
    for bad in [
        "",
        "nope",
        "/x",
        "x/",
        "a/b/c",
        "../x",
        "a/..",
        "A/b",
        "a/B",
        "a b/c",
        "a/-b",
        "a/x\u{1b}[31m",
        "a/ü",
    ] {
        let refused = cli.pull(bad, tree.path(), &[]).expect(2);
        assert!(!refused.stderr.contains('\u{1b}'), "{refused:?}");
    }
    for bad in ["", "Bad Slug", "a/b", "-x", "x-", "ü", "a_b", &"x".repeat(65)] {
        cli.push(tree.path(), &[&format!("--slug={bad}")]).expect(2);
    }
    for bad in ["", "Public", "secret"] {
        let refused = cli.push(tree.path(), &["--slug", "x", "--visibility", bad]).expect(2);
        assert!(refused.stderr.contains("public, unlisted, private"), "{refused:?}");
    }
    cli.push(&tree.at("missing"), &["--slug", "x"]).expect(2);
    cli.push(&tree.at("f"), &["--slug", "x"]).expect(2);
    for args in [&["push", "--no-such-flag"][..], &["no-such-command"], &[], &["pull"]] {
        let refused = cli.run(args).expect(2);
        assert_eq!(refused.stdout, "", "{args:?}");
    }
    for bad in ["ftp://x", "not a url", "http://user:pw-in-url@127.0.0.1:1", "file:///x", "http://"] {
        let cli = Cli::new().secret("pw-in-url");
        cli.run(&["whoami", "--remote", bad]).expect(2);
    }
    for (name, content) in [
        ("parquedb.toml", "slug = 'NOT A SLUG'"),
        ("parquedb.toml", "visibility = 'secret'"),
        ("parquedb.toml", "token = 'x'"),
        ("parquedb.toml", "hooks = 1"),
        ("parquedb.toml", "= broken"),
        ("parquedb.json", "{"),
    ] {
        let tree = TempTree::with(&[("f", "1"), (name, content)]);
        let refused = cli.push(tree.path(), &[]).expect(2);
        assert!(refused.stderr.contains(name) || refused.stderr.contains("may not set"), "{refused:?}");
    }
    assert!(!server.store().join("names").exists(), "none of all this was registered");
}

#[test]
fn a_token_file_that_is_missing_or_empty() {
    let (server, tree) = (Server::start(), TempTree::with(&[("f", "1"), ("empty", " \n")]));
    let cli = Cli::at(&server.url());
    for file in [tree.at("missing"), tree.at("empty"), tree.path().to_owned()] {
        let file = file.to_str().unwrap();
        for command in [&["whoami"][..], &["login"], &["push", "--directory", tree.arg()], &["pull", "a/b"]] {
            let refused = cli.run(&[command, &["--token-file", file]].concat()).expect(2);
            assert!(refused.stderr.contains(file), "{refused:?}");
        }
    }
    let token_file = server.token_file();
    let me = cli.run(&["whoami", "--token-file", token_file.to_str().unwrap()]).expect(0);
    assert_eq!(me.stdout, format!("alice at {}\n", server.url()));
}

#[test]
fn a_remote_manifest_that_is_damaged_or_newer() {
    let cases: [(&[u8], i32); 8] = [
        (b"", 8),
        (b"{", 8),
        (b"[]", 8),
        (b"<html>not found</html>", 8),
        (br#"{"version":1}"#, 8),
        (br#"{"version":0,"databaseId":"d","name":"x","files":{}}"#, 8),
        (br#"{"version":2}"#, 9),
        (br#"{"files":[1,2],"version":7,"databaseId":3}"#, 9),
    ];
    for (bytes, code) in cases {
        let remote = fake_remote(bytes, |_| answer(404, &[], b""));
        let (cli, copy) = (Cli::at(&remote.url()).token("pqt_of_no_one"), TempTree::new());
        cli.pull("alice/x", copy.path(), &[]).expect(code);
        assert_untouched(&copy);
        let tree = TempTree::with(&[("f", "1")]);
        cli.push(tree.path(), &["--slug", "x", "--force"]).expect(code);
        assert!(!remote.asked().iter().any(|line| line.starts_with("POST")), "{:?}", remote.asked());
    }
    let good = fake_remote(manifest(&[]), |_| answer(404, &[], b""));
    Cli::at(&good.url()).pull("alice/x", TempTree::new().path(), &[]).expect(0);
}

#[test]
fn a_local_manifest_that_is_damaged_or_newer() {
    let (server, tree) = private_database();
    let cli = Cli::owner(&server);
    for (text, code) in
        [("{", 8), ("", 8), (r#"{"version":1,"files":{"../x":{}}}"#, 8), (r#"{"version":2}"#, 9)]
    {
        fs::write(tree.at("_meta/manifest.json"), text).unwrap();
        let before = (bytes_of(tree.path()), bytes_of(&server.store()));
        let runs = [
            cli.push(tree.path(), &["--slug", "private-one", "--force"]),
            cli.pull("alice/private-one", tree.path(), &[]),
            cli.pull("alice/private-one", tree.path(), &["--dry-run"]),
        ];
        for run in runs {
            let run = run.expect(code);
            assert!(run.stderr.contains("manifest.json"), "{run:?}");
        }
        assert_eq!((bytes_of(tree.path()), bytes_of(&server.store())), before, "{text}");
    }
    // The remedy the message names.
    fs::remove_file(tree.at("_meta/manifest.json")).unwrap();
    cli.pull("alice/private-one", tree.path(), &[]).expect(0);
}

#[test]
fn two_runs_in_one_directory_at_once() {
    let (server, tree) = private_database();
    let lock = fs::File::options().write(true).open(tree.at(".parquedb/lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let busy = Cli::owner(&server).push(tree.path(), &["--slug", "private-one"]).expect(1);
    assert!(busy.stderr.contains("another parquedb"), "{busy:?}");
    drop(lock);
    Cli::owner(&server).push(tree.path(), &["--slug", "private-one"]).expect(0);
}
