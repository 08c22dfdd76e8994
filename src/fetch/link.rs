//! What the link to the remote can carry, measured from what it did carry. Pure: the time is passed in.

use std::time::Duration;

use tokio::time::Instant;

use crate::cache::BLOCK;

/// Bytes are counted over stretches of this length; the fastest one is the bandwidth.
const STRETCH: Duration = Duration::from_millis(50);
/// A measurement is believed for one to two of these: links change.
const EPOCH: Duration = Duration::from_secs(10);
/// Taken for the latency until one was measured.
const UNKNOWN_LATENCY: Duration = Duration::from_millis(30);
/// May be under way ahead of readers until the link was measured.
const UNKNOWN: u64 = 8 << 20;
/// The least: with less a fast reader would be held up by our own carefulness.
const LEAST: u64 = 1 << 20;
/// The most: what fetching may hold in memory is decided elsewhere.
pub(super) const MOST: u64 = 64 << 20;
/// One request is for no more: its bytes come in order, and the next can be asked of another connection.
pub(super) const ONE_REQUEST: u64 = 4 << 20;
/// What a server and we take to turn a request around, beside the way there and back.
const TURNAROUND: Duration = Duration::from_millis(10);

/// What a connection may send in its first round trip where TCP starts slowly: ten segments (RFC 6928).
const FIRST_WINDOW: u64 = 14_600;
/// After such a silence it may send no more than at first.
const SILENCE: Duration = Duration::from_secs(1);
/// Slow start is taken for over when so many answers over fresh connections after the last one that met it did not.
const RAMPS: u8 = 8;
/// Nothing was seen yet: new connections begin slowly nearly everywhere. A few answers at once do not refute it: they
/// may have come over a connection that had carried something before.
const SUSPECTED: u8 = 3;

/// A value that is replaced when a better one comes, and forgotten when it is old.
#[derive(Debug, Default, Clone, Copy)]
struct Best<T> {
    now: Option<T>,
    before: Option<T>,
    since: Option<Instant>,
}

impl<T: Copy> Best<T> {
    fn offer(&mut self, at: Instant, value: T, better: impl Fn(T, T) -> bool) {
        if self.since.is_none_or(|since| at.duration_since(since) >= EPOCH) {
            (self.before, self.now, self.since) = (self.now, None, Some(at));
        }
        if self.now.is_none_or(|best| better(value, best)) {
            self.now = Some(value);
        }
    }

    fn get(&self, better: impl Fn(T, T) -> bool) -> Option<T> {
        match (self.now, self.before) {
            (Some(now), Some(before)) => Some(if better(now, before) { now } else { before }),
            (now, before) => now.or(before),
        }
    }
}

/// The bytes of one answer, by the silences of about a round trip in between. A connection that begins, or was silent,
/// brings little in its first round trip and twice as much in each further one: TCP's slow start. Several connections
/// would bring the same in fewer round trips.
#[derive(Debug, Default)]
pub(super) struct Bursts(Vec<u64>, Option<Instant>);

impl Bursts {
    /// Bytes came. `true`: after a silence of `apart`, or as the first.
    pub(super) fn arrived(&mut self, at: Instant, bytes: u64, apart: Duration) -> bool {
        let is_close = self.1.replace(at).is_some_and(|before| at.duration_since(before) < apart);
        match self.0.last_mut() {
            Some(burst) if is_close => *burst += bytes,
            _ => self.0.push(bytes),
        }
        !is_close
    }

    /// Whether it began with little, and at least `least` of them, the last one excepted, each were half as large again
    /// as the one before.
    fn is_ramp(&self, least: usize) -> bool {
        /// Hardly a server begins with more.
        const LITTLE: u64 = 48 << 10;
        let ended = self.0.split_last().map_or(&[][..], |(_, ended)| ended);
        let pairs = ended.iter().zip(ended.iter().skip(1));
        ended.len() >= least
            && ended.first().is_none_or(|first| *first <= LITTLE)
            && pairs.into_iter().all(|(before, after)| *after * 2 >= *before * 3)
    }
}

/// Latency and bandwidth of a link.
#[derive(Debug)]
pub(super) struct Link {
    latency: Best<Duration>,
    /// Bytes a second.
    bandwidth: Best<u64>,
    stretch: Option<(Instant, u64)>,
    /// Bytes that came since the last silence, and when the last ones came.
    lately: u64,
    last: Option<Instant>,
    /// Above 0: of late, answers began slowly, or may begin so.
    ramps: u8,
}

