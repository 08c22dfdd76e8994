//! Tokens that `parquedb login` has stored, each for one origin and no other (rule 30).

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, Dirs};
use crate::disk::{Readers, replace_file};
use crate::model::Token;

/// The credentials file, mode 0600.
#[derive(Debug)]
pub struct Credentials {
    path: PathBuf,
    document: Document,
}

#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: u64,
    origins: BTreeMap<String, Credential>,
}

/// What is stored for one origin.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credential {
    token: String,
    /// Whose token the server said it is.
    pub username: String,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credential").field("username", &self.username).finish_non_exhaustive()
    }
}

impl Credential {
    /// The token.
    pub fn token(&self) -> Token {
        Token::new(&self.token)
    }
}

impl Credentials {
    /// Reads the file; an absent one holds nothing.
    pub fn read(dirs: &Dirs) -> Result<Self, ConfigError> {
        let path = dirs.config.join("credentials.json");
        let document = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice::<Document>(&bytes).map_err(|error| {
                ConfigError::Invalid(format!("{}: {error}: remove it and log in again", path.display()))
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Document { format: 1, origins: BTreeMap::new() }
            }
            Err(error) => return Err(ConfigError::file(&path)(error)),
        };
        if document.format != 1 {
            return Err(ConfigError::Invalid(format!("{} is of a newer parquedb", path.display())));
        }
        Ok(Self { path, document })
    }

    /// What is stored for `remote`'s origin.
    pub fn for_remote(&self, remote: &Url) -> Option<&Credential> {
        self.document.origins.get(&remote.origin().ascii_serialization())
    }

    /// Stores a token for `remote`'s origin, durably.
    pub fn store(&mut self, remote: &Url, token: &Token, username: &str) -> Result<(), ConfigError> {
        let credential = Credential { token: token.reveal().to_owned(), username: username.to_owned() };
        self.document.origins.insert(remote.origin().ascii_serialization(), credential);
        let dir = self.path.parent().map(PathBuf::from).unwrap_or_default();
        std::fs::create_dir_all(&dir).map_err(ConfigError::file(&dir))?;
        let bytes = serde_json::to_vec_pretty(&self.document).unwrap_or_default();
        replace_file(&self.path, &bytes, Readers::OwnerOnly).map_err(ConfigError::file(&self.path))
    }
}
