//! Which remote, and which token may go there (rule 30).

use std::path::{Path, PathBuf};

use url::Url;

use super::{ConfigError, Credentials, DatabaseFile, UserFile};
use crate::model::Token;

/// The remote where nothing names one.
pub const DEFAULT_REMOTE: &str = "https://api.parque.db";

/// Who named the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NamedBy {
    /// `--remote`, or the environment.
    FlagOrEnvironment,
    /// The user's file.
    UserFile,
    /// The database's own file, and the user has logged in there before.
    DatabaseFile,
    /// No one.
    Default,
}

/// Everything that may name a remote or bring a token.
#[derive(Debug, Clone, Default)]
pub struct RemoteSources {
    /// `--remote` or `PARQUEDB_REMOTE_URL`.
    pub remote: Option<String>,
    /// `--token-file`.
    pub token_file: Option<PathBuf>,
    /// `PARQUEDB_TOKEN`.
    pub token: Option<String>,
    /// The user's file.
    pub user: UserFile,
    /// The database's file.
    pub database: DatabaseFile,
}

/// The remote that was chosen, with the token that may be sent to it.
#[derive(Debug, Clone)]
pub struct RemoteChoice {
    /// Where.
    pub url: Url,
    /// Who said so.
    pub named_by: NamedBy,
    /// What to send there, if anything.
    pub token: Option<Token>,
}

impl RemoteChoice {
    /// Chooses by precedence: flag or environment, database's file, user's file, default.
    pub fn choose(sources: &RemoteSources, credentials: &Credentials) -> Result<Self, ConfigError> {
        let (text, named_by) = match (&sources.remote, &sources.database.remote, &sources.user.remote) {
            (Some(text), _, _) => (text.as_str(), NamedBy::FlagOrEnvironment),
            (None, Some(text), _) => (text.as_str(), NamedBy::DatabaseFile),
            (None, None, Some(text)) => (text.as_str(), NamedBy::UserFile),
            (None, None, None) => (DEFAULT_REMOTE, NamedBy::Default),
        };
        let url = parse_remote(text)?;
        let stored = credentials.for_remote(&url);
        if named_by == NamedBy::DatabaseFile && stored.is_none() {
            let file = sources.database.file_name.unwrap_or("the database's file");
            return Err(ConfigError::Invalid(format!(
                "{file} names the remote {url}, where you have not logged in: \
                 to use it, name it yourself with --remote {url}"
            )));
        }
        // A token given for this run goes only where the user, not the database, said to go.
        let given = if named_by == NamedBy::DatabaseFile {
            None
        } else if let Some(file) = &sources.token_file {
            Some(token_from_file(file)?)
        } else {
            sources.token.as_deref().filter(|text| !text.trim().is_empty()).map(Token::new)
        };
        let token = match (given, stored) {
            (Some(token), _) => Some(token),
            (None, Some(stored)) => Some(stored.token()),
            (None, None) if named_by == NamedBy::UserFile => {
                sources.user.token_file.as_deref().map(token_from_file).transpose()?
            }
            (None, None) => None,
        };
        if token.as_ref().is_some_and(|token| !token.is_sendable()) {
            return Err(ConfigError::Invalid("the token has characters no token has: check the file".into()));
        }
        Ok(Self { url, named_by, token })
    }
}

fn parse_remote(text: &str) -> Result<Url, ConfigError> {
    let url = Url::parse(text)
        .map_err(|error| ConfigError::Invalid(format!("'{text}' is not a remote's URL: {error}")))?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(ConfigError::Invalid(
            "a remote's URL must not carry a name or password: use --token-file or parquedb login".into(),
        ));
    }
    match url.scheme() {
        "http" | "https" if url.host().is_some() => Ok(url),
        scheme => Err(ConfigError::Invalid(format!(
            "remotes over '{scheme}:' are not supported: use http:// or https://"
        ))),
    }
}

/// Reads a token from a file.
pub fn token_from_file(path: &Path) -> Result<Token, ConfigError> {
    let text = std::fs::read_to_string(path).map_err(ConfigError::file(path))?;
    let token = Token::new(&text);
    if token.reveal().is_empty() {
        return Err(ConfigError::Invalid(format!("{} holds no token", path.display())));
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use super::super::Dirs;
    use super::*;

    fn no_credentials(dir: &Path) -> Credentials {
        let at = |name: &str| dir.join(name);
        Credentials::read(&Dirs { config: at("c"), data: at("d"), cache: at("e"), state: at("f") }).unwrap()
    }

    fn from_database(remote: &str) -> RemoteSources {
        RemoteSources {
            token: Some("secret".into()),
            database: DatabaseFile { remote: Some(remote.into()), ..DatabaseFile::default() },
            ..RemoteSources::default()
        }
    }

    #[test]
    fn rule_30_a_token_never_goes_where_a_database_points() {
        let dir = tempfile::tempdir().unwrap();
        let mut credentials = no_credentials(dir.path());
        let sources = from_database("https://evil.example");
        assert!(RemoteChoice::choose(&sources, &credentials).is_err(), "needs confirmation");

        let url = Url::parse("https://evil.example").unwrap();
        credentials.store(&url, &Token::new("theirs"), "me").unwrap();
        let choice = RemoteChoice::choose(&sources, &credentials).unwrap();
        assert_eq!(choice.token.unwrap().reveal(), "theirs", "not the environment's");

        let named = RemoteSources { remote: Some("https://mine.example".into()), ..sources };
        let choice = RemoteChoice::choose(&named, &credentials).unwrap();
        assert_eq!((choice.url.host_str(), choice.token.unwrap().reveal()), (Some("mine.example"), "secret"));
    }

    #[test]
    fn rule_30_stored_tokens_belong_to_one_origin() {
        let dir = tempfile::tempdir().unwrap();
        let mut credentials = no_credentials(dir.path());
        credentials.store(&Url::parse("https://a.example").unwrap(), &Token::new("t"), "me").unwrap();
        let token_for = |remote: &str| {
            let sources = RemoteSources { remote: Some(remote.into()), ..RemoteSources::default() };
            RemoteChoice::choose(&sources, &credentials).unwrap().token
        };
        assert!(token_for("https://a.example/path").is_some());
        for other in ["http://a.example", "https://a.example:444", "https://b.a.example"] {
            assert!(token_for(other).is_none(), "{other}");
        }
    }

    #[test]
    fn remotes_that_cannot_be_are_named() {
        let dir = tempfile::tempdir().unwrap();
        for bad in ["", "not a url", "ftp://x", "http://user:pw@host", "file:///x"] {
            let sources = RemoteSources { remote: Some(bad.into()), ..RemoteSources::default() };
            assert!(RemoteChoice::choose(&sources, &no_credentials(dir.path())).is_err(), "{bad}");
        }
    }
}
