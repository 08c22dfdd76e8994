//! F01: every byte, whichever way it is asked for, is the byte published; and bytes are asked for once.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::{assert_right, database_of, read_at_directly, read_directly, slice};
use crate::harness::{Mounting, noise};

const BLOCK: usize = 32 << 10;
const MIB: usize = 1 << 20;

/// Places and lengths that fall on, just before and just after every border there is, and some anywhere.
fn ranges(size: usize, seed: u64) -> Vec<(u64, usize)> {
    let borders = [0, BLOCK, 2 * BLOCK, 8 * BLOCK, MIB, size / 2, size - size % BLOCK, size];
    let mut ranges = Vec::new();
    for border in borders {
        for offset in [border.saturating_sub(1), border, border + 1] {
            for length in [0, 1, 2, 4096, BLOCK, BLOCK + 1] {
                ranges.push((offset as u64, length));
            }
        }
    }
    ranges.push((0, size + 1));
    ranges.push((size as u64 + (1 << 40), 10));
    for words in noise(seed, 60 * 16).chunks_exact(16) {
        let word = |at: usize| u64::from_le_bytes(words[at..at + 8].try_into().unwrap());
        ranges.push((word(0) % (size as u64 + 1), (word(8) % (300 << 10)) as usize));
    }
    ranges
}

#[test]
fn f01_any_range_of_any_size_of_file_reads_right() {
    let sizes = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, MIB - 1, MIB, MIB + 1, 20 * MIB];
    let names: Vec<String> = sizes.iter().map(|size| format!("of-{size}")).collect();
    let named: Vec<(&str, usize)> = names.iter().map(String::as_str).zip(sizes).collect();
    let (server, files) = database_of(&named);
    let mounting = Mounting::at(&server.url(), "alice/d");
    for flags in [libc::O_DIRECT, 0] {
        // Each way meets an empty cache first, and then a full one.
        let mount = mounting.clone().cache_in(&mounting.beside().join(format!("cache-{flags}"))).mount();
        for round in 0..2 {
            for (name, bytes) in &files {
                let file = File::options().read(true).custom_flags(flags).open(mount.at(name)).unwrap();
                for (offset, length) in ranges(bytes.len(), round) {
                    let read = read_at_directly(&file, offset, length).unwrap();
                    let (expected, came) = (slice(bytes, offset, length), read.len());
                    assert!(read == expected, "{name} at {offset}, {length} bytes: {came} came");
                }
            }
        }
        assert_right(&mount.path(), &files);
        let total: usize = sizes.iter().sum();
        assert!(mount.stats().bytes_fetched <= total as u64, "no byte came twice: {:?}", mount.stats());
        mount.unmount();
    }
}

#[test]
fn f01_mapped_files_read_right() {
    let (server, files) = database_of(&[("odd", 3 * MIB + 1234), ("page", 4096), ("one", 1)]);
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    for (name, bytes) in &files {
        let mapped = mapped_bytes(&mount.at(name), bytes.len());
        assert!(mapped[..bytes.len()] == **bytes, "{name}");
        assert!(mapped[bytes.len()..].iter().all(|byte| *byte == 0), "{name}: zeros up to the page's end");
    }
}

/// Maps a file, reads its pages from the last to the first, and gives a copy of them.
fn mapped_bytes(path: &Path, size: usize) -> Vec<u8> {
    let file = File::open(path).unwrap();
    let length = size.next_multiple_of(4096);
    let mut copy = vec![0; length];
    // SAFETY: a fresh private read-only mapping of a whole file, copied page by page while it is mapped; the file
    // never shrinks, for nothing on the mount changes.
    unsafe {
        let (prot, flags) = (libc::PROT_READ, libc::MAP_PRIVATE);
        let start = libc::mmap(std::ptr::null_mut(), length, prot, flags, file.as_raw_fd(), 0);
        assert_ne!(start, libc::MAP_FAILED);
        for page in (0..length).step_by(4096).rev() {
            start.cast::<u8>().add(page).copy_to_nonoverlapping(copy.as_mut_ptr().add(page), 4096);
        }
        libc::munmap(start, length);
    }
    copy
}

#[test]
fn f01_sixteen_readers_get_right_bytes_and_no_block_is_fetched_twice() {
    let size = 24 * MIB + 77;
    let (server, files) = database_of(&[("shared", size)]);
    let bytes = &files[0].1;
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    let path = mount.at("shared");
    std::thread::scope(|scope| {
        for reader in 0..16 {
            let path = &path;
            scope.spawn(move || {
                // Half read on from their own places, half anywhere; half through the kernel's pages.
                let flags = if reader % 2 == 0 { libc::O_DIRECT } else { 0 };
                let file = File::options().read(true).custom_flags(flags).open(path).unwrap();
                let step = 100_000 + reader * 7919;
                for n in 0..size.div_ceil(step) {
                    let turn = if reader < 8 { n } else { n * 5 + 3 };
                    let offset = ((turn * step + reader * size / 16) % size) as u64;
                    let read = read_at_directly(&file, offset, step).unwrap();
                    assert!(read == slice(bytes, offset, step), "reader {reader} at {offset}");
                }
            });
        }
    });
    assert!(read_directly(&path, 0, size).unwrap() == *bytes);
    let stats = mount.stats();
    assert_eq!(stats.bytes_fetched, size as u64, "{stats:?}");
    assert_eq!((stats.responses_refused, stats.blocks_rotten), (0, 0));
}

#[test]
fn equal_contents_are_fetched_once_whatever_their_paths() {
    let server = crate::harness::Server::start();
    let id = server.register("d", "public");
    let bytes = noise(1, 5 * MIB);
    server.publish(&id, &[("a", &bytes), ("b/c", &bytes)]);
    let mount = Mounting::at(&server.url(), "alice/d").mount();
    assert!(mount.read("a").unwrap() == bytes && mount.read("b/c").unwrap() == bytes);
    assert_eq!(mount.stats().bytes_fetched, 5 << 20);
}
