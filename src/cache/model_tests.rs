//! The cache against a plain map: whatever two processes do to it, a read is right or a miss, and the limit holds.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{ByteRange, ContentHash, Sha256};

/// Blocks of the contents: of one piece, of three, and with an end that is no block.
const SIZES: [u64; 3] = [5 * BLOCK, 300 * BLOCK, 130 * BLOCK + 77];
/// Not enough for all.
const LIMIT: u64 = 380 * BLOCK;

#[derive(Debug, Clone)]
enum Step {
    /// Stores blocks that were fetched; those of the second scope may be forged.
    Write {
        at: Place,
        first: u64,
        count: u64,
        forged: bool,
    },
    Read {
        at: Place,
        from: u64,
        length: u64,
    },
    Verify(Place),
    HandOut(Place),
    /// Nobody in that process has any content open any more.
    Close(usize),
    /// The process ends, without a word, and another starts.
    Restart(usize),
    /// A bit of some file changes.
    Rot {
        file: usize,
        at: u64,
    },
    Recheck(usize),
    Remove(usize),
    Pin {
        process: usize,
        content: usize,
    },
    Unpin {
        process: usize,
        content: usize,
    },
    Keep {
        at: Place,
        from: u64,
        length: u64,
    },
}

/// A process, a scope and a content.
#[derive(Debug, Clone, Copy)]
struct Place {
    process: usize,
    scope: usize,
    content: usize,
}

fn place() -> impl Strategy<Value = Place> {
    (0..2_usize, 0..2_usize, 0..3_usize).prop_map(|(process, scope, content)| Place {
        process,
        scope,
        content,
    })
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (place(), 0..300_u64, 1..300_u64, any::<bool>())
            .prop_map(|(at, first, count, forged)| Step::Write { at, first, count, forged }),
        4 => place().prop_map(|at| Step::Write { at, first: 0, count: 400, forged: false }),
        8 => (place(), any::<u64>(), 1..3_000_000_u64)
            .prop_map(|(at, from, length)| Step::Read { at, from, length }),
        4 => place().prop_map(Step::Verify),
        2 => place().prop_map(Step::HandOut),
        3 => (0..2_usize).prop_map(Step::Close),
        2 => (0..2_usize).prop_map(Step::Restart),
        2 => (any::<usize>(), any::<u64>()).prop_map(|(file, at)| Step::Rot { file, at }),
        1 => (0..2_usize).prop_map(Step::Recheck),
        1 => (0..2_usize).prop_map(Step::Remove),
        1 => (0..2_usize, 0..3_usize).prop_map(|(process, content)| Step::Pin { process, content }),
        1 => (0..2_usize, 0..3_usize).prop_map(|(process, content)| Step::Unpin { process, content }),
        1 => (place(), any::<u64>(), 1..100_000_u64)
            .prop_map(|(at, from, length)| Step::Keep { at, from, length }),
    ]
}

