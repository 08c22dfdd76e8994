//! A file's path inside a database. Paths come from manifests and requests written by others, so the only way to
//! make a [`DbPath`] is through the checks here: no later code has to ask again whether a path leaves its root.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

/// The longest whole path, in bytes: below Linux's `PATH_MAX`, with room for a mountpoint in front.
pub const MAX_PATH_BYTES: usize = 3072;
/// The longest component, in bytes: Linux's `NAME_MAX`.
pub const MAX_COMPONENT_BYTES: usize = 255;

/// The most components: deeper trees are made by nobody but to make their readers work.
pub const MAX_COMPONENTS: usize = 128;

/// A relative path below a database's root: components joined by `/`, none empty, `.` or `..`. A copy shares the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DbPath(Arc<str>);

/// Why a text is not a path inside a database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Nothing at all.
    #[error("the path is empty")]
    Empty,
    /// Begins with `/`.
    #[error("the path is absolute")]
    Absolute,
    /// Has a `..` component.
    #[error("the path climbs out of its root with '..'")]
    Climbs,
    /// Has a `.` or an empty component, or ends in `/`.
    #[error("the path has an empty or '.' component")]
    Component,
    /// Contains a NUL byte.
    #[error("the path contains a NUL byte")]
    Nul,
    /// Longer than [`MAX_PATH_BYTES`], deeper than [`MAX_COMPONENTS`], or a component longer than
    /// [`MAX_COMPONENT_BYTES`].
    #[error("the path is too long or too deep")]
    TooLong,
}

impl DbPath {
    /// Checks `text` and takes it as a path.
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.is_empty() {
            return Err(PathError::Empty);
        }
        if text.starts_with('/') {
            return Err(PathError::Absolute);
        }
        if text.len() > MAX_PATH_BYTES {
            return Err(PathError::TooLong);
        }
        if text.contains('\0') {
            return Err(PathError::Nul);
        }
        if text.bytes().filter(|byte| *byte == b'/').count() >= MAX_COMPONENTS {
            return Err(PathError::TooLong);
        }
        for component in text.split('/') {
            match component {
                "" | "." => return Err(PathError::Component),
                ".." => return Err(PathError::Climbs),
                name if name.len() > MAX_COMPONENT_BYTES => return Err(PathError::TooLong),
                _ => {}
            }
        }
        Ok(Self(text.into()))
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its components, outermost first; never empty.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/')
    }

    /// The last component.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The collection a file belongs to: the name below `data/` that it has in its path.
    pub fn collection(&self) -> Option<&str> {
        let (collection, _) = self.as_str().strip_prefix("data/")?.split_once('/')?;
        Some(collection)
    }

    /// All proper ancestors as text, innermost first: `a/b` and `a` for `a/b/c`.
    pub fn ancestors(&self) -> impl Iterator<Item = &str> {
        self.0.rmatch_indices('/').map(|(at, _)| &self.0[..at])
    }

    /// Percent-encoded for a URL, each component by itself, `/` kept.
    pub fn url_encoded(&self) -> String {
        let components: Vec<String> = self.components().map(encode_segment).collect();
        components.join("/")
    }
}

/// Percent-encodes one URL path segment: everything but RFC 3986's unreserved characters.
pub(crate) fn encode_segment(segment: &str) -> String {
    const UNRESERVED: percent_encoding::AsciiSet =
        percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    percent_encoding::utf8_percent_encode(segment, &UNRESERVED).to_string()
}

impl Borrow<str> for DbPath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Control characters are shown escaped, so that a hostile name cannot write to a terminal.
impl fmt::Display for DbPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            if c.is_control() { write!(f, "{}", c.escape_default())? } else { write!(f, "{c}")? }
        }
        Ok(())
    }
}

impl fmt::Debug for DbPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl serde::Serialize for DbPath {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for DbPath {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).map_err(|e| serde::de::Error::custom(format_args!("{e}: {text:?}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_leave_their_root_or_cannot_be_files_are_refused() {
        for (text, why) in [
            ("", PathError::Empty),
            ("/etc/passwd", PathError::Absolute),
            ("..", PathError::Climbs),
            ("a/../b", PathError::Climbs),
            ("a/..", PathError::Climbs),
            ("a//b", PathError::Component),
            ("a/", PathError::Component),
            ("./a", PathError::Component),
            ("a\0b", PathError::Nul),
        ] {
            assert_eq!(DbPath::parse(text), Err(why), "{text:?}");
        }
        assert_eq!(DbPath::parse(&"x".repeat(256)), Err(PathError::TooLong));
        assert_eq!(DbPath::parse(&"x/".repeat(1600)), Err(PathError::TooLong));
        assert_eq!(DbPath::parse(&["x"; 129].join("/")), Err(PathError::TooLong));
        assert!(DbPath::parse(&["x"; 128].join("/")).is_ok());
        assert!(DbPath::parse(&"x".repeat(255)).is_ok());
    }

    #[test]
    fn odd_names_are_kept_and_encoded() {
        let path = DbPath::parse("data/we ird/ü+%#..txt").unwrap();
        assert_eq!(path.url_encoded(), "data/we%20ird/%C3%BC%2B%25%23..txt");
        assert_eq!(path.name(), "ü+%#..txt");
        assert_eq!(path.ancestors().collect::<Vec<_>>(), ["data/we ird", "data"]);
        assert_eq!(DbPath::parse("a\x1b[2J").unwrap().to_string(), "a\\u{1b}[2J");
    }
}
