//! The store's own secret, with which its servers sign permissions: any of them then honours what another has given.

use object_store::path::Path;
use ring::hmac;
use serde::{Deserialize, Serialize};

use super::log::{create_or_read, decode, encode, get_optional};
use super::{Store, StoreError, keys};
use crate::disk::random_hex;

/// A key that only servers of this store have.
#[derive(Clone)]
pub struct SigningKey(hmac::Key);

#[derive(Serialize, Deserialize)]
struct Secret {
    format: u64,
    key: String,
}

impl SigningKey {
    /// What only the key's holders can make of `text`, in hexadecimal digits.
    pub fn sign(&self, text: &str) -> String {
        hex::encode(hmac::sign(&self.0, text.as_bytes()))
    }

    /// Whether this key has signed `text` so.
    pub fn verify(&self, text: &str, signature: &str) -> bool {
        hex::decode(signature).is_ok_and(|tag| hmac::verify(&self.0, text.as_bytes(), &tag).is_ok())
    }
}

impl Store {
    /// The store's key, made now if there is none.
    pub async fn signing_key(&self) -> Result<SigningKey, StoreError> {
        let key = Path::from(keys::SECRET);
        let secret = match get_optional(&*self.objects, &key).await? {
            Some(there) => there,
            None => {
                let secret = encode(&Secret { format: 1, key: random_hex::<32>() });
                create_or_read(&*self.objects, &key, secret).await?
            }
        };
        let secret: Secret = decode(&key, &secret)?;
        Ok(SigningKey(hmac::Key::new(hmac::HMAC_SHA256, secret.key.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn servers_of_one_store_have_one_key_and_others_another() {
        let (store, other) = (Store::in_memory().await, Store::in_memory().await);
        let signature = store.signing_key().await.unwrap().sign("text");
        assert!(store.signing_key().await.unwrap().verify("text", &signature));
        assert!(!store.signing_key().await.unwrap().verify("texts", &signature));
        assert!(!other.signing_key().await.unwrap().verify("text", &signature));
        assert!(!store.signing_key().await.unwrap().verify("text", "zz"));
    }
}
