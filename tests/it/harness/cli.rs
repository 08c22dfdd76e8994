//! The `parquedb` command, each with a home of its own and nothing of the surrounding environment. What holds for
//! every command is checked at every run: no secret is printed, and a failure is one line.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::{Server, run_to_end, text};

/// A user at a terminal.
pub struct Cli {
    home: TempDir,
    current_dir: PathBuf,
    environment: Vec<(String, String)>,
    secrets: Vec<String>,
    input: Vec<u8>,
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Cli {
    /// Someone who has set nothing up.
    pub fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        let current_dir = home.path().to_owned();
        Self { home, current_dir, environment: Vec::new(), secrets: Vec::new(), input: Vec::new() }
    }

    /// Someone without a token, at `url`.
    pub fn at(url: &str) -> Self {
        Self::new().env("PARQUEDB_REMOTE_URL", url)
    }

    /// The owner of `server`.
    pub fn owner(server: &Server) -> Self {
        Self::at(&server.url()).token(&server.token)
    }

    /// With this token, which must never be shown.
    pub fn token(self, token: &str) -> Self {
        self.secret(token).env("PARQUEDB_TOKEN", token)
    }

    /// With a text that must never be shown.
    pub fn secret(mut self, secret: &str) -> Self {
        self.secrets.push(secret.to_owned());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// Working in that directory.
    pub fn in_dir(mut self, dir: &Path) -> Self {
        self.current_dir = dir.to_owned();
        self
    }

    /// With `input` on standard input.
    pub fn input(mut self, input: &str) -> Self {
        self.input = input.as_bytes().to_vec();
        self
    }

    /// The home directory.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// Where this user's settings and credentials lie.
    pub fn config_dir(&self) -> PathBuf {
        self.home.path().join("config/parquedb")
    }

    /// The command, not started yet.
    pub fn command(&self, args: &[&str]) -> Command {
        let home = self.home.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_parquedb"));
        command.args(args).current_dir(&self.current_dir).env_clear().env("HOME", home);
        for (name, place) in [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "cache"), ("STATE", "state")]
        {
            command.env(format!("XDG_{name}_HOME"), home.join(place));
        }
        // Nobody waits here for better times, but for tests of the waiting.
        command.env("PARQUEDB_RETRIES", "0");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    pub fn run(&self, args: &[&str]) -> Outcome {
        let mut command = self.command(args);
        let ended = run_to_end(&mut command, &self.input);
        let outcome = Outcome { code: ended.code, stdout: ended.stdout, stderr: ended.stderr };
        for secret in &self.secrets {
            let shown = outcome.stdout.contains(secret) || outcome.stderr.contains(secret);
            assert!(!shown, "a secret is printed by {args:?}: {outcome:?}");
        }
        let logs = self.environment.iter().any(|(name, _)| name == "PARQUEDB_LOG");
        let lines = outcome.stderr.lines().count();
        match outcome.code {
            _ if logs => {}
            0 => assert_eq!(lines, 0, "{args:?} succeeds in silence: {outcome:?}"),
            // Conflicts, and what is partly done, are results told on standard output; a halt is a failure.
            3 | 10 => assert!(lines <= 1, "{args:?}: {outcome:?}"),
            // The argument parser's own complaints come with the usage.
            2 if outcome.stderr.starts_with("error: ") => {}
            _ => {
                assert!(lines == 1 && outcome.stderr.ends_with('\n'), "{args:?}: {outcome:?}");
                assert!(outcome.stderr.starts_with("parquedb: "), "{args:?}: {outcome:?}");
            }
        }
        outcome
    }

    /// `parquedb push --directory DIR …`.
    pub fn push(&self, dir: &Path, more: &[&str]) -> Outcome {
        self.run(&[&["push", "--directory", text(dir)], more].concat())
    }

    /// `parquedb sync --directory DIR …`.
    pub fn sync(&self, dir: &Path, more: &[&str]) -> Outcome {
        self.run(&[&["sync", "--directory", text(dir)], more].concat())
    }

    /// `parquedb conflicts --directory DIR …`.
    pub fn conflicts(&self, dir: &Path, more: &[&str]) -> Outcome {
        self.run(&[&["conflicts", "--directory", text(dir)], more].concat())
    }

    /// `parquedb resolve PATH --directory DIR …`.
    pub fn resolve(&self, dir: &Path, path: &str, more: &[&str]) -> Outcome {
        self.run(&[&["resolve", path, "--directory", text(dir)], more].concat())
    }

    /// `parquedb pull DATABASE --directory DIR …`.
    pub fn pull(&self, database: &str, dir: &Path, more: &[&str]) -> Outcome {
        self.run(&[&["pull", database, "--directory", text(dir)], more].concat())
    }
}

impl Outcome {
    /// The outcome, if it has that exit code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    /// The one object of `--json`.
    #[track_caller]
    pub fn json(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}
