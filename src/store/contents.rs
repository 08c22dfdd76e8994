//! Contents by hash: streaming in, checked while they stream, and streaming out by range.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use md5::Digest;
use object_store::path::Path;
use object_store::{GetOptions, GetRange, MultipartUpload, ObjectStoreExt, PutPayload};

use super::block_trees::store_tree;
use super::condemned::StoredContent;
use super::{Database, StoreError, keys};
use crate::disk::random_hex;
use crate::model::{BlockTreeBuilder, ByteRange, Sha256, has_tree};

/// Uploads up to this size are one write; larger ones go in parts of [`PART`].
const SMALL: u64 = 1 << 20;
/// S3 wants parts of at least 5 MiB.
const PART: usize = 8 << 20;
/// S3 takes so many parts, and some remain in reserve.
const MOST_PARTS: u64 = 9_000;
/// How much is read from a local file at once.
const READ_CHUNK: usize = 256 << 10;

/// A content's bytes as they are read.
pub type ContentStream = BoxStream<'static, Result<Bytes, StoreError>>;

/// Why an upload was not kept.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// More or fewer bytes than announced.
    #[error("expected {expected} bytes, received {received}")]
    WrongSize {
        /// Announced.
        expected: u64,
        /// Came.
        received: u64,
    },
    /// The bytes are not those announced.
    #[error("the content's SHA-256 is {found}, not {expected}")]
    WrongHash {
        /// Announced.
        expected: Sha256,
        /// Came.
        found: Sha256,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Database {
    /// Whether a content of that size is stored.
    pub(super) async fn is_stored(&self, content: &StoredContent, size: u64) -> Result<bool, StoreError> {
        Ok(self.stored_size(content).await? == Some(size))
    }

    /// The size that a content is stored with, if it is.
    pub(super) async fn stored_size(&self, content: &StoredContent) -> Result<Option<u64>, StoreError> {
        match self.objects.head(&keys::content(&self.id, content)).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(StoreError::unavailable("look for a content")(error)),
        }
    }

    /// Streams a range of a content. A missing content is an error: callers ask for published ones.
    pub async fn read_content(&self, hash: &Sha256, range: ByteRange) -> Result<ContentStream, StoreError> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let mut content = self.live(hash);
        loop {
            match self.read_stored(&content, range).await {
                // Condemned when somebody was about to publish it, and therefore kept.
                Err(object_store::Error::NotFound { .. }) if content.generation > 0 => {
                    content.generation -= 1
                }
                read => return read.map_err(StoreError::unavailable("read a content")),
            }
        }
    }

    async fn read_stored(
        &self,
        content: &StoredContent,
        range: ByteRange,
    ) -> object_store::Result<ContentStream> {
        let key = keys::content(&self.id, content);
        if let Some(path) = self.objects.file(&key) {
            let file = self.open_files.open(content, path).map_err(|error| as_object_error(&key, error))?;
            return Ok(read_file(file, range).boxed());
        }
        let options =
            GetOptions { range: Some(GetRange::Bounded(range.start..range.end)), ..GetOptions::default() };
        let found = self.objects.get_opts(&key, options).await?;
        Ok(found.into_stream().map_err(StoreError::unavailable("read a content")).boxed())
    }

    /// Begins an upload of exactly `size` bytes, of that hash if it is known beforehand. Nothing can be read
    /// before [`ContentUpload::finish`] has agreed.
    pub async fn upload(
        self: &Arc<Self>,
        size: u64,
        expected: Option<Sha256>,
    ) -> Result<ContentUpload, StoreError> {
        let content = expected.map(|hash| self.live(&hash));
        let target = match &content {
            Some(content) => keys::content(&self.id, content),
            None => keys::incoming(&self.id, &random_hex::<16>()),
        };
        let parts = if size > SMALL {
            let begun = self.objects.put_multipart(&target).await;
            Some(begun.map_err(StoreError::unavailable("begin an upload"))?)
        } else {
            None
        };
        Ok(ContentUpload {
            database: self.clone(),
            content,
            target,
            parts,
            buffer: BytesMut::new(),
            digest: ring::digest::Context::new(&ring::digest::SHA256),
            // Who does not announce a SHA-256 may be about to publish an MD5 (rule 5).
            md5: content.is_none().then(md5::Md5::new),
            tree: has_tree(size).then(BlockTreeBuilder::default),
            received: 0,
            size,
        })
    }
}

/// How long a part is, of an upload of so many bytes.
fn part_length(size: u64) -> usize {
    usize::try_from(size.div_ceil(MOST_PARTS)).unwrap_or(PART).max(PART)
}

fn as_object_error(key: &Path, error: std::io::Error) -> object_store::Error {
    if error.kind() == std::io::ErrorKind::NotFound {
        return object_store::Error::NotFound { path: key.to_string(), source: error.into() };
    }
    object_store::Error::Generic { store: "directory", source: error.into() }
}

