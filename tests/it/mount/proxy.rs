//! A proxy in front of a real server that spoils what it is told to. Manifests pass as they are; it stays at one
//! address, for a cache belongs to one origin.

use std::sync::{Arc, Mutex};

use crate::harness::{Reply, Request, Responder, Response, Server};

/// Makes of an honest answer what the client gets.
pub type Spoil = Box<dyn FnMut(&Request, Response) -> Reply + Send>;

pub struct Proxy {
    responder: Responder,
    spoil: Arc<Mutex<Option<Spoil>>>,
}

impl Proxy {
    /// An honest one.
    pub fn before(server: &Server) -> Self {
        let spoil: Arc<Mutex<Option<Spoil>>> = Arc::default();
        let (address, inner) = (server.address.clone(), spoil.clone());
        let responder = Responder::start(move |request| {
            let honest = request.forward(&address);
            match &mut *inner.lock().unwrap() {
                Some(spoil) if is_content(request) => spoil(request, honest),
                _ => honest.into(),
            }
        });
        Self { responder, spoil }
    }

    pub fn url(&self) -> String {
        self.responder.url()
    }

    /// From now on, every answer to a request for content goes through `spoil`.
    pub fn spoil(&self, spoil: impl FnMut(&Request, Response) -> Reply + Send + 'static) {
        *self.spoil.lock().unwrap() = Some(Box::new(spoil));
    }

    /// Only the first answers, so many, go through `spoil`.
    pub fn spoil_first(
        &self,
        count: usize,
        mut spoil: impl FnMut(&Request, Response) -> Reply + Send + 'static,
    ) {
        let mut left = count;
        self.spoil(move |request, honest| {
            if left == 0 {
                return honest.into();
            }
            left -= 1;
            spoil(request, honest)
        });
    }

    /// From now on, everything passes as it is.
    pub fn honest(&self) {
        *self.spoil.lock().unwrap() = None;
    }

    /// The ranges of content asked for so far: first and last byte.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        let seen = self.responder.seen();
        seen.iter().filter(|request| is_content(request)).map(asked).collect()
    }
}

fn is_content(request: &Request) -> bool {
    request.header("range").is_some()
}

/// The first and the last byte a request asks for.
pub fn asked(request: &Request) -> (u64, u64) {
    let range = request.header("range").and_then(|range| range.strip_prefix("bytes=")?.split_once('-'));
    let (first, last) = range.unwrap();
    (first.parse().unwrap(), last.parse().unwrap())
}

/// The answer with a header set, or without it.
pub fn with_header(mut answer: Response, name: &str, value: Option<&str>) -> Response {
    answer.headers.retain(|(other, _)| !other.eq_ignore_ascii_case(name));
    answer.headers.extend(value.map(|value| (name.to_owned(), value.to_owned())));
    answer
}

/// The answer as it is sent: its headers, this framing, and then these bytes, whether or not they fit.
pub fn framed(answer: &Response, framing: &str, body: &[u8]) -> Reply {
    Reply::Bytes(framed_bytes(answer, framing, body))
}

/// The same as bytes.
pub fn framed_bytes(answer: &Response, framing: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes =
        format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n{framing}\r\n", answer.status).into_bytes();
    for (name, value) in &answer.headers {
        if !["content-length", "transfer-encoding", "connection"].contains(&&*name.to_lowercase()) {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// A body in chunks of so many bytes, without the closing one.
pub fn chunks(body: &[u8], size: usize) -> Vec<u8> {
    let mut chunked = Vec::new();
    for piece in body.chunks(size) {
        chunked.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        chunked.extend_from_slice(piece);
        chunked.extend_from_slice(b"\r\n");
    }
    chunked
}
