//! Files that are there whole or not at all. Nothing here knows what the bytes mean.

mod atomic;

pub use atomic::{Readers, replace_file, sync_dir};
