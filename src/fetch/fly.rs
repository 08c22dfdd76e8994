//! One run of blocks from the remote into the cache.

use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::time::Instant;

use super::end::FIRST_REQUESTS;
use super::flight::{Flight, Landing};
use super::memory::{PIECE, of_answer};
use super::shared::{Cost, SharedContent};
use super::traffic::{Expected, Turn};
use super::{FetchError, Fetcher};
use crate::cache::{BLOCK, BlockRange, CachedContent, Written};
use crate::model::{ByteRange, LEAF, LeafRange, MOST_PROVEN_SINGLY, Sha256, WHOLE_AT_ONCE};
use crate::remote::{ContentKey, RemoteError};

/// How often a wrong answer is asked for again: it may be a proxy's passing fault.
pub(super) const WRONG_ANSWERS: usize = 3;
/// So many places of a flight may turn out altered, each time it is asked for, before the flight is given up.
const HOLES: usize = 4;
/// So many bytes are gathered and then written to the cache at once.
pub(super) const GATHERED: u64 = 256 << 10;
/// What is left of a request that nobody needs any more is not waited for if it is more than this: it costs the
/// connection, which is dearer than a few bytes.
const NOT_WORTH_STOPPING: u64 = 256 << 10;

/// The leave to send a request, or to wait for it.
pub(super) enum MyTurn {
    Now(Turn),
    Later(Expected),
}

/// What a flight needs, whether the handle it was started for is still open or not.
pub(super) struct Flying {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) key: ContentKey,
    pub(super) cached: Arc<CachedContent>,
    pub(super) shared: Arc<SharedContent>,
    /// Of the open it was started for.
    pub(super) cost: Cost,
}

impl Flying {
    /// Fetches one run of blocks into the cache, going on after passing faults from where they struck. A flight
    /// ahead of its readers brings its turn along.
    pub(super) async fn fly(&self, landing: &Landing, turn: MyTurn) -> Result<(), FetchError> {
        let fetcher = &self.fetcher;
        let turn = match turn {
            MyTurn::Now(turn) => turn,
            MyTurn::Later(_expected) => {
                let all = landing.flight.blocks.bytes(self.key.size);
                let takes = of_answer(all.len(), self.gathered(&landing.flight));
                fetcher.traffic.turn(takes).await.map_err(Fetcher::ended)?
            }
        };
        let flight = &landing.flight;
        flight.begins();
        if flight.is_deserted() {
            return Ok(());
        }
        let room = flight.blocks.bytes(self.key.size).len();
        let cache = fetcher.cache.clone();
        let reserved = tokio::task::spawn_blocking(move || cache.reserve(room)).await.unwrap_or(false);
        if !reserved {
            // No room: the readers go around the cache.
            return Ok(());
        }
        let mut next = flight.blocks.start;
        let result = self.fly_from(&mut next, landing, &turn).await;
        let unused = BlockRange { start: next, end: flight.blocks.end }.bytes(self.key.size).len();
        if unused > 0 {
            fetcher.cache.release(unused);
        }
        result
    }

    async fn fly_from(&self, next: &mut u64, landing: &Landing, turn: &Turn) -> Result<(), FetchError> {
        let (fetcher, flight) = (&self.fetcher, &landing.flight);
        let mut since = Instant::now();
        let (mut wait, mut wrong) = (Duration::from_millis(50), 0);
        let (mut holes, mut most) = (Vec::new(), u64::MAX);
        let mut held = BytesMut::new();
        loop {
            let (before, held_before) = (*next, held.len());
            let asked = BlockRange { start: *next, end: flight.blocks.end.min(next.saturating_add(most)) };
            let error = match self.fetch_blocks(asked, next, &mut held, flight, turn).await {
                Ok(()) if *next == asked.end && asked.end < flight.blocks.end => continue,
                Ok(()) => return holes.pop().map_or(Ok(()), Err),
                Err(error) => error,
            };
            if *next > before || held.len() > held_before {
                (since, wait) = (Instant::now(), Duration::from_millis(50));
            }
            match &error {
                // Whatever stands around a block that is altered time and again can be read.
                BlockError::Altered(altered) => {
                    self.cost.count(|counters| &counters.responses_refused, 1);
                    wrong = if *next > before { 1 } else { wrong + 1 };
                    // Asked for so few, it shows which one it is.
                    most = MOST_PROVEN_SINGLY * LeafRange::BLOCKS;
                    if wrong >= WRONG_ANSWERS {
                        let altered = FetchError::from(altered.clone());
                        let hole = BlockRange { start: *next, end: *next + 1 }.in_whole_leaves(self.key.size);
                        let hole = BlockRange { start: *next, end: hole.end.min(flight.blocks.end) };
                        flight.leaves_out(hole, altered.clone());
                        *next = hole.end;
                        fetcher.cache.release(hole.bytes(self.key.size).len());
                        holes.push(altered.clone());
                        if *next == flight.blocks.end || holes.len() >= HOLES {
                            return Err(altered);
                        }
                        (wrong, since, wait) = (0, Instant::now(), Duration::from_millis(50));
                    }
                }
                BlockError::Remote(RemoteError::WrongAnswer { .. }) => {
                    self.cost.count(|counters| &counters.responses_refused, 1);
                    wrong += 1;
                    if wrong >= WRONG_ANSWERS {
                        return Err(error.into());
                    }
                }
                BlockError::Remote(remote) if remote.is_transient() => {}
                // The cache cannot be written: the readers go around it.
                BlockError::Cache(error) => {
                    tracing::warn!(%error, "the cache cannot be written");
                    return Ok(());
                }
                BlockError::NotKept => return Ok(()),
                BlockError::Remote(_) => return Err(error.into()),
            }
            if flight.is_deserted() {
                return Ok(());
            }
            if since.elapsed() + wait >= fetcher.options.deadline {
                return Err(error.into());
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(2));
        }
    }

