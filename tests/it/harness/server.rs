//! `parquedb serve`, as a process.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};

use parquedb_mount::model::Token;
use parquedb_mount::store::{Missing, Store, StoreLocation, Writers};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{DEADLINE, finish};

/// A running server. Dropped, it is killed.
pub struct Server {
    child: Child,
    place: Arc<Place>,
    /// Where it listens, `host:port`.
    pub address: String,
    /// The owner's token.
    pub token: String,
}

/// What servers of one store share: a home with the log, and where the store is.
struct Place {
    home: TempDir,
    store: String,
    flags: Vec<String>,
    environment: Vec<(String, String)>,
}

impl Server {
    /// A server of alice's on a store of its own.
    pub fn start() -> Self {
        let home = tempfile::tempdir().unwrap();
        let store = super::text(&home.path().join("store")).to_owned();
        Self::at(Place { home, store, flags: Vec::new(), environment: Vec::new() })
    }

    /// A server of alice's on the store in that directory.
    pub fn of(store: &Path) -> Self {
        Self::with(super::text(store), &[], &[])
    }

    /// A server of alice's on a store elsewhere, with what it takes to get there.
    pub fn with(store: &str, flags: &[&str], environment: &[(&str, String)]) -> Self {
        let environment = environment.iter().map(|(name, value)| (name.to_string(), value.clone()));
        Self::at(Place {
            home: tempfile::tempdir().unwrap(),
            store: store.to_owned(),
            flags: flags.iter().map(ToString::to_string).collect(),
            environment: environment.collect(),
        })
    }

    fn at(place: Place) -> Self {
        let started = Self::listen(Arc::new(place), "127.0.0.1:0");
        started.unwrap_or_else(|log| panic!("the server does not start: {log}"))
    }

    /// One more process on the same store.
    pub fn beside(&self) -> Self {
        Self::listen(self.place.clone(), "127.0.0.1:0").unwrap()
    }

    fn listen(place: Arc<Place>, listen: &str) -> Result<Self, String> {
        let log = place.home.path().join("log");
        let append = fs::File::options().create(true).append(true).open(&log).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_parquedb"))
            .args(["serve", "--owner", "alice", "--json", "--listen", listen, "--store", &place.store])
            .args(&place.flags)
            .env_clear()
            .env("HOME", place.home.path())
            .env("PARQUEDB_LOG", "trace")
            .envs(place.environment.iter().cloned())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(append)
            .spawn()
            .unwrap();
        let (said, hear) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || said.send(stdout.lines().next()));
        let Ok(Some(Ok(line))) = hear.recv_timeout(DEADLINE) else {
            let _ = child.kill();
            let _ = child.wait();
            return Err(fs::read_to_string(log).unwrap());
        };
        let said: serde_json::Value = serde_json::from_str(&line).unwrap();
        let token = fs::read_to_string(said["tokenFile"].as_str().unwrap()).unwrap().trim().to_owned();
        let address = said["url"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
        Ok(Self { child, place, address, token })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The store's directory.
    pub fn store(&self) -> PathBuf {
        PathBuf::from(&self.place.store)
    }

    pub fn token_file(&self) -> PathBuf {
        self.store().join("owner.token")
    }

    /// What it and its predecessors have logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.place.home.path().join("log")).unwrap()
    }

    /// Asks it to stop, and starts it again on the same address.
    pub fn restart(&mut self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
        assert_eq!(finish(&mut self.child), Some(0), "a server that is asked to stops by itself");
        self.start_again();
    }

    /// Kills it without warning, and starts it again on the same address.
    pub fn crash_and_restart(&mut self) {
        self.kill();
        self.start_again();
    }

    /// Kills it without warning.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// The same while others still talk to it.
    pub fn kill_by_id(&self) {
        kill_process(self.pid(), Signal::KILL).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    fn start_again(&mut self) {
        // A connection of another test may hold the port for a moment.
        for _ in 0..50 {
            if let Ok(again) = Self::listen(self.place.clone(), &self.address) {
                *self = again;
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        panic!("the server does not start again: {}", self.log());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Lets one more account into a store, and gives its token.
pub fn allow_account(store: &Path, username: &str) -> String {
    let token = format!("pqt_test_{}", super::sha256(format!("{username} {}", store.display()).as_bytes()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let location = StoreLocation::Directory(store.to_owned());
        let store = Store::open_at(&location, Missing::Refuse, Writers::Many).await.unwrap();
        store.ensure_account(username).await.unwrap();
        store.allow_token(&Token::new(&token), username).await.unwrap();
    });
    token
}
