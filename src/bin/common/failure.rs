//! A failure as the user meets it: one line, and an exit status.

use parquedb_mount::cache::CacheError;
use parquedb_mount::config::{ConfigError, DEFAULT_REMOTE};
use parquedb_mount::model::ExitCode;
use parquedb_mount::plain::PlainError;
use parquedb_mount::remote::RemoteError;
use parquedb_mount::store::{BadLocation, StoreError};
use parquedb_mount::sync::SyncError;

/// What ends a program unhappily.
#[derive(Debug)]
pub struct Failure {
    /// The exit status.
    pub code: ExitCode,
    /// One line: what, and what to do.
    pub message: String,
    /// What was found out nevertheless, for machines.
    pub report: serde_json::Map<String, serde_json::Value>,
}

impl Failure {
    /// A failure with its line.
    pub fn new(code: ExitCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), report: serde_json::Map::new() }
    }

    /// The failure with what was found out, one object.
    #[allow(dead_code, reason = "each of the two programs uses its part")]
    pub fn with_report(mut self, report: serde_json::Value) -> Self {
        if let serde_json::Value::Object(report) = report {
            self.report = report;
        }
        self
    }

    /// Wrong usage.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(ExitCode::Usage, message)
    }
}

/// The error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !line.contains(&text) {
            line = format!("{line}: {text}");
        }
        cause = inner.source();
    }
    line
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::usage(chain(&error))
    }
}

impl From<CacheError> for Failure {
    fn from(error: CacheError) -> Self {
        Self::usage(chain(&error))
    }
}

impl From<RemoteError> for Failure {
    fn from(error: RemoteError) -> Self {
        Self::new(error.exit_code(), with_remedy(&error))
    }
}

impl From<SyncError> for Failure {
    fn from(error: SyncError) -> Self {
        let message = match &error {
            SyncError::Remote(inner) => with_remedy(inner),
            SyncError::LocalManifest { .. } => {
                format!("{}: restore it, or remove it and pull again", chain(&error))
            }
            _ => chain(&error),
        };
        Self::new(error.exit_code(), message)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::new(error.exit_code(), chain(&error))
    }
}

impl From<PlainError> for Failure {
    fn from(error: PlainError) -> Self {
        Self::new(error.exit_code(), chain(&error))
    }
}

impl From<BadLocation> for Failure {
    fn from(error: BadLocation) -> Self {
        Self::usage(error.to_string())
    }
}

/// What a person can do about a remote that failed.
fn with_remedy(error: &RemoteError) -> String {
    let remedy = match error {
        RemoteError::Unreachable { .. } => "check the network and --remote",
        RemoteError::Trouble { .. } => "try again later",
        RemoteError::NotAuthenticated { remote, .. } => {
            // There, and nowhere else: it is sent the token.
            let there = if remote == DEFAULT_REMOTE { String::new() } else { format!(" --remote {remote}") };
            return format!("{error} (log in with: parquedb login{there} --token-file FILE)");
        }
        RemoteError::NotAllowed { .. } => "ask its owner",
        RemoteError::NotFound { .. } => "check the name, or ask its owner",
        RemoteError::Moved { .. } => "try again",
        RemoteError::WrongAnswer { .. } => "is it a ParqueDB server? nothing of the answer was used",
        RemoteError::Manifest { newer: true, .. } => "install a newer parquedb",
        RemoteError::Manifest { newer: false, .. } => {
            "nothing was changed; ask its owner to publish it again"
        }
        RemoteError::Refused { .. } | RemoteError::LocalFile { .. } => return error.to_string(),
    };
    format!("{error} ({remedy})")
}
