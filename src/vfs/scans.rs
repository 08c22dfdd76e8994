//! One scan, one revision: when a mount may move to the next revision, and which opens it must refuse afterwards. Pure:
//! the clock and the processes are passed in.
//!
//! A handle is *in use* while it is read, and for a moment after it was read or closed: a query opens one file after
//! another. A flip waits until nothing is in use, but not for ever. Whoever still holds a handle from before, and opens
//! a file that changed since, would see two revisions in one scan: it is refused, with ESTALE.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::namespace::Flip;

/// A handle that was neither read nor closed for so long is not in use.
const QUIET: Duration = Duration::from_secs(2);
/// A flip waits no longer than this, whatever it is told.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the kernel reads from its own pages is not seen here: an open handle counts for so long after it was last seen
/// read when it is asked whether a process sees two revisions.
const REMEMBERED: Duration = Duration::from_secs(30);

/// A process or one of its threads, as the kernel numbers them; 0 where it cannot be named here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pid(pub u32);

/// Whether a flip may happen now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is in use, or it has waited long enough.
    Now,
    /// Something is: ask again after so long.
    Wait(Duration),
}

/// One handle's use.
#[derive(Debug)]
pub struct Use {
    began: Instant,
    flip: Flip,
    opener: Pid,
    /// The process of `opener`, where it was looked up; else `u32::MAX`.
    process: AtomicU32,
    /// Milliseconds after `began`.
    last: AtomicU64,
    closed: AtomicBool,
}

