//! The kernel's requests. What memory, the cache or the overlay can answer is answered on the kernel's own thread; what
//! waits for the remote, or for the disk to be done, goes to the runtime, and the thread takes the next request.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, FopenFlags, Generation,
    INodeNo, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs,
    ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

use super::agreed::agree;
use super::answers::{empty, entry, said, sized, taken};
use super::attributes::{BLOCK_SIZE, file_attr, kind, nanoseconds, nothing, remember, remember_absent};
use super::errno::errno;
use super::flags::{allocation, rename_of};
use super::kept::Kept;
use super::modes::Modes;
use super::opening::{Answer, Asked};
use crate::dotdir::{DotDir, DotNode};
use crate::fetch::{FetchError, ReaderThread};
use crate::manifest::PRIVATE_DIR;
use crate::model::ByteRange;
use crate::namespace::Ino;
use crate::overlay::{Durably, Seek};
use crate::vfs::{HandleId, KernelListing, Maker, Pid, SetIds, Setting, Telling, Vfs, VfsError, XattrMode};

pub(super) struct MountedFs {
    pub(super) vfs: Arc<Vfs>,
    pub(super) modes: Modes,
    pub(super) kept: Arc<Kept>,
    pub(super) dotdir: Arc<DotDir>,
    pub(super) runtime: tokio::runtime::Handle,
}

fn maker(req: &Request) -> Maker {
    Maker { uid: req.uid(), gid: req.gid(), pid: Pid(req.pid()) }
}

