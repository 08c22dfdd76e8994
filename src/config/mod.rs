//! Settings: flags over environment over the database's file over the user's file over defaults.
//!
//! A database's own file comes with the database, so it is as hostile as any remote input: it may say what the
//! database is called, never where a token goes (rule 30).

mod credentials;
mod database_file;
mod dirs;
mod remote_choice;
mod user_file;

pub use credentials::{Credential, Credentials};
pub use database_file::DatabaseFile;
pub use dirs::Dirs;
pub use remote_choice::{DEFAULT_REMOTE, NamedBy, RemoteChoice, RemoteSources, token_from_file};
pub use user_file::UserFile;

/// Why the settings cannot be used. Every one of them is wrong usage (exit 2).
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A file or value means nothing.
    #[error("{0}")]
    Invalid(String),
}

impl ConfigError {
    fn file(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }
}
