//! The memory that reading may take: one number, divided among all who hold bytes of contents. Answers coming in and
//! replies going out have rooms of their own, so that a remote that is slow holds up nobody whose bytes are cached.
//! Who waits is served in turn; who fetches ahead never waits, and leaves some for those who do.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::cache::BlockRange;
use crate::metrics::MountCounters;
use crate::model::{BLOCK, ByteRange};

/// Memory is handed out in units of so many bytes.
const UNIT: u64 = 1 << 10;
/// The HTTP client takes no more than this from a connection at once. It holds two such pieces of an answer, and a
/// buffer of that size for as long as it keeps the connection.
pub(super) const PIECE: u64 = 408 << 10;
/// Beside its bytes: headers and tasks.
const EXTRA: u64 = 64 << 10;
/// What does not depend on how many read: checks of whole contents, a mebibyte each; threads' stacks; the program's own
/// pages that only reading touches.
const FIXED: u64 = 8 << 20;
/// The most requests under way at once, a connection each.
const CONNECTIONS: u64 = 64;
/// Of its share, fetching ahead leaves this part to those who wait.
const FOR_DEMAND: u32 = 4;

/// How much memory reading may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryBudget(u64);

/// With less, reading would not get on.
#[derive(Debug, thiserror::Error)]
#[error("at least {}MiB are needed", MemoryBudget::LEAST >> 20)]
pub struct TooLittleMemory;

impl MemoryBudget {
    /// The least there can be.
    pub const LEAST: u64 = 32 << 20;

    /// A budget of so many bytes.
    pub fn new(bytes: u64) -> Result<Self, TooLittleMemory> {
        if bytes < Self::LEAST { Err(TooLittleMemory) } else { Ok(Self(bytes)) }
    }

    /// How many connections there may be: their buffers take no more than an eighth.
    fn connections(self) -> u64 {
        (self.0 / 8 / PIECE).min(CONNECTIONS)
    }

    /// What lies unused between buffers of unequal length.
    fn waste(self) -> u64 {
        self.0 / 8
    }
}

impl Default for MemoryBudget {
    fn default() -> Self {
        Self(256 << 20)
    }
}

/// All rooms of the budget.
#[derive(Debug)]
pub(super) struct Memory {
    /// For answers that come in.
    pub(super) answers: Room,
    /// For replies to programs.
    pub(super) replies: Room,
    /// For what is remembered of footers.
    pub(super) footers: Room,
    /// Requests that may be under way at once.
    pub(super) connections: usize,
}

impl Memory {
    pub(super) fn new(budget: MemoryBudget, counters: &Arc<MountCounters>) -> Self {
        let (footers, replies) = (budget.0 / 16, budget.0 / 8);
        let elsewhere = FIXED + budget.waste() + budget.connections() * PIECE;
        let answers = budget.0 - elsewhere - footers - replies;
        let room = |bytes| Room::new(bytes, counters.clone());
        Self {
            answers: room(answers),
            replies: room(replies),
            footers: room(footers),
            connections: usize::try_from(budget.connections()).unwrap_or(1),
        }
    }
}

/// What an answer of `length` bytes takes while it comes in, `gathered` bytes of which are put together before they go
/// on to the cache or to a reader.
pub(super) fn of_answer(length: u64, gathered: u64) -> u64 {
    // A piece may come on top of what was almost enough.
    length.min(gathered + PIECE).saturating_add(length.min(2 * PIECE)) + EXTRA
}

/// What a reply takes: cached bytes are read in whole blocks.
pub(super) fn of_reply(range: ByteRange) -> u64 {
    BlockRange::covering(range).len() * BLOCK
}

/// A part of the budget.
#[derive(Debug)]
pub(super) struct Room {
    free: Arc<Semaphore>,
    /// Units in all.
    all: u32,
    counters: Arc<MountCounters>,
}

/// The leave to hold bytes in memory, given back when dropped.
#[derive(Debug)]
pub(super) struct Share {
    _permit: OwnedSemaphorePermit,
    bytes: u64,
    counters: Arc<MountCounters>,
}

impl Room {
    fn new(bytes: u64, counters: Arc<MountCounters>) -> Self {
        let all = u32::try_from(bytes / UNIT).unwrap_or(u32::MAX);
        Self { free: Arc::new(Semaphore::new(all as usize)), all, counters }
    }

    /// A share for something that somebody waits for, in turn. What is larger than the room gets all of it.
    pub(super) async fn share(&self, bytes: u64) -> Result<Share, AcquireError> {
        // Nobody is passed by: what becomes free belongs to who waits first.
        if let Some(share) = self.share_now(bytes) {
            return Ok(share);
        }
        self.counters.memory_waits.add(1);
        let units = self.units(bytes).min(self.all);
        Ok(self.hand_out(self.free.clone().acquire_many_owned(units).await?, units))
    }

    /// A share, if there is one now.
    pub(super) fn share_now(&self, bytes: u64) -> Option<Share> {
        let units = self.units(bytes);
        Some(self.hand_out(self.free.clone().try_acquire_many_owned(units).ok()?, units))
    }

    /// A share for something that nobody waits for yet, if enough is left then.
    pub(super) fn share_ahead(&self, bytes: u64) -> Option<Share> {
        if self.has_ahead(bytes) { self.share_now(bytes) } else { None }
    }

