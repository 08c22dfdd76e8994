//! What a hit in the block cache costs, beside what it cannot cost less than: copying the bytes once and a CRC-32C.
//! `cargo run --release --example bench_cache [DIR]`

// A bench that cannot set itself up has nothing to say.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::fs::File;
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use parquedb_mount::cache::{BLOCK, Cache, CacheOptions, Look, Scope, Verification};
use parquedb_mount::model::{ByteRange, ContentHash, Sha256};

const SIZE: u64 = 256 << 20;
const ROUNDS: usize = 11;

fn main() {
    let dir = std::env::args_os().nth(1).map_or_else(std::env::temp_dir, Into::into);
    let dir = dir.join(format!("bench-cache-{}", std::process::id()));
    let cache = Cache::open(&dir, CacheOptions { limit: Some(4 << 30), min_free: None }).unwrap();
    let mut state = 1_u64;
    let bytes: Vec<u8> = (0..SIZE / 8)
        .flat_map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            state.to_le_bytes()
        })
        .collect();
    let hash = ContentHash::Sha256(Sha256::of(&bytes));
    let content = cache.content(&Scope::new("https://bench", "db"), &hash, SIZE).unwrap();
    assert!(cache.reserve(SIZE));
    let write = timed(|| {
        for first in (0..SIZE / BLOCK).step_by(8) {
            let from = (first * BLOCK) as usize;
            content.write(first, &bytes[from..from + 8 * BLOCK as usize]).unwrap();
        }
    });
    println!("write in 256 KiB   {write:6.2} GB/s");
    let verify =
        timed(|| assert_eq!(content.verify(&AtomicBool::new(false)).unwrap(), Verification::Verified));
    println!("verify and share   {verify:6.2} GB/s");

    for (name, length) in [("1 MiB", 1 << 20), ("128 KiB", 128 << 10), ("4 KiB", 4096)] {
        let count = (SIZE / length).min(8192);
        let hits = median(|| {
            for n in 0..count {
                let range = ByteRange::new(n * length, (n + 1) * length);
                let Look::Hit(bytes) = content.read(range).unwrap() else { panic!("a miss") };
                black_box(bytes);
            }
        });
        let file = File::open(files(&dir)).unwrap();
        let mut buffer = vec![0; length.max(BLOCK) as usize];
        let floor = median(|| {
            for n in 0..count {
                let at = n * length / length.max(BLOCK) * length.max(BLOCK);
                file.read_exact_at(&mut buffer, at).unwrap();
                buffer.chunks(BLOCK as usize).for_each(|block| {
                    black_box(crc32c::crc32c(block));
                });
            }
        });
        let rate = |seconds: f64| (count * length) as f64 / seconds / 1e9;
        println!(
            "hits of {name:8}   {:6.2} GB/s, {:6.2} µs each; pread and CRC alone {:6.2} GB/s, {:6.2} µs",
            rate(hits),
            hits / count as f64 * 1e6,
            rate(floor),
            floor / count as f64 * 1e6
        );
    }
    std::fs::remove_dir_all(dir).unwrap();
}

fn timed(work: impl FnOnce()) -> f64 {
    let began = Instant::now();
    work();
    SIZE as f64 / began.elapsed().as_secs_f64() / 1e9
}

fn median(mut work: impl FnMut()) -> f64 {
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            work();
            began.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    seconds[ROUNDS / 2]
}

fn files(dir: &std::path::Path) -> std::path::PathBuf {
    let mut all = walkdir::WalkDir::new(dir).into_iter().map(|entry| entry.unwrap().into_path());
    all.find(|path| path.file_name() == Some("bytes".as_ref())).unwrap()
}
