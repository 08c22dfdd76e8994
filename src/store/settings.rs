//! A database's settings: server state, never part of a manifest. Each change is a new entry of a log.

use serde::{Deserialize, Serialize};

use crate::model::Visibility;

/// What the server knows of a database besides its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseSettings {
    /// The database's id.
    pub id: String,
    /// Its name for people.
    pub name: String,
    /// Its owner's name.
    pub owner: String,
    /// Its slug.
    pub slug: String,
    /// Who may see it.
    pub visibility: Visibility,
    /// A sentence about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was registered.
    pub created_at: String,
    /// When these settings were made.
    pub updated_at: String,
}
