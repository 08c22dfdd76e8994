//! Where the log goes: standard error, as much as `PARQUEDB_LOG` says.

use tracing_subscriber::EnvFilter;

/// Sets the log up with `default` as its filter where `PARQUEDB_LOG` says nothing.
pub fn init(default: &str) {
    let filter = EnvFilter::try_from_env("PARQUEDB_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that cannot be written, on a disk that is full, is no reason to end.
        .log_internal_errors(false)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()));
    // Set up twice, the first one stays.
    let _ = log.try_init();
}
