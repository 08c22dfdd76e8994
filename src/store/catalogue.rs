//! Databases by name: finding, registering, listing.

use std::sync::Arc;

use futures::TryStreamExt;
use jiff::Timestamp;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::log::{NumberedLog, create_or_read, decode, encode, get_optional};
use super::{Database, DatabaseSettings, Store, StoreError, keys};
use crate::disk::random_hex;
use crate::model::{DbRef, Visibility};

/// Hexadecimal digits of a database's id, after `db_`.
const ID_DIGITS: usize = 24;

/// What `register` is given.
#[derive(Debug, Clone)]
pub struct Registration {
    /// `owner/slug`.
    pub reference: DbRef,
    /// The name for people.
    pub name: String,
    /// Sets the visibility where given.
    pub visibility: Option<Visibility>,
}

#[derive(Serialize, Deserialize)]
struct NameRecord {
    id: String,
}

impl Store {
    /// The database of that name, brought up to date; nothing where there is none.
    pub async fn find(&self, reference: &DbRef) -> Result<Option<Arc<Database>>, StoreError> {
        let known = self.ids.read().unwrap_or_else(|e| e.into_inner()).get(reference).cloned();
        let id = match known {
            Some(id) => id,
            None => {
                let Some(id) = self.id_of(&keys::name(reference.owner(), reference.slug())).await? else {
                    return Ok(None);
                };
                self.ids.write().unwrap_or_else(|e| e.into_inner()).insert(reference.clone(), id.clone());
                id
            }
        };
        self.open(&id).await
    }

    async fn open_named(&self, key: &Path) -> Result<Option<Arc<Database>>, StoreError> {
        match self.id_of(key).await? {
            Some(id) => self.open(&id).await,
            None => Ok(None),
        }
    }

    /// The id that a name leads to.
    pub(super) async fn id_of(&self, name: &Path) -> Result<Option<String>, StoreError> {
        let Some(bytes) = get_optional(&*self.objects, name).await? else { return Ok(None) };
        let record: NameRecord = decode(name, &bytes)?;
        Ok(Some(record.id))
    }

    /// The database of that id, brought up to date; nothing where there is none.
    pub async fn open(&self, id: &str) -> Result<Option<Arc<Database>>, StoreError> {
        // Ids come from requests and become part of object names.
        let digits = id.strip_prefix("db_").unwrap_or_default();
        if digits.len() != ID_DIGITS || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(None);
        }
        let known = self.known.lock().unwrap_or_else(|e| e.into_inner()).get(id).cloned();
        if let Some(database) = known {
            database.refresh().await?;
            return Ok(Some(database));
        }
        let Some(database) = Database::load(self.objects.clone(), id).await? else { return Ok(None) };
        let mut known = self.known.lock().unwrap_or_else(|e| e.into_inner());
        Ok(Some(known.entry(id.to_owned()).or_insert_with(|| Arc::new(database)).clone()))
    }

    /// Creates the database, or finds it and applies the given visibility.
    pub async fn register(&self, wanted: &Registration) -> Result<Arc<Database>, StoreError> {
        if let Some(database) = self.find(&wanted.reference).await? {
            if let Some(visibility) = wanted.visibility {
                database.set_visibility(visibility).await?;
            }
            return Ok(database);
        }
        let now = Timestamp::now().to_string();
        let id = format!("db_{}", random_hex::<{ ID_DIGITS / 2 }>());
        let settings = DatabaseSettings {
            id: id.clone(),
            name: wanted.name.clone(),
            owner: wanted.reference.owner().to_owned(),
            slug: wanted.reference.slug().to_owned(),
            visibility: wanted.visibility.unwrap_or_default(),
            description: None,
            created_at: now.clone(),
            updated_at: now,
        };
        // Settings first, name last: a crash between leaves an id nobody can find, never a name without settings.
        let log = NumberedLog { objects: &self.objects, prefix: keys::settings(&id) };
        log.append(1, encode(&settings)).await?;
        let name = keys::name(&settings.owner, &settings.slug);
        // If someone registered the same name just now, theirs it is.
        create_or_read(&*self.objects, &name, encode(&NameRecord { id })).await?;
        let found = self.find(&wanted.reference).await?;
        found.ok_or_else(|| StoreError::Damaged { key: name.to_string(), reason: "it vanished".into() })
    }

    /// All databases, in the order of their names.
    pub async fn all(&self) -> Result<Vec<Arc<Database>>, StoreError> {
        let names = self.names().await?;
        let mut databases = Vec::with_capacity(names.len());
        for key in names {
            match self.open_named(&key).await {
                Ok(found) => databases.extend(found),
                // One damaged database must not hide the others.
                Err(error) => tracing::error!(%key, error = &error as &dyn std::error::Error, "not listed"),
            }
        }
        Ok(databases)
    }

    /// Where the names of all databases lie, in order.
    pub(super) async fn names(&self) -> Result<Vec<Path>, StoreError> {
        let listed = self.objects.list(Some(&keys::names())).map_ok(|object| object.location);
        let mut names: Vec<_> =
            listed.try_collect().await.map_err(StoreError::unavailable("list its databases"))?;
        names.sort();
        Ok(names)
    }
}
