//! The number of a published manifest.

use std::fmt;

/// The number of a published manifest: 1 for the first, one more for each that follows. Zero stands for
/// "nothing published yet". It is not the manifest's `version`, which is its format (rule 1).
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub struct Revision(pub u64);

impl Revision {
    /// Nothing has been published.
    pub const NONE: Self = Self(0);

    /// The revision after this one. A remote may claim to have come to the end of all numbers.
    pub fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
