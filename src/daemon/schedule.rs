//! When to sync. Pure: it is told what happens and when, and says at what moment the next round is due.

use std::time::{Duration, Instant};

use crate::sync::{Waits, wait_before};

/// What makes a mount publish what is local (F32).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Trigger {
    /// Something was changed, and for a moment nothing more was.
    #[default]
    OnChange,
    /// Many changes at once, few after some minutes.
    Smart,
    /// Every so often.
    Interval,
    /// Somebody says so.
    Manual,
}

impl Trigger {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnChange => "on-change",
            Self::Smart => "smart",
            Self::Interval => "interval",
            Self::Manual => "manual",
        }
    }
}

/// A text that names no trigger.
#[derive(Debug, thiserror::Error)]
#[error("a sync is triggered by one of on-change, smart, interval and manual")]
pub struct UnknownTrigger;

impl std::str::FromStr for Trigger {
    type Err = UnknownTrigger;

    fn from_str(text: &str) -> Result<Self, UnknownTrigger> {
        Ok(match text {
            "on-change" => Self::OnChange,
            "smart" => Self::Smart,
            "interval" => Self::Interval,
            "manual" => Self::Manual,
            _ => return Err(UnknownTrigger),
        })
    }
}

/// After a change, what follows so closely belongs to it: one revision (F39).
const DEBOUNCE: Duration = Duration::from_secs(2);
/// Whoever never stops changing something is not waited for longer than this.
const LONGEST_DEBOUNCE: Duration = Duration::from_secs(60);
/// So many changes are published at once by [`Trigger::Smart`]...
const MANY: u64 = 10;
/// ...and a single one when the last sync is so long ago.
const FEW_AFTER: Duration = Duration::from_secs(300);

/// After what is critical has been published, [`Trigger::Smart`] publishes the rest (F33).
const REST_AFTER: Duration = Duration::from_secs(60);

/// What a round is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What is critical; the rest comes later.
    Critical,
    /// All that is local.
    All,
}

/// When to sync.
#[derive(Debug, Clone)]
pub struct Schedule {
    trigger: Trigger,
    every: Duration,
    /// Some files are published before the others.
    has_critical: bool,
    /// When those others are due that the last round has left for later.
    rest: Option<Instant>,
    /// Changes since the last round began.
    changes: u64,
    first_change: Option<Instant>,
    last_change: Option<Instant>,
    /// When the last round that came to its end began; at first, when the mount did.
    synced: Instant,
    /// Rounds that failed, one after the other, and when the next may be.
    failures: u32,
    failed_in_passing: bool,
    /// The remote has asked for that pause.
    asked_for: bool,
    again: Option<Instant>,
    /// Until somebody ends it, no round is due.
    pub waits: Waits,
    /// A round is wanted whatever the trigger says: at the start, when the network is back, after a pause.
    wanted: bool,
}

impl Schedule {
    /// A mount begins.
    pub fn new(trigger: Trigger, every: Duration, now: Instant) -> Self {
        Self {
            trigger,
            every,
            has_critical: false,
            rest: None,
            changes: 0,
            first_change: None,
            last_change: None,
            synced: now,
            failures: 0,
            failed_in_passing: false,
            asked_for: false,
            again: None,
            waits: Waits::default(),
            wanted: trigger != Trigger::Manual,
        }
    }

    /// What makes it due.
    pub fn trigger(&self) -> Trigger {
        self.trigger
    }

    /// The same, where some files are published before the others.
    pub fn critical_first(self) -> Self {
        Self { has_critical: true, ..self }
    }

    /// What a round is about that is due now.
    pub fn scope(&self, now: Instant) -> Scope {
        let rest_is_due = self.rest.is_some_and(|rest| rest <= now);
        if self.has_critical && !rest_is_due { Scope::Critical } else { Scope::All }
    }

