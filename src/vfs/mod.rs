//! What the mount does when it is asked: names to attributes, handles to bytes. It knows nothing of FUSE, so the
//! behaviour can be tried without a kernel.

mod attr;
mod error;
mod foreseeing;
mod handles;
mod listings;
mod read;
mod revisions;
mod scans;
mod walks;

pub use attr::{Attr, AttrKind};
pub use error::VfsError;
pub use handles::HandleId;
pub use listings::{KernelListing, Listed, Taken, Telling};
pub use read::Vfs;
pub use revisions::{Next, Shown, nanoseconds};
pub use scans::{Pid, Turn};
