//! Where a store is: a directory, or a URL of an object store; and the client for it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use super::objects::Objects;
use super::{StoreError, keys};
use crate::disk::make_private_dirs;

/// A store's place, as people name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreLocation {
    /// A directory of this machine.
    Directory(PathBuf),
    /// `s3://bucket/prefix`, `gs://…`, `az://…`.
    Url(Url),
}

/// A place that cannot be a store's.
#[derive(Debug, thiserror::Error)]
#[error("'{given}' is no place for a store: {why}")]
pub struct BadLocation {
    given: String,
    why: &'static str,
}

/// The schemes understood, as messages list them.
const SCHEMES: &str =
    "name a directory, or a URL like s3://bucket/prefix, gs://bucket/prefix, az://container/prefix";

impl FromStr for StoreLocation {
    type Err = BadLocation;

    fn from_str(given: &str) -> Result<Self, BadLocation> {
        let bad = |shown: &str, why| Err(BadLocation { given: shown.to_owned(), why });
        let Some((scheme, rest)) = given.split_once("://") else {
            return if given.is_empty() { bad(given, SCHEMES) } else { Ok(Self::Directory(given.into())) };
        };
        if scheme == "file" {
            return match rest.strip_prefix('/') {
                Some(_) => Ok(Self::Directory(rest.into())),
                None => bad(given, "a file:// URL has three slashes and an absolute path"),
            };
        }
        let Ok(url) = Url::parse(given) else { return bad(scheme, SCHEMES) };
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            // Whoever lists processes reads command lines: it is not repeated here either.
            return bad(
                scheme,
                "credentials belong in the environment (AWS_ACCESS_KEY_ID, …), not in the URL",
            );
        }
        if !matches!(scheme, "s3" | "gs" | "az") || url.host_str().is_none_or(str::is_empty) {
            return bad(given, SCHEMES);
        }
        Ok(Self::Url(url))
    }
}

impl fmt::Display for StoreLocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(path) => path.display().fmt(f),
            Self::Url(url) => url.as_str().trim_end_matches('/').fmt(f),
        }
    }
}

/// Whether the place must hold a store already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// A new store is made where there is none.
    Create,
    /// It is an error.
    Refuse,
}

impl StoreLocation {
    /// The directory, if it is one.
    pub fn directory(&self) -> Option<PathBuf> {
        match self {
            Self::Directory(path) => Some(path.clone()),
            Self::Url(_) => None,
        }
    }

    /// The objects at this place. A directory is made, if it may be.
    pub(super) fn objects(&self, missing: Missing) -> Result<Objects, StoreError> {
        match self {
            Self::Directory(dir) => directory(dir, missing),
            Self::Url(url) => {
                let objects = remote(url)?;
                Ok(Objects::new(objects.clone(), objects))
            }
        }
    }
}

/// Every write is made durable before it is acknowledged, names of new directories included (rule 7).
fn directory(dir: &Path, missing: Missing) -> Result<Objects, StoreError> {
    let unusable = |source| StoreError::Directory { path: dir.display().to_string(), source };
    let not_a_store = || StoreError::NotAStore { place: dir.display().to_string() };
    let fresh = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(unusable(error)),
    };
    if fresh && missing == Missing::Refuse {
        return Err(StoreError::NoStore { place: dir.display().to_string() });
    }
    if !fresh && !dir.join(keys::STORE).exists() {
        return Err(not_a_store());
    }
    make_private_dirs(dir).map_err(unusable)?;
    let open =
        || LocalFileSystem::new_with_prefix(dir).map_err(StoreError::unavailable("open its directory"));
    Ok(Objects::new(Arc::new(open()?.with_fsync(true)), Arc::new(open()?)).in_directory(dir))
}

/// How a client of an object store waits: single requests are short, uploads of a part may take minutes, and
/// whoever waits for us is not kept for the three minutes that the library would try.
const CLIENT: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::ConnectTimeout, "5 seconds"),
    (ClientConfigKey::ReadTimeout, "60 seconds"),
    (ClientConfigKey::Timeout, "1 hour"),
];

fn retries() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(100),
        max_backoff: Duration::from_secs(4),
        ..BackoffConfig::default()
    };
    RetryConfig { backoff, max_retries: 6, retry_timeout: Duration::from_secs(30) }
}

/// The client for a URL. Credentials, region and endpoint come from the environment, as each provider names them.
fn remote(url: &Url) -> Result<Arc<dyn ObjectStore>, StoreError> {
    // The second call finds the provider installed, which is what it wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let cannot = StoreError::unavailable("be reached with these settings");
    let (_, prefix) = ObjectStoreScheme::parse(url).map_err(|error| cannot(error.into()))?;
    let text = url.as_str();
    let objects: Arc<dyn ObjectStore> = match url.scheme() {
        "gs" => {
            let builder =
                CLIENT.into_iter().fold(GoogleCloudStorageBuilder::from_env(), |builder, (key, value)| {
                    builder.with_config(GoogleConfigKey::Client(key), value)
                });
            Arc::new(builder.with_url(text).with_retry(retries()).build().map_err(cannot)?)
        }
        "az" => {
            let builder =
                CLIENT.into_iter().fold(MicrosoftAzureBuilder::from_env(), |builder, (key, value)| {
                    builder.with_config(AzureConfigKey::Client(key), value)
                });
            Arc::new(builder.with_url(text).with_retry(retries()).build().map_err(cannot)?)
        }
        _ => {
            let builder = CLIENT.into_iter().fold(AmazonS3Builder::from_env(), |builder, (key, value)| {
                builder.with_config(AmazonS3ConfigKey::Client(key), value)
            });
            Arc::new(builder.with_url(text).with_retry(retries()).build().map_err(cannot)?)
        }
    };
    Ok(if prefix.as_ref().is_empty() { objects } else { Arc::new(PrefixStore::new(objects, prefix)) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_and_secrets_are_not_repeated() {
        let parse = |text: &str| text.parse::<StoreLocation>();
        assert_eq!(parse("some/dir").unwrap(), StoreLocation::Directory("some/dir".into()));
        assert_eq!(parse("file:///srv/x").unwrap(), StoreLocation::Directory("/srv/x".into()));
        for url in ["s3://bucket", "s3://bucket/a/b", "gs://bucket/x", "az://container/y"] {
            assert_eq!(parse(url).unwrap().to_string(), url);
        }
        for bad in
            ["", "file://srv/x", "ftp://x/y", "s3://", "s3:///x", "s3://key:hushhush@bucket", "https://x/y"]
        {
            let error = parse(bad).unwrap_err().to_string();
            assert!(!error.contains("hushhush"), "{error}");
        }
        assert!(parse("s3://bucket?key=hushhush").is_err_and(|e| !e.to_string().contains("hushhush")));
    }
}
