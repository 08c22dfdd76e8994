//! Requests under way for one content, so that nobody asks for the same block twice.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use super::FetchError;
use crate::cache::BlockRange;

/// How blocks are put into requests.
#[derive(Debug, Clone, Copy)]
pub(super) struct Packing {
    /// Stretches of so many blocks that are here already are asked for again where that saves a request.
    pub(super) gap: u64,
    /// One request is for no more blocks.
    pub(super) most: u64,
}

/// How far a flight has come.
#[derive(Debug)]
struct Progress {
    /// Blocks before this one are stored, but for the holes.
    until: u64,
    /// Blocks that could not be had although the ones around them could.
    holes: Vec<(BlockRange, FetchError)>,
    /// It is over. Blocks it did not store were not kept.
    landed: Option<Result<(), FetchError>>,
}

/// One run of blocks being fetched.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) blocks: BlockRange,
    progress: watch::Sender<Progress>,
    /// It has had its turn.
    begun: AtomicBool,
    deserted: AtomicBool,
}

impl Flight {
    /// Says that blocks before `block` are stored.
    pub(super) fn stored(&self, block: u64) {
        self.progress.send_modify(|progress| progress.until = block);
    }

    /// Gives up some blocks and goes on behind them.
    pub(super) fn leaves_out(&self, blocks: BlockRange, error: FetchError) {
        self.progress.send_modify(|progress| {
            progress.until = blocks.end;
            progress.holes.push((blocks, error));
        });
    }

