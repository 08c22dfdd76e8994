//! The cache as its users meet it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use super::*;
use crate::model::{ByteRange, ContentHash, Sha256};

/// A 128th of a piece.
const SHARE: u64 = blocks::PIECE * BLOCK / 128;

static GO_ON: AtomicBool = AtomicBool::new(false);

fn cache(dir: &Path, limit: u64) -> Cache {
    Cache::open(dir, CacheOptions { limit: Some(limit), min_free: Some(0) }).unwrap()
}

fn here() -> Scope {
    Scope::new("https://a", "db_1")
}

fn there() -> Scope {
    Scope::new("https://b", "db_1")
}

/// Bytes that differ from block to block.
fn sample(seed: u64, size: u64) -> Vec<u8> {
    (0..size).map(|n| ((n / BLOCK + n + seed) * 31 % 251) as u8).collect()
}

fn hash(bytes: &[u8]) -> ContentHash {
    ContentHash::Sha256(Sha256::of(bytes))
}

fn open(cache: &Cache, scope: &Scope, bytes: &[u8]) -> Arc<CachedContent> {
    cache.content(scope, &hash(bytes), bytes.len() as u64).unwrap()
}

/// Stores blocks as fetching does.
fn fill(cache: &Cache, content: &CachedContent, bytes: &[u8], first: u64, end: u64) -> Written {
    let range = BlockRange { start: first, end }.bytes(bytes.len() as u64);
    assert!(reserve_soon(cache, range.len()), "there is room");
    content.write(first, &bytes[range.start as usize..range.end as usize]).unwrap()
}

/// A walk through the cache that took long, as on a machine that is busy, is not repeated at once: until then there may
/// be no room.
fn reserve_soon(cache: &Cache, bytes: u64) -> bool {
    let until = Instant::now() + Duration::from_secs(20);
    while !cache.reserve(bytes) {
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

fn verified(cache: &Cache, scope: &Scope, bytes: &[u8]) -> Arc<CachedContent> {
    let content = open(cache, scope, bytes);
    assert_eq!(fill(cache, &content, bytes, 0, BlockRange::covering(all(bytes)).end), Written::Complete);
    assert_eq!(content.verify(&GO_ON).unwrap(), Verification::Verified);
    content
}

fn all(bytes: &[u8]) -> ByteRange {
    ByteRange::new(0, bytes.len() as u64)
}

#[track_caller]
fn assert_hit(content: &CachedContent, range: ByteRange, bytes: &[u8]) {
    match content.read(range).unwrap() {
        Look::Hit(read) => assert!(read == bytes[range.start as usize..range.end as usize], "wrong bytes"),
        other => panic!("{other:?}"),
    }
}

/// The one file of that name below `dir`.
fn file(dir: &Path, name: &str) -> File {
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let found: Vec<_> = files.filter(|entry| entry.file_name() == name).collect();
    let [one] = &found[..] else { panic!("{found:?}") };
    File::options().read(true).write(true).open(one.path()).unwrap()
}

fn flip(file: &File, offset: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

#[test]
fn blocks_survive_reopening_and_missing_ones_are_misses() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sample(1, 3 * BLOCK + 100);
    let size = bytes.len() as u64;
    {
        let cache = cache(dir.path(), 1 << 30);
        let content = open(&cache, &here(), &bytes);
        assert!(matches!(content.read(ByteRange::new(0, 1)).unwrap(), Look::Miss));
        assert_eq!(fill(&cache, &content, &bytes, 2, 4), Written::Kept);
    }
    let cache = cache(dir.path(), 1 << 30);
    let content = open(&cache, &here(), &bytes);
    assert_hit(&content, ByteRange::new(2 * BLOCK + 5, size), &bytes);
    assert!(matches!(content.read(ByteRange::new(2 * BLOCK - 1, size)).unwrap(), Look::Miss));
    assert_eq!(content.missing(BlockRange { start: 0, end: 9 }), [BlockRange { start: 0, end: 2 }]);
    assert!(content.has(3) && !content.has(1));
    assert_eq!(content.state(), ContentState::Partial);
    assert_eq!(fill(&cache, &content, &bytes, 0, 2), Written::Complete);
    assert_eq!(content.state(), ContentState::Complete);
}

#[test]
fn rule_26_blocks_are_private_until_the_whole_is_verified_then_shared() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sample(2, 5 * BLOCK + 1);
    let cache = cache(dir.path(), 1 << 30);
    let content = open(&cache, &here(), &bytes);
    let other = open(&cache, &there(), &bytes);
    fill(&cache, &content, &bytes, 0, 5);
    assert_eq!(content.verify(&GO_ON).unwrap(), Verification::Incomplete);
    assert!(matches!(other.read(ByteRange::new(0, 1)).unwrap(), Look::Miss), "another origin's");
    assert_eq!(fill(&cache, &content, &bytes, 5, 6), Written::Complete);
    assert!(matches!(other.read(ByteRange::new(0, 1)).unwrap(), Look::Miss), "nobody has checked it");
    assert!(content.hand_out().unwrap().is_none());
    assert_eq!(content.verify(&AtomicBool::new(true)).unwrap(), Verification::Later, "stopped");
    assert_eq!(content.verify(&GO_ON).unwrap(), Verification::Verified);
    // Also for whoever had it open, and for another process.
    assert_hit(&other, all(&bytes), &bytes);
    assert_hit(&content, all(&bytes), &bytes);
    let process = self::cache(dir.path(), 1 << 30);
    let again = open(&process, &there(), &bytes);
    assert_hit(&again, all(&bytes), &bytes);
    assert_eq!((again.state(), other.state()), (ContentState::Verified, ContentState::Verified));
    assert_eq!(process.list().unwrap().len(), 1);
}

#[test]
fn the_first_who_ask_for_room_at_once_all_get_it() {
    for _ in 0..20 {
        let dir = tempfile::tempdir().unwrap();
        let cache = cache(dir.path(), 1 << 30);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| assert!(cache.reserve(100)));
            }
        });
    }
}

