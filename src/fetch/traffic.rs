//! What is under way to one remote: how much, over how many connections, and how much more may be sent for ahead of
//! readers without making anyone wait who reads.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::link::{Bursts, Link, ONE_REQUEST};
use super::memory::{Memory, Share};

/// Of all requests under way at once, this part is kept free for those who wait.
const FOR_DEMAND: usize = 4;
/// A request that brought so much, or all that was asked for, shows that the line gets on.
const GETS_ON: u64 = 256 << 10;

/// A connection is taken for open so long after its last use; the client keeps idle ones a little longer.
const KEPT: Duration = Duration::from_secs(25);

/// Whether somebody waits for the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Yes.
    Demand,
    /// Not yet.
    Ahead,
}

/// The requests under way.
#[derive(Debug)]
pub(super) struct Traffic {
    link: Mutex<Link>,
    /// Bytes asked for and not arrived yet, and those announced.
    under_way: Arc<AtomicU64>,
    connections: Arc<Semaphore>,
    /// Requests that will want a connection in a moment.
    expected: Arc<AtomicUsize>,
    memory: Arc<Memory>,
    /// When a request last showed that those who wait for their turn will get it.
    got_on: Mutex<Option<Instant>>,
    /// How many connections are taken for open, and since when no more were in use.
    open: Mutex<(usize, Option<Instant>)>,
}

/// The leave to send one request.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    share: Share,
    announced: Announced,
}

/// Bytes that are about to be asked for, which count as under way: what is sent for ahead is decided on faster than
/// requests leave.
#[derive(Debug)]
struct Announced {
    bytes: AtomicU64,
    under_way: Arc<AtomicU64>,
}

impl Announced {
    fn nothing(under_way: &Arc<AtomicU64>) -> Self {
        Self { bytes: AtomicU64::new(0), under_way: under_way.clone() }
    }

    fn add(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
    }

    /// They are asked for now, or not at all.
    fn take_back(&self) {
        self.under_way.fetch_sub(self.bytes.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.take_back();
    }
}

/// A request that has not taken its turn yet.
#[derive(Debug)]
pub(super) struct Expected(Arc<AtomicUsize>);

impl Drop for Expected {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes that were asked for: counted as under way until they arrive or are given up.
#[derive(Debug)]
pub(super) struct Cargo<'a> {
    traffic: &'a Traffic,
    left: u64,
    bursts: Bursts,
    /// Bytes that came since it last showed that the line gets on.
    lately: u64,
}

/// What the arrival of bytes has changed.
#[derive(Debug, Clone, Copy)]
pub(super) struct News {
    /// There is room for another request ahead.
    pub(super) room: bool,
    /// Answers meet TCP's slow start: more connections are worth having.
    pub(super) slow_start: bool,
}

impl Traffic {
    pub(super) fn new(memory: Arc<Memory>) -> Self {
        Self {
            link: Mutex::default(),
            under_way: Arc::default(),
            connections: Arc::new(Semaphore::new(memory.connections)),
            expected: Arc::default(),
            memory,
            got_on: Mutex::default(),
            open: Mutex::default(),
        }
    }

    /// A turn for bytes somebody waits for, with `memory` bytes to receive them. Always the connection first: who has
    /// memory waits for nothing but the remote.
    pub(super) async fn turn(&self, memory: u64) -> Result<Turn, AcquireError> {
        let permit = self.connections.clone().acquire_owned().await?;
        let share = self.memory.answers.share(memory).await?;
        Ok(Turn { _permit: permit, share, announced: Announced::nothing(&self.under_way) })
    }

    /// A turn for bytes nobody waits for yet, if one is free at once: a reader would else wait for a request that has
    /// not even been sent.
    pub(super) fn turn_ahead(&self, memory: u64) -> Option<Turn> {
        if !self.has_connection_ahead() {
            return None;
        }
        let permit = self.connections.clone().try_acquire_owned().ok()?;
        let share = self.memory.answers.share_ahead(memory)?;
        Some(Turn { _permit: permit, share, announced: Announced::nothing(&self.under_way) })
    }

    fn has_connection_ahead(&self) -> bool {
        self.connections.available_permits() > self.memory.connections / FOR_DEMAND
    }

    /// Whether within the last `time` a request showed that those who wait for their turn will get it.
    pub(super) fn got_on_within(&self, time: Duration) -> bool {
        self.got_on.lock().unwrap_or_else(|e| e.into_inner()).is_some_and(|at| at.elapsed() <= time)
    }

