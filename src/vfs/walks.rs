//! Who opens one file after another, and which come next. Pure: files are ranks in the order in which they are listed,
//! and the clock is passed in.
//!
//! A *walk* is recognised by its last few opens, whichever processes and threads they came from: they lie close
//! together, as when a glob is read by several threads, or at equal distances, as when every tenth file is looked at
//! or one in each partition, forward or backward. At first one file is foreseen, then one more for each that was
//! opened; so hardly more has been fetched for nothing than was of use. What is passed by ends it, and then a walk must
//! show itself longer before it is believed again.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::namespace::Rank;

/// Walks told apart.
const WALKS: usize = 8;
/// A walk that has opened nothing for so long is over.
const OVER: Duration = Duration::from_secs(10);
/// An open belongs to a walk that was last this near.
const NEAR: i64 = 1024;
/// Opens of a walk that are remembered.
const REMEMBERED: usize = 64;
/// So many opens show a walk.
const EVIDENCE: usize = 3;
/// No walk has to show itself longer than this.
const MOST_EVIDENCE: usize = 24;
/// Most files foreseen and not opened yet.
const MOST_AHEAD: usize = 64;
/// Places looked at for something worth fetching, at each open.
const LOOKS: usize = 128;
/// Readers of a glob are not out of step by more than this.
const OUT_OF_STEP: i64 = 32;
/// So many opens without one that was foreseen, and it was foreseen wrongly.
const IN_VAIN: usize = 16;

/// Whether a file that is opened needs something from the remote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lacks {
    /// Yes.
    Something,
    /// It is all here.
    Nothing,
}

/// What a file is that may be opened next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Prospect {
    /// Something of it is worth fetching.
    Worth,
    /// Nothing is, and the walk may go on behind it.
    Pass,
    /// Here the walk ends, or there is no room for more.
    End,
}

/// The walks under way.
#[derive(Debug, Default)]
pub(super) struct Walks(VecDeque<Walk>);

#[derive(Debug)]
struct Walk {
    touched: Instant,
    /// What was opened, once each, the latest last.
    opened: VecDeque<i64>,
    /// What was foreseen and not opened yet.
    foreseen: Vec<Foreseen>,
    /// What was foreseen and opened since it was last wrong.
    right: usize,
    /// Opens since then that were not foreseen, while something was.
    in_vain: usize,
    /// So many opens must agree.
    evidence: usize,
}

#[derive(Debug, Clone, Copy)]
struct Foreseen {
    rank: i64,
    step: f64,
}

/// Where a walk goes.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Course {
    /// The first of the opens that show it.
    first: i64,
    /// How far it has come.
    at: i64,
    /// From one file to the next.
    step: f64,
}

impl Walks {
    /// Takes note that a file was opened, and says which will be. `look` says what stands at a rank, if the walk comes
    /// from another; what it finds worth fetching is taken for fetched.
    pub(super) fn opened(
        &mut self,
        rank: Rank,
        lacks: Lacks,
        now: Instant,
        mut look: impl FnMut(Rank, Rank) -> Prospect,
    ) -> Vec<Rank> {
        let rank = i64::from(rank.0);
        let mut walk = self.take(rank, now);
        let foreseen = walk.note(rank, now);
        let next = if foreseen || lacks == Lacks::Something { walk.next(&mut look) } else { Vec::new() };
        self.0.push_back(walk);
        next
    }

    /// The walk that an open belongs to, or a new one.
    fn take(&mut self, rank: i64, now: Instant) -> Walk {
        self.0.retain(|walk| now.saturating_duration_since(walk.touched) < OVER);
        let nearest = (0..self.0.len()).min_by_key(|at| self.0[*at].distance(rank));
        if let Some(at) = nearest.filter(|at| self.0[*at].distance(rank) <= NEAR)
            && let Some(walk) = self.0.remove(at)
        {
            return walk;
        }
        if self.0.len() == WALKS {
            self.0.pop_front();
        }
        Walk {
            touched: now,
            opened: VecDeque::new(),
            foreseen: Vec::new(),
            right: 0,
            in_vain: 0,
            evidence: EVIDENCE,
        }
    }
}

