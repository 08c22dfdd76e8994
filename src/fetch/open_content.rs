//! Reading one content: from the cache at once, or by joining and starting flights that bring what is missing.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::flight::{Landing, Packing};
use super::fly::{Flying, MyTurn};
use super::foresight::Foresight;
use super::memory::of_reply;
use super::scan::Source;
use super::shared::{Cost, SharedContent};
use super::traffic::{Need, Turn};
use super::{FetchError, Fetcher, ReaderThread};
use crate::cache::{BLOCK, BlockRange, CachedContent, ContentState, HandedOut, Look};
use crate::model::{ByteRange, LeafRange, MOST_PROVEN, WHOLE_AT_ONCE};
use crate::remote::ContentKey;

/// What could not be had just before is not waited for once more: for what it reads through its own pages, the kernel
/// answers a failure by asking a second time at once.
const JUST_BEFORE: Duration = Duration::from_millis(300);

/// A content as one handle has it open, by one of its paths. Whatever path they came by, all its readers share what is
/// cached and under way; the path counts, for another one may name something else by now.
pub struct OpenContent {
    pub(super) fetcher: Arc<Fetcher>,
    pub(super) key: ContentKey,
    /// Nothing where the cache has no place for it: then every read goes around the cache.
    pub(super) cached: Option<Arc<CachedContent>>,
    pub(super) shared: Arc<SharedContent>,
    pub(super) cost: Cost,
    pub(super) foresight: Mutex<Foresight>,
    unanswered: Mutex<Vec<Unanswered>>,
}

/// A read that waited in vain.
struct Unanswered {
    range: ByteRange,
    ended: Instant,
    error: FetchError,
}

impl OpenContent {
    pub(super) fn new(
        fetcher: Arc<Fetcher>,
        key: ContentKey,
        cached: Option<Arc<CachedContent>>,
        shared: Arc<SharedContent>,
        cost: Cost,
    ) -> Self {
        Self { fetcher, key, cached, shared, cost, foresight: Mutex::default(), unanswered: Mutex::default() }
    }

    /// Whether it is fetched whole at the first read: one request instead of several, and one answer to check.
    pub(super) fn is_small(&self) -> bool {
        self.key.size <= WHOLE_AT_ONCE
    }

    /// Whether every byte is cached.
    pub(super) fn is_complete(&self) -> bool {
        self.cached.as_ref().is_some_and(|cached| cached.state() != ContentState::Partial)
    }

    /// Whether every byte is cached and was checked against the content's hash.
    pub fn is_verified(&self) -> bool {
        self.cached.as_ref().is_some_and(|cached| cached.state() == ContentState::Verified)
    }

    /// What is here of it stays until nobody has it open: it may not be had again.
    pub fn keep_while_open(&self) {
        if let Some(cached) = &self.cached {
            cached.keep_while_open();
        }
    }

    /// Whether all of it was compared with its checksums lately.
    fn is_trusted(&self) -> bool {
        self.shared.trusted.load(Ordering::Relaxed)
            || self.cached.as_ref().is_some_and(|cached| cached.was_checked())
    }

    /// The content as a file the kernel may read by itself, if it is cached whole and checked.
    pub fn hand_out(&self) -> Option<HandedOut> {
        if !self.is_trusted() {
            return None;
        }
        let handed_out = self.cached.as_ref()?.hand_out().unwrap_or_else(|error| {
            tracing::debug!(path = %self.key.path, %error, "not handed to the kernel");
            None
        })?;
        // What the kernel reads of it is not seen.
        self.came_for(ByteRange::new(0, self.key.size));
        Some(handed_out)
    }

    /// The part of `offset..offset + length` that lies inside the content.
    fn clamp(&self, offset: u64, length: u64) -> ByteRange {
        ByteRange::new(offset.min(self.key.size), offset.saturating_add(length).min(self.key.size))
    }

