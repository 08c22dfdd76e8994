//! A machine as its kernel meets it: every request is answered from the disk while the power is on, and with EIO ever
//! after. No request waits for anything but another request's end.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use fuser::{
    AccessFlags, BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use super::disk::{Answer, Disk, Entry};

/// The kernel remembers neither names nor attributes, so that it notices at once when the power is off.
const FORGET: Duration = Duration::ZERO;
/// Bytes are changed through the one kernel only: its pages of them stay right from one open to the next.
const PAGES_STAY: FopenFlags = FopenFlags::FOPEN_KEEP_CACHE;
/// A disk with room for whatever a test writes.
const BLOCKS: u64 = 1 << 24;

/// The machine; its disk is there while the power is on.
pub(super) struct Machine(Mutex<Option<Disk>>);

impl Machine {
    pub(super) fn new(disk: Disk) -> Self {
        Self(Mutex::new(Some(disk)))
    }

    /// Works with the disk, as nobody else does meanwhile.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Disk) -> Answer<T>) -> Answer<T> {
        self.0.lock().unwrap().as_mut().ok_or(Errno::EIO).and_then(work)
    }

    /// The power fails between two requests.
    pub(super) fn power_off(&self) -> Option<Disk> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()
    }
}

/// What answers the kernel.
pub(super) struct Requests {
    machine: Arc<Machine>,
    listings: Mutex<Listings>,
}

/// What open directories held when they were read from the start, so that reading on misses nothing while names go.
#[derive(Default)]
struct Listings {
    open: HashMap<u64, Vec<Entry>>,
    next: u64,
}

impl Requests {
    pub(super) fn new(machine: Arc<Machine>) -> Self {
        Self { machine, listings: Mutex::default() }
    }

    fn empty(&self, reply: ReplyEmpty, work: impl FnOnce(&mut Disk) -> Answer<()>) {
        match self.machine.with(work) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error),
        }
    }

    fn bytes(&self, reply: ReplyData, work: impl FnOnce(&mut Disk) -> Answer<Vec<u8>>) {
        match self.machine.with(work) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn attr(&self, reply: ReplyAttr, work: impl FnOnce(&mut Disk) -> Answer<FileAttr>) {
        match self.machine.with(work) {
            Ok(attr) => reply.attr(&FORGET, &attr),
            Err(error) => reply.error(error),
        }
    }

    fn entry(&self, reply: ReplyEntry, work: impl FnOnce(&mut Disk) -> Answer<u64>) {
        match self.machine.with(|disk| work(disk).and_then(|ino| disk.enter(ino))) {
            Ok(attr) => reply.entry(&FORGET, &attr, Generation(0)),
            Err(error) => reply.error(error),
        }
    }
}

fn owner(req: &Request) -> (u32, u32) {
    (req.uid(), req.gid())
}

fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

/// Locks are the kernel's own affair, and extended attributes there are none of: what is not answered here, the kernel
/// does by itself or takes for not supported.
impl Filesystem for Requests {
    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |disk| disk.look_up((parent.0, name)));
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        let _ = self.machine.with(|disk| {
            disk.let_go(ino.0, nlookup);
            Ok(())
        });
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        self.attr(reply, |disk| disk.attr(ino.0));
    }

    fn setattr(
        &self,
        _req: &Request,
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
        self.attr(reply, |disk| {
            if let Some(size) = size {
                disk.resize(ino.0, size)?;
            }
            disk.describe(ino.0, |attr| {
                attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
                attr.uid = uid.unwrap_or(attr.uid);
                attr.gid = gid.unwrap_or(attr.gid);
                attr.atime = atime.map_or(attr.atime, time);
                attr.mtime = mtime.map_or(attr.mtime, time);
            })?;
            disk.attr(ino.0)
        });
    }

    fn readlink(&self, _req: &Request, ino: INodeNo, reply: ReplyData) {
        self.bytes(reply, |disk| Ok(disk.target(ino.0)?.as_bytes().to_vec()));
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _umask: u32, reply: ReplyEntry) {
        self.entry(reply, |disk| disk.create_directory((parent.0, name), mode, owner(req)));
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.remove((parent.0, name)));
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.remove((parent.0, name)));
    }

    fn symlink(&self, req: &Request, parent: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        self.entry(reply, |disk| disk.create_symlink((parent.0, name), target.as_os_str(), owner(req)));
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
        self.empty(reply, |disk| disk.rename((parent.0, name), (newparent.0, newname), flags));
    }

    fn link(&self, _req: &Request, ino: INodeNo, newparent: INodeNo, newname: &OsStr, reply: ReplyEntry) {
        self.entry(reply, |disk| disk.link(ino.0, (newparent.0, newname)).map(|()| ino.0));
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.machine.with(|disk| disk.attr(ino.0)) {
            Ok(_) => reply.opened(FileHandle(0), PAGES_STAY),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let created = self.machine.with(|disk| {
            let ino = disk.create_file((parent.0, name), mode, owner(req))?;
            disk.enter(ino)
        });
        match created {
            Ok(attr) => reply.created(&FORGET, &attr, Generation(0), FileHandle(0), PAGES_STAY),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        size: u32,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.bytes(reply, |disk| Ok(disk.read(ino.0, offset, size as usize)?.to_vec()));
    }

    fn write(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        data: &[u8],
        _write_flags: WriteFlags,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.machine.with(|disk| disk.write(ino.0, offset, data)) {
            Ok(()) => reply.written(data.len() as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _req: &Request, _ino: INodeNo, _fh: FileHandle, _owner: LockOwner, reply: ReplyEmpty) {
        self.empty(reply, |_| Ok(()));
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.sync(ino.0, !datasync));
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        if let Err(error) = self.machine.with(|disk| disk.attr(ino.0)) {
            return reply.error(error);
        }
        let mut listings = self.listings.lock().unwrap();
        listings.next += 1;
        reply.opened(FileHandle(listings.next), FopenFlags::empty());
    }

    fn readdir(&self, _req: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let mut listings = self.listings.lock().unwrap();
        let listed = self.machine.with(|disk| {
            if offset == 0 {
                listings.open.insert(fh.0, disk.list(ino.0)?);
            }
            Ok(())
        });
        if let Err(error) = listed {
            return reply.error(error);
        }
        // Nobody goes by the number that stands for the directory above.
        let dots = [".", ".."].map(|name| (ino, FileType::Directory, OsStr::new(name)));
        let entries = listings.open.get(&fh.0).into_iter().flatten();
        let entries = entries.map(|entry| (INodeNo(entry.ino), entry.kind, entry.name.as_os_str()));
        for (next, (ino, kind, name)) in (1..).zip(dots.into_iter().chain(entries)).skip(offset as usize) {
            if reply.add(ino, next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn releasedir(
        &self,
        _req: &Request,
        _ino: INodeNo,
        fh: FileHandle,
        _flags: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.listings.lock().unwrap().open.remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.empty(reply, |disk| disk.sync(ino.0, !datasync));
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        match self.machine.with(|_| Ok(())) {
            Ok(()) => reply.statfs(BLOCKS, BLOCKS, BLOCKS, BLOCKS, BLOCKS, 4096, 255, 4096),
            Err(error) => reply.error(error),
        }
    }

    fn access(&self, _req: &Request, _ino: INodeNo, _mask: AccessFlags, reply: ReplyEmpty) {
        self.empty(reply, |_| Ok(()));
    }
}
