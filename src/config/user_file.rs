//! The user's own settings, `config.toml` in the configuration directory.

use serde::Deserialize;

use super::{ConfigError, Dirs};

/// What the user's file may say.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UserFile {
    /// The remote to use where nothing else names one.
    pub remote: Option<String>,
    /// A file with the token for it.
    pub token_file: Option<std::path::PathBuf>,
}

impl UserFile {
    /// Reads it; an absent file says nothing.
    pub fn read(dirs: &Dirs) -> Result<Self, ConfigError> {
        let path = dirs.config.join("config.toml");
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(ConfigError::file(&path)(error)),
        };
        toml::from_str(&text)
            .map_err(|error| ConfigError::Invalid(format!("{}: {}", path.display(), error.message())))
    }
}
