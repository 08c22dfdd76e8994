//! The server's routes over raw HTTP, as protocol.md has them: who sees what, what is stored when, and what is
//! still there after a crash.

mod blobs;
mod block_hashes;
mod commits;
mod cors;
mod durability;
mod earlier_revisions;
mod events;
mod manifest_put;
mod power_cuts;
mod public;
mod resumed_uploads;
mod uploads;
mod visibility;
