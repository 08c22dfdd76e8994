//! One scan, one revision: when a mount may move to the next revision, and which opens it must refuse afterwards. Pure:
//! the clock and the processes are passed in.
//!
//! A handle is *in use* while it is read, and for a moment after it was read or closed: a query opens one file after
//! another. A flip waits until nothing is in use, but not for ever. Whoever still holds a handle from before, and opens
//! a file that changed since, would see two revisions in one scan: it is refused, with ESTALE.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::PidfdFlags;

use crate::namespace::Flip;

/// A handle that was neither read nor closed for so long is not in use.
const QUIET: Duration = Duration::from_secs(2);
/// A flip waits no longer than this, whatever it is told.
const PATIENCE: Duration = Duration::from_secs(30);
/// Whoever is waited for may end before that.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
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
    /// The process of `opener`, where it could be found out: its threads may be gone when it is asked.
    process: Option<u32>,
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

    /// The process that opened it, where it could be found out.
    pub fn process(&self) -> Option<u32> {
        self.process
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

impl Scans {
    /// Notes a handle that is opened, by a thread of `process`.
    pub fn begin(&self, flip: Flip, opener: Pid, process: Option<u32>, now: Instant) -> Arc<Use> {
        let begun = Arc::new(Use {
            began: now,
            flip,
            opener,
            process,
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

    /// Whether a flip that has been wanted since `wanted`, and may wait for `patience`, may happen. A process that has ended
    /// opens nothing more.
    pub fn turn(
        &self,
        wanted: Instant,
        patience: Duration,
        now: Instant,
        has_ended: impl Fn(u32) -> bool,
    ) -> Turn {
        let patience = patience.min(PATIENCE);
        let waited = now.saturating_duration_since(wanted);
        let mut opens_more = opens_more(has_ended);
        let all = self.all();
        let idle =
            all.iter().filter(|one| one.idle(now) < QUIET && opens_more(one)).map(|one| one.idle(now)).min();
        match idle.filter(|_| waited < patience) {
            Some(idle) => Turn::Wait((QUIET - idle).min(patience - waited).min(LOOK_AGAIN)),
            None => Turn::Now,
        }
    }

    /// The oldest flip that a scan which may still go on began with.
    pub fn oldest(&self, now: Instant, has_ended: impl Fn(u32) -> bool) -> Option<Flip> {
        let mut opens_more = opens_more(has_ended);
        self.all().iter().filter(|one| one.may_go_on(now) && opens_more(one)).map(|one| one.flip).min()
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
        older.iter().any(|one| one.opener == opener || (process.is_some() && process == one.process))
    }

    fn all(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Use>>> {
        self.0.lock().unwrap_or_else(|e| e.into_inner())
    }
}

/// Whether whoever has a handle, or had one, may open more. Each process is asked after once.
fn opens_more(has_ended: impl Fn(u32) -> bool) -> impl FnMut(&Use) -> bool {
    let mut ended = HashMap::new();
    move |one: &Use| match one.process {
        Some(process) if one.is_closed() => !*ended.entry(process).or_insert_with(|| has_ended(process)),
        _ => true,
    }
}

/// Whether there is no such process any more.
pub fn has_ended(process: u32) -> bool {
    !std::path::Path::new(&format!("/proc/{process}")).exists()
}

/// The process a thread belongs to.
pub fn process_of(thread: Pid) -> Option<u32> {
    // Most opens are by a process's first thread, which has its number; no other has a descriptor of this kind.
    let first = rustix::process::Pid::from_raw(i32::try_from(thread.0).ok()?)?;
    if rustix::process::pidfd_open(first, PidfdFlags::empty()).is_ok() {
        return Some(thread.0);
    }
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
        let turn = |wanted, patience, now| scans.turn(wanted, patience, now, |process| process == 30);
        assert_eq!(turn(start, PATIENCE, start), Turn::Now);
        let one = scans.begin(OLD, Pid(10), process_of(Pid(10)), start);
        for (wanted, now, expected) in [
            (0.0, 0.0, Turn::Wait(LOOK_AGAIN)),
            (0.5, 1.95, Turn::Wait(seconds(0.05))),
            (0.0, 2.0, Turn::Now),
        ] {
            assert_eq!(turn(at(wanted), PATIENCE, at(now)), expected, "wanted {wanted}, now {now}");
        }
        one.touch(at(10.0));
        assert_eq!(turn(at(9.0), PATIENCE, at(11.0)), Turn::Wait(LOOK_AGAIN));
        one.close(at(11.5));
        assert_eq!(turn(at(9.0), PATIENCE, at(12.0)), Turn::Wait(LOOK_AGAIN), "the next file may follow");
        assert_eq!(turn(at(9.0), PATIENCE, at(13.5)), Turn::Now);
        let busy = scans.begin(OLD, Pid(10), process_of(Pid(10)), at(20.0));
        for n in 20..49 {
            busy.touch(at(f64::from(n)));
            assert!(matches!(turn(at(20.0), PATIENCE, at(f64::from(n))), Turn::Wait(_)), "{n}");
        }
        busy.touch(at(49.5));
        assert_eq!(turn(at(20.0), PATIENCE, at(49.5)), Turn::Wait(LOOK_AGAIN));
        busy.touch(at(50.0));
        assert_eq!(turn(at(20.0), PATIENCE, at(50.0)), Turn::Now, "30 s are enough");
        let patience = seconds(0.5);
        assert_eq!(turn(at(49.55), patience, at(50.0)), Turn::Wait(seconds(0.05)));
        assert_eq!(turn(at(49.5), patience, at(50.0)), Turn::Now);
    }

    #[test]
    fn nobody_waits_for_a_process_that_has_ended() {
        let start = Instant::now();
        let turn = |scans: &Scans| scans.turn(start, PATIENCE, start, |process| process == 10);
        let scans = Scans::default();
        scans.begin(OLD, Pid(99), None, start).close(start);
        assert_eq!(turn(&scans), Turn::Wait(LOOK_AGAIN), "nobody knows whose it was");
        let scans = Scans::default();
        scans.begin(OLD, Pid(11), process_of(Pid(11)), start).close(start);
        assert_eq!(turn(&scans), Turn::Now);
        let open = scans.begin(OLD, Pid(12), process_of(Pid(12)), start);
        assert_eq!(turn(&scans), Turn::Wait(LOOK_AGAIN), "another has it open still");
        open.close(start);
        assert_eq!(turn(&scans), Turn::Now);
        scans.begin(OLD, Pid(21), process_of(Pid(21)), start).close(start);
        assert_eq!(turn(&scans), Turn::Wait(LOOK_AGAIN), "that one goes on");
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
            let one = scans.begin(OLD, Pid(11), process_of(Pid(11)), start);
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
        assert_eq!(scans.oldest(start, |_| false), None);
        let old = scans.begin(OLD, Pid(10), process_of(Pid(10)), start);
        scans.begin(NEW, Pid(20), process_of(Pid(20)), at(20.0));
        assert_eq!(
            [1.0, 29.0, 31.0, 51.0].map(|n| scans.oldest(at(n), |_| false)),
            [Some(OLD), Some(OLD), Some(NEW), None]
        );
        old.close(at(40.0));
        assert_eq!([41.0, 43.0].map(|n| scans.oldest(at(n), |_| false)), [Some(OLD), Some(NEW)]);
        assert_eq!(
            scans.oldest(at(41.0), |process| process == 10),
            Some(NEW),
            "nothing more is opened by it"
        );
    }

    #[test]
    fn a_thread_that_has_ended_still_belongs_to_its_process() {
        let start = Instant::now();
        let scans = Scans::default();
        scans.begin(OLD, Pid(99), Some(10), start);
        assert!(scans.would_mix(Pid(12), NEW, start, process_of));
        assert!(!scans.would_mix(Pid(22), NEW, start, process_of));
    }

    #[test]
    fn closed_handles_are_not_kept_for_ever() {
        let (start, scans) = (Instant::now(), Scans::default());
        for n in 0..100_000_u32 {
            let now = start + Duration::from_millis(u64::from(n) * 10);
            scans.begin(OLD, Pid(n), process_of(Pid(n)), now).close(now);
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
