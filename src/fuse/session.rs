//! Mounting and unmounting.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use fuser::{Config, MountOption, Session, SessionACL};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;

use super::filesystem::MountedFs;
use super::invalidate::Invalidator;
use super::kept::{self, Kept};
use super::modes::{Modes, Passthrough};
use super::options::MountFlag;
use crate::dotdir::DotDir;
use crate::vfs::Vfs;

/// The type a mount shows in `/proc/self/mountinfo`.
const FILE_SYSTEM_TYPE: &str = "fuse.parquedb";

/// How long a mount may take to show that its daemon lives.
const PROBE: Duration = Duration::from_secs(3);

/// How to mount.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// Shown as the mount's source.
    pub name: String,
    /// Whether the kernel is given complete cached files to read by itself.
    pub passthrough: Passthrough,
    /// Refuse writes.
    pub read_only: bool,
    /// What `-o` has asked for. With `allow_other`, other users are let in (a plain user needs `user_allow_other` in fuse.conf).
    pub flags: Vec<MountFlag>,
    /// Threads that take the kernel's requests.
    pub threads: usize,
}

/// A mount that answers.
pub struct MountedSession {
    mountpoint: PathBuf,
    invalidator: Invalidator,
    thread: std::thread::JoinHandle<io::Result<()>>,
}

impl MountedSession {
    /// Mounts `vfs`; when this returns, the kernel has been answered once.
    pub fn start(
        vfs: Arc<Vfs>,
        dotdir: Arc<DotDir>,
        mountpoint: &Path,
        options: &SessionOptions,
        runtime: tokio::runtime::Handle,
    ) -> io::Result<Self> {
        let (kept, wanted) = Kept::new();
        let kept = Arc::new(kept);
        let filesystem =
            MountedFs { vfs, modes: Modes::new(options.passthrough), kept: kept.clone(), dotdir, runtime };
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName(options.name.clone()),
            // As an option of the kernel's, for fuser hands `Subtype` to fusermount3 only.
            MountOption::CUSTOM("subtype=parquedb".into()),
            MountOption::DefaultPermissions,
            if options.read_only { MountOption::RO } else { MountOption::RW },
            MountOption::NoDev,
            MountOption::NoSuid,
        ];
        config.mount_options.extend(MountFlag::for_kernel(&options.flags));
        let lets_in = options.flags.contains(&MountFlag::AllowOther);
        config.acl = if lets_in { SessionACL::All } else { SessionACL::Owner };
        config.n_threads = Some(options.threads);
        config.clone_fd = true;
        let session = Session::new(filesystem, mountpoint, &config)?;
        let invalidator = Invalidator::new(session.notifier());
        let (kernel, kept) = (invalidator.clone(), Arc::downgrade(&kept));
        std::thread::Builder::new()
            .name("fuse-kept".into())
            .spawn(move || kept::store(&wanted, &kept, &kernel))?;
        let thread = std::thread::Builder::new().name("fuse-session".into()).spawn(move || session.run())?;
        Ok(Self { mountpoint: mountpoint.to_owned(), invalidator, thread })
    }

    /// What tells the kernel of this mount what to forget.
    pub fn invalidator(&self) -> Invalidator {
        self.invalidator.clone()
    }

    /// Where it is mounted.
    pub fn mountpoint(&self) -> &Path {
        &self.mountpoint
    }

    /// Waits until it is unmounted, by us or by anyone.
    pub fn wait(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the file system's thread panicked")))
    }
}

/// A mount that could not be taken away.
#[derive(Debug, thiserror::Error)]
#[error("cannot unmount '{path}': {reason}")]
pub struct UnmountError {
    path: String,
    reason: String,
}

/// Takes a mount away, at once for new opens; files that are open stay readable while the daemon lives.
pub fn unmount(mountpoint: &Path) -> Result<(), UnmountError> {
    let failed = |reason: String| UnmountError { path: mountpoint.display().to_string(), reason };
    match rustix::mount::unmount(mountpoint, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(Errno::PERM) => {
            // A plain user's mount was made by fusermount3, and is taken away by it.
            let output =
                std::process::Command::new("fusermount3").arg("-uz").arg("--").arg(mountpoint).output();
            match output {
                Ok(output) if output.status.success() => Ok(()),
                Ok(output) => Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned())),
                Err(error) => Err(failed(format!("fusermount3: {error}: install fuse3"))),
            }
        }
        Err(error) => Err(failed(io::Error::from(error).to_string())),
    }
}

/// The type of what is mounted just at `path` (absolute, without links in it), if anything is.
pub fn mounted_type(path: &Path) -> io::Result<Option<String>> {
    let topmost = mounts()?.into_iter().rev().find(|(at, _)| at == path);
    Ok(topmost.map(|(_, kind)| kind))
}

/// Where mounts of ours are.
pub fn mountpoints_of_ours() -> io::Result<Vec<PathBuf>> {
    let ours = mounts()?.into_iter().filter(|(_, kind)| kind == FILE_SYSTEM_TYPE);
    Ok(ours.map(|(at, _)| at).collect())
}

/// All that is mounted: where, and its type; what hides another comes later.
fn mounts() -> io::Result<Vec<(PathBuf, String)>> {
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    let mount = |line: &str| {
        let (mount, rest) = line.split_once(" - ")?;
        let at = PathBuf::from(unescape(mount.split(' ').nth(4)?));
        Some((at, rest.split(' ').next().unwrap_or_default().to_owned()))
    };
    Ok(table.lines().filter_map(mount).collect())
}

/// mountinfo writes blanks, tabs, line ends and backslashes as octal.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Clears the mount of a daemon that died, if that is what is at `path`. `false`: nothing dead is there.
pub fn clear_dead_mount(path: &Path) -> Result<bool, UnmountError> {
    let ours = mounted_type(path).ok().flatten().is_some_and(|kind| kind == FILE_SYSTEM_TYPE);
    if !ours || !is_dead(path) {
        return Ok(false);
    }
    unmount(path)?;
    Ok(true)
}

/// Whether the daemon behind a mount is gone: then everything the kernel does not remember is ENOTCONN. A daemon
/// that hangs is not dead, and asking it must not hang us.
pub fn is_dead(path: &Path) -> bool {
    let (tell, hear) = std::sync::mpsc::channel();
    let path = path.to_owned();
    let asking = std::thread::Builder::new().name("mount-probe".into()).spawn(move || {
        // Attributes may be remembered by the kernel; the file system's statistics never are.
        let _ = tell.send(matches!(rustix::fs::statfs(&path), Err(Errno::NOTCONN | Errno::CONNABORTED)));
    });
    let (Ok(thread), Ok(dead)) = (asking, hear.recv_timeout(PROBE)) else { return false };
    // The daemon forks after this: no thread may be left.
    let _ = thread.join();
    dead
}
