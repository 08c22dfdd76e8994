//! Accounts and their tokens. A token is kept as its hash only.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::log::{create_or_read, decode, encode, get_optional};
use super::{Store, StoreError, keys};
use crate::disk::random_hex;
use crate::model::{Sha256, Token};

/// Someone who may own databases.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Account {
    /// Stable id.
    pub id: String,
    /// Name: the owner part of references.
    pub username: String,
    /// Since when.
    pub created_at: String,
}

/// A fresh token of 256 random bits.
pub fn random_token() -> Token {
    Token::new(&format!("pqt_{}", random_hex::<32>()))
}

fn hash_of(token: &Token) -> Sha256 {
    Sha256::of(token.reveal().as_bytes())
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct TokenRecord {
    username: String,
    created_at: String,
}

impl Store {
    /// The account of that name, made now if there is none.
    pub async fn ensure_account(&self, username: &str) -> Result<Account, StoreError> {
        let key = keys::account(username);
        let account = Account {
            id: format!("user_{}", random_hex::<8>()),
            username: username.to_owned(),
            created_at: Timestamp::now().to_string(),
        };
        decode(&key, &create_or_read(&*self.objects, &key, encode(&account)).await?)
    }

    /// Lets `token` speak for `username` from now on.
    pub async fn allow_token(&self, token: &Token, username: &str) -> Result<(), StoreError> {
        let record = TokenRecord { username: username.to_owned(), created_at: Timestamp::now().to_string() };
        let key = keys::token(&hash_of(token));
        create_or_read(&*self.objects, &key, encode(&record)).await.map(drop)
    }

    /// Whom `token` speaks for, if anyone.
    pub async fn account_of(&self, token: &Token) -> Result<Option<Account>, StoreError> {
        let key = keys::token(&hash_of(token));
        let Some(bytes) = get_optional(&*self.objects, &key).await? else { return Ok(None) };
        let record: TokenRecord = decode(&key, &bytes)?;
        let key = keys::account(&record.username);
        let Some(bytes) = get_optional(&*self.objects, &key).await? else { return Ok(None) };
        decode(&key, &bytes).map(Some)
    }
}
