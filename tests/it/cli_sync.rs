//! F16: `parquedb sync` between directories and a real server, and what it does about conflicts.

mod cost;
mod decisions;
mod deletions;
mod filters;
mod original;
mod output;
mod races;
mod strategies;
mod troubles;

use crate::harness::{Cli, Server, TempTree, get};

/// A database in two directories, both in step.
struct Pair {
    server: Server,
    cli: Cli,
    a: TempTree,
    b: TempTree,
}

impl Pair {
    fn with(files: &[(&str, &str)]) -> Self {
        let (server, a, b) = (Server::start(), TempTree::with(files), TempTree::new());
        let cli = Cli::owner(&server);
        cli.push(a.path(), &["--slug", "x"]).expect(0);
        cli.pull("alice/x", b.path(), &[]).expect(0);
        Self { server, cli, a, b }
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

/// The texts of the copies that a directory keeps of conflicts, by their names without the time.
fn kept(tree: &TempTree) -> Vec<(String, String)> {
    let root = tree.at(".parquedb/conflicts");
    let mut found = Vec::new();
    for entry in walkdir(&root) {
        let below = entry.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let (_when, name) = below.split_once('/').unwrap();
        if name.ends_with(".conflict") {
            found.push((name.to_owned(), std::fs::read_to_string(&entry).unwrap()));
        }
    }
    found.sort();
    found
}

fn walkdir(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { walkdir(&path) } else { vec![path] }).collect()
}

/// What is kept, as a list to compare with.
fn texts(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}
