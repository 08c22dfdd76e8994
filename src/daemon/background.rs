//! Going into the background, honestly: the process that was started ends only when the mount answers, with
//! status 0, or when it has failed, with the reason.
//!
//! The only user of `daemonize`: it forks, so it must run before any thread exists.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};
use std::path::Path;

use daemonize::{Daemonize, Outcome};
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::model::ExitCode;

/// Going into the background failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot go into the background: {0}")]
pub struct BackgroundError(String);

/// How the daemon tells the process that started it what became of it. Dropped unused, it says that the daemon
/// died.
#[derive(Debug)]
pub struct Readiness(Option<PipeWriter>);

impl Readiness {
    /// For a daemon in the foreground: there is nobody to tell.
    pub fn nobody() -> Self {
        Self(None)
    }

    /// The mount answers.
    pub fn ready(&mut self) {
        if let Some(mut pipe) = self.0.take() {
            // If the starter is gone there is nobody to tell, and the mount is there all the same.
            let _ = pipe.write_all(&[ExitCode::Done as u8]);
        }
    }

    /// It failed. The process is about to end.
    pub fn failed(&mut self, code: ExitCode, reason: &str) {
        if let Some(mut pipe) = self.0.take() {
            let mut message = vec![code as u8];
            message.extend_from_slice(reason.as_bytes());
            let _ = pipe.write_all(&message);
            // Left open for the kernel to close: who reads to the end knows that the process is gone.
            let _ = OwnedFd::from(pipe).into_raw_fd();
        }
    }
}

/// Runs `daemon` in the background, its standard error going to `log`. In the process that was started, returns
/// what the daemon said, and calls `not_yet` if that takes long; the daemon itself never returns from here.
pub fn in_background(
    log: &Path,
    not_yet: impl FnOnce(&Path),
    daemon: impl FnOnce(Readiness) -> std::process::ExitCode,
) -> Result<(ExitCode, String), BackgroundError> {
    let failed = |error: io::Error| BackgroundError(error.to_string());
    let (reader, writer) = io::pipe().map_err(failed)?;
    let log_file = File::options().create(true).append(true).open(log);
    let log_file = log_file.map_err(|error| BackgroundError(format!("{}: {error}", log.display())))?;
    // The daemon works in `/`, so that it keeps no file system busy; every path has been made absolute.
    match Daemonize::new().working_directory("/").umask(0o077).stderr(log_file).execute() {
        Outcome::Parent(Ok(_)) => {
            drop(writer);
            Ok(hear(reader, log, not_yet))
        }
        Outcome::Child(Ok(_)) => {
            drop(reader);
            close_inherited(&writer);
            let code = daemon(Readiness(Some(writer)));
            // The daemon's threads end with it; nothing is left to run in the caller.
            std::process::exit(if code == std::process::ExitCode::SUCCESS { 0 } else { 1 });
        }
        Outcome::Parent(Err(error)) | Outcome::Child(Err(error)) => Err(BackgroundError(error.to_string())),
    }
}

/// Closes what the starting process inherited and never used: a lock held, or a pipe waited at, by whoever started it
/// would else be held for as long as the mount lives.
fn close_inherited(keep: &PipeWriter) {
    let keep = keep.as_raw_fd().unsigned_abs();
    for (first, last) in [(3, keep.saturating_sub(1)), (keep.saturating_add(1), u32::MAX)] {
        if first <= last {
            // SAFETY: the daemon has opened nothing yet but the pipe, which is left out, and its standard streams,
            // which are below 3; so nothing that Rust believes to own is closed. A kernel without this call leaves
            // all open, as before.
            let _ = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
}

/// Whoever started a daemon wonders by then.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

fn hear(mut pipe: PipeReader, log: &Path, not_yet: impl FnOnce(&Path)) -> (ExitCode, String) {
    if rustix::event::poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&PATIENCE)) == Ok(0) {
        not_yet(log);
    }
    let mut message = Vec::new();
    let heard = pipe.read_to_end(&mut message);
    match (heard, message.split_first()) {
        (Ok(_), Some((code, text))) => {
            (ExitCode::from_number(*code), String::from_utf8_lossy(text).into_owned())
        }
        _ => {
            let text = format!("the daemon died before the mount answered; see {}", log.display());
            (ExitCode::Failure, text)
        }
    }
}