    /// So many changes were made.
    pub fn changed(&mut self, changes: u64, now: Instant) {
        if changes > 0 {
            self.changes += changes;
            self.first_change.get_or_insert(now);
            self.last_change = Some(now);
        }
    }

    /// What was paused goes on, with a round as soon as may be. By hand means by hand.
    pub fn goes_on(&mut self) {
        if self.trigger != Trigger::Manual {
            (self.wanted, self.again) = (true, None);
        }
    }

    /// The remote answers again, which it did not for a while: what has failed for want of it is tried at once.
    pub fn is_reachable(&mut self) {
        let tries = self.trigger != Trigger::Manual && !self.asked_for;
        if self.failures > 0 && self.failed_in_passing && tries {
            (self.wanted, self.again) = (true, None);
        }
    }

    /// A round begins: changes made from now on belong to the next.
    pub fn begins(&mut self, scope: Scope, now: Instant) {
        let later = if self.trigger == Trigger::Smart { REST_AFTER } else { Duration::ZERO };
        self.rest = match scope {
            // Whatever becomes critical meanwhile does not put the rest off.
            Scope::Critical => Some(self.rest.unwrap_or(now + later)),
            Scope::All => None,
        };
        self.changes = 0;
        (self.first_change, self.last_change, self.wanted, self.again) = (None, None, false, None);
    }

    /// A round that began at `began` came to its end.
    pub fn ended(&mut self, scope: Scope, began: Instant) {
        self.synced = began;
        // Where nothing is critical, a round says nothing of the remote.
        if scope == Scope::All {
            self.failures = 0;
        }
    }

    /// And nothing is left to be published.
    pub fn is_done(&mut self) {
        self.rest = None;
    }

    /// A round failed; the remote may have asked for a pause, and `chance` is below 1. What was to be published is still to be.
    pub fn failed(&mut self, now: Instant, in_passing: bool, asked: Option<Duration>, chance: f64) {
        // Asking again at once does not help with what does not pass.
        let wait =
            if in_passing { wait_before(self.failures, asked, chance) } else { self.every.max(DEBOUNCE) };
        (self.failures, self.failed_in_passing) = (self.failures.saturating_add(1), in_passing);
        self.asked_for = asked.is_some();
        // By hand means by hand.
        (self.wanted, self.again) = (self.trigger != Trigger::Manual, Some(now + wait));
    }

    /// Whether the mount ends with a round, so that nothing that is ready stays unpublished.
    pub fn ends_with_a_round(&self) -> bool {
        self.trigger != Trigger::Manual && self.waits == Waits::default()
    }

