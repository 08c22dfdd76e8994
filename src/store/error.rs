//! What can go wrong with a store.

/// A failure of the store itself, as opposed to a refusal of what was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store could not be read or written.
    #[error("the store cannot {action}")]
    Unavailable {
        /// What was being done.
        action: &'static str,
        /// Why not.
        #[source]
        source: object_store::Error,
    },
    /// An object is not what its name says.
    #[error("the store is damaged: {key}: {reason}")]
    Damaged {
        /// The object.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A later layout than this program knows.
    #[error("the store has format {format}, and this program knows format 1: a newer parquedb is needed")]
    Newer {
        /// The format it says it has.
        format: u64,
    },
    /// The directory cannot be used.
    #[error("cannot use '{path}' as a store")]
    Directory {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The directory holds something else.
    #[error("'{path}' is not empty and is not a store: name an empty or new directory")]
    NotAStore {
        /// Which.
        path: String,
    },
}

impl StoreError {
    pub(super) fn unavailable(action: &'static str) -> impl Fn(object_store::Error) -> Self {
        move |source| Self::Unavailable { action, source }
    }
}
