//! `owner/slug`: how people name a database.

use std::fmt;
use std::str::FromStr;

/// A database's public name, `owner/slug`, both parts checked.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DbRef {
    owner: Box<str>,
    slug: Box<str>,
}

/// Why a text is not `owner/slug`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Not two parts.
    #[error("'{0}' is not a database: write OWNER/SLUG, for example alice/my-dataset")]
    Shape(String),
    /// The first part is not an owner's name.
    #[error("'{0}' is not an owner's name: 1 to 39 lower-case letters, digits or inner '-', '_', '.'")]
    Owner(String),
    /// The second part is not a slug.
    #[error("'{0}' is not a slug: 1 to 64 lower-case letters, digits or inner '-'")]
    Slug(String),
}

impl DbRef {
    /// Checks both parts.
    pub fn new(owner: &str, slug: &str) -> Result<Self, ReferenceError> {
        if !is_owner_name(owner) {
            return Err(ReferenceError::Owner(printable(owner)));
        }
        if !is_slug(slug) {
            return Err(ReferenceError::Slug(printable(slug)));
        }
        Ok(Self { owner: owner.into(), slug: slug.into() })
    }

    /// The owner's name.
    pub fn owner(&self) -> &str {
        &self.owner
    }

    /// The database's name among its owner's.
    pub fn slug(&self) -> &str {
        &self.slug
    }
}

impl FromStr for DbRef {
    type Err = ReferenceError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((owner, slug)) if !slug.contains('/') => Self::new(owner, slug),
            _ => Err(ReferenceError::Shape(printable(text))),
        }
    }
}

impl fmt::Display for DbRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, self.slug)
    }
}

impl fmt::Debug for DbRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `text` can be an owner: it is a URL segment and a folder's name.
pub fn is_owner_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    matches!(bytes.len(), 1..=39)
        && bytes.first().is_some_and(plain)
        && bytes.last().is_some_and(plain)
        && bytes.iter().all(|b| plain(b) || b"-_.".contains(b))
}

/// Whether `text` is a slug: `^[a-z0-9][a-z0-9-]{1,62}[a-z0-9]$` or `^[a-z0-9]{1,3}$`.
pub fn is_slug(text: &str) -> bool {
    let bytes = text.as_bytes();
    let plain = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let ends = bytes.first().is_some_and(plain) && bytes.last().is_some_and(plain);
    matches!(bytes.len(), 1..=64) && ends && bytes.iter().all(|b| plain(b) || *b == b'-')
}

/// A slug made from a person's name for a database, or nothing where no letter of it can stay.
pub fn slugify(name: &str) -> Option<String> {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_lowercase() || c.is_ascii_digit() {
            slug.push(c);
        } else if !slug.ends_with('-') && !slug.is_empty() {
            slug.push('-');
        }
    }
    slug.truncate(64);
    let slug = slug.trim_matches('-').to_owned();
    is_slug(&slug).then_some(slug)
}

/// A hostile text made safe and short enough to repeat in an error line.
fn printable(text: &str) -> String {
    text.chars().take(80).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_two_plain_names() {
        for good in ["alice/my-dataset", "a/b", "root/x1", "a.b_c/ab"] {
            assert_eq!(good.parse::<DbRef>().unwrap().to_string(), good);
        }
        for bad in
            ["", "alice", "/x", "x/", "a/b/c", "../x", "a/..", "A/b", "a/B", "a/-b", "a/b-", ".a/b", "a b/c"]
        {
            assert!(bad.parse::<DbRef>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn slugs_are_made_from_names() {
        assert_eq!(slugify("My Data Set!").as_deref(), Some("my-data-set"));
        assert_eq!(slugify("  --Ünï  x").as_deref(), Some("n-x"));
        assert_eq!(slugify("日本"), None);
    }
}
