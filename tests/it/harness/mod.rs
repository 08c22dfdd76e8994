//! What the tests stand on: the real programs as processes, files, and HTTP as raw bytes. Nothing here is mocked;
//! the [`Responder`] exists to send what a real server never would.
//!
//! A process has a type of its own in a file of its own, is started by a constructor that returns once it
//! answers, and is gone when its value is dropped: [`Server`] for `parquedb serve`, [`Cli`] for every other
//! command. `Mount`, for `parquedb-mount`, belongs beside them in `mount.rs`.

mod api;
mod breaking;
mod cli;
mod files;
mod forgetful;
mod http;
mod mount;
mod mounting;
mod nginx;
mod process;
mod python;
mod random;
mod responder;
mod s3;
mod s3_proxy;
mod s3_signature;
mod server;
mod tmpfs;

pub use api::{describe_entry, put_entry};
pub use breaking::Breaking;
pub use cli::{Cli, Outcome};
pub use files::{
    Snapshot, TempTree, bytes_of, copy_tree, data_files, names, noise, sample, set_modified, sha256,
    snapshot, text, write_files,
};
pub use forgetful::{Forgetful, Tearing};
pub use http::{Request, Response, exchange, get, head, request};
pub use mount::{Mount, Stats, mount_entry, started_with, until, xattr};
pub use mounting::Mounting;
pub use nginx::Nginx;
pub use process::{Finished, errno, finish, run_to_end, succeeds};
pub use python::{python, python_within};
pub use random::{Random, number};
pub use responder::{End, Reply, Responder, answer, json_answer};
pub use s3::{Kind, S3Server, SECRET_KEY};
pub use s3_proxy::{Fault, S3Proxy, creates};
pub use server::{Server, allow_account};
pub use tmpfs::Tmpfs;

use std::time::Duration;

/// No program a test starts may run longer. Far above what any needs, even on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(120);
