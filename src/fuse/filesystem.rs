//! The requests of a read-only mount. What memory or the cache can answer is answered on the kernel's own
//! thread; the rest goes to the runtime, and the thread takes the next request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyDirectoryPlus,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyXattr, Request,
};

use super::errno::errno;
use super::gone::gone;
use super::kept::{By, Kept};
use super::modes::Modes;
use crate::fetch::{FetchError, ReaderThread};
use crate::namespace::Ino;
use crate::vfs::{Attr, AttrKind, HandleId, KernelListing, Pid, Taken, Telling, Vfs, VfsError};

/// The kernel may remember names and attributes: it is told when they change.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
/// How far the kernel reads ahead by itself, and around a page of a mapping: more would reach beyond a Parquet file's
/// end that is fetched when it is opened.
const KERNEL_READAHEAD: u32 = 256 << 10;
/// Reads the kernel may have waiting in the background: far more than a query engine's threads.
const BACKGROUND: u16 = 128;
const BLOCK_SIZE: u32 = 4096;

pub(super) struct MountedFs {
    pub(super) vfs: Arc<Vfs>,
    pub(super) modes: Modes,
    pub(super) kept: Arc<Kept>,
    pub(super) runtime: tokio::runtime::Handle,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

impl MountedFs {
    fn attr(&self, attr: &Attr) -> FileAttr {
        let modified = system_time(attr.modified);
        let (kind, perm) = match attr.kind {
            AttrKind::Directory => (FileType::Directory, 0o555),
            AttrKind::File => (FileType::RegularFile, 0o444),
        };
        FileAttr {
            ino: INodeNo(attr.ino.0),
            size: attr.size,
            blocks: attr.size.div_ceil(512),
            atime: modified,
            mtime: modified,
            ctime: modified,
            crtime: modified,
            kind,
            perm,
            nlink: attr.links,
            uid: self.uid,
            gid: self.gid,
            rdev: 0,
            blksize: BLOCK_SIZE,
            flags: 0,
        }
    }
}

fn system_time(nanoseconds: i64) -> SystemTime {
    let distance = Duration::from_nanos(nanoseconds.unsigned_abs());
    let time = if nanoseconds < 0 {
        SystemTime::UNIX_EPOCH.checked_sub(distance)
    } else {
        SystemTime::UNIX_EPOCH.checked_add(distance)
    };
    time.unwrap_or(SystemTime::UNIX_EPOCH)
}

fn taken(full: bool) -> Taken {
    if full { Taken::Full } else { Taken::Yes }
}

impl Filesystem for MountedFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        // Each is an improvement where the kernel has it, and not missed where it has not.
        for capability in [
            // Attributes come with every listing: they cost nothing here, and asking for them one by one does.
            InitFlags::FUSE_DO_READDIRPLUS,
            // A directory's listing is remembered as long as its time stays.
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
            // A file that is read directly may be mapped all the same.
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            InitFlags::FUSE_PASSTHROUGH,
        ] {
            let _ = config.add_capabilities(capability);
        }
        // The cached files lie on a file system that is no stack of others.
        let _ = config.set_max_stack_depth(1);
        if let Err(most) = config.set_max_readahead(KERNEL_READAHEAD) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.vfs.lookup(Ino(parent.0), name, Pid(req.pid())) {
            Ok(attr) => reply.entry(&REMEMBER, &self.attr(&attr), Generation(0)),
            Err(VfsError::NotFound) => {
                // Inode 0 lets the kernel remember that there is nothing of that name.
                let nothing = Attr { ino: Ino(0), kind: AttrKind::File, size: 0, modified: 0, links: 0 };
                reply.entry(&REMEMBER, &self.attr(&nothing), Generation(0));
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.kept.forget(Ino(ino.0));
        self.vfs.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        match self.vfs.attr(Ino(ino.0)) {
            Ok(attr) => reply.attr(&REMEMBER, &self.attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.vfs.open(Ino(ino.0), Pid(req.pid())) {
            Ok(handle) => {
                let (ino, number) = (Ino(ino.0), FileHandle(handle.0));
                // Who reads past the kernel's pages would meet the disk's alignment in a file handed over.
                let unbuffered = flags.0 & libc::O_DIRECT != 0;
                let content =
                    || if unbuffered || self.kept.is_stored(ino) { None } else { self.vfs.hand_out(handle) };
                match self.modes.open(ino, &reply, content) {
                    Some(through) => {
                        reply.opened_passthrough(number, FopenFlags::empty(), &through.backing);
                        self.kept.opened(ino, By::Passthrough);
                    }
                    // An inode has one content for ever: the kernel's pages of it stay right.
                    None if self.vfs.is_verified(handle) => {
                        if !unbuffered {
                            self.kept.opened(ino, By::Kept);
                        }
                        reply.opened(number, FopenFlags::FOPEN_KEEP_CACHE);
                    }
                    None => reply.opened(number, FopenFlags::FOPEN_DIRECT_IO),
                }
            }
            Err(error) => {
                if !matches!(error, VfsError::Fetch(FetchError::Stale)) {
                    tracing::warn!(ino = ino.0, %error, "cannot open");
                }
                reply.error(errno(&error));
            }
        }
    }

    fn read(
        &self,
        req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let (handle, thread) = (HandleId(fh.0), ReaderThread(req.pid()));
        // Who reads past the kernel's pages says nothing of them.
        if flags.0 & libc::O_DIRECT == 0 {
            self.kept.asked(Ino(ino.0), u64::from(size), || self.vfs.content(handle));
        }
        match self.vfs.read_cached(handle, thread, offset, u64::from(size)) {
            Ok(Some(bytes)) => reply.data(&bytes),
            Ok(None) => {
                let vfs = self.vfs.clone();
                self.runtime.spawn(async move {
                    let read = tokio::select! {
                        read = vfs.read(handle, thread, offset, u64::from(size)) => read,
                        () = gone(thread.0) => return reply.error(Errno::EINTR),
                    };
                    match read {
                        Ok(bytes) => reply.data(&bytes),
                        Err(error) => {
                            tracing::warn!(ino = ino.0, offset, size, %error, "cannot read");
                            reply.error(errno(&error));
                        }
                    }
                });
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        let (ino, handle) = (Ino(ino.0), HandleId(fh.0));
        if self.modes.close(ino) {
            self.kept.closed(ino, || self.vfs.content(handle));
        }
        self.vfs.release(handle);
        reply.ok();
    }

    fn flush(
        &self,
        _req: &Request,
        _ino: INodeNo,
        _fh: FileHandle,
        _lock_owner: LockOwner,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.vfs.open_directory(Ino(ino.0), Pid(req.pid())) {
            Ok((handle, KernelListing::Keep)) => {
                reply.opened(FileHandle(handle.0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE)
            }
            Ok((handle, KernelListing::Forget)) => {
                reply.opened(FileHandle(handle.0), FopenFlags::FOPEN_CACHE_DIR);
            }
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.vfs.close_directory(HandleId(fh.0));
        reply.ok();
    }

    fn readdir(&self, _req: &Request, _ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.vfs.list(HandleId(fh.0), offset, Telling::Name, |entry| {
            let kind = self.attr(&entry.attr).kind;
            taken(reply.add(INodeNo(entry.attr.ino.0), entry.next, kind, entry.name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.vfs.list(HandleId(fh.0), offset, Telling::LookedUp, |entry| {
            let attr = self.attr(&entry.attr);
            // What is not there any more is not remembered beyond the listing.
            let remember = if entry.gone { &Duration::ZERO } else { &REMEMBER };
            taken(reply.add(attr.ino, entry.next, entry.name, remember, &attr, Generation(0)))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let (nodes, bytes) = self.vfs.totals();
        let blocks = bytes.div_ceil(u64::from(BLOCK_SIZE));
        reply.statfs(blocks, 0, 0, nodes, 0, BLOCK_SIZE, 255, BLOCK_SIZE);
    }

    fn getxattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        // Not "this file has none": `ls -l` asks for labels and access lists once for the mount instead of for each file.
        if !name.as_bytes().starts_with(b"user.") {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let value = match name.to_str().map(|name| self.vfs.xattr(Ino(ino.0), name)) {
            Some(Ok(Some(value))) => value,
            Some(Err(error)) => return reply.error(errno(&error)),
            Some(Ok(None)) | None => return reply.error(Errno::NO_XATTR),
        };
        match (u32::try_from(value.len()), size) {
            (Ok(length), 0) => reply.size(length),
            (Ok(length), size) if length <= size => reply.data(value.as_bytes()),
            _ => reply.error(Errno::ERANGE),
        }
    }

    /// The mount's own attributes are asked for by name and not listed, so that copying tools do not copy them.
    fn listxattr(&self, _req: &Request, _ino: INodeNo, size: u32, reply: ReplyXattr) {
        if size == 0 { reply.size(0) } else { reply.data(&[]) }
    }

    /// Permissions are the kernel's to check (`default_permissions`).
    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
