//! A directory on a disk that forgets: a file system of the tests' own, mounted for real, whose power can be cut. What
//! another process did in it and did not make durable is lost by that, by the letter of POSIX: a file's bytes without
//! an `fsync` of the file, a name without an `fsync` of its directory.
//!
//! Who had something open when the power failed gets EIO for all of it from then on; the machine that is booted anew is
//! another mount at the same place, and knows nothing but the disk.

mod disk;
mod lasting;
mod machine;

pub use disk::Counts;
pub use lasting::Tearing;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use fuser::{Config, INodeNo, MountOption, Notifier, Session, SessionUnmounter};
use rustix::mount::UnmountFlags;

use disk::Disk;
use machine::{Machine, Requests};

/// A mounted directory that forgets. Dropped, it is unmounted: to be dropped before the directory it is mounted on.
pub struct Forgetful {
    dir: PathBuf,
    state: Mutex<State>,
}

struct State {
    mount: Mount,
    /// The disk, while the power is off.
    idle: Option<Disk>,
}

/// A machine and its mount.
struct Mount {
    machine: Arc<Machine>,
    notifier: Notifier,
    unmounter: SessionUnmounter,
}

impl Forgetful {
    /// Mounts an empty disk at `dir`, an empty directory. A cut makes it forget what `tearing` says.
    pub fn mount(dir: &Path, tearing: Tearing) -> Self {
        let dir = dir.canonicalize().unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
        let empty = std::fs::read_dir(&dir).is_ok_and(|mut names| names.next().is_none());
        assert!(empty, "{} is no empty directory to mount a forgetful one on", dir.display());
        let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let mount = Mount::start(&dir, Disk::new(tearing, uid, gid));
        Self { dir, state: Mutex::new(State { mount, idle: None }) }
    }

    /// The power fails: everything below the directory gives EIO until the power is back. Who used it is to be killed before
    /// that: it could open files of the new mount by their paths.
    pub fn power_off(&self) {
        let mut state = self.state.lock().unwrap();
        let disk = state.mount.machine.power_off().expect("the power is on");
        // The kernel's pages are the machine's memory.
        for ino in disk.inodes() {
            let _ = state.mount.notifier.inval_inode(INodeNo(ino), 0, 0);
        }
        state.idle = Some(disk.cut());
    }

    /// The power is back: the directory shows what the disk has kept.
    pub fn power_on(&self) {
        let mut state = self.state.lock().unwrap();
        let disk = state.idle.take().expect("the power is off");
        state.mount.stop(&self.dir);
        state.mount = Mount::start(&self.dir, disk);
    }

    /// No write makes a file longer from now on: it is EDQUOT, which no disk of this machine's can be made to say.
    pub fn reach_quota(&self, reached: bool) {
        let state = self.state.lock().unwrap();
        let set = state.mount.machine.with(|disk| {
            disk.reach_quota(reached);
            Ok(())
        });
        set.expect("the power is on");
    }

    /// What the cuts so far have lost.
    pub fn counts(&self) -> Counts {
        let state = self.state.lock().unwrap();
        match &state.idle {
            Some(disk) => disk.counts(),
            None => state.mount.machine.with(|disk| Ok(disk.counts())).expect("the power is on"),
        }
    }
}

impl Drop for Forgetful {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        state.mount.machine.power_off();
        state.mount.stop(&self.dir);
    }
}

impl Mount {
    fn start(dir: &Path, disk: Disk) -> Self {
        let machine = Arc::new(Machine::new(disk));
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("forgetful".into()),
            MountOption::CUSTOM("subtype=forgetful".into()),
            MountOption::DefaultPermissions,
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        let mut session = Session::new(Requests::new(machine.clone()), dir, &config)
            .unwrap_or_else(|error| panic!("cannot mount at {}: {error}", dir.display()));
        let (notifier, unmounter) = (session.notifier(), session.unmount_callable());
        // It ends by itself once nobody has anything open.
        thread::spawn(move || session.run());
        Self { machine, notifier, unmounter }
    }

    /// Takes the mount away from its place; what is open in it stays open.
    fn stop(&mut self, dir: &Path) {
        if rustix::mount::unmount(dir, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW).is_err() {
            // A plain user's mount was made by fusermount3.
            let _ = Command::new("fusermount3").arg("-uz").arg(dir).output();
        }
        // The session would unmount when it ends, which may be late: what is at this place then is not its own. There
        // is nothing now, so that this only takes the duty from it.
        let _ = self.unmounter.unmount();
    }
}
