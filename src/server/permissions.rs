//! Permissions that travel: signed, for one file, for an hour. Any server of the store honours them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::model::{DbPath, Revision, Sha256};
use crate::store::SigningKey;

/// How long a permission holds.
pub(super) const LIFETIME: Duration = Duration::from_secs(3600);

/// What one permission is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Permission {
    /// To upload a content of that size, and hash if it is given.
    Upload { database: String, path: DbPath, size: u64, hash: Option<Sha256> },
    /// To download the file that a path has in a revision.
    Download { database: String, path: DbPath, revision: Revision },
}

#[derive(Serialize, Deserialize)]
struct Signed {
    permission: Permission,
    /// Seconds since 1970.
    until: u64,
    /// No two permissions are the same.
    nonce: String,
}

/// When a permission given now ends, for the client.
pub(super) fn expires_at() -> String {
    (Timestamp::now() + SignedDuration::try_from(LIFETIME).unwrap_or_default()).to_string()
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

impl Permission {
    /// The token for it.
    pub(super) fn grant(&self, key: &SigningKey) -> String {
        self.grant_until(key, now() + LIFETIME.as_secs())
    }

    fn grant_until(&self, key: &SigningKey, until: u64) -> String {
        let nonce = crate::disk::random_hex::<8>();
        let signed = Signed { permission: self.clone(), until, nonce };
        // Its own document: keys are strings, so it always serializes.
        let text = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&signed).unwrap_or_default());
        let signature = key.sign(&text);
        format!("{text}.{signature}")
    }

    /// The permission that a token gives, if it is one of ours and still holds.
    pub(super) fn read(token: &str, key: &SigningKey) -> Option<Self> {
        let (text, signature) = token.split_once('.')?;
        if !key.verify(text, signature) {
            return None;
        }
        let signed: Signed = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (signed.until > now()).then_some(signed.permission)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[tokio::test]
    async fn a_permission_is_what_was_given_and_for_its_time() {
        let key = Store::in_memory().await.signing_key().await.unwrap();
        let path = DbPath::parse("a/b").unwrap();
        let permission = Permission::Upload { database: "db_1".into(), path, size: 1, hash: None };
        let token = permission.grant(&key);
        assert_eq!(Permission::read(&token, &key), Some(permission.clone()));
        assert_ne!(token, permission.grant(&key), "each is its own");
        assert_eq!(Permission::read(&permission.grant_until(&key, now()), &key), None, "late");
        let other = Store::in_memory().await.signing_key().await.unwrap();
        assert_eq!(Permission::read(&token, &other), None, "another store's");
        for at in [0, 5, token.len() - 1] {
            let mut altered = token.clone().into_bytes();
            altered[at] = if altered[at] == b'0' { b'1' } else { b'0' };
            assert_eq!(Permission::read(&String::from_utf8(altered).unwrap(), &key), None, "byte {at}");
        }
    }
}
