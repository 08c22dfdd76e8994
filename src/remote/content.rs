//! Reading a content by range: what comes is exactly what was asked for, of exactly the version meant, or an
//! error. A proxy that answers 200 to a range, another version, a shifted range: nothing of it reaches a reader.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::{Bytes, BytesMut};
use reqwest::header::{
    ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, ETAG, IF_MATCH, RANGE,
};
use reqwest::{Method, Response, StatusCode};

use super::{Remote, RemoteError};
use crate::model::{
    BlockRoot, ByteRange, ContentHash, DbPath, DbRef, LEAF, LeafRange, ProvenBlocks, Revision, Then, provable,
};
use crate::wire::{BLOCK_HASHES_HEADER, BlockProof, ContentRange, WANT_PROOF_HEADER};

/// Which content: a path of a database, pinned to one version. Clones share what has been learned about it.
#[derive(Debug, Clone)]
pub struct ContentKey {
    /// The database.
    pub database: DbRef,
    /// The path.
    pub path: DbPath,
    /// Size in bytes.
    pub size: u64,
    /// The hash of the whole content; its SHA-256 is the entity tag every answer must bear.
    pub hash: ContentHash,
    /// A revision in which the path has this content; a static host has none.
    pub revision: Option<Revision>,
    /// What its blocks can be checked by, where the manifest says.
    pub blocks: Option<BlockRoot>,
    /// The host is a plain web server, whose tags name versions in its own way.
    host_tags: bool,
    /// The path has another content by now: only the revision still leads to this one.
    moved: Arc<AtomicBool>,
    /// The id of the database that is asked for it by its hash, whatever path it has or had.
    by_hash: Option<Arc<str>>,
}

impl ContentKey {
    /// The content that `path` has in `revision`.
    pub fn new(
        database: DbRef,
        path: DbPath,
        size: u64,
        hash: ContentHash,
        revision: Option<Revision>,
    ) -> Self {
        let (blocks, host_tags, moved) = (None, false, Arc::default());
        Self { database, path, size, hash, revision, blocks, host_tags, moved, by_hash: None }
    }

    /// The same on a plain web server, which knows neither revisions nor hashes: there, its own tags tell versions apart,
    /// and the hash says when all is here whether it was the right one.
    pub fn on_static_host(self) -> Self {
        Self { host_tags: true, ..self }
    }

    /// The same, asked for by its revision from the start: the path is likely to have another content by now.
    pub fn of_the_past(self) -> Self {
        self.moved.store(true, Ordering::Relaxed);
        self
    }

    /// The same, asked for by its hash of database `id`: any revision that the remote keeps may have it.
    pub fn by_hash(self, id: &str) -> Self {
        Self { by_hash: self.hash.sha256().map(|_| id.into()), ..self }.of_the_past()
    }

    /// The same, of which blocks can be checked.
    pub fn with_blocks(self, blocks: Option<BlockRoot>) -> Self {
        Self { blocks, ..self }
    }

    /// Whether an answer of this range may come with a proof.
    pub fn could_prove(&self, range: ByteRange) -> bool {
        self.provable(range).is_some()
    }

    fn provable(&self, range: ByteRange) -> Option<(BlockRoot, LeafRange)> {
        self.blocks.zip(provable(range, self.size))
    }

    fn etag(&self) -> Option<String> {
        self.hash.sha256().map(|hash| format!("\"{hash}\""))
    }
}

/// The bytes of a range as they arrive. Ends with an error if they are fewer or more than asked for. Where the answer
/// came with a proof, whole blocks come out of it, and none that is not the content's.
#[derive(Debug)]
pub struct ContentBody {
    remote: Remote,
    response: Response,
    left: u64,
    path: DbPath,
    proof: Option<Proof>,
}

/// What an answer's blocks must be.
#[derive(Debug)]
struct Proof {
    blocks: ProvenBlocks,
    next: u64,
    /// Came, and was not checked yet.
    pending: BytesMut,
}