/// A file's bytes in pieces. What the kernel has in memory is read on the spot, and the rest where that may wait for
/// the disk.
fn read_file(
    file: Arc<std::fs::File>,
    range: ByteRange,
) -> impl futures::Stream<Item = Result<Bytes, StoreError>> {
    futures::stream::try_unfold(range, move |left| {
        let file = file.clone();
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let piece = usize::try_from(left.len()).unwrap_or(READ_CHUNK).min(READ_CHUNK);
            let bytes = match read_at_once(&file, left.start, piece) {
                Some(bytes) => Ok(bytes),
                None => {
                    let read = tokio::task::spawn_blocking(move || {
                        let mut bytes = BytesMut::zeroed(piece);
                        std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, left.start)
                            .map(|()| bytes.freeze())
                    });
                    read.await.map_err(std::io::Error::other).and_then(|read| read)
                }
            };
            let bytes = bytes.map_err(|error| {
                let source = object_store::Error::Generic { store: "directory", source: error.into() };
                StoreError::unavailable("read a content")(source)
            })?;
            let next = left.start + bytes.len() as u64;
            Ok(Some((bytes, ByteRange::new(next, left.end))))
        }
    })
}

/// What of a piece is in memory, from its start on; nothing if its first byte is not, or the file system cannot tell.
fn read_at_once(file: &std::fs::File, at: u64, length: usize) -> Option<Bytes> {
    let mut bytes = BytesMut::zeroed(length);
    let mut whole = [std::io::IoSliceMut::new(&mut bytes)];
    let read = rustix::io::preadv2(file, &mut whole, at, rustix::io::ReadWriteFlags::NOWAIT).ok()?;
    bytes.truncate(read);
    (read > 0).then(|| bytes.freeze())
}

/// An upload under way. Dropped before it is finished, it leaves nothing that can be read.
pub struct ContentUpload {
    database: Arc<Database>,
    /// What it will be, where the hash is known beforehand.
    content: Option<StoredContent>,
    target: Path,
    parts: Option<Box<dyn MultipartUpload>>,
    buffer: BytesMut,
    digest: ring::digest::Context,
    md5: Option<md5::Md5>,
    tree: Option<BlockTreeBuilder>,
    received: u64,
    size: u64,
}

impl ContentUpload {
    /// Bytes taken so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// Takes the next bytes; refuses more than announced at once.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.received += bytes.len() as u64;
        if self.received > self.size {
            return Err(UploadError::WrongSize { expected: self.size, received: self.received });
        }
        self.digest.update(bytes);
        if let Some(md5) = &mut self.md5 {
            md5.update(bytes);
        }
        if let Some(tree) = &mut self.tree {
            tree.update(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        let length = part_length(self.size);
        while self.parts.is_some() && self.buffer.len() >= length {
            let part = self.buffer.split_to(length).freeze();
            self.put_part(part).await?;
        }
        Ok(())
    }

    async fn put_part(&mut self, part: Bytes) -> Result<(), StoreError> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        let stored = parts.put_part(PutPayload::from(part)).await;
        if stored.is_err() {
            self.remove_parts().await;
        }
        stored.map_err(StoreError::unavailable("store an upload"))
    }

    /// Checks size and hash; only if both hold does the content exist afterwards, durably, and claimed.
    pub async fn finish(mut self) -> Result<Sha256, UploadError> {
        let found = Sha256::from_digest(&self.digest.clone().finish());
        let refusal = if self.received != self.size {
            Some(UploadError::WrongSize { expected: self.size, received: self.received })
        } else {
            let expected = self.content.map(|content| content.hash).filter(|expected| *expected != found);
            expected.map(|expected| UploadError::WrongHash { expected, found })
        };
        if let Some(refusal) = refusal {
            self.abort().await;
            return Err(refusal);
        }
        let database = self.database.clone();
        let content = self.content.unwrap_or_else(|| database.live(&found));
        let tree = self.tree.take().and_then(BlockTreeBuilder::finish);
        let root = tree.as_ref().map(|tree| tree.root);
        // Before the content: whoever finds that one finds its tree.
        if let Some(tree) = tree {
            store_tree(&*database.objects, &keys::block_tree(&database.id, &content), tree, self.size)
                .await?;
        }
        let rest = self.buffer.split().freeze();
        if self.parts.is_some() {
            if !rest.is_empty() {
                self.put_part(rest).await?;
            }
            if let Some(parts) = &mut self.parts
                && let Err(error) = parts.complete().await
            {
                self.remove_parts().await;
                return Err(StoreError::unavailable("finish an upload")(error).into());
            }
        } else {
            let stored = database.objects.put(&self.target, rest.into()).await;
            stored.map_err(StoreError::unavailable("store an upload"))?;
        }
        if self.content.is_none() {
            let moved = database.objects.rename(&self.target, &keys::content(&database.id, &content)).await;
            moved.map_err(StoreError::unavailable("name an upload"))?;
        }
        if let Some(md5) = self.md5.take() {
            database.remember_md5(md5.finalize().into(), self.size, found).await?;
        }
        database.write_claim(&content, self.size, root).await?;
        Ok(found)
    }

    /// Gives the upload up and removes what it left.
    pub async fn abort(mut self) {
        self.remove_parts().await;
    }

    async fn remove_parts(&mut self) {
        if let Some(mut parts) = self.parts.take()
            && let Err(error) = parts.abort().await
        {
            tracing::warn!(%error, "an abandoned upload could not be removed");
        }
    }
}
