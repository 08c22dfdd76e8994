//! What a simulation is made of: a server in this process, a network to it that fails as a seed says, and mounts without a kernel,
//! with the real engine, overlay and cache.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

use super::follow::{Follower, remember};
use super::mount::OverlayOptions;
use super::publishing::Publisher;
use super::start::{Started, start};
use super::written::Written;
use crate::cache::{Cache, CacheOptions, Scope};
use crate::fetch::{FetchOptions, Fetcher, MemoryBudget, ReaderThread};
use crate::fuse::Invalidator;
use crate::metrics::MountCounters;
use crate::model::{DbRef, Sha256, Token};
use crate::namespace::Ino;
use crate::remote::{Remote, RemoteOptions};
use crate::state::{Place, PlaceError};
use crate::sync::{Brake, Filter, Replica, ReplicaOptions, Strategy};
use crate::vfs::{Create, HandleId, Maker, Pid, Rename, SetIds, Setting, Vfs, VfsError};

/// Numbers that follow from a seed.
pub(super) struct Dice(TestRng);

impl Dice {
    pub(super) fn of(seed: u64) -> Self {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_le_bytes());
        Self(TestRng::from_seed(RngAlgorithm::ChaCha, &bytes))
    }

    /// One below `limit`.
    pub(super) fn below(&mut self, limit: u32) -> u32 {
        self.0.next_u32() % limit
    }
}

/// What happens to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// It never arrives.
    Lost,
    /// It is carried out, and nobody hears of it.
    Unheard,
    /// It is carried out twice.
    Twice,
    /// It is carried out, and no answer comes for as long as anybody waits: the daemon is killed then.
    Killed,
    /// It waits for ever before it arrives.
    KilledBefore,
}

/// The way from one mount to the server.
#[derive(Default)]
pub(super) struct Network {
    /// What happens to the requests that come next, counted from 1.
    faults: Mutex<BTreeMap<u32, Fault>>,
    asked: Mutex<u32>,
    /// Nothing gets through.
    parted: Mutex<bool>,
    /// A request waits for ever.
    pub(super) hangs: Notify,
    /// How often each fault was met.
    pub(super) fired: Mutex<BTreeMap<String, u32>>,
    /// How many connections are neither over nor waiting for ever.
    under_way: Mutex<u32>,
    /// Requests are carried out one after the other, so that the server's store meets its faults in the same order.
    turn: tokio::sync::Mutex<()>,
}

impl Network {
    /// From now on, these happen to the requests of these numbers; nothing to others.
    pub(super) fn plan(&self, faults: BTreeMap<u32, Fault>) {
        *self.faults.lock().unwrap() = faults;
        *self.asked.lock().unwrap() = 0;
    }

    pub(super) fn part(&self, parted: bool) {
        *self.parted.lock().unwrap() = parted;
    }

    fn next(&self) -> Option<Fault> {
        let mut asked = self.asked.lock().unwrap();
        *asked += 1;
        let parted = *self.parted.lock().unwrap();
        let fault = match parted {
            true => Some(Fault::Lost),
            false => self.faults.lock().unwrap().remove(&asked),
        };
        if let Some(fault) = fault {
            let name = if parted { "Parted".to_owned() } else { format!("{fault:?}") };
            *self.fired.lock().unwrap().entry(name).or_default() += 1;
        }
        fault
    }

    /// A port that leads to the server at `address`, over this network. One request a connection.
    pub(super) async fn lead_to(self: &Arc<Self>, address: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let network = self.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (network, address) = (network.clone(), address.clone());
                *network.under_way.lock().unwrap() += 1;
                tokio::spawn(async move {
                    let waits = network.carry(client, &address).await;
                    *network.under_way.lock().unwrap() -= 1;
                    if let Ok(Some(client)) = waits {
                        network.hangs.notify_one();
                        std::future::pending::<()>().await;
                        drop(client);
                    }
                });
            }
        });
        url
    }

    /// All that was sent has arrived, or never will.
    pub(super) async fn calms_down(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            if *self.under_way.lock().unwrap() == 0 {
                return;
            }
        }
    }

    /// Carries one request there, and its answer back. Gives a connection back that is to wait for ever.
    async fn carry(&self, mut client: TcpStream, address: &str) -> std::io::Result<Option<TcpStream>> {
        let request = read_request(&mut client).await?;
        if request.is_empty() {
            return Ok(None);
        }
        let fault = self.next();
        match fault {
            Some(Fault::Lost) => return Ok(None),
            Some(Fault::KilledBefore) => return Ok(Some(client)),
            _ => {}
        }
        let answer = {
            let _ours = self.turn.lock().await;
            let answer = send(&request, address).await?;
            if fault == Some(Fault::Twice) { send(&request, address).await? } else { answer }
        };
        match fault {
            Some(Fault::Unheard) => Ok(None),
            Some(Fault::Killed) => Ok(Some(client)),
            _ => client.write_all(&answer).await.map(|()| None),
        }
    }
}

