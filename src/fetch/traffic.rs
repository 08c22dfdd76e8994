//! What is under way to one remote: how much, over how many connections, and how much more may be sent for ahead of
//! readers without making anyone wait who reads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::link::{Arrivals, Link, ONE_REQUEST};

/// Requests under way at once, a connection each.
const CONNECTIONS: usize = 64;
/// Of these are kept free for those who wait.
const FOR_DEMAND: usize = 16;

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
    /// How many connections are taken for open, and since when no more were in use.
    open: Mutex<(usize, Option<Instant>)>,
}

/// The leave to send one request.
#[derive(Debug)]
pub(super) struct Turn {
    _permit: OwnedSemaphorePermit,
    /// Bytes that are about to be asked for with it, which count as under way: what is sent for ahead is decided on
    /// faster than requests leave.
    announced: AtomicU64,
    under_way: Arc<AtomicU64>,
}

impl Turn {
    /// So many bytes are about to be asked for.
    pub(super) fn announce(&self, bytes: u64) {
        self.announced.fetch_add(bytes, Ordering::Relaxed);
        self.under_way.fetch_add(bytes, Ordering::Relaxed);
    }

    fn is_used(&self) {
        self.under_way.fetch_sub(self.announced.swap(0, Ordering::Relaxed), Ordering::Relaxed);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.is_used();
    }
}

/// Bytes that were asked for: counted as under way until they arrive or are given up.
#[derive(Debug)]
pub(super) struct Cargo<'a> {
    traffic: &'a Traffic,
    left: u64,
    arrivals: Arrivals,
    /// The link was not full when it was sent for.
    alone: bool,
}

impl Traffic {
    pub(super) fn new() -> Self {
        Self {
            link: Mutex::default(),
            under_way: Arc::default(),
            connections: Arc::new(Semaphore::new(CONNECTIONS)),
            open: Mutex::default(),
        }
    }

    /// A turn for bytes somebody waits for.
    pub(super) async fn turn(&self) -> Result<Turn, AcquireError> {
        Ok(self.turn_with(self.connections.clone().acquire_owned().await?))
    }

    /// A turn for bytes nobody waits for yet, if one is free at once: a reader would else wait for a request that has
    /// not even been sent.
    pub(super) fn turn_ahead(&self) -> Option<Turn> {
        if self.connections.available_permits() <= FOR_DEMAND {
            return None;
        }
        Some(self.turn_with(self.connections.clone().try_acquire_owned().ok()?))
    }

    fn turn_with(&self, permit: OwnedSemaphorePermit) -> Turn {
        Turn { _permit: permit, announced: AtomicU64::new(0), under_way: self.under_way.clone() }
    }

    /// How many connections are missing for `wanted` requests at once; they are taken for being made now.
    pub(super) fn missing(&self, wanted: usize) -> usize {
        let wanted = self.link().connections(wanted);
        let now = Instant::now();
        let in_use = CONNECTIONS.saturating_sub(self.connections.available_permits());
        let mut open = self.open.lock().unwrap_or_else(|e| e.into_inner());
        let kept = open.1.is_some_and(|at| now.duration_since(at) < KEPT);
        let have = if kept { open.0.max(in_use) } else { in_use };
        *open = (have.max(wanted), Some(now));
        wanted.saturating_sub(have)
    }

    /// How many bytes may be asked for ahead of readers now.
    pub(super) fn room_ahead(&self) -> u64 {
        self.link().room().saturating_sub(self.under_way.load(Ordering::Relaxed))
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
        self.link().one_request(wanted)
    }

    /// So many bytes are being asked for.
    pub(super) fn send_for(&self, turn: &Turn, bytes: u64) -> Cargo<'_> {
        turn.is_used();
        let before = self.under_way.fetch_add(bytes, Ordering::Relaxed);
        let alone = before + bytes <= self.room() / 2;
        Cargo { traffic: self, left: bytes, arrivals: Arrivals::new(), alone }
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
    /// So many of the bytes have come. Says whether this made room for another request ahead.
    pub(super) fn arrived(&mut self, bytes: u64) -> bool {
        let bytes = bytes.min(self.left);
        self.left -= bytes;
        let before = self.traffic.under_way.fetch_sub(bytes, Ordering::Relaxed);
        let now = Instant::now();
        self.arrivals.push((now, bytes));
        let mut link = self.traffic.link();
        link.arrived(now, bytes);
        let full = link.room().saturating_sub(ONE_REQUEST);
        before > full && before - bytes <= full
    }

    /// All of it has come.
    pub(super) fn complete(self) {
        if self.alone {
            self.traffic.link().completed(&self.arrivals);
        }
    }
}

impl Drop for Cargo<'_> {
    fn drop(&mut self) {
        self.traffic.under_way.fetch_sub(self.left, Ordering::Relaxed);
    }
}