impl Default for Link {
    fn default() -> Self {
        Self {
            latency: Best::default(),
            bandwidth: Best::default(),
            stretch: None,
            lately: 0,
            last: None,
            ramps: SUSPECTED,
        }
    }
}

impl Link {
    /// A burst of an answer has begun. `true`: this shows, as nothing did of late, that answers meet slow start.
    pub(super) fn burst_began(&mut self, bursts: &Bursts) -> bool {
        let was_known = self.ramps > SUSPECTED;
        // Who expects it needs less to see it again.
        if self.is_far() && bursts.is_ramp(if self.ramps > 0 { 1 } else { 3 }) {
            self.ramps = RAMPS;
        }
        self.ramps > SUSPECTED && !was_known
    }

    /// An answer is complete.
    pub(super) fn completed(&mut self, bursts: &Bursts, open: usize) {
        /// Connections that may send so much at once say little of how they began.
        const FRESH: u64 = 64 << 10;
        let is_witness = self.window(open) <= FRESH && bursts.0.iter().sum::<u64>() >= 2 * FIRST_WINDOW;
        if self.ramps > 0 && is_witness && !bursts.is_ramp(1) {
            self.ramps -= 1;
        }
    }

    /// What one of so many connections may send at once where they begin slowly: at first little, and then as much more
    /// as it has brought since.
    fn window(&self, open: usize) -> u64 {
        FIRST_WINDOW + self.lately / open.max(1) as u64
    }

    fn has_slow_start(&self) -> bool {
        self.ramps > 0 && self.is_far()
    }

    /// Of nearby servers, a few round trips more do not matter; and any busy moment looks like them.
    pub(super) fn is_far(&self) -> bool {
        self.latency() >= Duration::from_millis(5)
    }

    /// How many bytes one request should bring of `wanted`, if so many connections are open and so many of them have
    /// nothing to do.
    pub(super) fn one_request(&self, wanted: u64, open: usize, idle: usize) -> u64 {
        const PARTS: u64 = 96;
        if !self.has_slow_start() {
            return ONE_REQUEST;
        }
        // In two round trips a connection brings three times as much as in its first, in three seven times.
        let window = self.window(open);
        let quick = 3 * window;
        let bytes = if wanted <= quick.saturating_mul(idle as u64) { quick } else { 7 * window };
        let bytes = bytes.max(wanted / PARTS);
        (bytes - bytes % BLOCK).clamp(BLOCK, ONE_REQUEST)
    }

    /// How many connections are worth having ready.
    pub(super) fn connections(&self, usual: usize) -> usize {
        if self.has_slow_start() { 4 * usual } else { usual }
    }

    /// A request's answer began `after` it was sent.
    pub(super) fn answered(&mut self, at: Instant, after: Duration) {
        self.latency.offer(at, after, |a, b| a < b);
    }

    /// Bytes came in.
    pub(super) fn arrived(&mut self, at: Instant, bytes: u64) {
        if self.last.replace(at).is_none_or(|last| at.duration_since(last) > SILENCE) {
            self.lately = 0;
        }
        self.lately += bytes;
        let Some((since, so_far)) = &mut self.stretch else {
            self.stretch = Some((at, bytes));
            return;
        };
        let length = at.duration_since(*since);
        if length < STRETCH {
            *so_far += bytes;
            return;
        }
        // A stretch that was mostly silence says little, and does no harm: only the fastest counts.
        let rate = (*so_far + bytes) as f64 / length.as_secs_f64();
        self.stretch = Some((at, 0));
        self.bandwidth.offer(at, rate as u64, |a, b| a > b);
    }

    /// From a request to the first byte of its answer.
    pub(super) fn latency(&self) -> Duration {
        self.latency.get(|a, b| a < b).unwrap_or(UNKNOWN_LATENCY)
    }

    /// How many bytes may be under way at once, what readers wait for included, before more would only queue: twice
    /// what the link holds.
    pub(super) fn room(&self) -> u64 {
        let Some(bandwidth) = self.bandwidth.get(|a, b| a > b) else { return UNKNOWN };
        let holds = bandwidth as f64 * (self.latency() + TURNAROUND).as_secs_f64();
        // What came in slow start says little of what could come.
        let least = if self.ramps > SUSPECTED { UNKNOWN } else { LEAST };
        (2.0 * holds).clamp(least as f64, MOST as f64) as u64
    }

