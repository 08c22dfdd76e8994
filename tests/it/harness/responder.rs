//! A listener that answers whatever a test tells it to: broken, hostile or forwarded answers no real server gives.
//! One request a connection. It remembers everything it was asked.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use super::http::Request;
use super::{DEADLINE, Response};

/// What a responder does with a request.
pub enum Reply {
    /// Writes these bytes and closes.
    Bytes(Vec<u8>),
    /// Writes each after so long, and ends so.
    Pieces(Vec<(Duration, Vec<u8>)>, End),
    /// Closes without a word.
    HangUp,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// As it should.
    Closed,
    /// With a reset: what is under way may be lost.
    Reset,
}

/// Whether a responder remembers what it was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Memory {
    Keeps,
    /// Of a million requests, nobody wants to know each.
    Forgets,
}

/// The listener; it stops when dropped.
pub struct Responder {
    pub address: String,
    seen: Arc<Mutex<Vec<Request>>>,
    stopped: Arc<AtomicBool>,
    accepting: Option<thread::JoinHandle<()>>,
}

impl Responder {
    /// Listens, and answers each request by `respond`.
    pub fn start(respond: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(respond, Memory::Keeps)
    }

    /// The same for very many requests: it does not remember them.
    pub fn start_forgetful(respond: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(respond, Memory::Forgets)
    }

    fn listen(respond: impl Fn(&Request) -> Reply + Send + Sync + 'static, memory: Memory) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (seen, stopped) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let respond = Arc::new(respond);
        let accepting = thread::spawn({
            let (seen, stopped) = (seen.clone(), stopped.clone());
            move || {
                for stream in listener.incoming() {
                    if stopped.load(Ordering::SeqCst) {
                        return;
                    }
                    let (seen, respond) = (seen.clone(), respond.clone());
                    thread::spawn(move || {
                        let remember = |request: &Request| {
                            if memory == Memory::Keeps {
                                seen.lock().unwrap().push(request.clone());
                            }
                        };
                        stream.ok().and_then(|stream| serve(stream, &remember, &*respond).ok())
                    });
                }
            }
        });
        Self { address, seen, stopped, accepting: Some(accepting) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every request so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Method and target of every request so far.
    pub fn asked(&self) -> Vec<String> {
        self.seen().iter().map(|request| format!("{} {}", request.method, request.target)).collect()
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(&self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn serve(
    stream: TcpStream,
    remember: &dyn Fn(&Request),
    respond: &dyn Fn(&Request) -> Reply,
) -> std::io::Result<()> {
    stream.set_read_timeout(Some(DEADLINE))?;
    let mut reader = BufReader::new(&stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let mut words = lines.first().map(String::as_str).unwrap_or_default().split(' ');
    let mut request = super::request(words.next().unwrap_or_default(), words.next().unwrap_or_default());
    for line in &lines[1..] {
        if let Some((name, value)) = line.split_once(':') {
            request = request.with(name, value.trim());
        }
    }
    let length = request.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    request.body = vec![0; length];
    reader.read_exact(&mut request.body)?;
    // Its answers are whole: what never ends, it has not.
    if request.target.starts_with("/api/sync/events/") {
        let Reply::Bytes(bytes) = json_answer(404, &serde_json::json!({ "error": "No such route" })) else {
            return Ok(());
        };
        return (&stream).write_all(&bytes);
    }
    remember(&request);
    match respond(&request) {
        Reply::Bytes(bytes) => (&stream).write_all(&bytes),
        Reply::Pieces(pieces, end) => {
            for (wait, bytes) in pieces {
                thread::sleep(wait);
                (&stream).write_all(&bytes)?;
            }
            match end {
                End::Closed => Ok(()),
                End::Reset => reset(&stream),
            }
        }
        Reply::HangUp => Ok(()),
    }
}

/// Makes the end of `stream` a reset.
pub(super) fn reset(stream: &TcpStream) -> std::io::Result<()> {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: an open socket, and a value of the size given, which the call only reads.
    let set = unsafe {
        let value = (&raw const linger).cast();
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, value, size)
    };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

impl Request {
    /// A header it was sent with.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Where the range begins that it is for.
    pub fn first_byte(&self) -> u64 {
        let range = self.header("range").unwrap_or("bytes=0-").trim_start_matches("bytes=");
        range.split('-').next().unwrap().parse().unwrap()
    }

    /// Passes the request on to a real server, under the name the client used, and its answer back.
    pub fn forward(&self, address: &str) -> Response {
        let mut onward = self.clone();
        onward.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("connection"));
        onward.send(address)
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        let framing = ["content-length", "transfer-encoding", "connection"];
        let headers = response.headers.iter().filter(|(name, _)| !framing.contains(&name.as_str()));
        let headers: Vec<_> = headers.map(|(name, value)| (name.as_str(), value.as_str())).collect();
        answer(response.status, &headers, &response.body)
    }
}

/// A well-formed answer.
pub fn answer(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    let mut bytes = format!("HTTP/1.1 {status} Whatever\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    Reply::Bytes(bytes)
}

/// A well-formed answer in JSON.
pub fn json_answer(status: u16, body: &serde_json::Value) -> Reply {
    answer(status, &[("Content-Type", "application/json")], body.to_string().as_bytes())
}
