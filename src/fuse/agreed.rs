//! What is agreed on with the kernel when the mount begins.

use std::time::Duration;

use fuser::{InitFlags, KernelConfig};

/// How far the kernel reads ahead by itself, and around a page of a mapping: more would reach beyond a Parquet file's
/// end that is fetched when it is opened.
const KERNEL_READAHEAD: u32 = 256 << 10;
/// Reads the kernel may have waiting in the background: far more than a query engine's threads.
const BACKGROUND: u16 = 128;

/// Asks the kernel for what it can do better than by default.
pub(super) fn agree(config: &mut KernelConfig) {
    // Each is an improvement where the kernel has it, and not missed where it has not.
    for capability in [
        // Attributes come with every listing: they cost nothing here, and asking for them one by one does.
        InitFlags::FUSE_DO_READDIRPLUS,
        // A directory's listing is remembered as long as its time stays.
        InitFlags::FUSE_AUTO_INVAL_DATA,
        InitFlags::FUSE_PARALLEL_DIROPS,
        // Set-id bits are taken away here, and the kernel need not look for them before each write.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
        // Where a link leads never changes.
        InitFlags::FUSE_CACHE_SYMLINKS,
        // A file that is read directly may be mapped all the same.
        InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
        InitFlags::FUSE_PASSTHROUGH,
    ] {
        let _ = config.add_capabilities(capability);
    }
    // The files handed over lie on a file system that is no stack of others.
    let _ = config.set_max_stack_depth(1);
    // Times are kept as precisely as Linux has them.
    let _ = config.set_time_granularity(Duration::from_nanos(1));
    if let Err(most) = config.set_max_readahead(KERNEL_READAHEAD) {
        let _ = config.set_max_readahead(most);
    }
    let _ = config.set_max_background(BACKGROUND);
}
