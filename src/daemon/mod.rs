//! Wiring: the only place that knows every part of a mount and of its cache, and the life of the process around it.

mod allocator;
mod background;
mod filling;
mod follow;
mod hearing;
mod mount;
mod mountpoint;
mod past;
mod pinning;
mod prepared;
mod publishing;
mod recheck;
mod rounds;
mod schedule;
#[cfg(test)]
mod simulation;
mod start;
mod supervised;
mod told;
mod written;

pub use allocator::few_arenas;
pub use background::{BackgroundError, Readiness, in_background};
pub use mount::{MountError, MountOptions, OverlayOptions, SyncSettings, run};
pub use mountpoint::{MountpointError, prepare_mountpoint};
pub use pinning::{PinOptions, PinProgress, Pinned, PinningError, pin, unpin};
pub use schedule::{Trigger, UnknownTrigger};
