//! A proxy before a real server in whose answers happens, now and then, everything that happens on a network.
//! Manifests pass as they are.
//!
//! A fault alone is over sooner than any reader's deadline, and what was struck once is not struck again soon: so a read
//! may fail in an *outage* only, in which nothing is answered at all.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::proxy::{asked, framed, framed_bytes, with_header};
use crate::harness::{End, Reply, Request, Responder, Response, Server, answer, noise};

/// What was struck passes as it is for so long: longer than whoever asked for it is patient.
const SPARED: Duration = Duration::from_secs(10);
/// What was under way in an outage may end so long after it.
const AFTERMATH: Duration = Duration::from_secs(1);

/// One thing that goes wrong.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    HangUp,
    Reset,
    Stall,
    Overloaded,
    TooMany,
    Truncated,
    WrongLength,
    WrongRange,
    OtherTag,
    NotPartial,
    Drip,
    Garbage,
    Altered,
}

const FAULTS: [Fault; 13] = [
    Fault::HangUp,
    Fault::Reset,
    Fault::Stall,
    Fault::Overloaded,
    Fault::TooMany,
    Fault::Truncated,
    Fault::WrongLength,
    Fault::WrongRange,
    Fault::OtherTag,
    Fault::NotPartial,
    Fault::Drip,
    Fault::Garbage,
    Fault::Altered,
];

/// What becomes of requests in an outage.
#[derive(Debug, Clone, Copy)]
pub enum Outage {
    /// The connection is closed.
    Closed,
    /// Nothing comes.
    Silent,
    /// 503.
    Overloaded,
}

/// The proxy.
pub struct FaultyOrigin {
    responder: Responder,
    state: Arc<State>,
}

struct State {
    server: String,
    seed: u64,
    one_in: u64,
    requests: AtomicU64,
    honest: AtomicBool,
    struck: [AtomicU64; FAULTS.len()],
    spared: Mutex<Vec<Spared>>,
    outage: Mutex<Option<Outage>>,
    /// From when until when; the last may go on.
    outages: Mutex<Vec<(Instant, Option<Instant>)>>,
}

/// A range that was struck.
struct Spared {
    path: String,
    range: (u64, u64),
    since: Instant,
}

impl FaultyOrigin {
    /// Honest at first. Once [faulty](Self::faulty), it spoils about one answer of `one_in`, each in the next way of all
    /// there are.
    pub fn before(server: &Server, seed: u64, one_in: u64) -> Self {
        let state = Arc::new(State {
            server: server.address.clone(),
            seed,
            one_in,
            requests: AtomicU64::new(0),
            honest: AtomicBool::new(true),
            struck: Default::default(),
            spared: Mutex::default(),
            outage: Mutex::default(),
            outages: Mutex::default(),
        });
        let responder = Responder::start_forgetful({
            let state = state.clone();
            move |request| state.respond(request)
        });
        Self { responder, state }
    }

    pub fn url(&self) -> String {
        self.responder.url()
    }

    /// From now on, answers are spoilt.
    pub fn faulty(&self) {
        self.state.honest.store(false, Ordering::SeqCst);
    }

    /// From now on, everything passes as it is.
    pub fn honest(&self) {
        self.state.honest.store(true, Ordering::SeqCst);
    }

    /// How often each has struck.
    pub fn struck(&self) -> Vec<(Fault, u64)> {
        let counts = self.state.struck.iter().map(|count| count.load(Ordering::SeqCst));
        FAULTS.into_iter().zip(counts).collect()
    }

    /// From now on, no content is to be had, until it has [recovered](Self::recovered).
    pub fn breaks_down(&self, outage: Outage) {
        self.state.outages.lock().unwrap().push((Instant::now(), None));
        *self.state.outage.lock().unwrap() = Some(outage);
    }

    pub fn recovered(&self) {
        *self.state.outage.lock().unwrap() = None;
        if let Some((_, end)) = self.state.outages.lock().unwrap().last_mut() {
            end.get_or_insert_with(Instant::now);
        }
    }

    /// How many outages there were.
    pub fn outages(&self) -> usize {
        self.state.outages.lock().unwrap().len()
    }

    /// Whether there was an outage while something was tried that began and ended then.
    pub fn was_out(&self, began: Instant, ended: Instant) -> bool {
        let outages = self.state.outages.lock().unwrap();
        let until = |end: Option<Instant>| end.map(|end| end + AFTERMATH);
        outages.iter().any(|(start, end)| *start <= ended && until(*end).is_none_or(|end| began <= end))
    }
}

