//! Hearing of what is published, as it is: the client of the server's stream of events.

use std::time::Duration;

use reqwest::header::{ACCEPT, CONTENT_TYPE};
use reqwest::{Method, Response};

use super::{Remote, RemoteError};
use crate::model::Revision;
use crate::wire::{ChangeEvent, RevisionEvent, event};

/// The stream must begin after so long.
const BEGIN_PATIENCE: Duration = Duration::from_secs(30);
/// The server says something every 30 seconds: one that is silent for so long is not there any more.
const SILENCE: Duration = Duration::from_secs(75);
/// More than an event has.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// What a server tells.
#[derive(Debug, Clone, PartialEq)]
pub enum RemoteEvent {
    /// The stream has begun; the database is at this revision.
    Connected(Revision),
    /// A revision was published.
    Change(ChangeEvent),
    /// What came before was published before the stream began.
    CaughtUp(Revision),
    /// What was published since the revision that was asked for cannot be told: ask for it otherwise.
    Outdated(Revision),
    /// The server is there.
    Ping(Revision),
}

/// A stream of events.
pub struct Events {
    remote: Remote,
    response: Response,
    parser: Parser,
}

impl Remote {
    /// Listens to a database; from the revision after `since` on, if there is one. A remote that has no such stream is an
    /// error that is not transient.
    pub async fn events(&self, id: &str, since: Option<Revision>) -> Result<Events, RemoteError> {
        let path = format!("/api/sync/events/{}", crate::model::encode_segment(id));
        let mut request = self.endless_request(Method::GET, &path).header(ACCEPT, event::CONTENT_TYPE);
        if let Some(since) = since {
            request = request.header("Last-Event-ID", since.0);
        }
        let response = match tokio::time::timeout(BEGIN_PATIENCE, self.send(request)).await {
            Ok(response) => response?,
            Err(_) => return Err(self.silent(BEGIN_PATIENCE)),
        };
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        if !content_type.is_some_and(|text| text.starts_with(event::CONTENT_TYPE)) {
            return Err(self.wrong("it has no stream of events".into()));
        }
        Ok(Events { remote: self.clone(), response, parser: Parser::default() })
    }

    fn silent(&self, patience: Duration) -> RemoteError {
        RemoteError::Unreachable {
            remote: self.url().to_owned(),
            reason: format!("it has said nothing for {} seconds", patience.as_secs()),
        }
    }
}

impl Events {
    /// Waits for the next event. After an error there is none.
    pub async fn next(&mut self) -> Result<RemoteEvent, RemoteError> {
        loop {
            while let Some((name, data)) = self.parser.take() {
                if let Some(event) = self.understand(&name, &data)? {
                    return Ok(event);
                }
            }
            if self.parser.bytes.len() + self.parser.data.len() > MAX_EVENT_BYTES {
                return Err(self.remote.wrong("an event is far too long".into()));
            }
            let chunk = match tokio::time::timeout(SILENCE, self.response.chunk()).await {
                Ok(chunk) => chunk.map_err(|error| self.remote.broken(&error))?,
                Err(_) => return Err(self.remote.silent(SILENCE)),
            };
            let Some(chunk) = chunk else {
                let remote = self.remote.url().to_owned();
                return Err(RemoteError::Unreachable { remote, reason: "it has ended the stream".into() });
            };
            self.parser.bytes.extend_from_slice(&chunk);
        }
    }

    /// Events that later servers may have say nothing to us.
    fn understand(&self, name: &str, data: &str) -> Result<Option<RemoteEvent>, RemoteError> {
        let failed = |error| self.remote.wrong(format!("an event of it is not understood: {error}"));
        let revision =
            || serde_json::from_str(data).map(|RevisionEvent { revision }| revision).map_err(failed);
        Ok(Some(match name {
            event::CONNECT => RemoteEvent::Connected(revision()?),
            event::CHANGE => RemoteEvent::Change(serde_json::from_str(data).map_err(failed)?),
            event::CAUGHT_UP => RemoteEvent::CaughtUp(revision()?),
            event::OUTDATED => RemoteEvent::Outdated(revision()?),
            event::PING => RemoteEvent::Ping(revision()?),
            _ => return Ok(None),
        }))
    }
}

/// Takes lines for events, as the standard for server-sent events says.
#[derive(Default)]
struct Parser {
    /// What has arrived and is not read yet.
    bytes: Vec<u8>,
    name: String,
    data: String,
}

impl Parser {
    /// The next event that is whole: its name and its data.
    fn take(&mut self) -> Option<(String, String)> {
        loop {
            let at = self.bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r'))?;
            // A line may end with both, and the second one may not be here yet.
            let both = self.bytes[at] == b'\r';
            if both && at + 1 == self.bytes.len() {
                return None;
            }
            let end = at + 1 + usize::from(both && self.bytes[at + 1] == b'\n');
            let line = String::from_utf8_lossy(&self.bytes[..at]).into_owned();
            self.bytes.drain(..end);
            if line.is_empty() {
                let (name, data) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
                if !data.is_empty() {
                    return Some((name, data));
                }
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => self.name = value.to_owned(),
                "data" if self.data.is_empty() => self.data = value.to_owned(),
                "data" => {
                    self.data.push('\n');
                    self.data.push_str(value);
                }
                // A comment, an id that the data has, too, or what a later standard may have.
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn events_of(pieces: &[&str]) -> Vec<(String, String)> {
        let mut parser = Parser::default();
        let mut all = Vec::new();
        for piece in pieces {
            parser.bytes.extend_from_slice(piece.as_bytes());
            all.extend(std::iter::from_fn(|| parser.take()));
        }
        all
    }

    #[test]
    fn events_are_read_however_they_arrive() {
        let text = ": hello\nevent: change\nid: 7\ndata: {\"a\":\ndata: 1}\n\nevent:ping\r\ndata:x\r\n\r\n\n\ndata: y\r\r";
        let pair = |name: &str, data: &str| (name.to_owned(), data.to_owned());
        let expected = [pair("change", "{\"a\":\n1}"), pair("ping", "x"), pair("", "y")];
        let whole = events_of(&[text, "\n"]);
        assert_eq!(whole, expected);
        let bytes: Vec<String> = text.chars().map(String::from).collect();
        let mut pieces: Vec<&str> = bytes.iter().map(String::as_str).collect();
        pieces.push("\n");
        assert_eq!(events_of(&pieces), expected);
        assert_eq!(events_of(&["event: change\ndata: half"]), []);
    }
}
