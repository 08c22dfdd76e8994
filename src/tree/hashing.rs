//! Hashing a file as a stream.

use std::fs::File;
use std::io::{self, Read};

use md5::Digest;

use super::Stamp;
use crate::disk::is_being_written;
use crate::model::{ContentHash, Sha256};

const PIECE: usize = 256 << 10;
/// How often a file that changes under the hand is read again.
const ATTEMPTS: usize = 3;

/// A hash being computed, of the algorithm a manifest entry uses.
pub enum Hasher {
    /// SHA-256.
    Sha256(ring::digest::Context),
    /// MD5, which old entries carry.
    Md5(md5::Md5),
}

impl Hasher {
    /// A fresh computation of the algorithm of `expected`.
    pub fn like(expected: &ContentHash) -> Self {
        match expected {
            ContentHash::Sha256(_) => Self::sha256(),
            ContentHash::Md5(_) => Self::Md5(md5::Md5::new()),
        }
    }

    /// A fresh SHA-256.
    pub fn sha256() -> Self {
        Self::Sha256(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(context) => context.update(bytes),
            Self::Md5(context) => context.update(bytes),
        }
    }

    /// The hash of all bytes taken.
    pub fn finish(self) -> ContentHash {
        match self {
            Self::Sha256(context) => ContentHash::Sha256(Sha256::from_digest(&context.finish())),
            Self::Md5(context) => ContentHash::Md5(context.finalize().into()),
        }
    }
}

/// Hashes a file as [`hash_file`] does, and tells whether it was left alone meanwhile: then whatever changes it later shows in its stamp.
/// Where somebody has it open for writing, one long write, or a page that is mapped, may change it without (rule 23).
pub fn hash_quiet_file(file: &File, like: Option<&ContentHash>) -> io::Result<(ContentHash, Stamp, bool)> {
    let written_before = is_being_written(file);
    let (hash, stamp) = hash_file(file, like)?;
    Ok((hash, stamp, !written_before && !is_being_written(file)))
}

/// Hashes a whole file, like `expected` where an entry is to be compared with. The stamp belongs to the bytes that
/// were hashed: a file that keeps changing is an error.
pub fn hash_file(file: &File, like: Option<&ContentHash>) -> io::Result<(ContentHash, Stamp)> {
    let mut buffer = vec![0; PIECE];
    for _ in 0..ATTEMPTS {
        let before = Stamp::of_file(file)?;
        let mut hasher = like.map_or_else(Hasher::sha256, Hasher::like);
        let mut reader = file;
        io::Seek::rewind(&mut reader)?;
        loop {
            match reader.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => hasher.update(&buffer[..n]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if Stamp::of_file(file)? == before {
            return Ok((hasher.finish(), before));
        }
    }
    Err(io::Error::new(io::ErrorKind::ResourceBusy, "it keeps changing while it is read"))
}
