//! Files that are there whole or not at all, and the disk they are on. Nothing here knows what the bytes mean.

mod atomic;
mod directories;
mod lease;
mod points;
mod random;
mod room;

pub use atomic::{Readers, STAGED_SUFFIX, replace_file, sync_dir};
pub use directories::make_private_dirs;
pub(crate) use lease::is_being_written;
pub(crate) use points::point;
#[cfg(test)]
pub(crate) use points::{TestRoom, count_on, dying_at};
pub(crate) use random::{random_below_one, random_hex};
pub(crate) use room::room;
