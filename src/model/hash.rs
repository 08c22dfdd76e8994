//! The identity of bytes: the hash of a whole content.

use std::fmt;
use std::str::FromStr;

/// A SHA-256: the identity of a content everywhere in the house.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sha256(pub [u8; 32]);

impl Sha256 {
    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
        Self::from_digest(&digest)
    }

    /// From a finished SHA-256 computation.
    pub fn from_digest(digest: &ring::digest::Digest) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Self(hash)
    }

    /// Reads 64 hexadecimal digits, of either case.
    pub fn parse(text: &str) -> Result<Self, HashParseError> {
        let mut hash = [0; 32];
        hex::decode_to_slice(text, &mut hash).map_err(|_| HashParseError)?;
        Ok(Self(hash))
    }
}

impl fmt::Display for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        f.write_str(std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{self}")
    }
}

impl FromStr for Sha256 {
    type Err = HashParseError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl serde::Serialize for Sha256 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Sha256 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(serde::de::Error::custom)
    }
}

/// The text is not a hash of the named algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a hexadecimal hash of the right length")]
pub struct HashParseError;

/// The hash a manifest entry carries. The original tools also write MD5; such an entry names bytes too weakly
/// to be shared between databases (rule 5).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum ContentHash {
    /// `"hashAlgorithm": "sha256"`.
    Sha256(Sha256),
    /// `"hashAlgorithm": "md5"`.
    Md5([u8; 16]),
}

impl ContentHash {
    /// Reads a manifest's pair of `hashAlgorithm` and `hash`.
    pub fn parse(algorithm: &str, text: &str) -> Result<Self, HashParseError> {
        match algorithm {
            "sha256" => Sha256::parse(text).map(Self::Sha256),
            "md5" => {
                let mut hash = [0; 16];
                hex::decode_to_slice(text, &mut hash).map_err(|_| HashParseError)?;
                Ok(Self::Md5(hash))
            }
            _ => Err(HashParseError),
        }
    }

    /// The manifest's word for the algorithm.
    pub fn algorithm(&self) -> &'static str {
        match self {
            Self::Sha256(_) => "sha256",
            Self::Md5(_) => "md5",
        }
    }

    /// The SHA-256, where the entry carries one.
    pub fn sha256(&self) -> Option<Sha256> {
        match self {
            Self::Sha256(hash) => Some(*hash),
            Self::Md5(_) => None,
        }
    }
}

impl From<Sha256> for ContentHash {
    fn from(hash: Sha256) -> Self {
        Self::Sha256(hash)
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sha256(hash) => hash.fmt(f),
            Self::Md5(hash) => f.write_str(&hex::encode(hash)),
        }
    }
}