    /// When the next round is due, if nothing else happens; `now` or earlier: it is due. None: not before something happens.
    pub fn due(&self, now: Instant) -> Option<Instant> {
        if self.waits != Waits::default() {
            return None;
        }
        let regular = (self.trigger != Trigger::Manual).then(|| self.synced + self.every);
        let by_trigger = match (self.trigger, self.first_change.zip(self.last_change)) {
            (Trigger::OnChange, Some((first, last))) => Some((last + DEBOUNCE).min(first + LONGEST_DEBOUNCE)),
            (Trigger::Smart, Some(_)) if self.changes >= MANY => Some(now),
            (Trigger::Smart, Some(_)) => Some(self.synced + FEW_AFTER),
            _ => None,
        };
        let wanted = self.wanted.then_some(now);
        let next = [regular, by_trigger, wanted, self.rest].into_iter().flatten().min()?;
        Some(self.again.map_or(next, |again| next.max(again)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const EVERY: Duration = Duration::from_secs(300);

    /// One that has done what it does at the start.
    fn begun(trigger: Trigger) -> (Schedule, Instant) {
        let now = Instant::now();
        let mut schedule = Schedule::new(trigger, EVERY, now);
        schedule.begins(Scope::All, now);
        schedule.ended(Scope::All, now);
        (schedule, now)
    }

    #[test]
    fn f31_a_round_at_the_start_every_interval_and_when_the_remote_is_back() {
        for trigger in [Trigger::OnChange, Trigger::Smart, Trigger::Interval] {
            let start = Instant::now();
            assert_eq!(Schedule::new(trigger, EVERY, start).due(start), Some(start));
            let (mut schedule, now) = begun(trigger);
            assert_eq!(schedule.due(now), Some(now + EVERY));
            schedule.is_reachable();
            assert_eq!(schedule.due(now), Some(now + EVERY), "nothing had failed");
            schedule.begins(Scope::All, now);
            schedule.failed(now, true, None, 0.5);
            schedule.is_reachable();
            assert_eq!(schedule.due(now), Some(now));
            schedule.failed(now, true, Some(100 * SECOND), 0.5);
            schedule.is_reachable();
            assert_eq!(schedule.due(now), Some(now + 100 * SECOND), "it has asked for a pause");
        }
        let (mut schedule, now) = begun(Trigger::Manual);
        schedule.failed(now, true, None, 0.5);
        schedule.is_reachable();
        assert_eq!(schedule.due(now), None, "by hand means by hand");
    }

    #[test]
    fn f32_on_change_waits_until_nothing_more_is_changed() {
        let (mut schedule, now) = begun(Trigger::OnChange);
        schedule.changed(1, now);
        assert_eq!(schedule.due(now), Some(now + DEBOUNCE));
        schedule.changed(1, now + SECOND);
        assert_eq!(schedule.due(now), Some(now + SECOND + DEBOUNCE));
        for second in 2..100 {
            schedule.changed(1, now + second * SECOND);
        }
        assert_eq!(schedule.due(now), Some(now + LONGEST_DEBOUNCE), "whoever never stops is not waited for");
        schedule.begins(Scope::All, now);
        schedule.changed(1, now + 100 * SECOND);
        assert_eq!(schedule.due(now), Some(now + 100 * SECOND + DEBOUNCE), "made during a round: the next's");
    }

    #[test]
    fn f32_smart_publishes_many_at_once_and_few_later() {
        let (mut schedule, now) = begun(Trigger::Smart);
        schedule.changed(9, now + SECOND);
        assert_eq!(schedule.due(now + SECOND), Some(now + FEW_AFTER));
        schedule.changed(1, now + 2 * SECOND);
        assert_eq!(schedule.due(now + 2 * SECOND), Some(now + 2 * SECOND));
        schedule.begins(Scope::All, now);
        schedule.changed(3, now + 3 * SECOND);
        schedule.failed(now + 4 * SECOND, true, None, 0.5);
        schedule.changed(7, now + 4 * SECOND);
        assert_eq!(schedule.due(now + 4 * SECOND), Some(now + 5 * SECOND), "not while the remote is away");
    }

    #[test]
    fn f32_interval_and_manual_do_not_care_for_changes() {
        let (mut schedule, now) = begun(Trigger::Interval);
        schedule.changed(50, now);
        assert_eq!(schedule.due(now), Some(now + EVERY));
        let (mut schedule, now) = begun(Trigger::Manual);
        schedule.changed(50, now);
        assert_eq!(schedule.due(now), None);
        schedule.goes_on();
        assert_eq!(schedule.due(now), None, "by hand means by hand");
    }

    #[test]
    fn f33_what_is_critical_is_published_first_and_the_rest_later() {
        for (trigger, later) in [(Trigger::Smart, REST_AFTER), (Trigger::OnChange, Duration::ZERO)] {
            let (schedule, now) = begun(trigger);
            let mut schedule = schedule.critical_first();
            schedule.changed(20, now);
            let due = schedule.due(now).unwrap();
            assert_eq!(schedule.scope(due), Scope::Critical);
            schedule.begins(Scope::Critical, due);
            schedule.ended(Scope::Critical, due);
            assert_eq!((schedule.due(due), schedule.scope(due + later)), (Some(due + later), Scope::All));
            if trigger == Trigger::Smart {
                // What is changed meanwhile puts the rest off no further.
                let soon = due + 30 * SECOND;
                schedule.changed(10, soon);
                assert_eq!((schedule.due(soon), schedule.scope(soon)), (Some(soon), Scope::Critical));
                schedule.begins(Scope::Critical, soon);
                schedule.failed(soon, true, None, 0.5);
                assert_eq!(schedule.due(soon), Some(soon + SECOND), "tried again, as any");
                schedule.begins(Scope::Critical, soon + SECOND);
                schedule.ended(Scope::Critical, soon + SECOND);
                assert_eq!(schedule.due(soon + SECOND), Some(due + later));
            }
            schedule.begins(Scope::All, due + later);
            schedule.ended(Scope::All, due + later);
            assert_eq!(schedule.due(due + later), Some(due + later + EVERY));
            assert_eq!(schedule.scope(due + later + EVERY), Scope::Critical, "the next one begins anew");
        }
        let (mut schedule, now) = begun(Trigger::Smart);
        schedule.changed(20, now);
        assert_eq!(schedule.scope(now), Scope::All, "nothing is critical");
    }

    #[test]
    fn f34_with_nothing_critical_and_the_remote_away_it_is_tried_less_and_less_often_too() {
        for trigger in [Trigger::OnChange, Trigger::Smart] {
            let (schedule, mut now) = begun(trigger);
            let mut schedule = schedule.critical_first();
            schedule.changed(20, now);
            now = schedule.due(now).unwrap();
            for wait in [1, 2, 4, 8, 16, 32, 64, 64] {
                // Nothing is critical: this needs no remote, and comes to its end.
                while schedule.scope(now) == Scope::Critical {
                    schedule.begins(Scope::Critical, now);
                    schedule.ended(Scope::Critical, now);
                    now = schedule.due(now).unwrap();
                }
                schedule.begins(Scope::All, now);
                schedule.failed(now, true, None, 0.5);
                assert_eq!(schedule.due(now), Some(now + wait * SECOND), "{trigger:?}");
                now += wait * SECOND;
            }
        }
    }

    #[test]
    fn f34_what_failed_is_tried_again_for_ever_and_less_and_less_often() {
        let (mut schedule, mut now) = begun(Trigger::OnChange);
        for wait in [1, 2, 4, 8, 16, 32, 64, 64, 64] {
            schedule.begins(Scope::All, now);
            schedule.failed(now, true, None, 0.5);
            schedule.changed(1, now);
            assert_eq!(schedule.due(now), Some(now + wait * SECOND), "a change does not hurry it");
            now += wait * SECOND;
        }
        schedule.failed(now, true, Some(100 * SECOND), 0.5);
        assert_eq!(schedule.due(now), Some(now + 100 * SECOND));
        schedule.failed(now, false, None, 0.5);
        assert_eq!(schedule.due(now), Some(now + EVERY), "what does not pass is not asked for again at once");
        schedule.goes_on();
        assert!(schedule.due(now).is_some_and(|due| due <= now), "but when somebody says so");
        schedule.begins(Scope::All, now);
        schedule.ended(Scope::All, now);
        schedule.failed(now, true, None, 0.5);
        assert_eq!(schedule.due(now), Some(now + SECOND), "a success ends the waiting");
    }

    #[test]
    fn f39_nothing_is_due_between_begin_and_commit_nor_while_paused() {
        let (mut schedule, now) = begun(Trigger::OnChange);
        schedule.changed(1, now);
        schedule.waits.gathering = true;
        assert_eq!(schedule.due(now + 500 * SECOND), None);
        schedule.waits = Waits { paused: true, gathering: false };
        assert_eq!(schedule.due(now + 500 * SECOND), None);
        schedule.waits.paused = false;
        assert_eq!(schedule.due(now), Some(now + DEBOUNCE));
    }
}
