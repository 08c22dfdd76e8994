//! Printing that survives a closed pipe.

use std::io::Write;

use serde_json::{Value, json};

use super::failure::Failure;

/// How a command speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text for people.
    Text,
    /// One JSON object.
    Json,
    /// Only errors.
    Quiet,
}

impl Style {
    /// From the flags.
    pub fn of(flags: &super::flags::EverywhereFlags) -> Self {
        match (flags.json, flags.quiet) {
            (true, _) => Self::Json,
            (false, true) => Self::Quiet,
            (false, false) => Self::Text,
        }
    }

    /// Prints a line for people.
    pub fn line(self, line: impl AsRef<str>) {
        if self == Self::Text {
            // A reader that has gone away is no reason to stop working.
            let _ = writeln!(std::io::stdout().lock(), "{}", without_controls(line.as_ref(), "\n"));
        }
    }

    /// Prints the result for machines.
    pub fn json(self, value: &Value) {
        if self == Self::Json {
            let _ = writeln!(std::io::stdout().lock(), "{value}");
        }
    }

    /// Tells a failure: always a line on standard error, and for machines an object on standard output.
    pub fn failure(self, program: &str, failure: &Failure) {
        let _ = writeln!(std::io::stderr().lock(), "{program}: {}", without_controls(&failure.message, ""));
        let mut object = failure.report.clone();
        object.insert("error".into(), json!(failure.message));
        object.insert("exitCode".into(), json!(failure.code as u8));
        self.json(&Value::Object(object));
    }
}

/// The text with its control characters escaped, but for those in `kept`: names come from others, and a terminal
/// obeys what it is sent.
pub fn without_controls(text: &str, kept: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() && !kept.contains(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}