impl Filesystem for MountedFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        agree(config);
        Ok(())
    }

    fn lookup(&self, req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if let Some(parent) = DotNode::of(Ino(parent.0)) {
            return self.dot_lookup(parent, name, Pid(req.pid()), reply);
        }
        if parent == INodeNo::ROOT && name == PRIVATE_DIR {
            return entry(reply, Ok(self.dotdir.root()));
        }
        match self.vfs.lookup(Ino(parent.0), name, Pid(req.pid())) {
            Err(VfsError::NotFound) => reply.entry(&remember_absent(), &nothing(), Generation(0)),
            found => entry(reply, found),
        }
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        if Ino(ino.0).is_beside() {
            return;
        }
        self.kept.forget(Ino(ino.0));
        self.vfs.forget(Ino(ino.0), nlookup);
    }

    fn getattr(&self, req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        if let Some(node) = DotNode::of(Ino(ino.0)) {
            return self.dot_attr(node, req.pid(), reply);
        }
        match self.vfs.attr(Ino(ino.0)) {
            Ok(attr) => reply.attr(&remember(&attr), &file_attr(&attr)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setattr(
        &self,
        req: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _fh: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let ino = Ino(ino.0);
        let (accessed, modified) = (atime.map(nanoseconds), mtime.map(nanoseconds));
        let drops_set_ids = req.uid() != 0;
        let setting = Setting { mode, uid, gid, size, accessed, modified, drops_set_ids };
        let set = if size.is_some() && (self.modes.reads_cached(ino) || self.kept.is_being_stored(ino)) {
            // Whoever reads it goes on with what it was.
            self.look_again(ino)
        } else {
            self.vfs.set_attributes(ino, &setting)
        };
        match set {
            Ok(attr) => reply.attr(&remember(&attr), &file_attr(&attr)),
            Err(error) => reply.error(said(&error)),
        }
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        let target = match DotNode::of(Ino(ino.0)) {
            Some(node) => self.dotdir.read_link(node),
            None => self.vfs.read_link(Ino(ino.0)),
        };
        match target {
            Ok(target) => reply.data(&target),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn mknod(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        entry(reply, self.vfs.make_node(Ino(parent.0), name, mode, rdev, maker(req)));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        entry(reply, self.vfs.make_directory(Ino(parent.0), name, mode, maker(req)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.vfs.unlink(Ino(parent.0), name));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.vfs.remove_directory(Ino(parent.0), name));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, link_name: &OsStr, target: &Path, reply: ReplyEntry) {
        entry(reply, self.vfs.make_symlink(Ino(parent.0), link_name, target.as_os_str(), maker(req)));
    }

    fn rename(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(how) = rename_of(flags) else { return reply.error(Errno::EINVAL) };
        empty(reply, self.vfs.rename(Ino(parent.0), name, Ino(newparent.0), newname, how));
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        entry(reply, self.vfs.link(Ino(ino.0), Ino(newparent.0), newname));
    }

    fn open(&self, req: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if let Some(node) = DotNode::of(Ino(ino.0)) {
            return self.dot_open(node, Asked::of(flags.0), Pid(req.pid()), reply);
        }
        let opened =
            self.open_file(Ino(ino.0), Asked::of(flags.0), Pid(req.pid()), |file| reply.open_backing(file));
        match opened {
            Ok(Answer { handle, flags, through: Some(through) }) => {
                reply.opened_passthrough(FileHandle(handle.0), flags, &through.backing);
            }
            Ok(Answer { handle, flags, through: None }) => reply.opened(FileHandle(handle.0), flags),
            Err(error) => {
                let looks_again = matches!(error, VfsError::Fetch(FetchError::Stale) | VfsError::LookAgain);
                if !looks_again && !matches!(error, VfsError::ReadOnly) {
                    tracing::warn!(ino = ino.0, %error, "cannot open");
                }
                reply.error(errno(&error));
            }
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        self.create_file(Ino(parent.0), name, mode, flags, maker(req), reply);
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
        if Ino(ino.0).is_beside() {
            return self.dot_read(fh.0, thread, offset, size, reply);
        }
        // Who reads past the kernel's pages says nothing of them.
        if flags.0 & libc::O_DIRECT == 0 {
            self.kept.asked(Ino(ino.0), u64::from(size), || self.vfs.content(handle));
        }
        self.read_bytes(Ino(ino.0), handle, thread, offset, size, reply);
    }

    fn write(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let drops = write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID);
        let set_ids = if drops { SetIds::Drop } else { SetIds::Keep };
        match self.vfs.write(HandleId(fh.0), offset, data, set_ids) {
            // The kernel sends no more than 32 bits can tell.
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(said(&error)),
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
        if ino.is_beside() {
            self.dotdir.release(fh.0);
            return reply.ok();
        }
        if self.modes.close(ino) {
            self.kept.closed(ino, || self.vfs.content(handle));
        }
        self.vfs.release(handle);
        reply.ok();
    }

    /// Closing promises what writing did, and that is kept already (rule 17).
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

    fn fsync(&self, _req: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        if Ino(ino.0).is_beside() {
            return reply.ok();
        }
        let vfs = self.vfs.clone();
        let what = if datasync { Durably::Data } else { Durably::All };
        self.runtime.spawn_blocking(move || vfs.fsync(HandleId(fh.0), what, |done| empty(reply, done)));
    }

    fn fsyncdir(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        let vfs = self.vfs.clone();
        self.runtime.spawn_blocking(move || vfs.fsync_names(|done| empty(reply, done)));
    }

    fn fallocate(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let Some(how) = allocation(mode) else { return reply.error(Errno::EOPNOTSUPP) };
        let Some(end) = offset.checked_add(length).filter(|end| i64::try_from(*end).is_ok()) else {
            return reply.error(Errno::EFBIG);
        };
        empty(reply, self.vfs.allocate(HandleId(fh.0), ByteRange::new(offset, end), how));
    }

    fn lseek(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let Ok(offset) = u64::try_from(offset) else { return reply.error(Errno::ENXIO) };
        let from = match whence {
            libc::SEEK_DATA => Seek::Data(offset),
            libc::SEEK_HOLE => Seek::Hole(offset),
            _ => return reply.error(Errno::EINVAL),
        };
        let found = if Ino(ino.0).is_beside() {
            self.dotdir.seek(fh.0, from)
        } else {
            self.vfs.seek(HandleId(fh.0), from)
        };
        match found {
            Ok(found) => reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn copy_file_range(
        &self,
        _req: &Request,
        ino_in: INodeNo,
        fh_in: FileHandle,
        offset_in: u64,
        _ino_out: INodeNo,
        fh_out: FileHandle,
        offset_out: u64,
        len: u64,
        _flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        // The kernel then reads and writes.
        if Ino(ino_in.0).is_beside() {
            return reply.error(Errno::EXDEV);
        }
        // As much as one answer can tell, in whole pages.
        let length = len.min(u64::from(u32::MAX) & !0xfff);
        let range = ByteRange::new(offset_in, offset_in.saturating_add(length));
        match self.vfs.copy(HandleId(fh_in.0), range, HandleId(fh_out.0), offset_out) {
            Ok(copied) => reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn opendir(&self, req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if let Some(node) = DotNode::of(Ino(ino.0)) {
            return self.dot_open_directory(node, Pid(req.pid()), reply);
        }
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

    fn releasedir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, _flags: OpenFlags, reply: ReplyEmpty) {
        if Ino(ino.0).is_beside() {
            self.dotdir.close_directory(fh.0);
        } else {
            self.vfs.close_directory(HandleId(fh.0));
        }
        reply.ok();
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let listed = self.list(Ino(ino.0), fh.0, offset, Telling::Name, |entry| {
            taken(reply.add(INodeNo(entry.attr.ino.0), entry.next, kind(entry.attr.kind), entry.name))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let listed = self.list(Ino(ino.0), fh.0, offset, Telling::LookedUp, |entry| {
            let attr = file_attr(&entry.attr);
            // What is not there any more is not remembered beyond the listing.
            let remember = if entry.gone { Duration::ZERO } else { remember(&entry.attr) };
            taken(reply.add(attr.ino, entry.next, entry.name, &remember, &attr, Generation(0)))
        });
        match listed {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let totals = self.vfs.totals();
        let block = u64::from(BLOCK_SIZE);
        let (blocks, free, available) =
            (totals.bytes.div_ceil(block), totals.free / block, totals.available / block);
        reply.statfs(blocks, free, available, totals.files, totals.free_files, BLOCK_SIZE, 255, BLOCK_SIZE);
    }

    fn getxattr(&self, req: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        // Not "this file has none": `ls -l` asks for labels and access lists once for the mount instead of for each file.
        if !name.as_bytes().starts_with(b"user.") {
            return reply.error(Errno::EOPNOTSUPP);
        }
        if let Some(node) = DotNode::of(Ino(ino.0)) {
            return self.dot_xattr(node, req.pid(), name, size, reply);
        }
        match self.vfs.xattr(Ino(ino.0), name) {
            Ok(Some(value)) => sized(reply, &value, size),
            Ok(None) => reply.error(Errno::NO_XATTR),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn listxattr(&self, _req: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        if Ino(ino.0).is_beside() {
            return sized(reply, &[], size);
        }
        match self.vfs.xattr_names(Ino(ino.0)) {
            Ok(names) => sized(reply, &names, size),
            Err(error) => reply.error(errno(&error)),
        }
    }

    fn setxattr(
        &self,
        _req: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        let mode = match flags {
            libc::XATTR_CREATE => XattrMode::Create,
            libc::XATTR_REPLACE => XattrMode::Replace,
            _ => XattrMode::Set,
        };
        empty(reply, self.vfs.set_xattr(Ino(ino.0), name, value, mode));
    }

    fn removexattr(&self, _req: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(reply, self.vfs.remove_xattr(Ino(ino.0), name));
    }

    /// Permissions are the kernel's to check (`default_permissions`).
    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        reply.ok();
    }
}