    /// What the cache has, without waiting for anything but the disk; `None` where something is missing.
    pub fn read_cached(self: &Arc<Self>, thread: ReaderThread, offset: u64, length: u64) -> Option<Bytes> {
        let range = self.clamp(offset, length);
        if range.is_empty() {
            return Some(Bytes::new());
        }
        // Without room for the reply it waits its turn, where waiting holds nobody up.
        let share = self.fetcher.memory.replies.share_now(of_reply(range))?;
        let bytes = share.of(self.look(range)?);
        let source = if self.came_for(range) > 0 { self.fetched() } else { Source::Cache };
        self.cost.count(|counters| &counters.reads, 1);
        self.cost.count(|counters| &counters.bytes_read, range.len());
        self.cost.count(|counters| &counters.bytes_from_cache, range.len());
        // Of a content that is all here nothing needs to be foreseen.
        if !self.is_complete() {
            self.note_read(thread, range, source);
            self.note_answer(range);
        }
        Some(bytes)
    }

    /// How many bytes it has in all.
    pub fn size(&self) -> u64 {
        self.key.size
    }

    /// What the cache has and finds sound, for no reader: nothing is foreseen from it or fetched for it.
    pub fn peek(&self, offset: u64, length: u64) -> Option<Bytes> {
        self.look(self.clamp(offset, length))
    }

    /// How many blocks of `range` were fetched ahead, for this reader as it turns out.
    fn came_for(&self, range: ByteRange) -> u64 {
        let blocks = self.shared.came_for(BlockRange::covering(range));
        if blocks > 0 {
            self.cost.count(|counters| &counters.bytes_ahead_read, blocks * BLOCK);
        }
        blocks
    }

    fn fetched(&self) -> Source {
        if self.fetcher.traffic.is_far() { Source::Remote } else { Source::Nearby }
    }

    pub(super) fn look(&self, range: ByteRange) -> Option<Bytes> {
        match self.cached.as_ref()?.read(range) {
            Ok(Look::Hit(bytes)) => Some(bytes),
            Ok(Look::Miss) => None,
            Ok(Look::Rotten(blocks)) => {
                tracing::warn!(path = %self.key.path, blocks, "cached blocks have rotted: fetching them again");
                self.cost.count(|counters| &counters.blocks_rotten, blocks);
                self.shared.trusted.store(false, Ordering::Relaxed);
                None
            }
            Err(error) => {
                tracing::warn!(path = %self.key.path, %error, "the cache cannot be read: fetching again");
                None
            }
        }
    }

    /// Reads bytes that lie inside the content, from the cache or the remote, all of them or an error, within the
    /// deadline. Past the end there are none.
    pub async fn read(
        self: &Arc<Self>,
        thread: ReaderThread,
        offset: u64,
        length: u64,
    ) -> Result<Bytes, FetchError> {
        let range = self.clamp(offset, length);
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        if let Some(error) = self.failed_just_before(range) {
            return Err(error);
        }
        let along = self.note_read(thread, range, self.fetched());
        self.came_for(range);
        let began = Instant::now();
        let deadline = self.fetcher.options.deadline;
        let in_line = AtomicBool::new(false);
        let mut reading = pin!(self.read_patiently(range, along, &in_line));
        let mut until = began + deadline;
        let read = loop {
            let soon = until.min(Instant::now() + deadline / 16);
            match tokio::time::timeout_at(soon, &mut reading).await {
                Ok(read) => break read,
                // Waiting in line is not the remote's silence, as long as the line gets on.
                Err(_) if self.is_in_line(range, &in_line) => until = Instant::now() + deadline,
                Err(_) if Instant::now() < until => {}
                Err(_) => {
                    let silence = format!("no bytes came for {} s", deadline.as_secs_f32());
                    break Err(FetchError::Unreachable(silence));
                }
            }
        };
        let waited = u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.cost.count(|counters| &counters.waits, 1);
        self.cost.count(|counters| &counters.waited_micros, waited);
        match read {
            Ok(bytes) => {
                self.cost.count(|counters| &counters.reads, 1);
                self.cost.count(|counters| &counters.bytes_read, range.len());
                self.note_answer(range);
                Ok(bytes)
            }
            Err(error) => {
                if matches!(error, FetchError::Stale) {
                    self.keep_while_open();
                }
                if matches!(error, FetchError::Unreachable(_)) {
                    let failure = Unanswered { range, ended: Instant::now(), error: error.clone() };
                    self.unanswered.lock().unwrap_or_else(|e| e.into_inner()).push(failure);
                }
                Err(error)
            }
        }
    }

