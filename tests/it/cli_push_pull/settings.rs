//! Where the slug, the name, the visibility and the directory come from: flags, the database's own file, the
//! directory's name.

use crate::harness::{Cli, Server, TempTree, get};

/// The database's metadata as its owner sees it.
fn metadata(server: &Server, slug: &str) -> serde_json::Value {
    get(&format!("/api/db/alice/{slug}")).bearer(&server.token).send(&server.address).expect(200).json()
}

#[test]
fn the_slug_comes_from_the_flag_the_file_or_the_directory() {
    let server = Server::start();
    let cli = Cli::owner(&server);
    for (file, content, flag, expected, name) in [
        ("f", "", None, "my-data-set", "My Data Set!"),
        ("parquedb.toml", "slug = 'from-toml'", None, "from-toml", "from-toml"),
        ("parquedb.json", r#"{"$slug": "from-json", "version": "1.0"}"#, None, "from-json", "from-json"),
        ("parquedb.toml", "name = 'A Named One'", None, "a-named-one", "A Named One"),
        ("parquedb.toml", "slug = 'hidden-one'", Some("from-flag"), "from-flag", "from-flag"),
    ] {
        let tree = TempTree::named("My Data Set!");
        tree.write(&[(file, content)]);
        let more: Vec<&str> = flag.iter().flat_map(|slug| ["--slug", slug]).collect();
        let pushed = cli.push(tree.path(), &more).expect(0);
        assert!(pushed.stdout.contains(&format!("  Slug: alice/{expected}\n")), "{pushed:?}");
        assert_eq!(metadata(&server, expected)["name"], name, "{expected}");
    }
    let nameless = TempTree::named("日本");
    nameless.write(&[("f", "")]);
    let refused = cli.push(nameless.path(), &[]).expect(2);
    assert!(refused.stderr.contains("--slug"), "{refused:?}");
}

#[test]
fn the_directory_is_the_current_one_by_default() {
    let server = Server::start();
    let (tree, copy) = (TempTree::named("here-it-is"), TempTree::new());
    tree.write(&[("f", "content")]);
    Cli::owner(&server).in_dir(tree.path()).run(&["push"]).expect(0);
    let pulled = Cli::owner(&server).in_dir(copy.path()).run(&["pull", "alice/here-it-is"]).expect(0);
    assert!(pulled.stdout.ends_with("  Location: .\n"), "{pulled:?}");
    assert_eq!(copy.read("f").as_deref(), Some("content"));
}

#[test]
fn a_new_database_is_private_and_visibility_changes_only_when_asked() {
    let server = Server::start();
    let (cli, tree) = (Cli::owner(&server), TempTree::with(&[("f", "1")]));
    let expect = |more: &[&str], visibility: &str, anonymous: i32| {
        let pushed = cli.push(tree.path(), &[&["--slug", "x"], more].concat()).expect(0);
        assert!(pushed.stdout.contains(&format!("  Visibility: {visibility}\n")), "{pushed:?}");
        assert_eq!(metadata(&server, "x")["visibility"], visibility);
        assert_eq!(tree.manifest()["visibility"], visibility);
        let stranger = Cli::at(&server.url());
        stranger.pull("alice/x", &stranger.home().join("x"), &[]).expect(anonymous);
    };
    expect(&[], "private", 4);
    expect(&["--visibility", "public"], "public", 0);
    expect(&[], "public", 0);
    expect(&["--visibility", "unlisted"], "unlisted", 0);
    expect(&["--visibility", "private"], "private", 4);
    tree.write(&[("parquedb.toml", "\"$visibility\" = 'public'")]);
    expect(&[], "public", 0);
    expect(&["--visibility", "private"], "private", 4);
}

#[test]
fn a_file_that_names_another_owner_is_not_pushed_as_ones_own() {
    let server = Server::start();
    let tree = TempTree::with(&[("f", "1"), ("parquedb.toml", "owner = 'bob'\nslug = 'x'")]);
    let refused = Cli::owner(&server).push(tree.path(), &[]).expect(4);
    assert!(refused.stderr.contains("bob") && refused.stderr.contains("alice"), "{refused:?}");
    get("/api/db/alice/x").bearer(&server.token).send(&server.address).expect(404);
}
