//! The requests.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder, File, FileTimes, OpenOptions, Permissions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use crate::tree::Tree;

/// Names and attributes change through the mount only: the kernel knows.
const REMEMBER: Duration = Duration::from_secs(24 * 3600);
// The same as of the mounts that are measured against this one.
const KERNEL_READAHEAD: u32 = 256 << 10;
const BACKGROUND: u16 = 128;
/// Without set-user-ID and set-group-ID: then there is none to take away at a write, as `FUSE_HANDLE_KILLPRIV_V2`
/// promises.
const MODE_BITS: u32 = 0o1777;
/// Every request names its inode, and an inode's handles share a file: handles need no numbers.
const NO_HANDLE: FileHandle = FileHandle(0);

pub(crate) struct PlainFs {
    tree: RwLock<Tree>,
    listings: Mutex<HashMap<u64, Arc<[OsString]>>>,
    last_listing: AtomicU64,
    opens: FopenFlags,
}

impl PlainFs {
    pub(crate) fn new(opens: FopenFlags) -> Self {
        Self { tree: RwLock::default(), listings: Mutex::default(), last_listing: AtomicU64::new(0), opens }
    }

    /// Reads what the tree says; no system call is made meanwhile.
    fn tree<T>(&self, read: impl FnOnce(&Tree) -> T) -> T {
        read(&self.tree.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn tree_mut<T>(&self, change: impl FnOnce(&mut Tree) -> T) -> T {
        change(&mut self.tree.write().unwrap_or_else(PoisonError::into_inner))
    }

    fn listings(&self) -> MutexGuard<'_, HashMap<u64, Arc<[OsString]>>> {
        self.listings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        self.tree(|tree| tree.path(ino.0)).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    /// The file of an inode that is open.
    fn file(&self, ino: INodeNo) -> io::Result<Arc<File>> {
        self.tree(|tree| tree.opened(ino.0)).ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }

    /// What has that name now; its inode is counted as told to the kernel once more.
    fn enter(&self, parent: INodeNo, name: &OsStr) -> io::Result<FileAttr> {
        let metadata = fs::symlink_metadata(self.child(parent, name)?)?;
        Ok(attr(self.tree_mut(|tree| tree.enter(parent.0, name)), &metadata))
    }

    fn create_file(&self, parent: INodeNo, name: &OsStr, mode: u32, only_new: bool) -> io::Result<FileAttr> {
        let mut options = for_all_handles();
        options.mode(mode & MODE_BITS).create(true).create_new(only_new);
        let file = options.open(self.child(parent, name)?)?;
        let metadata = file.metadata()?;
        let ino = self.tree_mut(|tree| {
            let ino = tree.enter(parent.0, name);
            tree.open(ino, file);
            ino
        });
        Ok(attr(ino, &metadata))
    }

    /// A file to change an inode's attributes by. A directory cannot be opened for writing, nor need it be.
    fn changeable(&self, ino: INodeNo, write: bool) -> io::Result<Arc<File>> {
        self.file(ino).or_else(|_| for_all_handles().write(write).open(self.path(ino)?).map(Arc::new))
    }

    fn list(&self, ino: INodeNo) -> io::Result<u64> {
        let names = fs::read_dir(self.path(ino)?)?.map(|entry| Ok(entry?.file_name()));
        let names = names.collect::<io::Result<_>>()?;
        let listing = self.last_listing.fetch_add(1, Ordering::Relaxed) + 1;
        self.listings().insert(listing, names);
        Ok(listing)
    }
}

/// For reading and writing, whatever was asked for: an inode's handles share a file, and the kernel checks each.
fn for_all_handles() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(libc::O_NOFOLLOW);
    options
}

fn attr(ino: u64, metadata: &fs::Metadata) -> FileAttr {
    let epoch = SystemTime::UNIX_EPOCH;
    FileAttr {
        ino: INodeNo(ino),
        size: metadata.size(),
        blocks: metadata.blocks(),
        atime: metadata.accessed().unwrap_or(epoch),
        mtime: metadata.modified().unwrap_or(epoch),
        ctime: epoch + Duration::new(metadata.ctime().unsigned_abs(), metadata.ctime_nsec() as u32),
        crtime: epoch,
        kind: FileType::from_std(metadata.file_type()).unwrap_or(FileType::RegularFile),
        perm: (metadata.mode() & MODE_BITS) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: metadata.rdev() as u32,
        blksize: metadata.blksize() as u32,
        flags: 0,
    }
}

fn at(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::SpecificTime(time) => time,
        TimeOrNow::Now => SystemTime::now(),
    }
}

