//! Reading: what is here is answered on the kernel's own thread, what has to be fetched from the runtime.

use fuser::{Errno, ReplyData};

use super::answers::said;
use super::errno::errno;
use super::filesystem::MountedFs;
use super::gone::gone;
use crate::fetch::ReaderThread;
use crate::namespace::Ino;
use crate::vfs::HandleId;

impl MountedFs {
    /// Answers a read.
    pub(super) fn read_bytes(
        &self,
        ino: Ino,
        handle: HandleId,
        thread: ReaderThread,
        offset: u64,
        size: u32,
        reply: ReplyData,
    ) {
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
            Err(error) => reply.error(said(&error)),
        }
    }
}
