//! Wiring: the only place that knows every part of a mount and of its cache, and the life of the process around it.

mod allocator;
mod background;
mod filling;
mod follow;
mod hearing;
mod mount;
mod mountpoint;
mod pinning;
mod recheck;
mod start;
mod written;

pub use allocator::few_arenas;
pub use background::{BackgroundError, Readiness, in_background};
pub use mount::{MountError, MountOptions, OverlayOptions, run};
pub use mountpoint::{MountpointError, prepare_mountpoint};
pub use pinning::{PinOptions, PinProgress, Pinned, PinningError, pin, unpin};
