//! Who may see a database without being named.

use std::fmt;
use std::str::FromStr;

/// A database's visibility. The default is private.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Listed, and read by anyone.
    Public,
    /// Not listed; read by anyone who knows its name.
    Unlisted,
    /// Neither listed nor read, but by its owner and those the owner names.
    #[default]
    Private,
}

/// The text is none of the three levels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("visibility is one of public, unlisted, private")]
pub struct VisibilityError;

impl Visibility {
    /// Whether someone without a token may read.
    pub fn allows_anonymous_read(self) -> bool {
        !matches!(self, Self::Private)
    }

    /// Whether the database appears in public listings.
    pub fn allows_discovery(self) -> bool {
        matches!(self, Self::Public)
    }
}

impl fmt::Display for Visibility {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "public",
            Self::Unlisted => "unlisted",
            Self::Private => "private",
        })
    }
}

impl FromStr for Visibility {
    type Err = VisibilityError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "public" => Ok(Self::Public),
            "unlisted" => Ok(Self::Unlisted),
            "private" => Ok(Self::Private),
            _ => Err(VisibilityError),
        }
    }
}
