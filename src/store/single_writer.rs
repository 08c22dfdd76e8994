//! For a store that does not create an object only if it is absent: one process, which looks first. Who attaches
//! last is the writer; an earlier one notices before its next write and stops.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::keys;
use crate::disk::random_hex;

/// The store below, with creating made of looking and writing.
pub(super) struct SingleWriter {
    below: Arc<dyn ObjectStore>,
    /// What the writer's object holds as long as it is we.
    name: Bytes,
    turn: tokio::sync::Mutex<()>,
}

impl SingleWriter {
    /// Takes the store over.
    pub(super) async fn take(below: Arc<dyn ObjectStore>) -> Result<Self> {
        let name = Bytes::from(random_hex::<16>());
        below.put(&Path::from(keys::WRITER), name.clone().into()).await?;
        Ok(Self { below, name, turn: tokio::sync::Mutex::new(()) })
    }

    async fn check_still_writer(&self) -> Result<()> {
        let found = self.below.get(&Path::from(keys::WRITER)).await?.bytes().await?;
        if found == self.name {
            return Ok(());
        }
        let source = "another process has taken this store over with --single-writer".into();
        Err(Error::Generic { store: "single writer", source })
    }
}

#[async_trait]
impl ObjectStore for SingleWriter {
    async fn put_opts(&self, at: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        if options.mode != PutMode::Create {
            return self.below.put_opts(at, payload, options).await;
        }
        let _turn = self.turn.lock().await;
        self.check_still_writer().await?;
        match self.below.head(at).await {
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
            Ok(_) => {
                let source = "it is there".into();
                return Err(Error::AlreadyExists { path: at.to_string(), source });
            }
        }
        self.below.put_opts(at, payload, PutOptions { mode: PutMode::Overwrite, ..options }).await
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.below.put_multipart_opts(at, options).await
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.below.get_opts(at, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.below.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.below.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.below.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.below.copy_opts(from, to, options).await
    }
}

impl fmt::Debug for SingleWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleWriter").finish_non_exhaustive()
    }
}

impl fmt::Display for SingleWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, by one writer", self.below)
    }
}
