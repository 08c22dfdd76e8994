//! Whose bytes: one database of one origin.

use crate::model::Sha256;

/// The scope that blocks belong to until the whole content is verified (rule 26).
#[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scope {
    /// The remote, for example `https://api.parque.db`.
    pub origin: String,
    /// The database's id there.
    pub database_id: String,
    digits: String,
}

impl Scope {
    /// The scope of a database at an origin.
    pub fn new(origin: &str, database_id: &str) -> Self {
        let digits = Sha256::of(format!("{origin}\n{database_id}").as_bytes()).to_string()[..32].to_owned();
        Self { origin: origin.into(), database_id: database_id.into(), digits }
    }

    /// Its name in the cache.
    pub(super) fn digits(&self) -> &str {
        &self.digits
    }
}