impl Use {
    /// Notes that it is read.
    pub fn touch(&self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.began).as_millis();
        self.last.store(u64::try_from(elapsed).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Notes that it is closed.
    pub fn close(&self, now: Instant) {
        self.touch(now);
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Who opened it.
    pub fn opener(&self) -> Pid {
        self.opener
    }

    fn idle(&self, now: Instant) -> Duration {
        let since_began = now.saturating_duration_since(self.began);
        since_began.saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Whether what it read may be part of a scan that still goes on.
    fn may_go_on(&self, now: Instant) -> bool {
        self.idle(now) < if self.is_closed() { QUIET } else { REMEMBERED }
    }
}

/// All handles that are open or were just closed.
#[derive(Debug, Default)]
pub struct Scans(Mutex<Vec<Arc<Use>>>);

const UNKNOWN: u32 = u32::MAX;

impl Scans {
    /// Notes a handle that is opened.
    pub fn begin(&self, flip: Flip, opener: Pid, now: Instant) -> Arc<Use> {
        let begun = Arc::new(Use {
            began: now,
            flip,
            opener,
            process: AtomicU32::new(UNKNOWN),
            last: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        });
        let mut all = self.all();
        // Cleared when it would grow, so that it costs little each time.
        if all.len() == all.capacity() {
            all.retain(|other| !other.is_closed() || other.idle(now) < QUIET);
        }
        all.push(begun.clone());
        begun
    }

    /// Whether a flip that has been wanted since `wanted`, and may wait for `patience`, may happen.
    pub fn turn(&self, wanted: Instant, patience: Duration, now: Instant) -> Turn {
        let patience = patience.min(PATIENCE);
        let waited = now.saturating_duration_since(wanted);
        let idle = self.all().iter().map(|one| one.idle(now)).min();
        match idle.filter(|idle| *idle < QUIET && waited < patience) {
            Some(idle) => Turn::Wait((QUIET - idle).min(patience - waited)),
            None => Turn::Now,
        }
    }

    /// The oldest flip that a scan which may still go on began with.
    pub fn oldest(&self, now: Instant) -> Option<Flip> {
        self.all().iter().filter(|one| one.may_go_on(now)).map(|one| one.flip).min()
    }

    /// Notes, at a flip, which processes use something: their threads may be gone when it is asked.
    pub fn name_processes(&self, now: Instant, process_of: impl Fn(Pid) -> Option<u32>) {
        for one in self.all().iter().filter(|one| one.may_go_on(now)) {
            if one.process.load(Ordering::Relaxed) == UNKNOWN
                && let Some(process) = process_of(one.opener)
            {
                one.process.store(process, Ordering::Relaxed);
            }
        }
    }

    /// Whether `opener`, by opening what the flip `since` brought, would see two revisions in one scan.
    pub fn would_mix(
        &self,
        opener: Pid,
        since: Flip,
        now: Instant,
        process_of: impl Fn(Pid) -> Option<u32>,
    ) -> bool {
        if since == Flip::default() {
            return false;
        }
        let older: Vec<Arc<Use>> =
            self.all().iter().filter(|one| one.flip < since && one.may_go_on(now)).cloned().collect();
        if older.is_empty() {
            return false;
        }
        let process = process_of(opener);
        older.iter().any(|one| {
            let other = match one.process.load(Ordering::Relaxed) {
                UNKNOWN => process_of(one.opener),
                known => Some(known),
            };
            one.opener == opener || (process.is_some() && process == other)
        })
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Use>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// The process a thread belongs to.
pub fn process_of(thread: Pid) -> Option<u32> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", thread.0)).ok()?;
    status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: Flip = Flip(4);
    const NEW: Flip = Flip(5);

    fn seconds(n: f64) -> Duration {
        Duration::from_secs_f64(n)
    }

    /// Threads 10..19 are process 10's, and so on; 99 is gone.
    fn process_of(thread: Pid) -> Option<u32> {
        (thread.0 != 99).then_some(thread.0 / 10 * 10)
    }

    #[test]
    fn a_flip_waits_for_a_quiet_moment_and_not_for_ever() {
        let start = Instant::now();
        let at = |n: f64| start + seconds(n);
        let scans = Scans::default();
        assert_eq!(scans.turn(start, PATIENCE, start), Turn::Now);
        let one = scans.begin(OLD, Pid(10), start);
        for (wanted, now, expected) in [
            (0.0, 0.0, Turn::Wait(seconds(2.0))),
            (0.5, 1.5, Turn::Wait(seconds(0.5))),
            (0.0, 2.0, Turn::Now),
        ] {
            assert_eq!(scans.turn(at(wanted), PATIENCE, at(now)), expected, "wanted {wanted}, now {now}");
        }
        one.touch(at(10.0));
        assert_eq!(scans.turn(at(9.0), PATIENCE, at(11.0)), Turn::Wait(seconds(1.0)));
        one.close(at(11.5));
        assert_eq!(
            scans.turn(at(9.0), PATIENCE, at(12.0)),
            Turn::Wait(seconds(1.5)),
            "the next file may follow"
        );
        assert_eq!(scans.turn(at(9.0), PATIENCE, at(13.5)), Turn::Now);
        let busy = scans.begin(OLD, Pid(10), at(20.0));
        for n in 20..49 {
            busy.touch(at(f64::from(n)));
            assert!(matches!(scans.turn(at(20.0), PATIENCE, at(f64::from(n))), Turn::Wait(_)), "{n}");
        }
        busy.touch(at(49.5));
        assert_eq!(scans.turn(at(20.0), PATIENCE, at(49.5)), Turn::Wait(seconds(0.5)));
        busy.touch(at(50.0));
        assert_eq!(scans.turn(at(20.0), PATIENCE, at(50.0)), Turn::Now, "30 s are enough");
        let patience = seconds(0.5);
        assert_eq!(scans.turn(at(49.8), patience, at(50.0)), Turn::Wait(seconds(0.3)));
        assert_eq!(scans.turn(at(49.5), patience, at(50.0)), Turn::Now);
    }

    #[test]
    fn a_process_in_a_scan_of_the_old_revision_does_not_get_the_new_one() {
        let start = Instant::now();
        let at = |n: f64| start + seconds(n);
        // Opened by thread 11; read until second 10; closed at 12, or not.
        for (closed, opener, since, now, mixes) in [
            (false, 11, NEW, 11.0, true),
            (false, 12, NEW, 11.0, true),
            (false, 12, NEW, 39.0, true),
            (false, 12, NEW, 40.5, false),
            (false, 12, OLD, 11.0, false),
            (false, 12, Flip(0), 11.0, false),
            (false, 21, NEW, 11.0, false),
            (false, 99, NEW, 11.0, false),
            (true, 12, NEW, 13.0, true),
            (true, 12, NEW, 14.5, false),
        ] {
            let scans = Scans::default();
            let one = scans.begin(OLD, Pid(11), start);
            one.touch(at(10.0));
            if closed {
                one.close(at(12.0));
            }
            let found = scans.would_mix(Pid(opener), since, at(now), process_of);
            assert_eq!(found, mixes, "closed {closed}, thread {opener}, {since:?}, second {now}");
        }
    }

    #[test]
    fn what_a_scan_began_with_is_remembered_while_it_may_go_on() {
        let start = Instant::now();
        let at = |n: f64| start + seconds(n);
        let scans = Scans::default();
        assert_eq!(scans.oldest(start), None);
        let old = scans.begin(OLD, Pid(10), start);
        scans.begin(NEW, Pid(20), at(20.0));
        assert_eq!(
            [1.0, 29.0, 31.0, 51.0].map(|n| scans.oldest(at(n))),
            [Some(OLD), Some(OLD), Some(NEW), None]
        );
        old.close(at(40.0));
        assert_eq!([41.0, 43.0].map(|n| scans.oldest(at(n))), [Some(OLD), Some(NEW)]);
    }

    #[test]
    fn a_thread_that_has_ended_still_belongs_to_its_process() {
        let start = Instant::now();
        let scans = Scans::default();
        scans.begin(OLD, Pid(99), start);
        assert!(!scans.would_mix(Pid(12), NEW, start, process_of));
        scans.name_processes(start, |thread| (thread == Pid(99)).then_some(10));
        assert!(scans.would_mix(Pid(12), NEW, start, process_of));
        assert!(!scans.would_mix(Pid(22), NEW, start, process_of));
    }

    #[test]
    fn closed_handles_are_not_kept_for_ever() {
        let (start, scans) = (Instant::now(), Scans::default());
        for n in 0..100_000_u32 {
            let now = start + Duration::from_millis(u64::from(n) * 10);
            scans.begin(OLD, Pid(n), now).close(now);
        }
        assert!(scans.all().len() < 2000, "{}", scans.all().len());
    }

    #[test]
    fn this_thread_belongs_to_this_process() {
        let thread = std::thread::spawn(|| rustix::thread::gettid().as_raw_nonzero().get()).join().unwrap();
        let me = std::process::id();
        assert!(super::process_of(Pid(thread as u32)).is_none_or(|process| process == me));
        assert_eq!(super::process_of(Pid(rustix::thread::gettid().as_raw_nonzero().get() as u32)), Some(me));
    }
}