impl State {
    fn respond(&self, request: &Request) -> Reply {
        if request.header("range").is_none() || self.honest.load(Ordering::SeqCst) {
            return request.forward(&self.server).into();
        }
        // Looked at once: the lock is not held while it waits.
        let outage = *self.outage.lock().unwrap();
        match outage {
            Some(Outage::Closed) => return Reply::HangUp,
            Some(Outage::Overloaded) => return answer(503, &[], b"overloaded"),
            Some(Outage::Silent) => {
                while self.outage.lock().unwrap().is_some() {
                    std::thread::sleep(Duration::from_millis(20));
                }
                return Reply::HangUp;
            }
            None => {}
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst);
        let honest = request.forward(&self.server);
        let chance = noise(self.seed.wrapping_add(number), 8);
        let chance = u64::from_le_bytes(chance.try_into().unwrap());
        if !chance.is_multiple_of(self.one_in) || self.is_spared(request) {
            return honest.into();
        }
        let strikes: u64 = self.struck.iter().map(|count| count.load(Ordering::SeqCst)).sum();
        let which = (strikes % FAULTS.len() as u64) as usize;
        self.struck[which].fetch_add(1, Ordering::SeqCst);
        spoil(FAULTS[which], request, honest, chance)
    }

    /// Whether some of what is asked for was struck just before; if not, it is now.
    fn is_spared(&self, request: &Request) -> bool {
        let path = request.target.split('?').next().unwrap_or_default();
        let (first, last) = asked(request);
        let mut spared = self.spared.lock().unwrap();
        spared.retain(|other| other.since.elapsed() < SPARED);
        let is_it = |other: &Spared| other.path == path && other.range.0 <= last && first <= other.range.1;
        if spared.iter().any(is_it) {
            return true;
        }
        spared.push(Spared { path: path.to_owned(), range: (first, last), since: Instant::now() });
        false
    }
}

fn spoil(fault: Fault, request: &Request, honest: Response, chance: u64) -> Reply {
    let length = honest.body.len();
    let announced = format!("Content-Length: {length}");
    let half = length / 2;
    let whole = || framed_bytes(&honest, &announced, &honest.body);
    match fault {
        Fault::HangUp => Reply::HangUp,
        Fault::Reset => Reply::Pieces(
            vec![(Duration::ZERO, framed_bytes(&honest, &announced, &honest.body[..half]))],
            End::Reset,
        ),
        Fault::Stall => {
            let silence = Duration::from_millis(100 + chance / 7 % 1400);
            let begun = framed_bytes(&honest, &announced, &honest.body[..half]);
            Reply::Pieces(vec![(Duration::ZERO, begun), (silence, Vec::new())], End::Closed)
        }
        Fault::Overloaded => answer(503, &[], b"overloaded"),
        Fault::TooMany => answer(
            429,
            &[("Retry-After", if (chance / 7).is_multiple_of(4) { "1" } else { "0" })],
            b"slow down",
        ),
        Fault::Truncated => framed(&honest, &announced, &honest.body[..length - 1]),
        Fault::WrongLength => {
            framed(&honest, &format!("Content-Length: {}", length - 1), &honest.body[..length - 1])
        }
        Fault::WrongRange => {
            let range = request.header("range").unwrap_or_default().replace("bytes=", "bytes 1");
            with_header(honest, "content-range", Some(&format!("{range}/99999999999"))).into()
        }
        Fault::OtherTag => with_header(honest, "etag", Some("\"another version\"")).into(),
        Fault::NotPartial => {
            let mut all = with_header(honest, "content-range", None);
            all.status = 200;
            all.into()
        }
        Fault::Drip => {
            let bytes = whole();
            let pieces = bytes.chunks(bytes.len().div_ceil(20));
            let pieces = pieces.map(|piece| (Duration::from_millis(15), piece.to_vec()));
            Reply::Pieces(pieces.collect(), End::Closed)
        }
        // Under right headers only what comes whole, or with a proof, can be told from the content.
        Fault::Garbage if is_whole_and_small(request, &honest) => {
            framed(&honest, &announced, &noise(chance, length))
        }
        Fault::Altered if honest.header("x-parquedb-block-hashes").is_some() => {
            let mut altered = honest.body.clone();
            altered[(chance / 7) as usize % length] ^= 1 << (chance % 8);
            framed(&honest, &announced, &altered)
        }
        Fault::Garbage | Fault::Altered => {
            answer(200, &[("Content-Type", "text/html")], b"<html>Please sign in</html>")
        }
    }
}

fn is_whole_and_small(request: &Request, honest: &Response) -> bool {
    let length = honest.body.len();
    let range = honest.header("content-range").unwrap_or_default();
    length <= 1 << 20 && request.method == "GET" && range == format!("bytes 0-{}/{length}", length - 1)
}