async fn read_request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let read = client.read(&mut buffer).await?;
        request.extend_from_slice(&buffer[..read]);
        let head = request.windows(4).position(|window| window == b"\r\n\r\n");
        if let Some(head) = head {
            let text = String::from_utf8_lossy(&request[..head]).to_ascii_lowercase();
            let length =
                text.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            if request.len() >= head + 4 + length.unwrap_or(0) {
                // It closes the connection when it has answered.
                let mut closing = request[..head].to_vec();
                closing.extend_from_slice(b"\r\nConnection: close");
                closing.extend_from_slice(&request[head..]);
                return Ok(closing);
            }
        }
        if read == 0 {
            return Ok(Vec::new());
        }
    }
}

async fn send(request: &[u8], address: &str) -> std::io::Result<Vec<u8>> {
    let mut server = TcpStream::connect(address).await?;
    server.write_all(request).await?;
    let mut answer = Vec::new();
    server.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn place(id: &str) -> Place {
    Place::new("simulated", &"alice/d".parse().unwrap(), id, "main")
}

/// A mount that no kernel knows of.
pub(super) struct SimulatedMount {
    pub(super) follower: Follower,
    pub(super) publisher: Publisher,
    vfs: Arc<Vfs>,
    /// Every operation is another process's: nobody is in the middle of a scan.
    next: u32,
    /// What the operation under way knows by number.
    known: Vec<Ino>,
}

impl SimulatedMount {
    pub(super) async fn open(dir: &Path, url: &str, token: &Token, strategy: Strategy) -> Option<Self> {
        let database: DbRef = "alice/d".parse().unwrap();
        let options = RemoteOptions { retries: 0, ..RemoteOptions::default() };
        let remote = Remote::new(&url.parse().unwrap(), Some(token), &options).unwrap();
        let state_dir = dir.join("state");
        let has_pending = |id: &str| Replica::has_pending_in(&place(id).dir(&state_dir), id);
        let started = start(&remote, &database, dir, has_pending).await;
        let Started { shown, known, remembered, fresh } =
            started.inspect_err(|error| tracing::info!(%error, "not mounted")).ok()?;
        if let Some(document) = fresh {
            remember(remembered.clone(), document).await;
        }
        let cache = Arc::new(Cache::open(dir, CacheOptions::default()).unwrap());
        let counters = Arc::new(MountCounters::default());
        let scope = Scope::new(url, &known.id);
        let fetch = FetchOptions { deadline: Duration::from_secs(2), memory: MemoryBudget::default() };
        let fetcher = Fetcher::new(remote.clone(), cache, scope, fetch, counters.clone());
        let place = place(&known.id);
        let overlay = OverlayOptions { state_dir, replica: "main".into(), throw_away: false };
        // There may be no room.
        let written = Written::open(&overlay, &place).await;
        let Written { overlay, upper, .. } =
            written.inspect_err(|error| tracing::info!(%error, "not mounted")).ok()?;
        let replica = Replica::open(overlay.path(), &known.id).unwrap();
        let vfs = Arc::new(Vfs::new(
            database.clone(),
            shown.under(upper),
            Some(overlay.clone()),
            fetcher,
            counters.clone(),
        ));
        let options = ReplicaOptions {
            database,
            strategy,
            filter: Filter::default(),
            brake: Brake::Released,
            conflict_limit: 1 << 30,
        };
        let invalidator = Invalidator::nobody();
        let every = Duration::ZERO;
        let mut follower =
            Follower { remote, vfs: vfs.clone(), invalidator, counters, remembered, known, every };
        let mut publisher = Publisher { replica, options, critical: None, overlay };
        // As a mount does before anybody can change anything.
        if let Err(error) = publisher.resolve(&mut follower).await {
            tracing::info!(%error, "what became of a commit is not known yet");
        }
        Some(Self { follower, publisher, vfs, next: 1 << 23, known: Vec::new() })
    }

    /// Ends without a last word. What its threads are in the middle of is finished; a kill would let them finish a call.
    pub(super) async fn kill(self, dir: &Path) {
        let place = place(&self.follower.known.id);
        drop(self);
        while matches!(place.take(&dir.join("state")), Err(PlaceError::InUse { .. })) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn maker(&mut self) -> Maker {
        self.next += 1;
        Maker { uid: 0, gid: 0, pid: Pid(self.next) }
    }

    fn find(&mut self, path: &str) -> Result<Ino, VfsError> {
        let pid = self.maker().pid;
        let mut at = Ino::ROOT;
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = self.vfs.lookup(at, OsStr::new(name), pid)?.ino;
            self.known.push(at);
        }
        Ok(at)
    }

    /// An operation is over.
    fn done<T>(&mut self, done: Result<T, VfsError>) -> Result<T, VfsError> {
        for ino in self.known.drain(..) {
            self.vfs.forget(ino, 1);
        }
        done
    }

    fn parent<'a>(&mut self, path: &'a str) -> Result<(Ino, &'a OsStr), VfsError> {
        let (above, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut at = Ino::ROOT;
        for directory in above.split('/').filter(|name| !name.is_empty()) {
            let maker = self.maker();
            at = match self.vfs.lookup(at, OsStr::new(directory), maker.pid) {
                Ok(found) => found.ino,
                Err(_) => self.vfs.make_directory(at, OsStr::new(directory), 0o755, maker)?.ino,
            };
            self.known.push(at);
        }
        Ok((at, OsStr::new(name)))
    }

    /// Replaces a file's content, as `echo text >path` does.
    pub(super) fn write(&mut self, path: &str, text: &str) -> Result<(), VfsError> {
        let done = self.try_write(path, text);
        self.done(done)
    }

    fn try_write(&mut self, path: &str, text: &str) -> Result<(), VfsError> {
        let (parent, name) = self.parent(path)?;
        let maker = self.maker();
        let (attr, opened) = self.vfs.create(parent, name, 0o644, Create::Empty, maker)?;
        let written = self.vfs.write(opened.handle, 0, text.as_bytes(), SetIds::Keep);
        self.vfs.release(opened.handle);
        self.known.push(attr.ino);
        written
    }

    /// Begins to replace a file's content, and keeps it open.
    pub(super) fn begin(&mut self, path: &str, text: &str) -> Result<HandleId, VfsError> {
        let begun = self.try_begin(path, text);
        self.done(begun)
    }

    fn try_begin(&mut self, path: &str, text: &str) -> Result<HandleId, VfsError> {
        let (parent, name) = self.parent(path)?;
        let maker = self.maker();
        let (attr, opened) = self.vfs.create(parent, name, 0o644, Create::Empty, maker)?;
        self.known.push(attr.ino);
        let written = self.vfs.write(opened.handle, 0, text.as_bytes(), SetIds::Keep);
        if written.is_err() {
            self.vfs.release(opened.handle);
        }
        written.map(|()| opened.handle)
    }

    /// Goes on with that behind what was written, and closes the file.
    pub(super) fn end(&mut self, handle: HandleId, at: u64, text: &str) -> Result<(), VfsError> {
        let written = self.vfs.write(handle, at, text.as_bytes(), SetIds::Keep);
        self.vfs.release(handle);
        written
    }

    /// The hash of what is at a path, if it is the remote's.
    pub(super) fn hash(&mut self, path: &str) -> Option<Sha256> {
        let found = self.find(path);
        let ino = self.done(found).ok()?;
        let value = self.vfs.xattr(ino, OsStr::new("user.parquedb.sha256")).ok()??;
        String::from_utf8(value).ok()?.parse().ok()
    }

    /// Sets a file's time, which decides conflicts.
    pub(super) fn date(&mut self, path: &str, seconds: i64) -> Result<(), VfsError> {
        let modified = Some(seconds * 1_000_000_000);
        let setting = Setting { modified, ..Setting::default() };
        let set = self.find(path).and_then(|ino| self.vfs.set_attributes(ino, &setting));
        self.done(set.map(drop))
    }

    pub(super) fn remove(&mut self, path: &str) -> Result<(), VfsError> {
        let removed = self.parent(path).and_then(|(parent, name)| self.vfs.unlink(parent, name));
        self.done(removed)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) -> Result<(), VfsError> {
        let renamed = self.parent(from).and_then(|from| Ok((from, self.parent(to)?)));
        let renamed = renamed.and_then(|((from, name), (to, new_name))| {
            self.vfs.rename(from, name, to, new_name, Rename::NoReplace)
        });
        self.done(renamed)
    }

    /// What a program reads at a path.
    pub(super) async fn read(&mut self, path: &str) -> Result<String, VfsError> {
        let pid = self.maker().pid;
        let opened = self.find(path).and_then(|ino| self.vfs.open(ino, pid));
        let opened = self.done(opened)?;
        let read = self.vfs.read(opened.handle, ReaderThread(1), 0, 4096).await;
        self.vfs.release(opened.handle);
        Ok(String::from_utf8_lossy(&read?).into_owned())
    }

    /// Whether there is a file at a path.
    pub(super) fn has(&mut self, path: &str) -> bool {
        let found = self.find(path);
        self.done(found).is_ok()
    }

    /// How many local changes are not published.
    pub(super) fn pending(&self) -> usize {
        self.vfs.pending()
    }
}
