//! Looking after a store: garbage collection, expiry, checking and mending, copies.

mod backup;
mod collect;
mod expiry;
mod findings;
mod fsck;
mod named;

pub use backup::{BackupReport, backup};
pub use collect::{CollectOptions, CollectReport};
pub use expiry::Keep;
pub use findings::{Finding, FindingKind};
pub use fsck::{FsckOptions, FsckReport};
pub(super) use named::Named;

/// Objects looked at or removed at once.
const AT_ONCE: usize = 16;