    /// Bytes that are fetched along rather than asked for around: a small part of what passes while one more
    /// request would be under way.
    pub(super) fn worth_joining(&self) -> u64 {
        const LEAST_GAP: u64 = 32 << 10;
        (self.room() / 256).clamp(LEAST_GAP, 8 * LEAST_GAP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A link of `rate` bytes a second, seen for `seconds`.
    fn seen(rate: u64, latency: Duration, seconds: f64) -> Link {
        let (mut link, start) = (Link::default(), Instant::now());
        link.answered(start, latency);
        let pieces = (seconds * 1000.0) as u64;
        for millisecond in 0..pieces {
            link.arrived(start + Duration::from_millis(millisecond), rate / 1000);
        }
        link
    }

    #[test]
    fn room_is_twice_what_the_link_holds() {
        assert_eq!(Link::default().room(), UNKNOWN);
        let gigabit = seen(125_000_000, Duration::from_millis(50), 1.0);
        let holds = 125_000_000.0 * 0.060;
        let room = gigabit.room() as f64;
        assert!((1.9 * holds..2.2 * holds).contains(&room), "{room}");
        assert_eq!(
            seen(1_000_000, Duration::from_millis(20), 1.0).room(),
            LEAST,
            "a slow link is not stuffed"
        );
        assert_eq!(
            seen(10_000_000_000, Duration::from_millis(200), 1.0).room(),
            MOST,
            "and there is an end to it"
        );
    }

    #[test]
    fn an_answer_that_comes_slowly_at_first_is_split_next_time() {
        let (mut link, start) = (Link::default(), Instant::now());
        let at = |round: u64| start + Duration::from_millis(50 * round);
        link.answered(start, Duration::from_millis(50));
        let see = |link: &mut Link, pieces: &[(u64, u64)]| {
            let mut bursts = Bursts::default();
            let mut news = false;
            for (round, bytes) in pieces {
                if bursts.arrived(at(*round), *bytes, link.latency() / 2) {
                    news |= link.burst_began(&bursts);
                }
            }
            link.completed(&bursts, 8);
            news
        };
        let steady: Vec<_> = (0..10).map(|round| (round, 50_000)).collect();
        assert_eq!(link.one_request(500_000, 8, 8), 96 << 10, "as long as nothing is known");
        assert_eq!(link.one_request(500_000, 16, 16), 5 * BLOCK, "each over a connection of its own");
        for _ in 0..SUSPECTED {
            assert!(link.has_slow_start());
            assert!(!see(&mut link, &steady));
        }
        assert_eq!(link.one_request(500_000, 16, 16), ONE_REQUEST, "a slow link is not slow start");
        let ramp: Vec<_> = (0..5).map(|round| (round, 14_600 << round)).collect();
        assert!(see(&mut link, &ramp));
        assert_eq!(link.one_request(500_000, 0, 0), 96 << 10);
        assert_eq!(link.one_request(1 << 30, 0, 0), ONE_REQUEST);
        assert!(!see(&mut link, &ramp[..3]), "it was known");
        let at_once = [(0, 500_000), (0, 100_000)];
        for _ in 0..RAMPS {
            assert!(link.has_slow_start());
            see(&mut link, &at_once);
        }
        assert_eq!(link.one_request(500_000, 0, 0), ONE_REQUEST, "not any more");
    }

    #[test]
    fn connections_that_brought_much_are_asked_for_more_until_a_silence() {
        let (mut link, start) = (Link::default(), Instant::now());
        link.answered(start, Duration::from_millis(50));
        let at = |milliseconds: u64| start + Duration::from_millis(milliseconds);
        link.arrived(at(0), 6 << 20);
        let window = FIRST_WINDOW + (1 << 20);
        let asked = link.one_request(100 << 20, 6, 0);
        assert_eq!(asked, ONE_REQUEST.min(7 * window - 7 * window % BLOCK));
        let at_once = |link: &mut Link| {
            let mut bursts = Bursts::default();
            bursts.arrived(at(900), 5 << 20, Duration::from_millis(25));
            link.completed(&bursts, 6);
        };
        for _ in 0..100 {
            at_once(&mut link);
        }
        assert!(link.has_slow_start(), "they say nothing of how they began");
        link.arrived(at(2000), 60_000);
        assert_eq!(
            link.one_request(400_000, 6, 0),
            7 * (FIRST_WINDOW + 10_000) - 7 * (FIRST_WINDOW + 10_000) % BLOCK
        );
    }

    #[test]
    fn old_measurements_are_forgotten() {
        let (mut link, start) = (Link::default(), Instant::now());
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        link.answered(at(0), Duration::from_millis(5));
        link.answered(at(11), Duration::from_millis(80));
        assert_eq!(link.latency(), Duration::from_millis(5));
        link.answered(at(22), Duration::from_millis(90));
        assert_eq!(link.latency(), Duration::from_millis(80));
    }
}