impl Walk {
    fn distance(&self, rank: i64) -> i64 {
        let last = self.opened.back().map_or(i64::MAX, |last| (rank - last).abs());
        let foreseen = self.foreseen.iter().map(|foreseen| (rank - foreseen.rank).abs()).min();
        last.min(foreseen.unwrap_or(i64::MAX))
    }

    /// Takes note of an open, and says whether it was foreseen.
    fn note(&mut self, rank: i64, now: Instant) -> bool {
        self.touched = now;
        let foreseen = self.foreseen.iter().position(|foreseen| foreseen.rank == rank);
        if let Some(at) = foreseen {
            self.foreseen.swap_remove(at);
            (self.right, self.in_vain) = (self.right + 1, 0);
            if self.right > EVIDENCE {
                self.evidence = EVIDENCE;
            }
        }
        // Engines open a file again for each thing they want of it.
        if self.opened.contains(&rank) {
            return false;
        }
        if self.opened.len() == REMEMBERED {
            self.opened.pop_front();
        }
        self.opened.push_back(rank);
        if foreseen.is_none() && !self.foreseen.is_empty() {
            self.in_vain += 1;
        }
        let mut passed = false;
        self.foreseen.retain(|foreseen| {
            let by = (rank - foreseen.rank) * if foreseen.step < 0.0 { -1 } else { 1 };
            let near = tolerance(foreseen.step);
            let so_far = if is_run(foreseen.step) { OUT_OF_STEP as f64 } else { near };
            passed |= by as f64 > so_far;
            // What lies beside a file that was meant is neither right nor wrong.
            is_run(foreseen.step) || !(1.0..=near).contains(&(by.abs() as f64))
        });
        if passed || self.in_vain >= IN_VAIN {
            self.foreseen.clear();
            (self.right, self.in_vain) = (0, 0);
            self.evidence = (2 * self.evidence).min(MOST_EVIDENCE);
        }
        foreseen.is_some()
    }

    /// What is to be fetched now.
    fn next(&mut self, look: &mut impl FnMut(Rank, Rank) -> Prospect) -> Vec<Rank> {
        let most = (self.right + 1).min(MOST_AHEAD);
        let Some(course) = self.course().filter(|_| self.foreseen.len() < most) else { return Vec::new() };
        let Ok(first) = u32::try_from(course.first) else { return Vec::new() };
        let mut next = Vec::new();
        'course: for steps in 1..=LOOKS {
            let meant = course.step.mul_add(steps as f64, course.at as f64);
            // Where the distance is not whole, nobody knows how it is rounded.
            let (below, above) = ((meant + 0.1).floor(), (meant - 0.1).ceil());
            for place in [below, above].iter().take(if below < above { 2 } else { 1 }) {
                let rank = *place as i64;
                if self.opened.contains(&rank) || self.foreseen.iter().any(|other| other.rank == rank) {
                    continue;
                }
                let Ok(place) = u32::try_from(rank) else { break 'course };
                match look(Rank(first), Rank(place)) {
                    Prospect::Worth if self.foreseen.len() < most => {
                        self.foreseen.push(Foreseen { rank, step: course.step });
                        next.push(Rank(place));
                    }
                    Prospect::Pass => {}
                    Prospect::Worth | Prospect::End => break 'course,
                }
            }
        }
        next
    }

