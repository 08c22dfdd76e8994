//! A mount and the daemon that serves it. Whatever becomes of a test, nothing of either is left:
//! when the last value of a mounting is dropped, who serves is killed and what is mounted taken away; and after the
//! deadline a watchdog does the same, so that no read hangs a test for ever.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{DEADLINE, finish, run_to_end, text};

/// Where one mounting lives.
pub(super) struct Place(pub(super) TempDir);

/// A mount and its daemon.
pub struct Mount {
    place: Arc<Place>,
    pid: Pid,
    /// The daemon, where it stayed in the foreground.
    child: Option<Child>,
    /// Dropped, it calls the watchdog off.
    _watched: mpsc::Sender<()>,
}

/// What a mount says of itself.
#[derive(Debug, Clone, Copy, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub requests: u64,
    pub polls: u64,
    pub flips: u64,
    pub reads: u64,
    pub bytes_fetched: u64,
    pub bytes_proven: u64,
    pub bytes_read: u64,
    pub bytes_from_cache: u64,
    pub bytes_ahead: u64,
    pub bytes_ahead_read: u64,
    pub bytes_evicted: u64,
    pub blocks_rotten: u64,
    pub responses_refused: u64,
    pub memory_in_use: u64,
    pub memory_most: u64,
    pub memory_waits: u64,
}

impl Mount {
    /// Takes charge of a mount that `pid` serves, and ends it when it lasts too long.
    pub(super) fn of(place: &Arc<Place>, pid: Pid, child: Option<Child>, patience: Duration) -> Self {
        let (_watched, called_off) = mpsc::channel::<()>();
        let mountpoint = place.mountpoint();
        thread::spawn(move || {
            if called_off.recv_timeout(patience) == Err(mpsc::RecvTimeoutError::Timeout) {
                clear(&mountpoint);
            }
        });
        Self { place: place.clone(), pid, child, _watched }
    }

    /// Whether its daemon, which stayed in the foreground, is still there.
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn path(&self) -> PathBuf {
        self.place.mountpoint()
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn read(&self, name: &str) -> std::io::Result<Vec<u8>> {
        fs::read(self.at(name))
    }

    pub fn pid(&self) -> Pid {
        self.pid
    }

    #[track_caller]
    pub fn stats(&self) -> Stats {
        let stats = xattr(&self.path(), "user.parquedb.stats").unwrap();
        serde_json::from_str(&stats).unwrap_or_else(|error| panic!("{error}: {stats}"))
    }

    /// Its line in mountinfo, cut at the blanks.
    pub fn entry(&self) -> Option<Vec<String>> {
        mount_entry(&self.path())
    }

    /// What the daemon has logged.
    pub fn log(&self) -> String {
        let read = |file: PathBuf| fs::read_to_string(file).unwrap_or_default();
        let files = fs::read_dir(self.place.0.path().join("state")).into_iter().flatten();
        let logs: String = files.map(|file| read(file.unwrap().path())).collect();
        logs + &read(self.place.0.path().join("stderr"))
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Unmounts it as a user does, and waits for the daemon's end.
    #[track_caller]
    pub fn unmount(mut self) {
        self.take_away();
        self.gone();
    }

    /// Unmounts it as a user does; the daemon may still be at work then.
    #[track_caller]
    pub fn take_away(&self) {
        until(|| {
            let ended = run_to_end(Command::new("fusermount3").arg("-u").arg(self.path()), b"");
            // A program that another test starts just then holds our files until it has become that program.
            assert!(ended.code == 0 || ended.stderr.contains("busy"), "{}\n{}", ended.stderr, self.log());
            ended.code == 0
        });
    }

    /// SIGTERM, and waits for the daemon's end.
    #[track_caller]
    pub fn sigterm(mut self) {
        self.signal(Signal::TERM);
        self.gone();
    }

    /// Waits for the daemon's end after a signal.
    #[track_caller]
    pub fn ended(mut self) {
        self.gone();
    }

    /// SIGKILL: the mount stays, and nobody serves it.
    #[track_caller]
    pub fn kill9(self) {
        self.signal(Signal::KILL);
        until(|| !is_running(self.pid));
        assert!(self.entry().is_some(), "the kernel keeps a dead daemon's mount");
    }

    /// Waits until neither daemon nor mount is there; in the foreground the status must be 0.
    #[track_caller]
    pub fn gone(&mut self) {
        if let Some(child) = &mut self.child {
            assert_eq!(finish(child), Some(0), "{}", self.log());
        }
        until(|| !is_running(self.pid));
        assert_eq!(self.entry(), None, "nothing is left mounted");
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        clear(&self.mountpoint());
    }
}

impl Place {
    pub(super) fn mountpoint(&self) -> PathBuf {
        self.0.path().join("mnt")
    }
}

/// An extended attribute, as text.
pub fn xattr(path: &Path, name: &str) -> std::io::Result<String> {
    let mut value = vec![0; 4096];
    let length = rustix::fs::getxattr(path, name, &mut value)?;
    Ok(String::from_utf8_lossy(&value[..length]).into_owned())
}

/// The line of mountinfo for what is mounted just there, cut at the blanks.
pub fn mount_entry(path: &Path) -> Option<Vec<String>> {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut entries = table.lines().map(|line| line.split(' ').map(str::to_owned).collect::<Vec<_>>());
    entries.find(|entry| entry[4] == text(path))
}

/// Waits for `condition`, within the deadline.
#[track_caller]
pub fn until(mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < end, "it does not come about");
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whether a process has not ended. One that nobody has asked for its status yet has.
fn is_running(pid: Pid) -> bool {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The processes of a program that were started with this argument.
pub fn started_with(program: &str, argument: &Path) -> Vec<Pid> {
    let pids =
        fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_it = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
        Path::new(std::ffi::OsStr::from_bytes(words[0])).file_name() == Some(program.as_ref())
            && words.contains(&argument.as_os_str().as_bytes())
    };
    pids.filter(is_it).filter_map(Pid::from_raw).collect()
}

pub(super) fn serving(mountpoint: &Path) -> Vec<Pid> {
    started_with("parquedb-mount", mountpoint)
}

/// Kills who serves a mount, and takes it away.
fn clear(mountpoint: &Path) {
    for pid in serving(mountpoint) {
        let _ = kill_process(pid, Signal::KILL);
    }
    while mount_entry(mountpoint).is_some() {
        let unmounted = Command::new("fusermount3").arg("-uz").arg(mountpoint).stderr(Stdio::null()).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            break;
        }
    }
}