    /// The hash that all of the flight is checked against before anything of it is kept: of a small content.
    fn checked_whole(&self, flight: &Flight) -> Option<Sha256> {
        let size = self.key.size;
        let is_whole = flight.blocks.bytes(size) == ByteRange::new(0, size);
        self.key.hash.sha256().filter(|_| is_whole && size <= WHOLE_AT_ONCE)
    }

    /// How many bytes of a flight are put together before they go on to the cache.
    fn gathered(&self, flight: &Flight) -> u64 {
        if self.checked_whole(flight).is_some() { self.key.size } else { GATHERED }
    }

    /// One request for blocks of the flight from `next` on; `next` moves on as they are stored. What is checked as a
    /// whole is `held` until all of it is here, should the answer break off.
    async fn fetch_blocks(
        &self,
        asked: BlockRange,
        next: &mut u64,
        held: &mut BytesMut,
        flight: &Flight,
        turn: &Turn,
    ) -> Result<(), BlockError> {
        let mut range = asked.bytes(self.key.size);
        range.start += held.len() as u64;
        self.cost.count(|counters| &counters.requests, 1);
        let traffic = &self.fetcher.traffic;
        let mut cargo = traffic.send_for(turn, range.len());
        let sent = Instant::now();
        let mut body = self.fetcher.remote.open_range(&self.key, range).await?;
        traffic.answered(sent.elapsed());
        tracing::trace!(path = %self.key.path, ?range, waited = ?sent.elapsed(), "answered");
        let proven = body.is_proven();
        if self.key.could_prove(range) {
            self.fetcher.was_answered(proven);
        }
        let whole_content = self.checked_whole(flight);
        let gathered = self.gathered(flight);
        let at_most = usize::try_from(range.len().min(gathered + PIECE)).unwrap_or(0);
        let mut pending = std::mem::take(held);
        pending.reserve(at_most);
        let mut left = range.len();
        let mut store = |pending: &mut BytesMut, length: usize| {
            let bytes = pending.split_to(length);
            match self.cached.write(*next, &bytes) {
                Ok(Written::Kept | Written::Complete) => {}
                Ok(Written::NotKept) => return Err(BlockError::NotKept),
                Err(error) => return Err(BlockError::Cache(error.to_string())),
            }
            *next += (length as u64).div_ceil(BLOCK);
            flight.stored(*next);
            Ok::<_, BlockError>(())
        };
        loop {
            let piece = match body.next().await {
                Ok(piece) => piece,
                Err(error) => {
                    // What came before is as good as any: it need not come again. The last block stays to be
                    // asked for, or there would be nothing left to ask.
                    let keep = if left == 0 { pending.len().saturating_sub(1) } else { pending.len() };
                    // What comes next is to be provable again.
                    let unit = if self.key.blocks.is_some() { LEAF } else { BLOCK };
                    let keep = keep - keep % unit as usize;
                    if whole_content.is_some() {
                        if error.is_transient() {
                            pending.truncate(keep);
                            *held = pending;
                        }
                        return Err(error.into());
                    }
                    if keep > 0 && (proven || error.is_transient()) {
                        store(&mut pending, keep)?;
                    }
                    return Err(match error {
                        altered @ RemoteError::WrongAnswer { .. } if proven => BlockError::Altered(altered),
                        error => error.into(),
                    });
                }
            };
            let Some(piece) = piece else { break };
            self.cost.count(|counters| &counters.bytes_fetched, piece.len() as u64);
            if proven {
                self.cost.count(|counters| &counters.bytes_proven, piece.len() as u64);
            }
            let news = cargo.arrived(piece.len() as u64);
            if news.slow_start {
                self.fetcher.get_ready(FIRST_REQUESTS);
            }
            if news.room {
                self.fetcher.send_ahead();
            }
            left -= piece.len() as u64;
            pending.extend_from_slice(&piece);
            // Only whole blocks are stored, and the last ones once the answer has ended as it should.
            let whole = pending.len() - pending.len() % BLOCK as usize;
            if whole as u64 >= gathered && left > 0 && whole_content.is_none() {
                store(&mut pending, whole)?;
            }
            if left > NOT_WORTH_STOPPING && flight.is_deserted() {
                return Ok(());
            }
        }
        cargo.complete();
        if whole_content.is_some_and(|expected| expected != Sha256::of(&pending)) {
            return Err(self.fetcher.remote.altered(&self.key.path).into());
        }
        let rest = pending.len();
        if rest > 0 { store(&mut pending, rest) } else { Ok(()) }
    }
}

enum BlockError {
    Remote(RemoteError),
    /// What came up to here was proven, and the next block is not what it should be.
    Altered(RemoteError),
    Cache(String),
    /// There was no room, or somebody else was busy with these blocks.
    NotKept,
}

impl From<RemoteError> for BlockError {
    fn from(error: RemoteError) -> Self {
        Self::Remote(error)
    }
}

impl From<BlockError> for FetchError {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Remote(error) | BlockError::Altered(error) => error.into(),
            BlockError::Cache(text) => Self::Cache(text),
            BlockError::NotKept => Self::Cache("there is no room".into()),
        }
    }
}