    /// Where the last opens lead, if they agree.
    fn course(&self) -> Option<Course> {
        let opened: Vec<i64> = self.opened.iter().copied().collect();
        let last = opened.get(opened.len().checked_sub(self.evidence)?..)?;
        let (lowest, highest) = (last.iter().min()?, last.iter().max()?);
        let steps: Vec<i64> = last.windows(2).map(|pair| pair[1] - pair[0]).collect();
        let is_even = steps.iter().all(|step| step == &steps[0]);
        if !is_even && usize::try_from(highest - lowest).is_ok_and(|span| span <= 2 * last.len()) {
            return Some(run(&opened));
        }
        let step = mean(last)?;
        let agrees = |other: i64| (other as f64 - step).abs() <= tolerance(step);
        if step.abs() < 1.0 || !steps.iter().all(|step| agrees(*step)) {
            return None;
        }
        if is_run(step) {
            return Some(run(&opened));
        }
        // The longer it is looked at, the better a distance is known that is not whole.
        let mut first = opened.len() - last.len();
        while first > 0 && agrees(opened[first] - opened[first - 1]) {
            first -= 1;
        }
        Some(Course { first: opened[first], at: *last.last()?, step: mean(&opened[first..])? })
    }
}

/// Several who read neighbouring files, not quite in order: forward or backward, as most of them say.
fn run(opened: &[i64]) -> Course {
    let latest = opened.last().copied().unwrap_or_default();
    let is_near = |rank: &i64| (rank - latest).abs() <= OUT_OF_STEP;
    let near: Vec<i64> = opened.iter().rev().take(16).copied().take_while(is_near).collect();
    let (late, early) = near.split_at(near.len() / 2);
    let middle = |ranks: &[i64]| ranks.iter().sum::<i64>() as f64 / ranks.len().max(1) as f64;
    let (lowest, highest) = near.iter().fold((latest, latest), |(l, h), rank| (l.min(*rank), h.max(*rank)));
    if middle(late) >= middle(early) {
        Course { first: lowest, at: highest, step: 1.0 }
    } else {
        Course { first: highest, at: lowest, step: -1.0 }
    }
}

fn mean(ranks: &[i64]) -> Option<f64> {
    let steps = ranks.len().checked_sub(1).filter(|steps| *steps > 0)?;
    Some((ranks.last()? - ranks.first()?) as f64 / steps as f64)
}

fn is_run(step: f64) -> bool {
    step.abs() < 1.5
}

