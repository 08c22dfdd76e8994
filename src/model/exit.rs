//! What a program's exit status means. Scripts depend on these numbers: they never change.

/// The exit status of `parquedb` and `parquedb-mount`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
    /// Done, or already in sync.
    Done = 0,
    /// Anything without a number of its own.
    Failure = 1,
    /// Wrong usage or configuration.
    Usage = 2,
    /// Conflicts, or a halted sync, need a decision.
    NeedsDecision = 3,
    /// Not authenticated, or not allowed.
    NotAllowed = 4,
    /// No such database or file.
    NotFound = 5,
    /// The remote could not be reached.
    Unreachable = 6,
    /// The remote kept changing.
    KeptChanging = 7,
    /// Bytes or a document are not what they claim to be.
    Integrity = 8,
    /// A newer format or protocol than this program knows.
    Newer = 9,
    /// Some of the work was done.
    Partly = 10,
}

impl ExitCode {
    /// Its number.
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The status from its number; an unknown number is [`ExitCode::Failure`].
    pub fn from_number(number: u8) -> Self {
        use ExitCode::*;
        [
            Done,
            Failure,
            Usage,
            NeedsDecision,
            NotAllowed,
            NotFound,
            Unreachable,
            KeptChanging,
            Integrity,
            Newer,
            Partly,
        ]
        .into_iter()
        .find(|code| *code as u8 == number)
        .unwrap_or(Failure)
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        Self::from(code as u8)
    }
}
