//! HTTP/1.1 by hand: what is written here is what is sent, byte for byte, and an answer is read strictly.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::DEADLINE;

/// A request being put together.
#[derive(Debug, Clone)]
pub struct Request {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// An answer, its body without the transfer's framing.
#[derive(Debug, Clone, PartialEq)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

pub fn request(method: &str, target: &str) -> Request {
    Request { method: method.into(), target: target.into(), headers: Vec::new(), body: Vec::new() }
}

pub fn get(target: &str) -> Request {
    request("GET", target)
}

pub fn head(target: &str) -> Request {
    request("HEAD", target)
}

impl Request {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn bearer(self, token: &str) -> Self {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    /// A body of a known length.
    pub fn body(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self.with("Content-Length", &body.len().to_string())
    }

    /// A body whose length is not told beforehand.
    pub fn chunked(mut self, body: &[u8]) -> Self {
        self.body = format!("{:x}\r\n", body.len()).into_bytes();
        self.body.extend_from_slice(body);
        self.body.extend_from_slice(if body.is_empty() { b"\r\n" } else { b"\r\n0\r\n\r\n" });
        self.with("Transfer-Encoding", "chunked")
    }

    pub fn json(self, body: &serde_json::Value) -> Self {
        self.with("Content-Type", "application/json").body(body.to_string().as_bytes())
    }

    /// Sends it to `address` on a connection of its own.
    pub fn send(&self, address: &str) -> Response {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.set_nodelay(true).unwrap();
        exchange(stream, address, self)
    }
}

/// Sends one request over a fresh connection and reads the answer up to the connection's end.
pub fn exchange(mut stream: impl Read + Write, host: &str, request: &Request) -> Response {
    let mut sent = format!("{} {} HTTP/1.1\r\n", request.method, request.target);
    if !request.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        write!(sent, "Host: {host}\r\n").unwrap();
    }
    sent.push_str("Connection: close\r\n");
    for (name, value) in &request.headers {
        write!(sent, "{name}: {value}\r\n").unwrap();
    }
    sent.push_str("\r\n");
    stream.write_all(sent.as_bytes()).unwrap();
    // A server may answer, and close, before it has read a body it refuses.
    let _ = stream.write_all(&request.body);
    let mut received = Vec::new();
    if let Err(error) = stream.read_to_end(&mut received) {
        assert!(!received.is_empty(), "{} {}: {error}", request.method, request.target);
    }
    let bodiless = request.method == "HEAD";
    parse(&received, bodiless).unwrap_or_else(|why| {
        panic!("{} {}: {why}:\n{}", request.method, request.target, String::from_utf8_lossy(&received))
    })
}

fn parse(received: &[u8], bodiless: bool) -> Result<Response, String> {
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").ok_or("no end of the headers")?;
    let text = std::str::from_utf8(&received[..end]).map_err(|error| error.to_string())?;
    let rest = &received[end + 4..];
    let (first, lines) = text.split_once("\r\n").unwrap_or((text, ""));
    let status = first.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
    let status = status.ok_or_else(|| format!("the status line is {first:?}"))?;
    let mut response = Response { status, headers: Vec::new(), body: Vec::new() };
    for line in lines.split("\r\n").filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':').ok_or_else(|| format!("the header line is {line:?}"))?;
        response.headers.push((name.to_owned(), value.trim().to_owned()));
    }
    response.body = if bodiless || matches!(status, 204 | 304) {
        if !rest.is_empty() {
            return Err("a body where none may be".into());
        }
        Vec::new()
    } else if response.header("transfer-encoding").is_some() {
        dechunk(rest)?
    } else {
        match response.header("content-length").map(str::parse::<usize>) {
            Some(Ok(length)) if rest.len() == length => rest.to_vec(),
            length => return Err(format!("a body of {} bytes where {length:?} are announced", rest.len())),
        }
    };
    Ok(response)
}

fn dechunk(mut rest: &[u8]) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    loop {
        let line = rest.windows(2).position(|two| two == b"\r\n").ok_or("a chunk without its length")?;
        let length =
            std::str::from_utf8(&rest[..line]).ok().and_then(|hex| usize::from_str_radix(hex, 16).ok());
        let length = length.ok_or("a chunk's length is no number")?;
        rest = &rest[line + 2..];
        let chunk = rest.get(..length + 2).ok_or("the last chunk is cut short")?;
        body.extend_from_slice(&chunk[..length]);
        rest = &rest[length + 2..];
        if length == 0 {
            return if rest.is_empty() { Ok(body) } else { Err("bytes after the last chunk".into()) };
        }
    }
}

impl Response {
    /// A header's value; one that is sent twice is an error.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "{name} is sent twice: {:?}", self.headers);
        value
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The answer, if it has that status.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?}\n{}", self.headers, self.text());
        self
    }
}