#[test]
fn rule_26_what_is_not_its_hash_is_dropped_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 1 << 30);
    let (bytes, mut forged) = (sample(3, 3 * BLOCK), sample(3, 3 * BLOCK));
    forged[BLOCK as usize + 9] ^= 1;
    let content = open(&cache, &here(), &bytes);
    assert_eq!(fill(&cache, &content, &forged, 0, 3), Written::Complete);
    assert_eq!(content.verify(&GO_ON).unwrap(), Verification::Wrong);
    assert!(matches!(content.read(ByteRange::new(0, 1)).unwrap(), Look::Miss), "nothing of it is kept");
    assert!(cache.list().unwrap().is_empty());
    assert_eq!(fill(&cache, &content, &bytes, 0, 3), Written::Complete);
    assert_eq!(content.verify(&GO_ON).unwrap(), Verification::Verified);
}

#[test]
fn two_scopes_that_verify_the_same_keep_one() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 1 << 30);
    let bytes = sample(4, 2 * BLOCK);
    let (one, two) = (open(&cache, &here(), &bytes), open(&cache, &there(), &bytes));
    fill(&cache, &one, &bytes, 0, 2);
    fill(&cache, &two, &bytes, 0, 2);
    let (one_state, two_state) = std::thread::scope(|scope| {
        let verifying = [&one, &two].map(|content| scope.spawn(|| content.verify(&GO_ON).unwrap()));
        let [one, two] = verifying.map(|thread| thread.join().unwrap());
        (one, two)
    });
    assert_eq!((one_state, two_state), (Verification::Verified, Verification::Verified));
    assert_eq!(cache.list().unwrap().len(), 1);
    assert_hit(&one, all(&bytes), &bytes);
    assert_hit(&two, all(&bytes), &bytes);
    cache.measure();
    let used = cache.room.taken().unwrap();
    assert!(used < 3 * BLOCK + 4 * 4096, "{used}");
}

