//! The composed reader: a file's local bytes over those of the remote's that show through, the latter from the cache or
//! fetched.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use crate::fetch::{FetchError, OpenContent, ReaderThread};
use crate::model::ByteRange;
use crate::overlay::{LocalFile, Overlay, OverlayError, Piece};

/// Why bytes could not be had.
#[derive(Debug, thiserror::Error)]
pub enum ContentError {
    /// Of the local part.
    #[error(transparent)]
    Local(#[from] OverlayError),
    /// Of the remote's part.
    #[error(transparent)]
    Remote(#[from] FetchError),
}

/// A local file over its base, as one handle has it open.
#[derive(Clone, Copy)]
pub struct Composed<'a> {
    /// What is local.
    pub local: &'a LocalFile,
    /// Where that lies.
    pub overlay: &'a Overlay,
    /// What shows through, if anything did when it was opened.
    pub base: Option<&'a Arc<OpenContent>>,
}

impl Composed<'_> {
    /// Reads what is here at once; `None` where something has to be fetched first. Past the end there are no bytes.
    pub fn read_cached(&self, thread: ReaderThread, range: ByteRange) -> Result<Option<Bytes>, ContentError> {
        let pieces = self.local.read(self.overlay, range)?;
        let mut read = Vec::with_capacity(pieces.len());
        for piece in pieces {
            match piece {
                Piece::Local(bytes) => read.push(bytes),
                Piece::Base(range) => match self.base()?.read_cached(thread, range.start, range.len()) {
                    Some(bytes) => read.push(bytes),
                    None => return Ok(None),
                },
            }
        }
        Ok(Some(join(read)))
    }

    /// Reads, fetching what is missing: all bytes of the range inside the file, or an error.
    pub async fn read(&self, thread: ReaderThread, range: ByteRange) -> Result<Bytes, ContentError> {
        let pieces = self.local.read(self.overlay, range)?;
        let mut read = Vec::with_capacity(pieces.len());
        for piece in pieces {
            read.push(match piece {
                Piece::Local(bytes) => bytes,
                Piece::Base(range) => self.base()?.read(thread, range.start, range.len()).await?,
            });
        }
        Ok(join(read))
    }

    fn base(&self) -> Result<&Arc<OpenContent>, FetchError> {
        self.base.ok_or_else(|| FetchError::Wrong("what lies under the local bytes was not opened".into()))
    }
}

fn join(mut pieces: Vec<Bytes>) -> Bytes {
    if pieces.len() == 1 {
        return pieces.remove(0);
    }
    let mut joined = BytesMut::with_capacity(pieces.iter().map(Bytes::len).sum());
    for piece in pieces {
        joined.extend_from_slice(&piece);
    }
    joined.freeze()
}
