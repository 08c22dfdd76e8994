//! Rule 30: a token goes to the origin it was given for, and nowhere a remote or a database points to.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;

use serde_json::json;

use super::{assert_untouched, description, fake_remote, manifest};
use crate::harness::{Cli, Reply, Responder, Server, TempTree, answer, json_answer};

const TOKEN: &str = "pqt_the_token_nobody_else_gets";

/// Someone else's server, which takes everything it is given.
fn elsewhere() -> Arc<Responder> {
    Arc::new(Responder::start(|_| json_answer(200, &json!({"id": "u", "username": "mallory"}))))
}

#[test]
fn a_redirect_to_another_origin_is_not_followed() {
    for status in [301, 302, 303, 307, 308] {
        let other = elsewhere();
        let target = other.url();
        let remote = Responder::start(move |request| {
            answer(status, &[("Location", &format!("{target}{}", request.target))], b"")
        });
        let (cli, tree, copy) =
            (Cli::at(&remote.url()).token(TOKEN), TempTree::with(&[("f", "1")]), TempTree::new());
        cli.run(&["whoami"]).expect(8);
        cli.pull("alice/x", copy.path(), &[]).expect(8);
        cli.push(tree.path(), &["--slug", "x"]).expect(8);
        assert_untouched(&copy);
        assert!(remote.seen().iter().all(|request| request.header("authorization").is_some()));
        assert!(other.seen().is_empty(), "{status}: {:?}", other.asked());
    }
}

#[test]
fn a_redirect_inside_the_origin_is_followed_with_the_token() {
    let remote = Responder::start(|request| match request.target.as_str() {
        "/me" => answer(307, &[("Location", "/moved/me")], b""),
        _ => json_answer(200, &json!({"id": "u", "username": "alice"})),
    });
    Cli::at(&remote.url()).token(TOKEN).run(&["whoami"]).expect(0);
    let seen = remote.seen();
    assert_eq!(remote.asked(), ["GET /me", "GET /moved/me"]);
    assert!(seen.iter().all(|request| request.header("authorization") == Some(&format!("Bearer {TOKEN}"))));
}

#[test]
fn an_upload_elsewhere_goes_without_the_token() {
    let other = elsewhere();
    let target = other.url();
    let remote = Responder::start(move |request| match (request.method.as_str(), request.target.as_str()) {
        (_, "/me") => json_answer(200, &json!({"id": "u", "username": "alice"})),
        (_, "/api/sync/register") => {
            json_answer(201, &json!({"id": super::ID, "bucket": "parquedb", "prefix": "alice/x"}))
        }
        (_, "/api/sync/upload-urls") => json_answer(
            200,
            &json!({"urls": [{
                "path": "f", "url": format!("{target}/bucket/f"), "headers": {"X-Upload-Token": "one upload"},
                "expiresAt": "2099-01-01T00:00:00Z",
            }]}),
        ),
        ("POST", commit) if commit.starts_with("/api/sync/commit/") => {
            json_answer(200, &json!({"revision": 1, "etag": "\"m\""}))
        }
        _ => json_answer(404, &json!({"error": "Not found"})),
    });
    let tree = TempTree::with(&[("f", "content")]);
    Cli::at(&remote.url()).token(TOKEN).push(tree.path(), &["--slug", "x"]).expect(0);
    let sent = other.seen();
    assert_eq!(other.asked(), ["PUT /bucket/f"]);
    assert_eq!(sent[0].body, b"content");
    assert_eq!(sent[0].header("x-upload-token"), Some("one upload"));
    assert_eq!(sent[0].header("authorization"), None);
    assert!(!format!("{sent:?}").contains(TOKEN));
}

#[test]
fn a_remote_named_only_by_a_database_needs_confirmation() {
    let other = elsewhere();
    let home = TempTree::with(&[("token", TOKEN)]);
    let file = home.at("token");
    let token_file = ["--token-file", file.to_str().unwrap()];
    for (name, text) in [
        ("parquedb.toml", format!("slug = 'x'\nremote = '{}'", other.url())),
        ("parquedb.json", json!({"slug": "x", "$remote": other.url()}).to_string()),
    ] {
        let tree = TempTree::with(&[("f", "1"), (name, &text)]);
        for cli in [Cli::new().token(TOKEN), Cli::new().secret(TOKEN)] {
            for more in [&[][..], &token_file] {
                let refused = cli.push(tree.path(), more).expect(2);
                assert!(refused.stderr.contains(&format!("--remote {}", other.url())), "{refused:?}");
                cli.pull("alice/x", tree.path(), more).expect(2);
            }
        }
        assert!(other.seen().is_empty(), "{:?}", other.asked());
    }
}

#[test]
fn a_database_cannot_borrow_the_environments_token() {
    // The user has logged in at that remote, so it may be used: with the token for it, not with the one at hand.
    let remote = fake_remote(manifest(&[]), |_| Reply::HangUp);
    let cli = Cli::new();
    cli.run(&["login", "--remote", &remote.url(), "--token", "pqt_for_this_remote"]).expect(0);
    let stored = cli.config_dir().join("credentials.json");
    assert_eq!(fs::metadata(&stored).unwrap().permissions().mode() & 0o777, 0o600);
    let cli = cli.token(TOKEN);
    let tree = TempTree::with(&[("parquedb.toml", &format!("remote = '{}'", remote.url()))]);
    cli.pull("alice/x", tree.path(), &[]).expect(0);
    let seen = remote.seen();
    assert!(seen.len() > 2);
    for request in seen {
        assert_eq!(request.header("authorization"), Some("Bearer pqt_for_this_remote"), "{request:?}");
    }
    // Named by the user, the same remote gets the token at hand.
    cli.run(&["whoami", "--remote", &remote.url()]).expect(0);
    let last = remote.seen().pop().unwrap();
    assert_eq!(last.header("authorization"), Some(format!("Bearer {TOKEN}").as_str()));
}

#[test]
fn a_stored_token_belongs_to_one_origin() {
    let (first, second) = (elsewhere(), Responder::start(|_| json_answer(200, &description())));
    let cli = Cli::new().secret(TOKEN).input(&format!("{TOKEN}\n"));
    cli.run(&["login", "--remote", &first.url(), "--token", "-"]).expect(0);
    for remote in [second.url(), first.url().replace("127.0.0.1", "localhost")] {
        cli.run(&["list", "--public", "--remote", &remote]);
    }
    cli.run(&["list", "--public", "--remote", &first.url()]);
    assert!(second.seen().iter().all(|request| request.header("authorization").is_none()));
    let mut sent = first.seen().into_iter().map(|request| request.header("authorization").is_some());
    assert_eq!(sent.next(), Some(true), "the login itself");
    assert_eq!(sent.next_back(), Some(true), "the same origin");
    assert!(sent.all(|sent| !sent), "localhost is another origin");
}

#[test]
fn a_users_file_names_a_remote_and_its_token() {
    let server = Server::start();
    let cli = Cli::new().secret(&server.token);
    fs::create_dir_all(cli.config_dir()).unwrap();
    let text = format!("remote = '{}'\ntoken_file = '{}'\n", server.url(), server.token_file().display());
    fs::write(cli.config_dir().join("config.toml"), text).unwrap();
    assert_eq!(cli.run(&["whoami"]).expect(0).stdout, format!("alice at {}\n", server.url()));
    // Another remote, named by a flag, does not get that token.
    let other = elsewhere();
    cli.run(&["whoami", "--remote", &other.url()]);
    assert_eq!(other.seen()[0].header("authorization"), None);
}