    /// Waits until those of `wanted` it brings are stored, or it is over. Of what it leaves out, the first `known`
    /// holes are somebody else's to fill.
    async fn brings(&self, wanted: BlockRange, known: usize) -> Result<(), FetchError> {
        let until = wanted.end.min(self.blocks.end);
        let mut progress = self.progress.subscribe();
        loop {
            {
                let progress = progress.borrow_and_update();
                let mut holes = progress.holes[known..].iter();
                if let Some((_, error)) = holes.find(|(hole, _)| wanted.overlaps(*hole)) {
                    return Err(error.clone());
                }
                match &progress.landed {
                    _ if progress.until >= until => return Ok(()),
                    Some(result) => return result.clone(),
                    None => {}
                }
            }
            if progress.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// It has its turn.
    pub(super) fn begins(&self) {
        self.begun.store(true, Ordering::Relaxed);
    }

    /// Whether all who read the content have closed it and nobody waits.
    pub(super) fn is_deserted(&self) -> bool {
        self.deserted.load(Ordering::Relaxed) && self.progress.receiver_count() == 0
    }
}

/// A flight as one reader waits for it.
#[derive(Debug)]
pub(super) struct Boarded {
    pub(super) flight: Arc<Flight>,
    /// What it had left out by then.
    known: usize,
}

impl Boarded {
    fn now(flight: Arc<Flight>) -> Self {
        let known = flight.progress.borrow().holes.len();
        Self { flight, known }
    }

    fn has_coming(&self, block: u64) -> bool {
        let left_out =
            || self.flight.progress.borrow().holes[..self.known].iter().any(|(hole, _)| hole.contains(block));
        self.flight.blocks.contains(block) && !left_out()
    }

    /// Waits until those of `wanted` it brings are stored, or it is over.
    pub(super) async fn brings(&self, wanted: BlockRange) -> Result<(), FetchError> {
        self.flight.brings(wanted, self.known).await
    }
}

/// The flights of one content.
#[derive(Debug, Default)]
pub(super) struct Flights(Mutex<Vec<Arc<Flight>>>);

/// Removes its flight when it ends, however it ends.
#[derive(Debug)]
pub(super) struct Landing {
    flights: Arc<Flights>,
    pub(super) flight: Arc<Flight>,
    result: Result<(), FetchError>,
}

impl Landing {
    /// The flight, for who waits for it from its start.
    pub(super) fn board(&self) -> Boarded {
        Boarded { flight: self.flight.clone(), known: 0 }
    }

    /// Ends the flight with a result.
    pub(super) fn land(mut self, result: Result<(), FetchError>) {
        self.result = result;
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut all = self.flights.0.lock().unwrap_or_else(|e| e.into_inner());
        all.retain(|other| !Arc::ptr_eq(other, &self.flight));
        drop(all);
        self.flight.progress.send_modify(|progress| progress.landed = Some(self.result.clone()));
    }
}

impl Flights {
    /// The flights under way that will bring part of `wanted`, and those that the caller has to start for the rest.
    pub(super) fn join(
        self: &Arc<Self>,
        wanted: BlockRange,
        packing: Packing,
        missing: impl FnOnce(BlockRange) -> Vec<BlockRange>,
    ) -> (Vec<Boarded>, Vec<Landing>) {
        let mut all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let under_way = all.iter().filter(|flight| flight.blocks.overlaps(wanted)).cloned();
        let under_way: Vec<_> = under_way.map(Boarded::now).collect();
        let coming = |block: u64| under_way.iter().any(|boarded| boarded.has_coming(block));
        // Asked for while no flight can land: what has just landed is not missing any more.
        let missing = missing(wanted).into_iter().flat_map(|run| run.start..run.end);
        let runs = runs(missing.filter(|block| !coming(*block)), packing, coming);
        let started: Vec<Landing> = runs
            .into_iter()
            .map(|run| {
                let blocks = BlockRange { start: run.start, end: run.end };
                let progress =
                    watch::Sender::new(Progress { until: run.start, holes: Vec::new(), landed: None });
                let flight = Arc::new(Flight {
                    blocks,
                    progress,
                    begun: AtomicBool::new(false),
                    deserted: AtomicBool::new(false),
                });
                all.push(flight.clone());
                // A flight that is dropped before it lands was cancelled at shutdown.
                let result = Err(FetchError::Unreachable("the mount is stopping".into()));
                Landing { flights: self.clone(), flight, result }
            })
            .collect();
        (under_way, started)
    }

    /// Whether all blocks of `wanted` are here or under way.
    pub(super) fn are_coming(
        &self,
        wanted: BlockRange,
        missing: impl FnOnce(BlockRange) -> Vec<BlockRange>,
    ) -> bool {
        let all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        let coming = |block: u64| all.iter().any(|flight| flight.blocks.contains(block));
        missing(wanted).into_iter().flat_map(|run| run.start..run.end).all(coming)
    }

    /// Whether some of `wanted` is still to have its turn.
    pub(super) fn are_in_line(&self, wanted: BlockRange) -> bool {
        let all = self.0.lock().unwrap_or_else(|e| e.into_inner());
        all.iter().any(|flight| flight.blocks.overlaps(wanted) && !flight.begun.load(Ordering::Relaxed))
    }

    /// Nobody reads the content any more: what is under way ahead of readers may stop.
    pub(super) fn desert(&self) {
        for flight in self.0.lock().unwrap_or_else(|e| e.into_inner()).iter() {
            flight.deserted.store(true, Ordering::Relaxed);
        }
    }
}

/// Blocks as runs, packed, but never across one that is `coming`.
fn runs(
    blocks: impl Iterator<Item = u64>,
    packing: Packing,
    coming: impl Fn(u64) -> bool,
) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for block in blocks {
        match runs.last_mut() {
            Some(run)
                if block - run.end <= packing.gap
                    && block - run.start < packing.most
                    && !(run.end..block).any(&coming) =>
            {
                run.end = block + 1;
            }
            _ => runs.push(block..block + 1),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: u64 = 64;
    const GAP_0: Packing = Packing { gap: 0, most: MOST };
    const GAP_1: Packing = Packing { gap: 1, most: MOST };
    const GAP_8: Packing = Packing { gap: 8, most: MOST };

    fn all_but(blocks: BlockRange, here: impl Fn(u64) -> bool) -> Vec<BlockRange> {
        let missing = (blocks.start..blocks.end).filter(|block| !here(*block));
        missing.map(|block| BlockRange { start: block, end: block + 1 }).collect()
    }

    fn starts(started: &[Landing]) -> Vec<(u64, u64)> {
        started.iter().map(|l| (l.flight.blocks.start, l.flight.blocks.end)).collect()
    }

    #[test]
    fn a_block_is_in_one_flight_only() {
        let flights = Arc::new(Flights::default());
        let here = |blocks| all_but(blocks, |block| block == 5);
        let (joined, started) = flights.join(BlockRange { start: 2, end: 8 }, GAP_0, here);
        assert_eq!((joined.len(), starts(&started)), (0, vec![(2, 5), (6, 8)]));
        let (joined, again) = flights.join(BlockRange { start: 0, end: 10 }, GAP_8, here);
        assert_eq!((joined.len(), starts(&again)), (2, vec![(0, 2), (8, 10)]));
        assert!(flights.are_coming(BlockRange { start: 0, end: 10 }, here));
        assert!(!flights.are_coming(BlockRange { start: 0, end: 11 }, here));
        drop(started);
        let (_, after) = flights.join(BlockRange { start: 2, end: 3 }, GAP_0, here);
        assert_eq!(after.len(), 1, "a flight that ended is asked for again");
    }

    #[tokio::test]
    async fn who_comes_after_a_block_was_left_out_asks_for_it_anew_and_takes_the_rest() {
        let flights = Arc::new(Flights::default());
        let all = BlockRange { start: 0, end: 10 };
        let block = |start| BlockRange { start, end: start + 1 };
        let (_, mut first) = flights.join(all, GAP_0, |blocks| vec![blocks]);
        let landing = first.pop().unwrap();
        let early = landing.board();
        let altered = || FetchError::Wrong("altered".into());
        landing.flight.stored(3);
        landing.flight.leaves_out(block(3), altered());
        assert!(early.brings(block(2)).await.is_ok() && early.brings(block(3)).await.is_err());
        assert!(early.brings(all).await.is_err());

        let (late, again) = flights.join(all, GAP_0, |blocks| all_but(blocks, |block| block < 3));
        assert_eq!(starts(&again), vec![(3, 4)], "and nothing else is asked for twice");
        landing.flight.stored(8);
        landing.flight.leaves_out(block(8), altered());
        landing.flight.stored(10);
        landing.land(Err(altered()));
        assert!(late[0].brings(BlockRange { start: 3, end: 8 }).await.is_ok());
        assert!(late[0].brings(block(8)).await.is_err());
        assert!(early.brings(block(9)).await.is_ok(), "what was stored is there, whatever the end");
    }

    #[test]
    fn small_gaps_are_closed_and_large_runs_split() {
        let flights = Arc::new(Flights::default());
        let (_, started) = flights.join(BlockRange { start: 0, end: 10 }, GAP_1, |blocks| {
            all_but(blocks, |block| block == 4 || block > 6)
        });
        assert_eq!(starts(&started), vec![(0, 7)]);
        let end = 100 + MOST + 3;
        let (_, started) = flights.join(BlockRange { start: 100, end }, GAP_1, |blocks| vec![blocks]);
        assert_eq!(starts(&started), vec![(100, 100 + MOST), (100 + MOST, end)]);
    }
}