#[test]
fn a_verification_that_was_cut_off_before_the_move_is_finished_by_the_next_who_opens_it() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sample(5, 2 * BLOCK);
    {
        let cache = cache(dir.path(), 1 << 30);
        let content = open(&cache, &here(), &bytes);
        fill(&cache, &content, &bytes, 0, 2);
        let part = content.parts().private.clone().unwrap();
        part.slots.set_yes(slots::Word::Verified).unwrap();
        part.slots.set_yes(slots::Word::Shared).unwrap();
        // Who still has it open adds nothing to it: it may be partly evicted by then.
        part.remove(BlockRange { start: 0, end: 1 }).unwrap();
        fill(&cache, &content, &bytes, 0, 1);
        assert!(!part.slots.view(BlockRange { start: 0, end: 1 }).unwrap().has(0));
    }
    let cache = cache(dir.path(), 1 << 30);
    let other = open(&cache, &there(), &bytes);
    assert_hit(&other, ByteRange::new(BLOCK, 2 * BLOCK), &bytes);
    assert!(!other.has(0));
    assert_hit(&open(&cache, &here(), &bytes), all(&bytes), &bytes);
}

#[test]
fn f05_rot_and_lost_bytes_are_noticed_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 1 << 30);
    let bytes = sample(6, 3 * BLOCK);
    let content = verified(&cache, &here(), &bytes);
    let stored = file(dir.path(), "bytes");
    flip(&stored, BLOCK + 7);
    assert!(matches!(content.read(all(&bytes)).unwrap(), Look::Rotten(1)));
    assert!(matches!(content.read(all(&bytes)).unwrap(), Look::Miss), "forgotten");
    assert_hit(&content, ByteRange::new(2 * BLOCK, 3 * BLOCK), &bytes);
    assert_eq!(content.state(), ContentState::Partial);
    assert!(content.hand_out().unwrap().is_none());
    // What this scope fetches again is its own until all is verified again.
    assert_eq!(fill(&cache, &content, &bytes, 1, 2), Written::Complete);
    assert_hit(&content, all(&bytes), &bytes);
    let other = open(&cache, &there(), &bytes);
    assert!(other.has(0) && !other.has(1));
    assert_eq!(content.verify(&GO_ON).unwrap(), Verification::Verified);
    assert!(other.read(all(&bytes)).is_ok_and(|look| matches!(look, Look::Hit(_))));
    assert!(content.hand_out().unwrap().is_some());
    assert_eq!(cache.list().unwrap().len(), 1);
}

#[test]
fn a_forged_block_never_reaches_another_scope_through_a_content_that_was_partly_evicted() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 1 << 30);
    let bytes = sample(7, 3 * BLOCK);
    let content = verified(&cache, &here(), &bytes);
    content.parts().shared.as_ref().unwrap().remove(BlockRange { start: 1, end: 2 }).unwrap();
    let mut forged = bytes.clone();
    forged[BLOCK as usize] ^= 1;
    assert_eq!(fill(&cache, &content, &forged, 1, 2), Written::Complete);
    assert!(!open(&cache, &there(), &bytes).has(1));
    assert_eq!(content.verify(&GO_ON).unwrap(), Verification::Wrong);
    assert!(!open(&cache, &there(), &bytes).has(1) && !content.has(1));
}

#[test]
fn rule_20_what_was_handed_out_goes_by_its_name_only_and_not_while_it_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sample(8, 300 * BLOCK);
    let cache = cache(dir.path(), 400 * BLOCK);
    let handed = {
        let content = verified(&cache, &here(), &bytes);
        content.hand_out().unwrap().unwrap()
    };
    let kernels = handed.file().try_clone().unwrap();
    assert!(!self::cache(dir.path(), 400 * BLOCK).reserve(200 * BLOCK), "it is read");
    drop(handed);
    assert!(!self::cache(dir.path(), 400 * BLOCK).reserve(200 * BLOCK), "the kernel reads it");
    let seen = file(dir.path(), "bytes");
    drop(kernels);
    assert!(self::cache(dir.path(), 400 * BLOCK).reserve(200 * BLOCK));
    assert!(cache.list().unwrap().is_empty(), "gone as a whole");
    let mut read = vec![0; bytes.len()];
    seen.read_exact_at(&mut read, 0).unwrap();
    assert!(read == bytes, "no hole was punched");
}