    /// Whether a read waits for others to be served first, and they are.
    fn is_in_line(&self, range: ByteRange, in_line: &AtomicBool) -> bool {
        let waits =
            in_line.load(Ordering::Relaxed) || self.shared.flights.are_in_line(BlockRange::covering(range));
        waits && self.fetcher.traffic.got_on_within(self.fetcher.options.deadline)
    }

    /// The failure of a read that waited for the first of these bytes and ended just now. Told once: whoever asks
    /// again is served anew.
    fn failed_just_before(&self, range: ByteRange) -> Option<FetchError> {
        let mut unanswered = self.unanswered.lock().unwrap_or_else(|e| e.into_inner());
        unanswered.retain(|failure| failure.ended.elapsed() < JUST_BEFORE);
        let again = |failure: &Unanswered| (failure.range.start..failure.range.end).contains(&range.start);
        let at = unanswered.iter().position(again)?;
        Some(unanswered.swap_remove(at).error)
    }

    /// `along`: the rest of what the reader is taken to be reading, fetched in the same go.
    async fn read_patiently(
        self: &Arc<Self>,
        range: ByteRange,
        along: ByteRange,
        in_line: &AtomicBool,
    ) -> Result<Bytes, FetchError> {
        // A second round finds what rotted between storing and reading; after that the cache is not trusted.
        let rounds = if self.cached.is_some() { 2 } else { 0 };
        for _ in 0..rounds {
            self.bring(range, along).await?;
            let replies = &self.fetcher.memory.replies;
            let share = replies.share(of_reply(range)).await.map_err(Fetcher::ended)?;
            if let Some(bytes) = self.look(range) {
                return Ok(share.of(bytes));
            }
        }
        self.read_around_the_cache(range, in_line).await
    }

    /// Makes sure the blocks of `range` are cached, or were tried, and sends for those of `along`.
    pub(super) async fn bring(
        self: &Arc<Self>,
        range: ByteRange,
        along: ByteRange,
    ) -> Result<(), FetchError> {
        let Some(cached) = &self.cached else { return Ok(()) };
        if self.shared.is_wrong() {
            return Err(FetchError::Wrong("when it was complete, it was not what its hash says".into()));
        }
        let whole = ByteRange::new(0, self.key.size);
        let along = if self.is_small() { whole } else { along };
        let (wanted, along) = (self.asked_for(range), self.asked_for(along));
        // Flights by another path with the same content, which was replaced, or of a moment when something on the way
        // altered bytes: the second time there are our own.
        let mut others = 0;
        loop {
            let Some(error) =
                self.join_flights(cached, wanted, if others == 0 { along } else { wanted }).await?
            else {
                return Ok(());
            };
            // One that began long before us had its time with a remote that may be back by now; we have ours.
            if !matches!(error, FetchError::Unreachable(_)) {
                others += 1;
            }
            if others == 2 {
                return Err(error);
            }
        }
    }

    /// Joins what is under way for `wanted` and starts what is missing of it and of `along`. Returns how somebody
    /// else's flight failed, where an own one may not.
    async fn join_flights(
        self: &Arc<Self>,
        cached: &Arc<CachedContent>,
        wanted: BlockRange,
        along: BlockRange,
    ) -> Result<Option<FetchError>, FetchError> {
        let all = BlockRange { start: wanted.start.min(along.start), end: wanted.end.max(along.end) };
        let traffic = &self.fetcher.traffic;
        // What is checked as a whole comes in one answer.
        let most = if self.is_small() { WHOLE_AT_ONCE } else { traffic.one_request(all.len() * BLOCK) };
        let packing = self.packing(traffic.worth_joining(), most);
        let (mut under_way, started) =
            self.shared.flights.join(all, packing, |blocks| self.missing(cached, blocks));
        under_way.retain(|boarded| boarded.flight.blocks.overlaps(wanted));
        let mut own = Vec::new();
        for landing in started {
            if landing.flight.blocks.overlaps(wanted) {
                own.push(landing.board());
            }
            self.start(landing, Need::Demand, None);
        }
        for flight in own {
            flight.brings(wanted).await?;
        }
        let mut failed = None;
        for flight in under_way {
            match flight.brings(wanted).await {
                Err(error @ (FetchError::Stale | FetchError::Wrong(_) | FetchError::Unreachable(_))) => {
                    failed = Some(error)
                }
                reached => reached?,
            }
        }
        Ok(failed)
    }

