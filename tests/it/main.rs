//! Behaviour seen from outside: real processes, real sockets, real directories. One binary, so that it is linked
//! once; every test has its own server, store and home and may run beside the others.

// A failed expectation of a test's own set-up is a failed test.
#![allow(clippy::unwrap_used)]

mod cli_cache;
mod cli_errors;
mod cli_history;
mod cli_push_pull;
mod cli_stores;
mod cli_sync;
mod harness;
mod mount;
mod ranges_vs_nginx;
mod server_http;
mod server_s3;
mod syncing;
mod writing;
