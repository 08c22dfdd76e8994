//! Sending for bytes ahead of readers: whoever reads in a way that can be foreseen is served in turn, as long as the
//! link has room.

use std::sync::Arc;

use super::fly::GATHERED;
use super::link::ONE_REQUEST;
use super::memory::of_answer;
use super::traffic::{Need, Turn};
use super::{Fetcher, OpenContent};
use crate::model::{ByteRange, WHOLE_AT_ONCE};

/// What is fetched ahead of readers may take this part of the cache: a small one would evict it unread.
const PART_OF_CACHE: u64 = 4;

impl Fetcher {
    /// The most bytes worth fetching ahead, whatever the link carries.
    pub(super) fn most_ahead(&self) -> u64 {
        self.cache.limit() / PART_OF_CACHE
    }

    /// Sends for what can be foreseen. Called whenever a reader has told something new or the link has new room.
    pub(super) fn send_ahead(self: &Arc<Self>) {
        loop {
            if self.traffic.room_ahead(self.most_ahead(), of_answer(ONE_REQUEST, GATHERED)) == 0 {
                return;
            }
            let first = {
                let mut hungry = self.hungry.lock().unwrap_or_else(|e| e.into_inner());
                if hungry.is_empty() {
                    return;
                }
                hungry.remove(0)
            };
            // Who has nothing to say leaves the row, and comes back with the next read.
            let Some(content) = first.upgrade() else { continue };
            let Some(range) = content.foresee() else { continue };
            let Some(turn) = self.traffic.turn_ahead(of_answer(range.len(), GATHERED)) else {
                content.is_hungry();
                return;
            };
            content.send_for_ahead(range, turn);
            content.is_hungry();
        }
    }
}

impl OpenContent {
    /// Stands in the row, once.
    pub(super) fn is_hungry(self: &Arc<Self>) {
        let mut hungry = self.fetcher.hungry.lock().unwrap_or_else(|e| e.into_inner());
        if !hungry.iter().any(|other| std::ptr::eq(other.as_ptr(), Arc::as_ptr(self))) {
            hungry.push(Arc::downgrade(self));
        }
    }

    /// Starts what is missing of `range`, with a first turn at hand.
    pub(super) fn send_for_ahead(self: &Arc<Self>, range: ByteRange, turn: Turn) {
        let Some(cached) = &self.cached else { return };
        if self.shared.is_wrong() {
            return;
        }
        let wanted = self.asked_for(range);
        let traffic = &self.fetcher.traffic;
        let most = if self.is_small() { WHOLE_AT_ONCE } else { traffic.one_request(traffic.room()) };
        let packing = self.packing(0, most);
        let (_, started) = self.shared.flights.join(wanted, packing, |blocks| self.missing(cached, blocks));
        let mut turn = Some(turn);
        for landing in started {
            let bytes = landing.flight.blocks.bytes(self.key.size).len();
            let next = || traffic.turn_ahead(of_answer(bytes, GATHERED));
            let Some(turn) = turn.take().or_else(next) else {
                // It ends before it began: whoever needs the bytes starts another.
                landing.land(Ok(()));
                continue;
            };
            turn.announce(bytes);
            self.cost.count(|counters| &counters.bytes_ahead, bytes);
            self.shared.fetched_ahead(landing.flight.blocks);
            self.start(landing, Need::Ahead, Some(turn));
        }
    }
}