#[test]
fn rot_in_what_was_handed_out_ends_its_handing_out() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 1 << 30);
    let bytes = sample(9, 3 * BLOCK);
    let content = verified(&cache, &here(), &bytes);
    drop(content.hand_out().unwrap().unwrap());
    assert_eq!(cache.recheck(Duration::from_secs(60), &GO_ON).unwrap(), Recheck::Nothing, "just checked");
    assert_eq!(cache.recheck(Duration::ZERO, &GO_ON).unwrap(), Recheck::Sound(3 * BLOCK));
    flip(&file(dir.path(), "bytes"), 5);
    assert_eq!(cache.recheck(Duration::ZERO, &GO_ON).unwrap(), Recheck::Rotten(3 * BLOCK));
    assert_eq!(cache.recheck(Duration::ZERO, &GO_ON).unwrap(), Recheck::Nothing);
    assert!(content.hand_out().unwrap().is_none());
    assert!(matches!(content.read(all(&bytes)).unwrap(), Look::Miss | Look::Rotten(_)));
    // The same noticed by a read.
    let content = verified(&cache, &here(), &bytes);
    drop(content.hand_out().unwrap().unwrap());
    flip(&file(dir.path(), "bytes"), 5);
    assert!(matches!(content.read(all(&bytes)).unwrap(), Look::Rotten(1)));
    assert!(content.hand_out().unwrap().is_none() && cache.list().unwrap().is_empty());
}

#[test]
fn a_check_counts_for_other_processes_until_somebody_writes_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sample(21, 3 * BLOCK);
    let content = verified(&cache(dir.path(), 1 << 30), &here(), &bytes);
    assert!(content.was_checked());
    let again = || open(&cache(dir.path(), 1 << 30), &there(), &bytes);
    assert!(again().was_checked());
    // The same bytes, but who knows.
    std::thread::sleep(Duration::from_millis(20));
    file(dir.path(), "bytes").write_all_at(&bytes[..1], 0).unwrap();
    assert!(!again().was_checked() && again().hand_out().unwrap().is_none());
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(again().look_for_rot(&GO_ON).unwrap(), Soundness::Sound);
    assert!(again().was_checked() && again().hand_out().unwrap().is_some());
    flip(&file(dir.path(), "bytes"), 5);
    std::thread::sleep(Duration::from_millis(20));
    assert_eq!(again().look_for_rot(&GO_ON).unwrap(), Soundness::Rotten(1));
    assert!(!again().was_checked() && again().hand_out().unwrap().is_none());
}

#[test]
fn the_oldest_goes_first_footers_last_and_pins_never() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 1000 * SHARE;
    let cache = cache(dir.path(), limit);
    let piece = blocks::PIECE;
    let large = sample(10, 3 * piece * BLOCK);
    let pinned = sample(11, 2 * piece * BLOCK);
    cache.pin(&hash(&pinned), pinned.len() as u64).unwrap();
    let refused = cache.pin(&hash(&large), limit);
    assert!(matches!(refused, Err(PinError::TooMuch { .. })), "{refused:?}");
    let footer = ByteRange::new(BLOCK, 3 * BLOCK);
    let stored = [&pinned, &large].map(|bytes| {
        let content = open(&cache, &here(), bytes);
        content.keep_longest(footer).unwrap();
        for first in (0..bytes.len() as u64 / BLOCK).step_by(piece as usize) {
            fill(&cache, &content, bytes, first, first + piece);
            std::thread::sleep(Duration::from_millis(3));
        }
        content
    });
    assert_hit(&stored[1], ByteRange::new(piece * BLOCK, 2 * piece * BLOCK), &large);
    drop(stored);
    // More than the first piece, less than two of them.
    assert!(reserve_soon(&cache, limit - 5 * piece * BLOCK + 60 * SHARE));
    let content = open(&cache, &here(), &large);
    assert!(content.has(1) && content.has(2), "the footer stays");
    assert!(!content.has(0) && !content.has(3), "its piece was the oldest");
    assert!(content.has(piece) && content.has(2 * piece));
    drop(content);
    assert!(reserve_soon(&cache, 2 * piece * BLOCK));
    let content = open(&cache, &here(), &large);
    assert!(content.missing(BlockRange { start: 0, end: 3 * piece }).len() <= 2 && content.has(1), "still");
    assert_eq!(open(&cache, &here(), &pinned).state(), ContentState::Complete, "pinned");
    assert!(!cache.reserve(limit));
    cache.unpin(&hash(&pinned), pinned.len() as u64).unwrap();
}

