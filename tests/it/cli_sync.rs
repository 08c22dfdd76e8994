//! F16: `parquedb sync` between directories and a real server, and what it does about conflicts.

mod cost;
mod decisions;
mod deletions;
mod filters;
mod interrupted;
mod original;
mod output;
mod races;
mod strategies;
mod troubles;

use std::fs;
use std::time::{Duration, SystemTime};

use parquedb_mount::config::token_from_file;
use parquedb_mount::remote::{Remote, RemoteOptions};
use parquedb_mount::sync::{
    Brake, CONFLICT_LIMIT, Direction, Filter, Reporter, Strategy, SyncError, SyncOptions, SyncReport, sync,
};

use crate::harness::{Cli, Server, TempTree, bytes_of, get};

/// A database in two directories, both in step.
struct Pair {
    server: Server,
    cli: Cli,
    a: TempTree,
    b: TempTree,
}

impl Pair {
    fn with(files: &[(&str, &str)]) -> Self {
        Self::of(TempTree::with(files))
    }

    /// A directory that is published, and another one with the same.
    fn of(a: TempTree) -> Self {
        let (server, b) = (Server::start(), TempTree::new());
        let cli = Cli::owner(&server);
        cli.push(a.path(), &["--slug", "x"]).expect(0);
        cli.pull("alice/x", b.path(), &[]).expect(0);
        Self { server, cli, a, b }
    }

    /// Both sides have changed a file since they agreed: it is "there" on the remote, and "here" in `b`.
    fn change_on_both_sides(&self, path: &str) {
        self.a.write(&[(path, "there")]);
        self.cli.sync(self.a.path(), &[]).expect(0);
        self.b.write(&[(path, "here")]);
    }

    /// The published text of a file; none where there is no such file.
    fn published(&self, path: &str) -> Option<String> {
        let asked = get(&format!("/db/alice/x/{path}")).bearer(&self.server.token);
        let answer = asked.send(&self.server.address);
        (answer.status == 200).then(|| answer.text())
    }

    fn revision(&self) -> u64 {
        let answer = get("/api/db/alice/x").bearer(&self.server.token).send(&self.server.address).expect(200);
        answer.json()["revision"].as_u64().unwrap()
    }
}

/// Makes a file's content so many seconds old.
fn age(tree: &TempTree, name: &str, seconds: u64) -> SystemTime {
    let time = SystemTime::now() - Duration::from_secs(seconds);
    fs::File::options().write(true).open(tree.at(name)).unwrap().set_modified(time).unwrap();
    time
}

/// The texts of the copies that a directory keeps of conflicts, by their names without the time.
fn kept(tree: &TempTree) -> Vec<(String, String)> {
    let files = bytes_of(tree.path()).into_iter().filter_map(|(path, bytes)| {
        let (_when, name) = path.strip_prefix(".parquedb/conflicts/")?.split_once('/')?;
        let text = String::from_utf8(bytes).unwrap();
        name.ends_with(".conflict").then(|| (name.to_owned(), text))
    });
    let mut found: Vec<_> = files.collect();
    found.sort();
    found
}

/// What is kept, as a list to compare with.
fn texts(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

/// Syncs by the library.
fn by_library(
    pair: &Pair,
    url: &str,
    tree: &TempTree,
    remote: &RemoteOptions,
    reporter: &dyn Reporter,
) -> Result<SyncReport, SyncError> {
    let token = token_from_file(&pair.server.token_file()).unwrap();
    let remote = Remote::new(&url.parse().unwrap(), Some(&token), remote)?;
    let options = SyncOptions {
        directory: tree.path().to_owned(),
        database: "alice/x".parse().unwrap(),
        create: None,
        visibility: None,
        direction: Direction::Both,
        at: None,
        strategy: Strategy::Newest,
        filter: Filter::default(),
        brake: Brake::On,
        conflict_limit: CONFLICT_LIMIT,
        dry_run: false,
    };
    tokio::runtime::Runtime::new().unwrap().block_on(sync(&remote, &options, reporter))
}
