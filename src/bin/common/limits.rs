//! Limits of the process.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Raises the number of files this process may hold open to what it is allowed to raise it to: the usual soft
/// limit of 1024 is for programs that use select(2).
pub fn allow_many_files() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays");
    }
}