/// How far a step may be from the mean.
fn tolerance(step: f64) -> f64 {
    if is_run(step) { 0.5 } else { (step.abs() / 8.0).max(1.0) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Opens these files of so many, none of which is here but what was foreseen; what was foreseen at each open.
    fn walk(opens: &[u32], files: u32) -> Vec<Vec<u32>> {
        walk_on(&mut Walks::default(), opens, files)
    }

    fn walk_on(walks: &mut Walks, opens: &[u32], files: u32) -> Vec<Vec<u32>> {
        let now = Instant::now();
        let look = |_: Rank, rank: Rank| if rank.0 < files { Prospect::Worth } else { Prospect::End };
        let open = |rank: &u32| walks.opened(Rank(*rank), Lacks::Something, now, look);
        opens.iter().map(open).map(|next| next.iter().map(|rank| rank.0).collect()).collect()
    }

    /// Of what was foreseen, how many files were opened later, and how many never.
    fn judged(opens: &[u32], files: u32) -> (usize, usize) {
        let foreseen = walk(opens, files);
        let later = |at: usize, rank: &u32| opens[at + 1..].contains(rank);
        let all =
            || foreseen.iter().enumerate().flat_map(|(at, next)| next.iter().map(move |rank| (at, rank)));
        let right = all().filter(|(at, rank)| later(*at, rank)).count();
        (right, all().count() - right)
    }

    #[test]
    fn nothing_is_foreseen_before_the_third_file_and_then_ever_more() {
        let opens: Vec<u32> = (10..16).collect();
        let foreseen = walk(&opens, 1000);
        let expected: [&[u32]; 6] = [&[], &[], &[13], &[14, 15], &[16, 17], &[18, 19]];
        assert_eq!(foreseen, expected);
    }

    #[test]
    fn who_walks_is_recognised_however_he_walks() {
        let by_tens: Vec<u32> = (0..40).map(|n| 7 + 10 * n).collect();
        let back: Vec<u32> = (0..150).rev().collect();
        let every_other: Vec<u32> = (0..60).map(|n| 2 * n).collect();
        // As Polars looks at a glob before it reads it.
        let sampled = [1, 14, 27, 40, 54, 67, 80, 93, 107, 120, 133, 146, 160, 173, 186];
        // As DuckDB's threads read one, opening files more than once.
        let threads: Vec<u32> = (0..150).flat_map(|n: u32| [n ^ 1, (n ^ 3).saturating_sub(3)]).collect();
        for (what, opens, files, least) in [
            ("in order", &(0..200).collect::<Vec<u32>>(), 200, 196),
            ("backward", &back, 200, 146),
            ("one in each partition", &by_tens, 407, 36),
            ("every other", &every_other, 120, 56),
            ("sampled", &sampled.to_vec(), 200, 10),
            ("out of step", &threads, 150, 130),
        ] {
            let (right, wrong) = judged(opens, files);
            assert!(right >= least, "{what}: {right} of {} were foreseen", opens.len());
            let bound = if what == "sampled" { 2 * right } else { 2 };
            assert!(wrong <= bound, "{what}: {wrong} for nothing");
        }
    }

    #[test]
    fn what_is_sampled_first_and_then_read_is_one_walk() {
        let sampled = [1, 14, 27, 40, 54, 67, 80, 93, 107, 120, 133, 146, 160, 173, 186];
        let opens: Vec<u32> = sampled.into_iter().chain(0..200).collect();
        let (right, wrong) = judged(&opens, 200);
        assert!(right > 180 && wrong == 0, "{right} right, {wrong} wrong");
    }

    #[test]
    fn who_stops_or_jumps_about_costs_little() {
        for stops in [3, 4, 10, 50] {
            let (right, wrong) = judged(&(0..stops).collect::<Vec<u32>>(), 10_000);
            assert!(wrong <= right + 1, "after {stops}: {right} right, {wrong} for nothing");
        }
        let mut at = 1u32;
        let random: Vec<u32> = (0..400)
            .map(|_| {
                at = at.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                at >> 22
            })
            .collect();
        let (_, wrong) = judged(&random, 1024);
        assert!(wrong <= 20, "400 random opens: {wrong} files for nothing");
    }

    #[test]
    fn a_walk_that_was_wrong_must_show_itself_longer() {
        let mut walks = Walks::default();
        assert_eq!(walk_on(&mut walks, &[0, 1, 2], 1000)[2], [3]);
        let again = walk_on(&mut walks, &[100, 101, 102, 103, 104, 105], 1000);
        let first = again.iter().position(|next| !next.is_empty());
        assert_eq!(first, Some(5), "{again:?}");
    }

    #[test]
    fn what_is_here_or_over_foresees_nothing() {
        let (mut walks, now) = (Walks::default(), Instant::now());
        let all = |_: Rank, _: Rank| Prospect::Worth;
        for rank in 0..20 {
            assert!(walks.opened(Rank(rank), Lacks::Nothing, now, all).is_empty());
        }
        let later = now + OVER;
        assert!(walks.opened(Rank(20), Lacks::Something, later, all).is_empty(), "that walk is over");
    }

    #[test]
    fn what_is_not_worth_it_is_passed_and_an_end_is_an_end() {
        let (mut walks, now) = (Walks::default(), Instant::now());
        let look = |_: Rank, rank: Rank| match rank.0 {
            3 | 4 => Prospect::Pass,
            7.. => Prospect::End,
            _ => Prospect::Worth,
        };
        let mut open = |rank| walks.opened(Rank(rank), Lacks::Something, now, look);
        assert!(open(0).is_empty() && open(1).is_empty());
        assert_eq!(open(2), [Rank(5)]);
        assert!(open(3).is_empty() && open(4).is_empty());
        assert_eq!(open(5), [Rank(6)]);
        assert!(open(6).is_empty());
    }
}