    /// How to ask for this content: stretches of up to `gap` bytes along with the rest, `most` bytes a request.
    pub(super) fn packing(&self, gap: u64, most: u64) -> Packing {
        let most = most / BLOCK;
        if !self.comes_proven() {
            return Packing { gap: gap / BLOCK, most };
        }
        // What can be proven is asked for in pieces for which there is a proof.
        let leaves = (most / LeafRange::BLOCKS).clamp(1, MOST_PROVEN);
        Packing { gap: gap / BLOCK, most: leaves * LeafRange::BLOCKS }
    }

    /// Whether its blocks can be proven, and the remote does that.
    fn comes_proven(&self) -> bool {
        self.key.blocks.is_some() && self.fetcher.proves()
    }

    /// The blocks to ask for so that the bytes of `range` come: where they can be proven, those proven with them.
    pub(super) fn asked_for(&self, range: ByteRange) -> BlockRange {
        let blocks = BlockRange::covering(range);
        if self.comes_proven() { blocks.in_whole_leaves(self.key.size) } else { blocks }
    }

    /// What is to be fetched so that `blocks` are here. What is checked as a whole is fetched as a whole: a small content,
    /// and the blocks under a leaf.
    pub(super) fn missing(&self, cached: &CachedContent, blocks: BlockRange) -> Vec<BlockRange> {
        let mut missing = cached.missing(blocks);
        if self.is_small() && !missing.is_empty() {
            return vec![BlockRange::all(self.key.size)];
        }
        if self.comes_proven() {
            let mut done = 0;
            for run in &mut missing {
                *run = run.in_whole_leaves(self.key.size);
                run.start = run.start.max(done);
                done = run.end;
            }
        }
        missing
    }

    pub(super) fn flying(&self, cached: &Arc<CachedContent>) -> Flying {
        Flying {
            fetcher: self.fetcher.clone(),
            key: self.key.clone(),
            cached: cached.clone(),
            shared: self.shared.clone(),
            cost: self.cost.clone(),
        }
    }

    /// Starts a flight, in a task of its own: a reader that goes away does not take the bytes from others who joined.
    pub(super) fn start(self: &Arc<Self>, landing: Landing, need: Need, turn: Option<Turn>) {
        let Some(cached) = self.cached.clone() else { return };
        // The handle is not kept open by what is under way for it.
        let (fetcher, flying) = (self.fetcher.clone(), self.flying(&cached));
        tracing::trace!(path = %flying.key.path, blocks = ?landing.flight.blocks, ?need, "starts");
        let turn = match turn {
            Some(turn) => MyTurn::Now(turn),
            None => MyTurn::Later(self.fetcher.traffic.expect()),
        };
        self.fetcher.runtime.spawn(async move {
            let result = flying.fly(&landing, turn).await;
            let blocks = landing.flight.blocks;
            tracing::trace!(path = %flying.key.path, ?blocks, ?need, "landed");
            match &result {
                Err(error) if need == Need::Demand => {
                    tracing::warn!(path = %flying.key.path, %error, "bytes could not be fetched");
                }
                Err(error) => tracing::debug!(path = %flying.key.path, %error, "nothing was fetched ahead"),
                Ok(()) => {}
            }
            landing.land(result);
            fetcher.send_ahead();
            flying.verify();
        });
    }
}

impl Drop for OpenContent {
    fn drop(&mut self) {
        self.shared.closed();
    }
}
