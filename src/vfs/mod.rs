//! What the mount does when it is asked: names to attributes, handles to bytes. It knows nothing of FUSE, so the
//! behaviour can be tried without a kernel.

mod adopt;
mod attr;
mod attributes;
mod error;
mod foreseeing;
mod freezing;
mod handles;
mod listings;
mod names;
mod read;
mod renames;
mod revisions;
mod scans;
mod settling;
mod walks;
mod write;

pub use adopt::Number;
pub use attr::{Attr, AttrKind};
pub use attributes::{Setting, XattrMode};
pub use error::VfsError;
pub use freezing::{Frozen, Held};
pub use handles::HandleId;
pub use listings::{KernelListing, Listed, Taken, Telling};
pub use names::{Create, Maker};
pub use read::{Locality, Opened, Totals, Vfs};
pub use renames::Rename;
pub use revisions::{Next, Shown, nanoseconds};
pub use scans::{Pid, Turn};
pub use settling::{GivenUp, Settled};
pub use write::SetIds;
