//! A disk that forgets: bits of cached files are changed, and holes appear in them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

use crate::harness::Random;

/// What may rot.
#[derive(Debug, Clone, Copy)]
pub enum Rot {
    /// Everything.
    Everything,
    /// Contents larger than this, which are never complete. What is complete is verified, and handed to the kernel, which
    /// knows nothing of checksums.
    LargerThan(u64),
}

/// The cache's files of that name, with their contents' sizes.
fn stored(cache: &Path, area: &str, name: &str) -> Vec<(PathBuf, u64)> {
    let files = walkdir::WalkDir::new(cache.join("blocks-3").join(area)).into_iter().filter_map(Result::ok);
    let files = files.filter(|entry| entry.file_name() == name).map(walkdir::DirEntry::into_path);
    let size = |path: &Path| path.parent()?.file_name()?.to_str()?.split_once('-')?.1.parse().ok();
    files.filter_map(|path| Some((path.clone(), size(&path)?))).collect()
}

/// A number from the header of every content's slots.
pub fn words(cache: &Path, at: u64) -> Vec<u64> {
    let word = |path: &Path| {
        let mut word = [0; 8];
        File::open(path).ok()?.read_exact_at(&mut word, at).ok()?;
        Some(u64::from_le_bytes(word))
    };
    let all = ["shared", "private"].into_iter().flat_map(|area| stored(cache, area, "slots"));
    all.filter_map(|(path, _)| word(&path)).collect()
}

/// Changes a bit somewhere, or punches a hole; whether it did.
pub fn rot_somewhere(cache: &Path, rot: Rot, random: &mut Random) -> bool {
    let kind = if random.below(3) == 0 { "slots" } else { "bytes" };
    let mut files = stored(cache, "private", kind);
    // No checksum guards the marks in a header: they keep what rots from the kernel's hands.
    let header = match rot {
        Rot::Everything => {
            files.extend(stored(cache, "shared", kind));
            0
        }
        Rot::LargerThan(most) => {
            files.retain(|(_, size)| *size > most);
            64
        }
    };
    if files.is_empty() {
        return false;
    }
    let (path, _) = &files[random.below(files.len() as u64) as usize];
    // It may be evicted just now.
    let Ok(file) = File::options().read(true).write(true).open(path) else { return false };
    let length = fs::metadata(path).map_or(0, |meta| meta.len());
    let from = if kind == "slots" { header } else { 0 };
    if length <= from {
        return false;
    }
    let at = from + random.below(length - from);
    let Ok(at) = seek(&file, SeekFrom::Data(at)) else { return false };
    if kind == "bytes" && random.below(3) == 0 {
        let hole = 1 + random.below(100_000);
        return fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, hole).is_ok();
    }
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).is_ok()
        && file.write_all_at(&[byte[0] ^ (1 << random.below(8))], at).is_ok()
}
