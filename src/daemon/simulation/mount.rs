//! A mount without a kernel, with the real engine, overlay and cache.

use std::ffi::OsStr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::{Cache, CacheOptions, Scope};
use crate::daemon::follow::{Follower, remember};
use crate::daemon::mount::OverlayOptions;
use crate::daemon::publishing::Publisher;
use crate::daemon::start::{Started, start};
use crate::daemon::written::Written;
use crate::fetch::{FetchOptions, Fetcher, MemoryBudget, ReaderThread};
use crate::fuse::Invalidator;
use crate::metrics::MountCounters;
use crate::model::{DbRef, Sha256, Token};
use crate::namespace::Ino;
use crate::remote::{Remote, RemoteOptions};
use crate::state::{Place, PlaceError};
use crate::sync::{Brake, Filter, Replica, ReplicaOptions, Strategy};
use crate::vfs::{Create, HandleId, Maker, Pid, Rename, SetIds, Setting, Vfs, VfsError};

fn place(id: &str) -> Place {
    Place::new("simulated", &"alice/d".parse().unwrap(), id, "main")
}

/// What follows the remote for a mount, and publishes.
pub(super) struct Daemon {
    pub(super) follower: Follower,
    pub(super) publisher: Publisher,
}

/// A mount that no kernel knows of.
pub(super) struct SimulatedMount {
    /// None while a round is under way.
    pub(super) daemon: Option<Daemon>,
    place: Place,
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
        let daemon = Some(Daemon { follower, publisher });
        Some(Self { daemon, place, vfs, next: 1 << 23, known: Vec::new() })
    }

    /// Ends without a last word. What its threads are in the middle of is finished; a kill would let them finish a call.
    pub(super) async fn kill(self, dir: &Path) {
        let place = self.place.clone();
        drop(self);
        while matches!(place.take(&dir.join("state")), Err(PlaceError::InUse { .. })) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Everything that is done beside its round, on other threads, is done: the same always comes before what comes then.
    pub(super) async fn is_quiet(&self) {
        // The round's own, and this.
        while Arc::strong_count(&self.vfs) > 2 {
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

    /// Writes behind what is there, as `echo text >>path` does.
    pub(super) fn append(&mut self, path: &str, text: &str) -> Result<(), VfsError> {
        let appended = self.try_append(path, text);
        self.done(appended)
    }

    fn try_append(&mut self, path: &str, text: &str) -> Result<(), VfsError> {
        let (ino, pid) = (self.find(path)?, self.maker().pid);
        let opened = self.vfs.open_to_write(ino, pid)?;
        let appended = self
            .vfs
            .attr(ino)
            .and_then(|attr| self.vfs.write(opened.handle, attr.size, text.as_bytes(), SetIds::Keep));
        self.vfs.release(opened.handle);
        appended
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
