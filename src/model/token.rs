//! A bearer token.

use std::fmt;

/// A bearer token in the clear. It is never printed: only [`Token::reveal`] gives the text away.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// Takes a token's text; white space around it is not part of it.
    pub fn new(text: &str) -> Self {
        Self(text.trim().into())
    }

    /// The token itself, to be sent or stored.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Whether it can stand in an HTTP header.
    pub fn is_sendable(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|b| b.is_ascii_graphic())
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}
