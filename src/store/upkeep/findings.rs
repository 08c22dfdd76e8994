//! What a check of a store can find.

use serde::Serialize;

/// One thing that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The database's id.
    pub database: String,
    /// What kind of thing it is.
    pub kind: FindingKind,
    /// Where it is, for a person: an object, or a path and its revision.
    pub place: String,
    /// Whether it was mended.
    pub repaired: bool,
}

/// Kinds of findings. Most cost nothing but time; those that lose data cannot be mended from the store alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum FindingKind {
    /// A revision cannot be read.
    UnreadableRevision,
    /// A revision does not continue the one before it.
    BrokenChain,
    /// Revisions lie beyond a number that has none.
    Gap,
    /// The files that the oldest kept revision begins with cannot be read.
    MissingBeginning,
    /// A kept revision names a content that is not stored.
    MissingContent,
    /// A stored content does not have the size or the hash it is stored under.
    WrongContent,
    /// The settings cannot be read.
    UnreadableSettings,
    /// A name leads to a database that is not there.
    DanglingName,
    /// A checkpoint is damaged, or does not say what the log says.
    WrongCheckpoint,
    /// The block hashes of a content are missing or damaged.
    WrongBlockTree,
    /// A database without a name: its registration was cut off.
    Unnamed,
}

impl FindingKind {
    /// Whether something that was published cannot be had any more.
    pub fn loses_data(self) -> bool {
        match self {
            Self::UnreadableRevision
            | Self::BrokenChain
            | Self::Gap
            | Self::MissingBeginning
            | Self::MissingContent
            | Self::WrongContent
            | Self::UnreadableSettings
            | Self::DanglingName => true,
            Self::WrongCheckpoint | Self::WrongBlockTree | Self::Unnamed => false,
        }
    }

    /// Whether it can be mended from what is sound in the store.
    pub fn can_be_repaired(self) -> bool {
        matches!(self, Self::WrongCheckpoint | Self::WrongBlockTree)
    }

    /// In words.
    pub fn text(self) -> &'static str {
        match self {
            Self::UnreadableRevision => "a revision cannot be read",
            Self::BrokenChain => "a revision does not continue the one before it",
            Self::Gap => "revisions lie beyond one that is missing",
            Self::MissingBeginning => "what the oldest kept revision begins with cannot be read",
            Self::MissingContent => "a content is missing",
            Self::WrongContent => "a content has not the size or hash it should have",
            Self::UnreadableSettings => "the settings cannot be read",
            Self::DanglingName => "a name leads nowhere",
            Self::WrongCheckpoint => "a checkpoint is damaged (it only saves time)",
            Self::WrongBlockTree => "block hashes are missing or damaged (they only prove ranges)",
            Self::Unnamed => "a database without a name (its registration was cut off)",
        }
    }
}
