//! Whether somebody writes to a file.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// Which signal tells of a lease; the same on every Linux.
const F_SETSIG: libc::c_int = 10;

/// Whether somebody has a file open for writing. Where the file system cannot tell, nobody has.
pub(crate) fn is_being_written(file: impl AsFd) -> bool {
    let fd = file.as_fd().as_raw_fd();
    // SAFETY: it takes a descriptor that is open, and numbers.
    let set = |what: libc::c_int, to: libc::c_int| unsafe { libc::fcntl(fd, what, to) };
    // Whoever opens it in this moment is told by a signal that nobody minds; the usual one ends a process.
    set(F_SETSIG, libc::SIGURG);
    if set(libc::F_SETLEASE, libc::F_RDLCK) == 0 {
        set(libc::F_SETLEASE, libc::F_UNLCK);
        return false;
    }
    io::Error::last_os_error().raw_os_error() == Some(libc::EAGAIN)
}
