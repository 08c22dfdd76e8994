#![doc = include_str!("ARCHITECTURE.md")]

pub mod access;
// pub mod cache;
pub mod config;
// pub mod daemon;
pub mod disk;
// pub mod fetch;
// pub mod fuse;
pub mod manifest;
pub mod metrics;
pub mod model;
// pub mod namespace;
pub mod remote;
pub mod rows;
pub mod server;
pub mod store;
pub mod sync;
pub mod tree;
// pub mod vfs;
pub mod wire;