#[test]
fn what_waits_for_its_reader_stays_and_what_was_read_goes() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 400 * SHARE);
    let piece = blocks::PIECE;
    let bytes = sample(12, 4 * piece * BLOCK);
    let content = open(&cache, &here(), &bytes);
    let began = Instant::now();
    fill(&cache, &content, &bytes, 0, piece);
    fill(&cache, &content, &bytes, piece, 2 * piece);
    let reserved = cache.reserve(2 * piece * BLOCK);
    // On a machine that is busy the moment for which it stays may have passed.
    assert!(!reserved || began.elapsed() > Duration::from_millis(200), "nobody has read it yet");
    assert_hit(&content, ByteRange::new(0, piece * BLOCK), &bytes);
    std::thread::sleep(Duration::from_millis(2100));
    assert!(reserve_soon(&cache, 2 * piece * BLOCK), "the first piece was read a while ago");
    assert!(!content.has(0) && content.has(piece));
}

/// A cache that is much smaller than what is read at once still keeps what is read now instead of what was before.
#[test]
fn what_was_just_read_goes_when_nothing_else_is_left_the_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 400 * SHARE);
    let piece = blocks::PIECE;
    let bytes = sample(17, 20 * piece * BLOCK);
    let content = open(&cache, &here(), &bytes);
    for number in 0..20 {
        let range = BlockRange { start: number * piece, end: (number + 1) * piece };
        fill(&cache, &content, &bytes, range.start, range.end);
        assert!(content.has(range.start.saturating_sub(piece)), "the one before is left");
        assert_hit(&content, range.bytes(bytes.len() as u64), &bytes);
    }
    assert!(content.has(19 * piece) && content.has(18 * piece) && !content.has(0));
    // What nobody has read yet stays a moment.
    let mut looked = false;
    for _ in 0..20 {
        fill(&cache, &content, &bytes, 0, piece);
        let fetched = Instant::now();
        let reserved = reserve_soon(&cache, piece * BLOCK);
        let missing = content.missing(BlockRange { start: 0, end: piece });
        assert!(reserved);
        cache.release(piece * BLOCK);
        // On a machine that is busy the moment may have passed.
        if fetched.elapsed() < Duration::from_millis(200) {
            assert!(missing.is_empty(), "{missing:?}");
            looked = true;
            break;
        }
    }
    assert!(looked);
}

