//! Contents by hash: streaming in, checked while they stream, and streaming out by range.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    GetOptions, GetRange, GetResultPayload, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload,
};

use super::block_trees::store_tree;
use super::{Database, StoreError, keys};
use crate::disk::random_hex;
use crate::model::{BlockTreeBuilder, ByteRange, Sha256, has_tree};

/// Uploads up to this size are one write; larger ones go in parts of [`PART`].
const SMALL: u64 = 1 << 20;
/// S3 wants parts of at least 5 MiB.
const PART: usize = 8 << 20;
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
    /// Whether a content of that hash and size is stored.
    pub async fn has_content(&self, hash: &Sha256, size: u64) -> Result<bool, StoreError> {
        match self.objects.head(&keys::content(&self.id, hash)).await {
            Ok(meta) => Ok(meta.size == size),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(StoreError::unavailable("look for a content")(error)),
        }
    }

    /// Streams a range of a content. A missing content is an error: callers ask for published ones.
    pub async fn read_content(&self, hash: &Sha256, range: ByteRange) -> Result<ContentStream, StoreError> {
        if range.is_empty() {
            return Ok(futures::stream::empty().boxed());
        }
        let options =
            GetOptions { range: Some(GetRange::Bounded(range.start..range.end)), ..GetOptions::default() };
        let key = keys::content(&self.id, hash);
        let found =
            self.objects.get_opts(&key, options).await.map_err(StoreError::unavailable("read a content"))?;
        // A local file is read in pieces of our size: the crate's own stream uses 8 KiB.
        match found.payload {
            GetResultPayload::File(file, _) => Ok(read_file(file, range).boxed()),
            GetResultPayload::Stream(stream) => {
                Ok(stream.map_err(StoreError::unavailable("read a content")).boxed())
            }
        }
    }

    /// Begins an upload of exactly `size` bytes, of that hash if it is known beforehand. Nothing can be read
    /// before [`ContentUpload::finish`] has agreed.
    pub async fn upload(&self, size: u64, expected: Option<Sha256>) -> Result<ContentUpload, StoreError> {
        let target = match &expected {
            Some(hash) => keys::content(&self.id, hash),
            None => keys::incoming(&self.id, &random_hex::<16>()),
        };
        let parts = if size > SMALL {
            let begun = self.objects.put_multipart(&target).await;
            Some(begun.map_err(StoreError::unavailable("begin an upload"))?)
        } else {
            None
        };
        Ok(ContentUpload {
            objects: self.objects.clone(),
            database: self.id.clone(),
            target,
            parts,
            buffer: BytesMut::new(),
            digest: ring::digest::Context::new(&ring::digest::SHA256),
            tree: has_tree(size).then(BlockTreeBuilder::default),
            received: 0,
            size,
            expected,
        })
    }
}

fn read_file(
    file: std::fs::File,
    range: ByteRange,
) -> impl futures::Stream<Item = Result<Bytes, StoreError>> {
    let file = Arc::new(file);
    futures::stream::try_unfold(range, move |left| {
        let file = file.clone();
        async move {
            if left.is_empty() {
                return Ok(None);
            }
            let piece = usize::try_from(left.len()).unwrap_or(READ_CHUNK).min(READ_CHUNK);
            let read = tokio::task::spawn_blocking(move || {
                let mut bytes = BytesMut::zeroed(piece);
                std::os::unix::fs::FileExt::read_exact_at(&*file, &mut bytes, left.start)
                    .map(|()| bytes.freeze())
            });
            let bytes = read.await.map_err(std::io::Error::other).and_then(|read| read).map_err(|error| {
                StoreError::unavailable("read a content")(object_store::Error::Generic {
                    store: "LocalFileSystem",
                    source: error.into(),
                })
            })?;
            Ok(Some((bytes, ByteRange::new(left.start + piece as u64, left.end))))
        }
    })
}

/// An upload under way. Dropped before it is finished, it leaves nothing that can be read.
pub struct ContentUpload {
    objects: Arc<dyn ObjectStore>,
    database: String,
    target: Path,
    parts: Option<Box<dyn MultipartUpload>>,
    buffer: BytesMut,
    digest: ring::digest::Context,
    tree: Option<BlockTreeBuilder>,
    received: u64,
    size: u64,
    expected: Option<Sha256>,
}

impl ContentUpload {
    /// Takes the next bytes; refuses more than announced at once.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), UploadError> {
        self.received += bytes.len() as u64;
        if self.received > self.size {
            return Err(UploadError::WrongSize { expected: self.size, received: self.received });
        }
        self.digest.update(bytes);
        if let Some(tree) = &mut self.tree {
            tree.update(bytes);
        }
        self.buffer.extend_from_slice(bytes);
        while self.parts.is_some() && self.buffer.len() >= PART {
            let part = self.buffer.split_to(PART).freeze();
            self.put_part(part).await?;
        }
        Ok(())
    }

    async fn put_part(&mut self, part: Bytes) -> Result<(), StoreError> {
        let Some(parts) = &mut self.parts else { return Ok(()) };
        parts.put_part(PutPayload::from(part)).await.map_err(StoreError::unavailable("store an upload"))
    }

    /// Checks size and hash; only if both hold does the content exist afterwards, durably.
    pub async fn finish(mut self) -> Result<Sha256, UploadError> {
        let found = Sha256::from_digest(&self.digest.clone().finish());
        let refusal = if self.received != self.size {
            Some(UploadError::WrongSize { expected: self.size, received: self.received })
        } else {
            self.expected
                .filter(|expected| *expected != found)
                .map(|expected| UploadError::WrongHash { expected, found })
        };
        if let Some(refusal) = refusal {
            self.abort().await;
            return Err(refusal);
        }
        // Before the content: whoever finds that one finds its tree.
        if let Some(tree) = self.tree.take().and_then(BlockTreeBuilder::finish) {
            let key = keys::block_tree(&self.database, &found);
            store_tree(&*self.objects, &key, tree, self.size).await?;
        }
        let rest = self.buffer.split().freeze();
        if self.parts.is_some() {
            if !rest.is_empty() {
                self.put_part(rest).await?;
            }
            if let Some(mut parts) = self.parts.take() {
                parts.complete().await.map_err(StoreError::unavailable("finish an upload"))?;
            }
        } else {
            let stored = self.objects.put(&self.target, rest.into()).await;
            stored.map_err(StoreError::unavailable("store an upload"))?;
        }
        if self.expected.is_none() {
            let content = keys::content(&self.database, &found);
            let moved = self.objects.rename(&self.target, &content).await;
            moved.map_err(StoreError::unavailable("name an upload"))?;
        }
        Ok(found)
    }

    /// Gives the upload up and removes what it left.
    pub async fn abort(mut self) {
        if let Some(mut parts) = self.parts.take()
            && let Err(error) = parts.abort().await
        {
            tracing::warn!(%error, "an abandoned upload could not be removed");
        }
    }
}