struct World {
    dir: tempfile::TempDir,
    truth: Vec<Vec<u8>>,
    processes: Vec<(Cache, Vec<Arc<CachedContent>>)>,
    /// What the kernel has mapped.
    handed: Vec<(usize, HandedOut)>,
    /// Contents in whose files a bit has changed: handed to the kernel, they show it until they are checked again.
    rotten: [bool; 3],
    hits: u64,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let content = |(n, size): (usize, &u64)| {
            (0..*size).map(|at| ((at ^ (at >> 15)) as u8).wrapping_mul(31).wrapping_add(n as u8)).collect()
        };
        let truth = SIZES.iter().enumerate().map(content).collect();
        let processes = (0..2).map(|_| (start(dir.path()), Vec::new())).collect();
        Self { dir, truth, processes, handed: Vec::new(), rotten: [false; 3], hits: 0 }
    }

    fn open(&mut self, at: Place) -> Arc<CachedContent> {
        let scope = Scope::new(["https://honest", "https://forger"][at.scope], "db");
        let hash = self.hash(at.content);
        let (cache, open) = &mut self.processes[at.process];
        let content = cache.content(&scope, &hash, SIZES[at.content]).unwrap();
        open.push(content.clone());
        content
    }

    fn hash(&self, content: usize) -> ContentHash {
        // The hashes are asked for at every step.
        static KNOWN: std::sync::OnceLock<Vec<ContentHash>> = std::sync::OnceLock::new();
        let known = KNOWN
            .get_or_init(|| self.truth.iter().map(|bytes| ContentHash::Sha256(Sha256::of(bytes))).collect());
        known[content]
    }

    fn take(&mut self, step: Step) {
        match step {
            Step::Write { at, first, count, forged } => {
                let content = self.open(at);
                let blocks = BlockRange::all(SIZES[at.content]);
                let first = first % blocks.end;
                let range = BlockRange { start: first, end: (first + count).min(blocks.end) };
                let range = range.bytes(SIZES[at.content]);
                let mut bytes = self.truth[at.content][range.start as usize..range.end as usize].to_vec();
                if forged && at.scope == 1 {
                    bytes.iter_mut().step_by(1000).for_each(|byte| *byte ^= 1);
                }
                let (cache, _) = &self.processes[at.process];
                if cache.reserve(range.len()) && content.write(first, &bytes).unwrap() == Written::NotKept {
                    cache.release(range.len());
                }
            }
            Step::Read { at, from, length } => {
                let content = self.open(at);
                let start = from % SIZES[at.content];
                let range = ByteRange::new(start, (start + length).min(SIZES[at.content]));
                if let Look::Hit(bytes) = content.read(range).unwrap() {
                    self.hits += 1;
                    let right = bytes == self.truth[at.content][range.start as usize..range.end as usize];
                    let honest = at.scope == 0 || content.state() == ContentState::Verified;
                    assert!(right || !honest, "wrong bytes");
                }
            }
            Step::Verify(at) => {
                let content = self.open(at);
                content.verify(&AtomicBool::new(false)).unwrap();
            }
            Step::HandOut(at) if self.rotten[at.content] => {}
            Step::HandOut(at) => {
                if let Some(handed) = self.open(at).hand_out().unwrap() {
                    self.handed.push((at.content, handed));
                }
            }
            Step::Close(process) => {
                self.processes[process].1.clear();
                self.handed.clear();
            }
            Step::Restart(process) => {
                let fresh = (start(self.dir.path()), Vec::new());
                self.processes[process] = fresh;
            }
            Step::Rot { file, at } => self.rot(file, at),
            Step::Recheck(process) => {
                self.processes[process].0.recheck(Duration::ZERO, &AtomicBool::new(false)).unwrap();
            }
            Step::Remove(process) => {
                self.processes[process].0.remove(&Which::All).unwrap();
            }
            Step::Pin { process, content } => {
                let hash = self.hash(content);
                let _ = self.processes[process].0.pin(&hash, SIZES[content]);
            }
            Step::Unpin { process, content } => {
                let hash = self.hash(content);
                self.processes[process].0.unpin(&hash, SIZES[content]).unwrap();
            }
            Step::Keep { at, from, length } => {
                let start = from % SIZES[at.content];
                self.open(at).keep_longest(ByteRange::new(start, start + length)).unwrap();
            }
        }
        self.check();
    }

    /// Changes a bit of a file that the kernel does not have: what it shows has no checksum.
    fn rot(&mut self, file: usize, at: u64) {
        let files: Vec<_> = walkdir::WalkDir::new(self.dir.path().join("blocks-3"))
            .sort_by_file_name()
            .into_iter()
            .filter_map(Result::ok)
            .filter(|entry| entry.file_name() == "bytes" || entry.file_name() == "slots")
            .collect();
        let Some(entry) = files.get(file % files.len().max(1)) else { return };
        let path = entry.path();
        let name = path.parent().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let mapped = |(content, _): &(usize, HandedOut)| name.starts_with(&self.hash(*content).to_string());
        if self.handed.iter().any(mapped) {
            return;
        }
        if let Some(content) = (0..3).find(|n| name.starts_with(&self.hash(*n).to_string())) {
            self.rotten[content] = true;
        }
        let stored = File::options().read(true).write(true).open(path).unwrap();
        let length = stored.metadata().unwrap().len();
        // Not the marks of the header: no checksum guards them.
        let at = if entry.file_name() == "slots" { 64 + at % (length - 64) } else { at % length };
        let mut byte = [0];
        stored.read_exact_at(&mut byte, at).unwrap();
        stored.write_all_at(&[byte[0] ^ 1 << (at % 8)], at).unwrap();
    }

    fn check(&self) {
        for (content, handed) in &self.handed {
            let mut bytes = vec![0; SIZES[*content] as usize];
            handed.file().read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes == self.truth[*content], "the kernel shows wrong bytes");
        }
        let dirs = walkdir::WalkDir::new(self.dir.path().join("blocks-3")).into_iter().filter_map(Result::ok);
        let blocks = |entry: walkdir::DirEntry| {
            std::os::unix::fs::MetadataExt::blocks(&entry.metadata().unwrap()) * 512
        };
        let content_files = dirs.filter(|entry| entry.file_name() == "bytes" || entry.file_name() == "slots");
        let taken: u64 = content_files.map(blocks).sum();
        assert!(taken <= LIMIT, "{taken} bytes are taken");
    }
}

fn start(dir: &Path) -> Cache {
    Cache::open(dir, CacheOptions { limit: Some(LIMIT), min_free: Some(0) }).unwrap()
}

/// Each takes long: fewer than usual, unless somebody asks for more.
fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_read_is_right_or_a_miss_and_the_limit_holds(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            world.take(step);
        }
    }
}

#[test]
fn the_model_does_meet_hits() {
    let mut world = World::new();
    let at = Place { process: 0, scope: 0, content: 1 };
    world.take(Step::Write { at, first: 0, count: 400, forged: false });
    world.take(Step::Verify(at));
    world.take(Step::HandOut(Place { scope: 1, process: 1, ..at }));
    assert_eq!(world.handed.len(), 1);
    for from in [0, 5_000_000, 9_000_000] {
        world.take(Step::Read { at: Place { process: 1, ..at }, from, length: 2_000_000 });
    }
    assert_eq!(world.hits, 3);
}