impl Proof {
    /// The right blocks of what has come, up to one that is not.
    fn take_right(&mut self, complete: bool) -> Result<Option<Bytes>, ()> {
        let leaf = LEAF as usize;
        let whole = if complete { self.pending.len() } else { self.pending.len() / leaf * leaf };
        if whole == 0 {
            return Ok(None);
        }
        let found = self.blocks.look(self.next, &self.pending[..whole]);
        if found.right == 0 {
            return if found.then == Then::Wrong { Err(()) } else { Ok(None) };
        }
        self.next += found.right as u64;
        Ok(Some(self.pending.split_to(whole.min(found.right * leaf)).freeze()))
    }
}

impl ContentBody {
    /// Whether every byte that comes out was proven to be the content's.
    pub fn is_proven(&self) -> bool {
        self.proof.is_some()
    }

    /// The next piece; nothing after the last byte of the range.
    pub async fn next(&mut self) -> Result<Option<Bytes>, RemoteError> {
        loop {
            if let Some(proof) = &mut self.proof {
                match proof.take_right(self.left == 0) {
                    Ok(None) => {}
                    Ok(right) => return Ok(right),
                    Err(()) => return Err(self.remote.altered(&self.path)),
                }
            }
            let piece = self.receive().await?;
            match (&mut self.proof, piece) {
                (Some(proof), Some(piece)) => proof.pending.extend_from_slice(&piece),
                (_, piece) => return Ok(piece),
            }
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, RemoteError> {
        match self.response.chunk().await.map_err(|error| self.remote.broken(&error))? {
            Some(piece) if piece.len() as u64 > self.left => {
                Err(self.remote.wrong("more bytes came than were asked for".into()))
            }
            Some(piece) => {
                self.left -= piece.len() as u64;
                Ok(Some(piece))
            }
            None if self.left > 0 => Err(RemoteError::Unreachable {
                remote: self.remote.url().to_owned(),
                reason: format!("the answer broke off {} bytes early", self.left),
            }),
            None => Ok(None),
        }
    }
}

impl Remote {
    /// Bytes that came under right headers and are not the content's.
    pub fn altered(&self, path: &DbPath) -> RemoteError {
        self.wrong(format!("altered bytes for '{path}'"))
    }

    /// Opens a range of a content, answered as asked or not at all. `range` lies inside the content and is not empty.
    /// One request; one more when it turns out that the path has moved on, and then one again.
    pub async fn open_range(
        &self,
        content: &ContentKey,
        range: ByteRange,
    ) -> Result<ContentBody, RemoteError> {
        if content.moved.load(Ordering::Relaxed) {
            return self.ask_range(content, range, content.revision).await;
        }
        let by_hash = !self.versions.are_own();
        let asked = match self.ask_range(content, range, None).await {
            // A plain web server does not know a hash as a tag: it is asked for what it has, and its own tag tells. Another
            // request may have learned meanwhile that it is one.
            Err(RemoteError::Moved { .. })
                if content.host_tags
                    && by_hash
                    && (self.versions.are_unknown() || self.versions.are_own()) =>
            {
                let known = self.versions.condition(&content.path, content.hash);
                self.ask_version(content, range, None, known).await
            }
            asked => asked,
        };
        let asked = match asked {
            // The file ends before this range: it is another one.
            Err(RemoteError::Refused { status: 416, .. }) if content.host_tags => {
                Err(RemoteError::Moved { revision: None })
            }
            asked => asked,
        };
        let gone = match asked {
            Err(gone @ (RemoteError::Moved { .. } | RemoteError::NotFound { .. }))
                if content.revision.is_some() =>
            {
                gone
            }
            answered => return answered,
        };
        match self.ask_range(content, range, content.revision).await {
            Ok(body) => {
                content.moved.store(true, Ordering::Relaxed);
                Ok(body)
            }
            // A remote that knows no earlier revisions refuses the question in ways of its own.
            Err(RemoteError::Refused { .. } | RemoteError::NotFound { .. } | RemoteError::Moved { .. }) => {
                Err(gone)
            }
            Err(other) => Err(other),
        }
    }

    async fn ask_range(
        &self,
        content: &ContentKey,
        range: ByteRange,
        revision: Option<Revision>,
    ) -> Result<ContentBody, RemoteError> {
        let of_host = content.host_tags && self.versions.are_own();
        let condition =
            if of_host { self.versions.condition(&content.path, content.hash) } else { content.etag() };
        self.ask_version(content, range, revision, condition).await
    }

    async fn ask_version(
        &self,
        content: &ContentKey,
        range: ByteRange,
        revision: Option<Revision>,
        condition: Option<String>,
    ) -> Result<ContentBody, RemoteError> {
        let path = match (&content.by_hash, content.hash) {
            (Some(id), ContentHash::Sha256(hash)) => {
                format!("/api/sync/blob/{}/{hash}", crate::model::encode_segment(id))
            }
            _ => format!(
                "/db/{}/{}/{}",
                content.database.owner(),
                content.database.slug(),
                content.path.url_encoded()
            ),
        };
        let mut request = self.request(Method::GET, &path).header(RANGE, range.to_header());
        if let Some(revision) = revision {
            request = request.query(&[("revision", revision.0)]);
        }
        // Data is never compressed on the way: offsets must mean the same on both sides.
        request = request.header(ACCEPT_ENCODING, "identity");
        if let Some(etag) = condition {
            request = request.header(IF_MATCH, etag);
        }
        let wanted = content.provable(range);
        if wanted.is_some() {
            request = request.header(WANT_PROOF_HEADER, "1");
        }
        let response = self.send(request).await?;
        self.check_range(content, range, &response)?;
        let proof = match wanted {
            Some((root, blocks)) => self.check_proof(content, &root, blocks, &response)?,
            None => None,
        };
        Ok(ContentBody {
            remote: self.clone(),
            response,
            left: range.len(),
            path: content.path.clone(),
            proof,
        })
    }

    /// The proof that came with an answer, if one did. One for other blocks is another answer's, which a proxy that
    /// puts ranges together handed on: as good as none.
    fn check_proof(
        &self,
        content: &ContentKey,
        root: &BlockRoot,
        blocks: LeafRange,
        response: &Response,
    ) -> Result<Option<Proof>, RemoteError> {
        let Some(value) = response.headers().get(BLOCK_HASHES_HEADER) else { return Ok(None) };
        let wrong = || self.wrong(format!("wrong block hashes for '{}'", content.path));
        let proof = value.to_str().ok().and_then(BlockProof::parse).ok_or_else(wrong)?;
        if proof.blocks != blocks {
            tracing::debug!(path = %content.path, ?blocks, other = ?proof.blocks, "block hashes for other blocks");
            return Ok(None);
        }
        let proven = ProvenBlocks::new(root, content.size, blocks, &proof.nodes).ok_or_else(wrong)?;
        Ok(Some(Proof { blocks: proven, next: blocks.start, pending: BytesMut::new() }))
    }

    fn check_range(
        &self,
        content: &ContentKey,
        asked: ByteRange,
        response: &Response,
    ) -> Result<(), RemoteError> {
        let text =
            |name: reqwest::header::HeaderName| response.headers().get(name).and_then(|v| v.to_str().ok());
        let wrong = |what: &str| Err(self.wrong(format!("{what} for '{}'", content.path)));
        if response.status() != StatusCode::PARTIAL_CONTENT {
            return wrong(&format!("HTTP {} instead of 206", response.status().as_u16()));
        }
        if text(CONTENT_ENCODING).is_some_and(|encoding| encoding != "identity") {
            return wrong("compressed bytes");
        }
        let expected = ContentRange { range: asked, total: content.size };
        if text(CONTENT_RANGE).and_then(ContentRange::parse) != Some(expected) {
            return wrong(&format!(
                "Content-Range {:?} instead of '{}'",
                text(CONTENT_RANGE),
                expected.to_header()
            ));
        }
        if let Some(length) = text(CONTENT_LENGTH)
            && length.parse() != Ok(asked.len())
        {
            return wrong(&format!("Content-Length {length} instead of {}", asked.len()));
        }
        match content.etag() {
            Some(etag) if text(ETAG) == Some(etag.as_str()) => {
                self.versions.is_a_hash();
                Ok(())
            }
            // Nothing but this remote's own tags tells versions apart; whether the bytes are right, the whole file's
            // hash says when it is complete.
            Some(_) if content.host_tags => {
                match self.versions.agree(&content.path, content.hash, response.headers()) {
                    true => Ok(()),
                    false => Err(RemoteError::Moved { revision: None }),
                }
            }
            Some(_) => wrong("another version's ETag"),
            None => Ok(()),
        }
    }
}
