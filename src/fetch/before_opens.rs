//! Files that are about to be opened, as far as that can be foreseen: what opening them would send for is sent for.

use std::sync::Arc;

use super::memory::of_answer;
use super::shared::Cost;
use super::{Fetcher, OpenContent};
use crate::cache::BlockRange;
use crate::model::WHOLE_AT_ONCE;
use crate::remote::ContentKey;

/// Connections wanted for what follows. Each takes a round trip to make.
const READY: usize = 32;

/// The memory one of these requests takes at most: a small content is put together before it is kept.
fn memory() -> u64 {
    of_answer(WHOLE_AT_ONCE, WHOLE_AT_ONCE)
}

impl Fetcher {
    /// How many bytes may be asked for now before anyone wants them.
    pub fn room_ahead(&self) -> u64 {
        self.traffic.room_ahead(self.most_ahead(), memory())
    }

    /// Sends for what opening these files would, in this order and as far as there is room.
    pub fn foresee_opens(self: &Arc<Self>, keys: Vec<ContentKey>) {
        if keys.is_empty() {
            return;
        }
        self.get_ready((2 * keys.len()).min(READY));
        let fetcher = self.clone();
        self.runtime.spawn(async move {
            for key in keys {
                let Some(turn) = fetcher.traffic.turn_ahead(memory()).filter(|_| fetcher.room_ahead() > 0)
                else {
                    return;
                };
                let (cached, shared) = fetcher.places(&key);
                let cost = Cost::before_opens(&shared, &fetcher.counters);
                let content = Arc::new(OpenContent::new(fetcher.clone(), key, cached, shared, cost));
                let Some(first) = content.unread_first() else { continue };
                content.send_for_ahead(first, turn);
                // Held until it is here: what nobody has open is not waited for.
                fetcher.runtime.spawn(async move { content.take_in_first(first).await });
            }
        });
    }
}

impl OpenContent {
    /// Whether something of what its readers read first is not here.
    pub fn lacks_what_is_read_first(&self) -> bool {
        let (Some(first), Some(cached)) = (self.unread_first(), &self.cached) else { return false };
        !cached.missing(BlockRange::covering(first)).is_empty()
    }
}
