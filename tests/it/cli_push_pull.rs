//! F16: `parquedb push` and `parquedb pull` between directories and a real server.

mod block_hashes;
mod brake;
mod conflicts;
mod contents;
mod output;
mod protected;
mod settings;
mod travel;