    fn gets_on(&self) {
        *self.got_on.lock().unwrap_or_else(|e| e.into_inner()) = Some(Instant::now());
    }

    /// How many connections are missing for `wanted` requests at once; they are taken for being made now.
    pub(super) fn missing(&self, wanted: usize) -> usize {
        let wanted = self.link().connections(wanted).min(self.memory.connections);
        let now = Instant::now();
        let in_use = self.in_use();
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        let kept = open.1.is_some_and(|at| now.duration_since(at) < KEPT);
        let have = if kept { open.0.max(in_use) } else { in_use };
        *open = (have.max(wanted), Some(now));
        wanted.saturating_sub(have)
    }

    /// How many connections are open, or being made.
    fn open(&self) -> usize {
        let open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        let kept = open.1.is_some_and(|at| at.elapsed() < KEPT);
        if kept { open.0.max(self.in_use()) } else { self.in_use() }
    }

    /// How many connections have something to do, or will in a moment.
    fn in_use(&self) -> usize {
        let taken = self.memory.connections.saturating_sub(self.connections.available_permits());
        taken + self.expected.load(Ordering::Relaxed)
    }

    /// Says that a request is about to take its turn.
    pub(super) fn expect(&self) -> Expected {
        self.expected.fetch_add(1, Ordering::Relaxed);
        Expected(self.expected.clone())
    }

    /// How many bytes may be asked for ahead of readers now, `most` in all, if each request takes so much `memory`.
    pub(super) fn room_ahead(&self, most: u64, memory: u64) -> u64 {
        if !self.has_connection_ahead() || !self.memory.answers.has_ahead(memory) {
            return 0;
        }
        self.link().room().min(most).saturating_sub(self.under_way.load(Ordering::Relaxed))
    }

    /// Whether an answer takes much longer than a reader takes to send its next request.
    pub(super) fn is_far(&self) -> bool {
        self.link().is_far()
    }

    /// How many bytes may be under way in all.
    pub(super) fn room(&self) -> u64 {
        self.link().room()
    }

    /// Gaps of so many bytes are fetched along.
    pub(super) fn worth_joining(&self) -> u64 {
        self.link().worth_joining()
    }

    /// How many bytes one request should bring of `wanted` that somebody waits for.
    pub(super) fn one_request(&self, wanted: u64) -> u64 {
        let open = self.open();
        self.link().one_request(wanted, open, open.saturating_sub(self.in_use()))
    }

    /// So many bytes are being asked for.
    pub(super) fn send_for(&self, turn: &Turn, bytes: u64) -> Cargo<'_> {
        turn.announced.take_back();
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
        Cargo { traffic: self, left: bytes, bursts: Bursts::default(), lately: 0 }
    }

    /// An answer began so long after its request.
    pub(super) fn answered(&self, after: Duration) {
        self.link().answered(Instant::now(), after);
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(|e| e.into_inner())
    }
}

impl Cargo<'_> {
    /// So many of the bytes have come.
    pub(super) fn arrived(&mut self, bytes: u64) -> News {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        let before = self.traffic.under_way.fetch_sub(bytes, Ordering::Relaxed);
        let now = Instant::now();
        self.lately += bytes;
        if self.lately >= GETS_ON {
            self.lately = 0;
            self.traffic.gets_on();
        }
        let mut link = self.traffic.link();
        link.arrived(now, bytes);
        let began = self.bursts.arrived(now, bytes, link.latency() / 2);
        let slow_start = began && link.burst_began(&self.bursts);
        let full = link.room().saturating_sub(ONE_REQUEST);
        News { slow_start, room: before > full && before - bytes <= full }
    }

    /// All of it has come.
    pub(super) fn complete(self) {
        self.traffic.gets_on();
        let open = self.traffic.open();
        self.traffic.link().completed(&self.bursts, open);
    }
}

impl Turn {
    /// So many bytes are about to be asked for with it.
    pub(super) fn announce(&self, bytes: u64) {
        self.announced.add(bytes);
    }

    /// Bytes that came by it, which keep its memory when the connection is free again.
    pub(super) fn brought(self, bytes: Bytes) -> Bytes {
        self.share.of(bytes)
    }
}

impl Drop for Cargo<'_> {
    fn drop(&mut self) {
        self.traffic.under_way.fetch_sub(self.left, Ordering::Relaxed);
    }
}
