//! Python with DuckDB, Polars, PyArrow and pandas, to read files as people read them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::DEADLINE;
use super::process::run_within;

/// Runs `script` with `args` as `sys.argv[1:]`, and gives the one JSON value it prints.
#[track_caller]
pub fn python(script: &str, args: &[&Path]) -> Value {
    python_within(script, args, DEADLINE)
}

/// The same for a script that may take longer than others.
#[track_caller]
pub fn python_within(script: &str, args: &[&Path], patience: Duration) -> Value {
    let interpreter = interpreter();
    let remedy = "run scripts/setup, or name an interpreter that has DuckDB, Polars, PyArrow and pandas in \
        PARQUEDB_TEST_PYTHON";
    assert!(interpreter.is_file(), "there is no {}: {remedy}", interpreter.display());
    let mut command = Command::new(&interpreter);
    command.args(["-I", "-c", script]).args(args);
    // Two cores are shared by all tests: an engine's threads beyond that are only a burden.
    command
        .env_clear()
        .env("POLARS_MAX_THREADS", "2")
        .env("OMP_NUM_THREADS", "2")
        .env("HOME", std::env::temp_dir());
    let ended = run_within(&mut command, b"", patience);
    assert!(!ended.stderr.contains("ModuleNotFoundError"), "{}: {remedy}", ended.stderr);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

fn interpreter() -> PathBuf {
    match std::env::var_os("PARQUEDB_TEST_PYTHON") {
        Some(named) => named.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python"),
    }
}
