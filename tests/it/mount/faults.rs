//! A proxy before a real server in whose answers happens, now and then, everything that happens on a network.
//! Manifests pass as they are.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::proxy::{framed, framed_bytes, with_header};
use crate::harness::{End, Reply, Request, Responder, Response, Server, answer, noise};

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
}

const FAULTS: [Fault; 12] = [
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
];

/// The proxy.
pub struct FaultyOrigin {
    responder: Responder,
    strikes: Arc<AtomicU64>,
    honest: Arc<AtomicBool>,
}

impl FaultyOrigin {
    /// About one answer of `one_in` is spoilt, each in the next way of all there are.
    pub fn before(server: &Server, seed: u64, one_in: u64) -> Self {
        let (requests, strikes) = (AtomicU64::new(0), Arc::<AtomicU64>::default());
        let honest = Arc::<AtomicBool>::default();
        let (address, counted, may_not) = (server.address.clone(), strikes.clone(), honest.clone());
        let responder = Responder::start_forgetful(move |request| {
            let answer = request.forward(&address);
            if request.header("range").is_none() || may_not.load(Ordering::SeqCst) {
                return answer.into();
            }
            let number = requests.fetch_add(1, Ordering::SeqCst);
            let chance = noise(seed.wrapping_add(number), 8);
            let chance = u64::from_le_bytes(chance.try_into().unwrap());
            if chance % one_in != 0 {
                return answer.into();
            }
            let strike = counted.fetch_add(1, Ordering::SeqCst);
            spoil(FAULTS[(strike % FAULTS.len() as u64) as usize], request, answer, chance)
        });
        Self { responder, strikes, honest }
    }

    pub fn url(&self) -> String {
        self.responder.url()
    }

    /// From now on, everything passes as it is.
    pub fn honest(&self) {
        self.honest.store(true, Ordering::SeqCst);
    }

    /// How often each has struck, at least.
    pub fn each_struck(&self) -> u64 {
        self.strikes.load(Ordering::SeqCst) / FAULTS.len() as u64
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
            let silence = Duration::from_millis(100 + chance / 7 % 2500);
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
        // Under right headers only what comes whole can be told from the content.
        Fault::Garbage if is_whole_and_small(request, &honest) => {
            framed(&honest, &announced, &noise(chance, length))
        }
        Fault::Garbage => answer(200, &[("Content-Type", "text/html")], b"<html>Please sign in</html>"),
    }
}

fn is_whole_and_small(request: &Request, honest: &Response) -> bool {
    let length = honest.body.len();
    let range = honest.header("content-range").unwrap_or_default();
    length <= 1 << 20 && request.method == "GET" && range == format!("bytes 0-{}/{length}", length - 1)
}
