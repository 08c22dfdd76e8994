//! Tokens are never shown: not by a command that works or fails, not as JSON, not in any log, not in the store.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::harness::{Cli, Responder, Server, TempTree, answer, bytes_of};

#[test]
fn no_command_shows_its_token() {
    let (server, tree, copy) = (Server::start(), TempTree::with(&[("f", "1")]), TempTree::new());
    let file = server.token_file();
    let mistyped = format!("{}x", server.token);
    let commands: [&[&str]; 12] = [
        &["whoami"],
        &["list"],
        &["list", "--public"],
        &["push", "--directory", tree.arg(), "--slug", "x", "--dry-run"],
        &["push", "--directory", tree.arg(), "--slug", "x"],
        &["pull", "alice/x", "--directory", copy.arg()],
        &["pull", "alice/absent", "--directory", copy.arg()],
        &["login", "--token", &server.token],
        &["login", "--token", &mistyped],
        &["login", "--token-file", file.to_str().unwrap()],
        &["login", "--token", "pqt_with a space"],
        &["push", "--slug", "Bad Slug"],
    ];
    let users = [
        Cli::owner(&server),
        Cli::owner(&server).env("PARQUEDB_LOG", "trace"),
        Cli::at(&server.url()).token(&mistyped),
        Cli::at("http://127.0.0.1:1").token(&server.token),
    ];
    // The runner looks for every secret in everything that is printed.
    for cli in users.map(|cli| cli.secret(&server.token).secret("pqt_with a space")) {
        for command in commands {
            cli.run(command);
            cli.run(&[command, &["--json"]].concat());
        }
    }
    let log = server.log();
    assert!(log.contains("published"), "the log is written: {log}");
    assert!(!log.contains(&server.token), "the server's log has the token");
}

#[test]
fn a_server_that_repeats_what_it_was_sent_does_not_make_us_show_it() {
    let echo = Responder::start(|request| {
        let sent = request.header("authorization").unwrap_or_default().to_owned();
        answer(401, &[], format!("{{\"error\":\"I do not know {sent}\"}}").as_bytes())
    });
    let cli = Cli::at(&echo.url()).token("pqt_repeated_by_the_server");
    cli.run(&["whoami"]).expect(4);
    cli.run(&["whoami", "--json"]).expect(4);
}

#[test]
fn tokens_lie_in_files_of_their_owner_only_and_in_the_store_as_hashes() {
    let server = Server::start();
    let mode = |path: &std::path::Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&server.token_file()), 0o600);
    assert_eq!(mode(&server.store()), 0o700);
    for (path, bytes) in bytes_of(&server.store()) {
        let shown = String::from_utf8_lossy(&bytes).contains(&server.token);
        assert_eq!(shown, path == "owner.token", "{path}");
    }
    let cli = Cli::at(&server.url()).secret(&server.token).input(&server.token);
    cli.run(&["login", "--token", "-"]).expect(0);
    assert_eq!(mode(&cli.config_dir().join("credentials.json")), 0o600);
    assert_eq!(cli.run(&["whoami"]).expect(0).stdout, format!("alice at {}\n", server.url()));
    let tree = TempTree::with(&[("f", "1")]);
    cli.push(tree.path(), &["--slug", "x"]).expect(0);
    for (path, bytes) in bytes_of(tree.outer()) {
        assert!(!String::from_utf8_lossy(&bytes).contains(&server.token), "{path}");
    }
}
