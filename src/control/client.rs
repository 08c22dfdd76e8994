//! The commands' side of the door.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use super::listener::short_path;
use super::messages::{Answer, Counts, Failed, Request, Standing};

/// A daemon to be asked.
#[derive(Debug)]
pub struct Control {
    stream: BufReader<UnixStream>,
}

/// Why a daemon could not be asked, or did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is nobody.
    #[error("no daemon answers for this mount ({0}): is it mounted, by this version?")]
    Nobody(#[source] io::Error),
    /// It went away in the middle.
    #[error("the daemon went away before it had answered: {0}")]
    Broken(#[source] io::Error),
    /// It did not do it.
    #[error(transparent)]
    Failed(#[from] Failed),
}

impl Control {
    /// Reaches the daemon that has the replica of a directory.
    pub fn reach(directory: &Path) -> Result<Self, ControlError> {
        let reached = short_path(directory).and_then(|(path, _open)| UnixStream::connect(path));
        Ok(Self { stream: BufReader::new(reached.map_err(ControlError::Nobody)?) })
    }

    /// Asks for something, and waits until it is done.
    pub fn ask(mut self, request: Request) -> Result<(Option<Counts>, Standing), ControlError> {
        self.send(request)?;
        let line = self.line()?.ok_or_else(|| ControlError::Broken(io::ErrorKind::UnexpectedEof.into()))?;
        let answer = serde_json::from_str(&line).map_err(|error| ControlError::Broken(error.into()))?;
        match answer {
            Answer::Done { counts, standing } => Ok((counts, *standing)),
            Answer::Failed(failed) => Err(failed.into()),
        }
    }

    /// Hears what happens, as lines of JSON: first how things stand, then each event, until the daemon ends or `hear` wants no
    /// more.
    pub fn events(mut self, mut hear: impl FnMut(&str) -> io::Result<()>) -> Result<(), ControlError> {
        self.send(Request::Events)?;
        while let Some(line) = self.line()? {
            if hear(line.trim_end()).is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    fn send(&mut self, request: Request) -> Result<(), ControlError> {
        let broken = |error: io::Error| ControlError::Broken(error);
        let mut line = serde_json::to_vec(&request).map_err(|error| broken(error.into()))?;
        line.push(b'\n');
        self.stream.get_mut().write_all(&line).map_err(broken)
    }

    fn line(&mut self) -> Result<Option<String>, ControlError> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).map_err(ControlError::Broken)?;
        Ok((read > 0).then_some(line))
    }
}