    /// Whether there is a share for something that nobody waits for yet.
    pub(super) fn has_ahead(&self, bytes: u64) -> bool {
        let left = self.free.available_permits().saturating_sub(self.units(bytes) as usize);
        left >= (self.all / FOR_DEMAND) as usize
    }

    /// Bytes in all.
    pub(super) fn all(&self) -> u64 {
        u64::from(self.all) * UNIT
    }

    fn units(&self, bytes: u64) -> u32 {
        u32::try_from(bytes.div_ceil(UNIT)).unwrap_or(u32::MAX)
    }

    fn hand_out(&self, permit: OwnedSemaphorePermit, units: u32) -> Share {
        let bytes = u64::from(units) * UNIT;
        self.counters.memory.add(bytes);
        Share { _permit: permit, bytes, counters: self.counters.clone() }
    }
}

impl Share {
    /// Bytes that take this share for as long as anybody has them.
    pub(super) fn of(self, bytes: Bytes) -> Bytes {
        struct Held {
            bytes: Bytes,
            _share: Share,
        }
        impl AsRef<[u8]> for Held {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        Bytes::from_owner(Held { bytes, _share: self })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.counters.memory.take_off(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn memory(bytes: u64) -> (Memory, Arc<MountCounters>) {
        let counters = Arc::<MountCounters>::default();
        (Memory::new(MemoryBudget::new(bytes).unwrap(), &counters), counters)
    }

    #[test]
    fn the_parts_are_no_more_than_the_whole_and_each_has_room_for_the_largest() {
        assert!(MemoryBudget::new(MemoryBudget::LEAST - 1).is_err());
        for bytes in [MemoryBudget::LEAST, 33 * MIB + 5, 64 * MIB, MemoryBudget::default().0, 1 << 40] {
            let (memory, _) = memory(bytes);
            let connections = memory.connections as u64 * PIECE;
            let all = memory.answers.all() + memory.replies.all() + memory.footers.all();
            assert!(all + connections + FIXED + bytes / 8 <= bytes, "{bytes}");
            // A small content that comes whole, and a reply of a mebibyte that begins inside a block.
            assert!(memory.answers.all() >= of_answer(MIB, MIB), "{bytes}");
            assert!(memory.replies.all() >= of_reply(ByteRange::new(5, MIB + 5)), "{bytes}");
            assert!(memory.connections >= 8, "{bytes}");
        }
    }

    #[test]
    fn at_the_default_the_connections_decide() {
        let (memory, _) = memory(MemoryBudget::default().0);
        assert_eq!(memory.connections as u64, CONNECTIONS);
        let takes = of_answer(4 * MIB, 256 << 10);
        let ahead: Vec<_> =
            (0..CONNECTIONS * 3 / 4).map_while(|_| memory.answers.share_ahead(takes)).collect();
        assert_eq!(ahead.len() as u64, CONNECTIONS * 3 / 4);
        let demand: Vec<_> = (0..CONNECTIONS / 4).map_while(|_| memory.answers.share_now(takes)).collect();
        assert_eq!(demand.len() as u64, CONNECTIONS / 4);
    }

    #[test]
    fn an_answer_takes_no_more_for_being_longer() {
        assert_eq!(of_answer(4 * MIB, 256 << 10), of_answer(64 * MIB, 256 << 10));
        assert!(of_answer(64 << 10, 256 << 10) <= 192 << 10);
    }

    #[tokio::test]
    async fn who_waits_is_served_in_turn_and_who_fetches_ahead_leaves_a_part() {
        let (memory, counters) = memory(MemoryBudget::LEAST);
        let room = Arc::new(memory.answers);
        let all = room.all();
        let ahead = room.share_ahead(all / 2).unwrap();
        assert!(room.share_ahead(all / 2).is_none(), "a part is left for demand");
        let demand = room.share_now(all / 2).unwrap();

        let waiting = |bytes: u64| {
            let room = room.clone();
            tokio::spawn(async move { room.share(bytes).await.unwrap() })
        };
        let large = waiting(10 * all);
        while counters.memory_waits.get() < 1 {
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        drop(ahead);
        let small = waiting(UNIT);
        assert!(room.share_now(UNIT).is_none(), "nobody is passed by");
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!large.is_finished() && !small.is_finished());
        drop(demand);
        drop(large.await.unwrap());
        drop(small.await.unwrap());
        assert_eq!(room.free.available_permits() as u64 * UNIT, all, "all of it came back");
        assert_eq!(counters.memory.now(), 0);
        assert!(counters.memory.most() >= all / UNIT * UNIT);
    }

    #[tokio::test]
    async fn who_stops_waiting_leaves_the_row() {
        let (memory, counters) = memory(MemoryBudget::LEAST);
        let room = memory.replies;
        let held = room.share_now(room.all()).unwrap();
        assert!(tokio::time::timeout(Duration::from_millis(5), room.share(UNIT)).await.is_err());
        drop(held);
        assert!(room.share_now(room.all()).is_some());
        assert_eq!(counters.memory.now(), 0);
    }

    #[test]
    fn bytes_keep_their_share_as_long_as_anybody_has_them() {
        let (memory, counters) = memory(MemoryBudget::LEAST);
        let bytes = memory.replies.share_now(UNIT).unwrap().of(Bytes::from_static(b"abc"));
        let part = bytes.slice(1..);
        drop(bytes);
        assert_eq!((&part[..], counters.memory.now()), (&b"bc"[..], UNIT));
        drop(part);
        assert_eq!(counters.memory.now(), 0);
    }
}
