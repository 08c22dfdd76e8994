//! Which store a command means, and opening it.

use parquedb_mount::config::Dirs;
use parquedb_mount::model::DbRef;
use parquedb_mount::store::{Database, Missing, Store, StoreLocation, Writers};
use std::sync::Arc;

use crate::args::{StoreFlag, WriterFlag};
use crate::common::failure::Failure;

impl StoreFlag {
    /// The place that was named, or the user's own store.
    pub fn location(&self) -> Result<StoreLocation, Failure> {
        match &self.store {
            None => Ok(StoreLocation::Directory(Dirs::of_user()?.data.join("store"))),
            Some(text) => location(text),
        }
    }

    /// Opens a store that is there, to write to it.
    pub async fn open(&self, writer: &WriterFlag) -> Result<Store, Failure> {
        // Private databases lie in it: nobody else on this machine reads its files.
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        Ok(Store::open_at(&self.location()?, Missing::Refuse, writer.writers()).await?)
    }

    /// Opens a store that is there, to read it.
    pub async fn open_read_only(&self) -> Result<Store, Failure> {
        Ok(Store::open_read_only(&self.location()?).await?)
    }
}

impl WriterFlag {
    /// Who writes.
    pub fn writers(&self) -> Writers {
        if self.single_writer { Writers::Single } else { Writers::Many }
    }
}

/// A place as it was typed; a directory's is made absolute, for messages and for what follows.
pub fn location(text: &str) -> Result<StoreLocation, Failure> {
    match text.parse()? {
        StoreLocation::Directory(path) => {
            let absolute = std::path::absolute(&path);
            let absolute =
                absolute.map_err(|error| Failure::usage(format!("{}: {error}", path.display())))?;
            Ok(StoreLocation::Directory(absolute))
        }
        url => Ok(url),
    }
}

/// The database of that name, which must be there.
pub async fn database(store: &Store, name: &str) -> Result<Arc<Database>, Failure> {
    let reference: DbRef = name.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let found = store.find(&reference).await?;
    found.ok_or_else(|| {
        let code = parquedb_mount::model::ExitCode::NotFound;
        Failure::new(code, format!("there is no {reference} in this store"))
    })
}
