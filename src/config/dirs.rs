//! Where the user's files lie, by the XDG base directory rules.

use std::path::PathBuf;

use etcetera::BaseStrategy;

use super::ConfigError;

/// The four directories of this product, none of them created yet.
#[derive(Debug, Clone)]
pub struct Dirs {
    /// Settings and credentials.
    pub config: PathBuf,
    /// What must not be lost: the embedded server's store.
    pub data: PathBuf,
    /// What can be fetched again.
    pub cache: PathBuf,
    /// Logs and the daemons' state.
    pub state: PathBuf,
}

impl Dirs {
    /// From the environment of this process.
    pub fn of_user() -> Result<Self, ConfigError> {
        let base = etcetera::base_strategy::choose_base_strategy()
            .map_err(|_| ConfigError::Invalid("the home directory is unknown: set HOME".into()))?;
        let state = base.state_dir().unwrap_or_else(|| base.data_dir());
        Ok(Self {
            config: base.config_dir().join("parquedb"),
            data: base.data_dir().join("parquedb"),
            cache: base.cache_dir().join("parquedb"),
            state: state.join("parquedb"),
        })
    }
}