#[test]
fn what_cannot_be_had_again_stays_while_it_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 400 * SHARE;
    let (cache, other) = (cache(dir.path(), limit), cache(dir.path(), limit));
    let piece = blocks::PIECE;
    let bytes = sample(18, 3 * piece * BLOCK);
    let content = open(&cache, &here(), &bytes);
    fill(&cache, &content, &bytes, 0, piece);
    content.keep_while_open();
    // Also what comes later, and to where it has not been.
    let shared = sample(19, piece * BLOCK);
    let verified_elsewhere = open(&cache, &here(), &shared);
    verified_elsewhere.keep_while_open();
    drop(verified(&other, &there(), &shared));
    fill(&cache, &content, &bytes, piece, 2 * piece);
    assert_hit(&content, ByteRange::new(0, 2 * piece * BLOCK), &bytes);
    assert_hit(&verified_elsewhere, all(&shared), &shared);
    std::thread::sleep(Duration::from_millis(2100));
    for cache in [&cache, &other] {
        assert!(!cache.reserve(piece * BLOCK), "nothing may go");
    }
    assert_hit(&content, ByteRange::new(0, 2 * piece * BLOCK), &bytes);
    assert_hit(&verified_elsewhere, all(&shared), &shared);
    let too = open(&other, &here(), &bytes);
    drop((content, verified_elsewhere));
    assert_eq!(too.missing(BlockRange { start: 0, end: 2 * piece }), [], "somebody still has it open");
    std::thread::sleep(Duration::from_millis(50));
    assert!(reserve_soon(&other, piece * BLOCK), "nobody has the other one open");
    assert_eq!(too.missing(BlockRange { start: 0, end: 2 * piece }), []);
    drop(too);
    // From now on it is like any other.
    let again = open(&cache, &here(), &bytes);
    std::thread::sleep(Duration::from_millis(50));
    assert!(reserve_soon(&cache, piece * BLOCK) && !again.has(0));
}

#[test]
fn damaged_files_are_dropped_and_removed_ones_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = sample(13, 2 * BLOCK);
    let damages: [fn(&Path); 5] = [
        |dir| file(dir, "slots").set_len(100).unwrap(),
        |dir| file(dir, "slots").write_all_at(b"garbage", 0).unwrap(),
        |dir| file(dir, "slots").write_all_at(&[255; 2048], 24).unwrap(),
        |dir| file(dir, "bytes").set_len(5).unwrap(),
        |dir| std::fs::remove_dir_all(dir.join("blocks-3/private")).unwrap(),
    ];
    for damage in damages {
        let cache = cache(dir.path(), 1 << 30);
        let content = open(&cache, &here(), &bytes);
        fill(&cache, &content, &bytes, 0, 2);
        // Under whoever has it open.
        damage(dir.path());
        assert!(!matches!(content.read(all(&bytes)).unwrap(), Look::Hit(read) if read != bytes));
        fill(&cache, &content, &bytes, 0, 2);
        drop(content);
        let content = open(&cache, &here(), &bytes);
        let _ = content.read(all(&bytes)).unwrap();
        fill(&cache, &content, &bytes, 0, 2);
        assert_hit(&content, all(&bytes), &bytes);
    }
}

#[test]
fn looking_after_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path(), 1 << 30);
    let (one, two, three) = (sample(14, 2 * BLOCK), sample(15, 3 * BLOCK), sample(16, 10));
    verified(&cache, &here(), &one).called("a/b: one.parquet");
    fill(&cache, &open(&cache, &here(), &two), &two, 0, 2);
    let held = open(&cache, &there(), &three);
    fill(&cache, &held, &three, 0, 1);
    let list = cache.list().unwrap();
    let of = |bytes: &[u8]| list.iter().find(|stored| stored.hash == hash(bytes)).unwrap();
    assert_eq!(
        (of(&one).state, of(&one).name.as_deref()),
        (ContentState::Verified, Some("a/b: one.parquet"))
    );
    assert!(of(&one).scope.is_none());
    assert_eq!((of(&two).cached, of(&two).state), (2 * BLOCK, ContentState::Partial));
    assert_eq!(of(&three).scope, Some(Some(there())));
    let clean = CheckReport { contents: 3, blocks: 5, rotten_blocks: 0, dropped_contents: 0 };
    assert_eq!(cache.check(&GO_ON).unwrap(), clean);
    assert_eq!(cache.remove(&Which::OlderThan(Duration::from_secs(60))).unwrap(), Removed::default());
    let removed = cache.remove(&Which::All).unwrap();
    assert_eq!((removed.contents, removed.left), (2, 1), "one is open");
    assert!(held.has(0));
    assert!(cache.room.taken().unwrap_or(0) < 20 * 4096);
}
