//! Contents that garbage collection has given up: a log, so that every server knows of it before it is done.
//!
//! Deleting cannot be made conditional, and who deletes may be asleep between looking and doing. So a stored content
//! is condemned first, for good, and whoever stores the same bytes afterwards stores them under another name, its
//! next *generation*. A deletion that comes late then removes nothing that anybody relies on (rule 6).

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::log::{Append, NumberedLog, decode, encode};
use super::{Database, StoreError, keys};
use crate::model::Sha256;

/// A content as it lies in the store: the same bytes may have been stored anew after they were condemned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct StoredContent {
    pub(super) hash: Sha256,
    /// How many of its like were condemned before.
    pub(super) generation: u32,
}

impl fmt::Display for StoredContent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.generation {
            0 => write!(f, "{}", self.hash),
            generation => write!(f, "{}.{generation}", self.hash),
        }
    }
}

impl FromStr for StoredContent {
    type Err = ();

    fn from_str(name: &str) -> Result<Self, ()> {
        let (digits, generation) = match name.split_once('.') {
            Some((digits, generation)) => (digits, generation.parse().map_err(|_| ())?),
            None => (name, 0),
        };
        let parsed = Self { hash: digits.parse().map_err(|_| ())?, generation };
        // One name for one content.
        if parsed.to_string() == name { Ok(parsed) } else { Err(()) }
    }
}

/// What was condemned up to some entry of the log.
#[derive(Debug, Default)]
pub(super) struct Condemned {
    /// The last entry taken in.
    pub(super) number: u64,
    /// The generation that is next, of contents that have had one condemned.
    next: HashMap<Sha256, u32>,
}

/// An entry of the log.
#[derive(Serialize, Deserialize)]
struct Sentence {
    format: u64,
    time: String,
    /// Hashes, and for later generations a dot and its number.
    contents: Vec<String>,
}

impl Condemned {
    /// The content that these bytes are stored as, if they are stored or will be.
    pub(super) fn live(&self, hash: &Sha256) -> StoredContent {
        StoredContent { hash: *hash, generation: self.next.get(hash).copied().unwrap_or_default() }
    }

    fn take_in(&mut self, number: u64, contents: impl Iterator<Item = StoredContent>) {
        self.number = number;
        for content in contents {
            let next = self.next.entry(content.hash).or_default();
            *next = (*next).max(content.generation + 1);
        }
    }
}

impl Database {
    pub(super) fn condemned_log(&self) -> NumberedLog<'_> {
        NumberedLog { objects: &self.objects, prefix: keys::condemned(&self.id) }
    }

    /// Takes in what was condemned meanwhile. The caller holds `turn`.
    pub(super) async fn catch_up_condemned(&self) -> Result<(), StoreError> {
        loop {
            let next = self.read().condemned.number + 1;
            let log = self.condemned_log();
            let Some(bytes) = log.get(next).await? else { return Ok(()) };
            let sentence: Sentence = decode(&log.key(next), &bytes)?;
            if sentence.format != 1 {
                return Err(StoreError::Newer { format: sentence.format });
            }
            self.open_files.close_old();
            let contents = sentence.contents.iter().filter_map(|name| name.parse().ok());
            self.write().condemned.take_in(next, contents);
        }
    }

    /// Condemns these contents. Whoever looks from now on does not rely on them any more.
    pub(super) async fn condemn(&self, contents: &[StoredContent], time: String) -> Result<(), StoreError> {
        let _turn = self.turn.lock().await;
        let sentence =
            Sentence { format: 1, time, contents: contents.iter().map(ToString::to_string).collect() };
        loop {
            self.catch_up_condemned().await?;
            let number = self.read().condemned.number + 1;
            if self.condemned_log().append(number, encode(&sentence)).await? == Append::Done {
                self.write().condemned.take_in(number, contents.iter().copied());
                return Ok(());
            }
        }
    }

    /// The stored content that these bytes have now, or would get.
    pub(super) fn live(&self, hash: &Sha256) -> StoredContent {
        self.read().condemned.live(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_stored_contents_are_read_as_they_are_written() {
        for generation in [0, 1, 12] {
            let content = StoredContent { hash: Sha256([7; 32]), generation };
            assert_eq!(content.to_string().parse(), Ok(content));
        }
        let digits = Sha256([7; 32]).to_string();
        for bad in [format!("{digits}.0"), format!("{digits}.01"), format!("{digits}."), "abc".to_owned()] {
            assert!(bad.parse::<StoredContent>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_condemned_content_is_stored_anew_under_the_next_name() {
        let mut condemned = Condemned::default();
        let hash = Sha256([1; 32]);
        assert_eq!(condemned.live(&hash).generation, 0);
        condemned.take_in(1, [condemned.live(&hash)].into_iter());
        condemned.take_in(2, [condemned.live(&hash)].into_iter());
        assert_eq!((condemned.number, condemned.live(&hash).generation), (2, 2));
        assert_eq!(condemned.live(&Sha256([2; 32])).generation, 0);
    }
}
