//! Files that are there whole or not at all. Nothing here knows what the bytes mean.

mod atomic;
mod random;

pub use atomic::{Readers, STAGED_SUFFIX, replace_file, sync_dir};
pub(crate) use random::random_hex;
