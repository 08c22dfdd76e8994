//! The `parquedb-mount` command, each with a home, a cache and a mountpoint of its own and nothing of the surrounding
//! environment. What holds for every start is checked at every start.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Pid;

use super::cli::Outcome;
use super::mount::{Mount, Place, mount_entry, serving, until};
use super::{DEADLINE, Server, run_to_end};

/// What to mount and how: the same cache, state, home and mountpoint at every start.
#[derive(Clone)]
pub struct Mounting {
    place: Arc<Place>,
    cache: PathBuf,
    state: PathBuf,
    args: Vec<String>,
    environment: Vec<(String, String)>,
    patience: Duration,
}

impl Mounting {
    /// A database of the server's, as its owner mounts it.
    pub fn owner(server: &Server, database: &str) -> Self {
        Self::at(&server.url(), database).env("PARQUEDB_TOKEN", &server.token)
    }

    /// A database at `url`, mounted by someone without a token.
    pub fn at(url: &str, database: &str) -> Self {
        let place = Place(tempfile::tempdir().unwrap());
        fs::create_dir(place.mountpoint()).unwrap();
        let mounting = Self {
            cache: place.0.path().join("cache"),
            state: place.0.path().join("state"),
            place: Arc::new(place),
            args: vec![],
            environment: vec![],
            patience: DEADLINE,
        };
        mounting.env("PARQUEDB_REMOTE_URL", url).arg(database)
    }

    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn args(self, args: &[&str]) -> Self {
        args.iter().fold(self, |mounting, arg| mounting.arg(arg))
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.retain(|(other, _)| other != name);
        self.environment.push((name.into(), value.into()));
        self
    }

    /// With a watchdog that waits so long, for a test that takes longer than any other.
    pub fn lasting(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// With the cache there instead.
    pub fn cache_in(mut self, dir: &Path) -> Self {
        self.cache = dir.into();
        self
    }

    /// With the state there instead.
    pub fn state_in(mut self, dir: &Path) -> Self {
        self.state = dir.into();
        self
    }

    /// Where local state lies.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// Where it is, or will be, mounted.
    pub fn path(&self) -> PathBuf {
        self.place.mountpoint()
    }

    /// A directory of this mounting's own, for whatever a test puts beside the mount.
    pub fn beside(&self) -> &Path {
        self.place.0.path()
    }

    /// The cache's directory.
    pub fn cache(&self) -> &Path {
        &self.cache
    }

    /// The command as it would be typed; `before` is what runs it, if anything.
    pub fn command(&self, before: &[&str]) -> Command {
        let home = self.place.0.path();
        let program = env!("CARGO_BIN_EXE_parquedb-mount");
        let mut command = Command::new(before.first().unwrap_or(&program));
        command.args(before.iter().skip(1).chain(before.first().map(|_| &program)));
        if !self.args.iter().any(|arg| arg == "--sync") {
            // What is written stays local where a test is not about its way to the remote.
            command.args(["--sync", "manual"]);
        }
        command.args(&self.args).arg("--cache-dir").arg(&self.cache).arg("--state-dir").arg(&self.state);
        command.arg(self.path()).env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin").current_dir(home);
        for (name, place) in
            [("CONFIG", "config"), ("DATA", "data"), ("CACHE", "caches"), ("STATE", "states")]
        {
            command.env(format!("XDG_{name}_HOME"), home.join(place));
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it in the background, and says how that ended. A failure is one line.
    pub fn run(&self) -> Outcome {
        let ended = run_to_end(&mut self.command(&[]), b"");
        let outcome = Outcome { code: ended.code, stdout: ended.stdout, stderr: ended.stderr };
        let lines = outcome.stderr.lines().count();
        match outcome.code {
            0 => assert_eq!(lines, 0, "success is silent: {outcome:?}"),
            // The argument parser's own complaints come with the usage.
            2 if outcome.stderr.starts_with("error: ") => {}
            _ => {
                assert!(lines == 1 && outcome.stderr.ends_with('\n'), "one line: {outcome:?}");
                assert!(outcome.stderr.starts_with("parquedb-mount: "), "{outcome:?}");
            }
        }
        outcome
    }

    /// Mounts in the background.
    #[track_caller]
    pub fn mount(&self) -> Mount {
        self.run().expect(0);
        // Without waiting: whoever gets status 0 may rely on it.
        assert!(mount_entry(&self.path()).is_some(), "status 0 comes when it is mounted");
        let serving = serving(&self.path());
        let [pid] = serving[..] else { panic!("one daemon serves the mount: {serving:?}") };
        Mount::of(&self.place, pid, None, self.patience)
    }

    /// Mounts in the background, if that can be done now.
    pub fn try_mount(&self) -> Option<Mount> {
        if self.run().code != 0 {
            return None;
        }
        let serving = serving(&self.path());
        let [pid] = serving[..] else { panic!("one daemon serves the mount: {serving:?}") };
        Some(Mount::of(&self.place, pid, None, self.patience))
    }

    /// Mounts in the foreground, and waits until the mount is there.
    pub fn foreground(&self) -> Mount {
        let file = |name: &str| File::create(self.beside().join(name)).unwrap();
        let mut command = self.command(&[]);
        command.arg("--foreground").stdin(Stdio::null()).stdout(file("stdout")).stderr(file("stderr"));
        let child = command.spawn().unwrap();
        let mut mount = Mount::of(&self.place, Pid::from_child(&child), Some(child), self.patience);
        until(|| {
            assert!(mount.is_running(), "it ended: {}", mount.log());
            mount.entry().is_some()
        });
        mount
    }

    /// Who serves the mount, or tries to.
    pub fn serving(&self) -> Vec<Pid> {
        serving(&self.path())
    }
}
