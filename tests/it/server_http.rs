//! The server's routes over raw HTTP, as protocol.md has them: who sees what, what is stored when, and what is
//! still there after a crash.

mod block_hashes;
mod commits;
mod cors;
mod durability;
mod earlier_revisions;
mod power_cuts;
mod public;
mod uploads;
mod visibility;
