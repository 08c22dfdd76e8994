//! An empty write-through FUSE daemon: what any daemon on this machine must cost at least. A benchmark measures other
//! mounts against it.
//!
//! `plainfs [--direct] BACKING_DIR DIR` mounts DIR, keeps what is written there in BACKING_DIR, and runs until DIR is
//! unmounted. Each request is one plain system call on the backing file: no passthrough, no writeback cache, nothing
//! remembered but where each inode is. By default the kernel keeps the pages it has seen; `--direct` has every read and
//! write come here.
//!
//! It holds regular files and directories, of the user that runs it, and nothing else: no links, no extended
//! attributes, no set-user-ID bits. Nobody else may change BACKING_DIR meanwhile, for the kernel remembers names and
//! attributes.

mod filesystem;
mod tree;

use std::error::Error;
use std::path::PathBuf;

use fuser::{Config, FopenFlags, MountOption, Session};

fn main() -> Result<(), Box<dyn Error>> {
    let (mut opens, mut paths) = (FopenFlags::FOPEN_KEEP_CACHE, Vec::new());
    for argument in std::env::args_os().skip(1) {
        if argument == "--direct" {
            opens = FopenFlags::FOPEN_DIRECT_IO;
        } else {
            paths.push(PathBuf::from(argument));
        }
    }
    let [backing, mountpoint] = &paths[..] else { return Err("plainfs [--direct] BACKING_DIR DIR".into()) };
    let mountpoint = mountpoint.canonicalize()?;
    // The file system's paths are relative to it, and short.
    std::env::set_current_dir(backing)?;
    // SAFETY: cannot fail, and no other thread runs yet. The kernel has applied the caller's mask already.
    unsafe { libc::umask(0) };

    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName("plainfs".into()),
        MountOption::CUSTOM("subtype=plainfs".into()),
        MountOption::DefaultPermissions,
        MountOption::NoDev,
        MountOption::NoSuid,
    ];
    config.n_threads = Some(std::thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 8));
    config.clone_fd = true;
    Ok(Session::new(filesystem::PlainFs::new(opens), mountpoint, &config)?.run()?)
}