fn done(result: io::Result<()>, reply: ReplyEmpty) {
    match result {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error.into()),
    }
}

fn entered(result: io::Result<FileAttr>, reply: ReplyEntry) {
    match result {
        Ok(attr) => reply.entry(&REMEMBER, &attr, Generation(0)),
        Err(error) => reply.error(error.into()),
    }
}

fn described(ino: INodeNo, result: io::Result<fs::Metadata>, reply: ReplyAttr) {
    match result {
        Ok(metadata) => reply.attr(&REMEMBER, &attr(ino.0, &metadata)),
        Err(error) => reply.error(error.into()),
    }
}

thread_local! {
    /// What a thread reads goes through here: a new buffer for each read would have to be cleared first.
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// fuser answers what is not here with ENOSYS. After one such answer the kernel sends no FLUSH and GETXATTR any more.
impl Filesystem for PlainFs {
    fn init(&mut self, _req: &Request, config: &mut KernelConfig) -> io::Result<()> {
        for capability in [
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
            // Else the kernel asks for security.capability before each write.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        ] {
            let _ = config.add_capabilities(capability);
        }
        if let Err(most) = config.set_max_readahead(KERNEL_READAHEAD) {
            let _ = config.set_max_readahead(most);
        }
        let _ = config.set_max_background(BACKGROUND);
        Ok(())
    }

    fn lookup(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.enter(parent, name).or_else(|error| match error.raw_os_error() {
            // Inode 0 lets the kernel remember that there is nothing of that name.
            Some(libc::ENOENT) => Ok(attr(0, &fs::symlink_metadata(".")?)),
            _ => Err(error),
        });
        entered(found, reply);
    }

    fn forget(&self, _req: &Request, ino: INodeNo, nlookup: u64) {
        self.tree_mut(|tree| tree.forget(ino.0, nlookup));
    }

    fn getattr(&self, _req: &Request, ino: INodeNo, _fh: Option<FileHandle>, reply: ReplyAttr) {
        // One that is open may have no name any more.
        let metadata = match self.file(ino) {
            Ok(file) => file.metadata(),
            Err(_) => self.path(ino).and_then(fs::symlink_metadata),
        };
        described(ino, metadata, reply);
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
        let changed = self.changeable(ino, size.is_some()).and_then(|file| {
            if let Some(size) = size {
                file.set_len(size)?;
            }
            if uid.is_some() || gid.is_some() {
                fchown(&file, uid, gid)?;
            }
            if let Some(mode) = mode {
                file.set_permissions(Permissions::from_mode(mode & MODE_BITS))?;
            }
            if atime.is_some() || mtime.is_some() {
                let times = FileTimes::new();
                let times = atime.map_or(times, |time| times.set_accessed(at(time)));
                file.set_times(mtime.map_or(times, |time| times.set_modified(at(time))))?;
            }
            file.metadata()
        });
        described(ino, changed, reply);
    }

    fn mkdir(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        let made =
            self.child(parent, name).and_then(|path| DirBuilder::new().mode(mode & MODE_BITS).create(path));
        entered(made.and_then(|()| self.enter(parent, name)), reply);
    }

    fn unlink(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.child(parent, name).and_then(fs::remove_file);
        done(removed.map(|()| self.tree_mut(|tree| tree.remove(parent.0, name))), reply);
    }

    fn rmdir(&self, _req: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.child(parent, name).and_then(fs::remove_dir);
        done(removed.map(|()| self.tree_mut(|tree| tree.remove(parent.0, name))), reply);
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
        // Programs that ask for more do without it when they get this.
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let moved =
            self.child(parent, name).and_then(|from| fs::rename(from, self.child(newparent, newname)?));
        let moved =
            moved.map(|()| self.tree_mut(|tree| tree.rename((parent.0, name), (newparent.0, newname))));
        done(moved, reply);
    }

    fn create(
        &self,
        _req: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        match self.create_file(parent, name, mode, flags & libc::O_EXCL != 0) {
            Ok(attr) => reply.created(&REMEMBER, &attr, Generation(0), NO_HANDLE, self.opens),
            Err(error) => reply.error(error.into()),
        }
    }

    fn open(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.path(ino).and_then(|path| for_all_handles().open(path)) {
            Ok(file) => {
                self.tree_mut(|tree| tree.open(ino.0, file));
                reply.opened(NO_HANDLE, self.opens);
            }
            Err(error) => reply.error(error.into()),
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
        BUFFER.with_borrow_mut(|buffer| {
            let size = size as usize;
            if buffer.len() < size {
                buffer.resize(size, 0);
            }
            match self.file(ino).and_then(|file| file.read_at(&mut buffer[..size], offset)) {
                Ok(length) => reply.data(&buffer[..length]),
                Err(error) => reply.error(error.into()),
            }
        });
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
        match self.file(ino).and_then(|file| file.write_at(data, offset)) {
            Ok(length) => reply.written(length as u32),
            Err(error) => reply.error(error.into()),
        }
    }

    fn release(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        _flags: OpenFlags,
        _lock_owner: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        // The last one closes the file, when the tree is free again.
        drop(self.tree_mut(|tree| tree.close(ino.0)));
        reply.ok();
    }

    fn fsync(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.file(ino).and_then(|file| file.sync_data()), reply);
    }

    fn fallocate(
        &self,
        _req: &Request,
        ino: INodeNo,
        _fh: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let (offset, length) = (offset.cast_signed(), length.cast_signed());
        let allocated = self.file(ino).and_then(|file| {
            // SAFETY: the descriptor is open as long as `file` lives.
            match unsafe { libc::fallocate(file.as_raw_fd(), mode, offset, length) } {
                0 => Ok(()),
                _ => Err(io::Error::last_os_error()),
            }
        });
        done(allocated, reply);
    }

    fn opendir(&self, _req: &Request, ino: INodeNo, _flags: OpenFlags, reply: ReplyOpen) {
        match self.list(ino) {
            Ok(listing) => reply.opened(FileHandle(listing), FopenFlags::empty()),
            Err(error) => reply.error(error.into()),
        }
    }

    /// The kernel lists in no other way, for `init` told it so.
    fn readdirplus(
        &self,
        _req: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        let Some(names) = self.listings().get(&fh.0).cloned() else { return reply.error(Errno::EBADF) };
        for (index, name) in names.iter().enumerate().skip(offset as usize) {
            // Gone since the listing was made.
            let Ok(attr) = self.enter(ino, name) else { continue };
            if reply.add(attr.ino, index as u64 + 1, name, &REMEMBER, &attr, Generation(0)) {
                self.tree_mut(|tree| tree.forget(attr.ino.0, 1));
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
        self.listings().remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _req: &Request, ino: INodeNo, _fh: FileHandle, _datasync: bool, reply: ReplyEmpty) {
        done(self.path(ino).and_then(File::open).and_then(|directory| directory.sync_data()), reply);
    }

    fn statfs(&self, _req: &Request, _ino: INodeNo, reply: ReplyStatfs) {
        let mut s = MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the path ends with a NUL, and there is room for the answer.
        if unsafe { libc::statvfs(c".".as_ptr(), s.as_mut_ptr()) } != 0 {
            return reply.error(io::Error::last_os_error().into());
        }
        // SAFETY: filled in, for the call succeeded.
        let s = unsafe { s.assume_init() };
        let (block, fragment, name) = (s.f_bsize as u32, s.f_frsize as u32, s.f_namemax as u32);
        reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, block, name, fragment);
    }
}
