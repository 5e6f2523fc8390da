//! The time of day that replicas agree on (K. Marzullo and S. Owicki, "Maintaining the time in a
//! distributed system", 1983).
//!
//! A replica asks the others for their time of day. An answer took a while, so it tells where the other
//! clock is only within an interval; each clock may be wrong by [`TOLERANCE`], so the interval is wider by
//! that. The true time is where the intervals of a replication quorum of clocks overlap; of several such
//! places, whatever lies between the first and the last. (The place where most clocks overlap would be
//! narrower, but one clock that is a little wrong could pull it away from the true time.)
//! A replica's own clock is followed within that overlap, and held at its edges.
//!
//! Invariants:
//! * While a quorum of the clocks that are heard is within the tolerance of the true time, and no other
//!   quorum agrees on one that is far away, the overlap contains the true time.
//! * Whatever other clocks say, the agreed time is at most twice the tolerance and [`ROUND_TRIP_MAX`] away
//!   from the true time, as long as one clock of each quorum is within the tolerance.
//! * An interval that was learned before the own clock was set, or before this machine stood still without
//!   its monotonic clock, is not used after that.
//!
//! Everything is reckoned as a distance from this replica's monotonic clock, which does not depend on
//! whether its time of day is right.

use super::members::Voter;
use crate::constants::{REPLICA_COUNT_MAX, TIMESTAMP_MAX};
use crate::stdx::marks::{Mark, mark};

/// Nanoseconds that a clock may be wrong by: two that differ by more than twice of that do not agree.
pub const TOLERANCE: u64 = 5_000_000_000;
/// Nanoseconds after which an answer is too old to be used.
const SAMPLE_AGE_MAX: u64 = 10_000_000_000;
/// Nanoseconds after which an answer tells too little to be used.
pub const ROUND_TRIP_MAX: u64 = 5_000_000_000;
/// Of a million nanoseconds, those by which two monotonic clocks may drift apart.
const DRIFT_PPM: u64 = 1000;
/// Nanoseconds by which the own clock differs from one moment to the next only if it was set.
const STEP: i128 = 100_000_000;

/// Where the time of day is, in nanoseconds from this replica's monotonic clock.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Interval {
    low: i128,
    high: i128,
}

impl Interval {
    fn contains(&self, point: i128) -> bool {
        self.low <= point && point <= self.high
    }
}

/// What the last good answer of another replica told.
#[derive(Clone, Copy, Debug)]
struct Sample {
    /// Monotonic time when it came.
    at: u64,
    /// Where the other clock was then.
    interval: Interval,
}

impl Sample {
    /// Where that clock may be by now; nothing if the answer is too old.
    fn at(&self, now: u64) -> Option<Interval> {
        let age = now.saturating_sub(self.at);
        if age >= SAMPLE_AGE_MAX {
            mark(Mark::SampleTooOld);
            return None;
        }
        let drift = i128::from(age * DRIFT_PPM / 1_000_000);
        Some(Interval {
            low: self.interval.low - drift,
            high: self.interval.high + drift,
        })
    }
}

/// See the module.
#[derive(Debug)]
pub struct Clock {
    quorum: u8,
    samples: [Option<Sample>; REPLICA_COUNT_MAX as usize],
    /// The own clock when it was looked at last.
    own: Option<i128>,
}

impl Clock {
    /// A clock that agrees with nobody yet. `quorum` clocks have to agree, the own one included or not.
    #[must_use]
    pub fn new(quorum: u8) -> Self {
        Self {
            quorum,
            samples: [None; REPLICA_COUNT_MAX as usize],
            own: None,
        }
    }

    /// Looks at the own clock: time of day and monotonic time, in nanoseconds.
    pub fn observe(&mut self, now: u64, realtime: u64) {
        let own = offset(now, realtime);
        let stepped = self.own.is_some_and(|last| (own - last).abs() > STEP);
        if stepped {
            mark(Mark::ClockStepped);
            // It was set; or this machine stood still, and what was learned is of another time.
            self.samples.fill(None);
        }
        self.own = Some(own);
    }

    /// Another replica answered with its time of day, at monotonic time `now`, to a question of `asked`.
    pub fn learn(&mut self, replica: Voter, asked: u64, now: u64, realtime: u64) {
        if asked > now || now - asked > ROUND_TRIP_MAX || realtime >= TIMESTAMP_MAX {
            mark(Mark::SampleUseless);
            return;
        }
        let sample = Sample {
            at: now,
            // It may have read its clock right after the question was sent, or right before this.
            interval: Interval {
                low: offset(now, realtime),
                high: offset(now, realtime) + i128::from(now - asked),
            },
        };
        let known = &mut self.samples[replica.at()];
        let width = |interval: Interval| interval.high - interval.low;
        let former = known.and_then(|known| known.at(now));
        if former.is_none_or(|former| width(sample.interval) <= width(former)) {
            *known = Some(sample);
        }
    }

    /// The time of day that a quorum agrees on, as close to the own clock as may be.
    #[must_use]
    pub fn time(&self, now: u64, realtime: u64) -> Option<u64> {
        let own = offset(now, realtime);
        let agreed = self.agreed(now, own)?;
        if own < agreed.low || own > agreed.high {
            mark(Mark::ClockHeld);
        }
        let time = i128::from(now) + own.clamp(agreed.low, agreed.high);
        u64::try_from(time).ok()
    }

    /// How far other clocks are ahead of the own one, in milliseconds: at least, for an operator.
    #[must_use]
    pub fn differences(&self, now: u64, realtime: u64) -> Vec<(usize, i128)> {
        let own = offset(now, realtime);
        let fresh = |(replica, sample): (usize, &Option<Sample>)| {
            let interval = (*sample)?.at(now)?;
            Some((
                replica,
                (own.clamp(interval.low, interval.high) - own) / 1_000_000,
            ))
        };
        self.samples.iter().enumerate().filter_map(fresh).collect()
    }

    /// From the first to the last point that lies in the intervals of a quorum; nothing if there is none, or if
    /// there are several groups that are too far from each other to be clocks that are right.
    fn agreed(&self, now: u64, own: i128) -> Option<Interval> {
        let own = Interval {
            low: own,
            high: own,
        };
        let others = self.samples.iter().flatten();
        let tolerance = i128::from(TOLERANCE);
        let intervals: Vec<Interval> = others
            .filter_map(|sample| sample.at(now))
            .chain([own])
            .map(|Interval { low, high }| Interval {
                low: low - tolerance,
                high: high + tolerance,
            })
            .collect();
        // It begins where some interval does, and ends where one does.
        let agreed = |point: &i128| {
            let around = intervals.iter().filter(|one| one.contains(*point));
            around.count() >= usize::from(self.quorum)
        };
        let low = intervals.iter().map(|one| one.low).filter(agreed).min()?;
        let high = intervals.iter().map(|one| one.high).filter(agreed).max()?;
        let widest = 4 * tolerance + i128::from(ROUND_TRIP_MAX);
        if high - low > widest {
            mark(Mark::ClocksInGroups);
        }
        (high - low <= widest).then_some(Interval { low, high })
    }
}

fn offset(now: u64, realtime: u64) -> i128 {
    i128::from(realtime) - i128::from(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vsr::testing::voter;
    use quickcheck::{TestResult, quickcheck};

    const MS: u64 = 1_000_000;
    const SECOND: u64 = 1000 * MS;
    const HOUR: u64 = 3600 * SECOND;
    /// The true time of day when the monotonic clock says 0.
    const EPOCH: u64 = 1_790_000_000 * SECOND;

    /// A clock that has asked the others at `now`, whose times of day are ahead of the true one by `skews`.
    fn clock(quorum: u8, now: u64, skews: &[i64]) -> Clock {
        let mut clock = Clock::new(quorum);
        clock.observe(now, EPOCH + now);
        for (replica, skew) in (1..).zip(skews) {
            let realtime = (EPOCH + now - MS).checked_add_signed(*skew).unwrap();
            clock.learn(voter(replica), now - 2 * MS, now, realtime);
        }
        clock
    }

    fn signed(time: u64) -> i64 {
        i64::try_from(time).unwrap()
    }

    #[test]
    fn alone_the_own_clock_counts() {
        let clock = Clock::new(1);
        assert_eq!(clock.time(0, EPOCH), Some(EPOCH));
        assert_eq!(clock.time(7, EPOCH), Some(EPOCH));
    }

    #[test]
    fn clocks_that_agree_leave_the_own_one_as_it_is() {
        let clock = clock(2, SECOND, &[signed(SECOND), -signed(2 * SECOND)]);
        assert_eq!(clock.time(SECOND, EPOCH + SECOND), Some(EPOCH + SECOND));
    }

    #[test]
    fn nobody_heard_means_no_time() {
        assert_eq!(Clock::new(2).time(SECOND, EPOCH), None);
        assert_eq!(clock(3, SECOND, &[0]).time(SECOND, EPOCH + SECOND), None);
    }

    #[test]
    fn another_clock_that_is_wrong_does_not_count() {
        let clock = clock(2, SECOND, &[signed(HOUR), 0]);
        assert_eq!(clock.time(SECOND, EPOCH + SECOND), Some(EPOCH + SECOND));
    }

    #[test]
    fn the_own_clock_is_held_at_the_edge_of_the_others() {
        for (own, edge) in [(EPOCH + HOUR, TOLERANCE), (EPOCH - HOUR, 0)] {
            let mut clock = Clock::new(2);
            clock.observe(SECOND, own + SECOND);
            for replica in [1, 2] {
                clock.learn(voter(replica), SECOND - 2 * MS, SECOND, EPOCH + SECOND - MS);
            }
            let time = clock.time(SECOND, own + SECOND).unwrap();
            let expected = if edge > 0 {
                EPOCH + SECOND + TOLERANCE + MS
            } else {
                EPOCH + SECOND - TOLERANCE - MS
            };
            assert_eq!(time, expected);
        }
    }

    #[test]
    fn three_clocks_that_all_differ_agree_on_nothing() {
        let clock = clock(2, SECOND, &[signed(HOUR), -signed(HOUR)]);
        assert_eq!(clock.time(SECOND, EPOCH + SECOND), None);
        let expected = [(1, 3_599_999), (2, -3_599_999)];
        assert_eq!(clock.differences(SECOND, EPOCH + SECOND), expected);
    }

    #[test]
    fn two_pairs_that_disagree_agree_on_nothing() {
        let clock = clock(2, SECOND, &[0, signed(HOUR), signed(HOUR)]);
        assert_eq!(clock.time(SECOND, EPOCH + SECOND), None);
    }

    #[test]
    fn a_clock_that_is_a_little_wrong_does_not_pull_the_time_away() {
        let clock = clock(2, SECOND, &[0, signed(9 * SECOND)]);
        assert_eq!(clock.time(SECOND, EPOCH + SECOND), Some(EPOCH + SECOND));
    }

    #[test]
    fn two_clocks_that_are_a_little_wrong_do_not_stop_three_that_are_right() {
        let skews = [0, 0, signed(9 * SECOND), -signed(9 * SECOND)];
        let clock = clock(3, SECOND, &skews);
        assert_eq!(clock.time(SECOND, EPOCH + SECOND), Some(EPOCH + SECOND));
    }

    #[test]
    fn an_old_answer_is_not_used() {
        let clock = clock(2, SECOND, &[0, 0]);
        let later = SECOND + SAMPLE_AGE_MAX - 1;
        assert_eq!(clock.time(later, EPOCH + later), Some(EPOCH + later));
        assert_eq!(clock.time(later + 1, EPOCH + later + 1), None);
    }

    #[test]
    fn after_a_step_of_the_own_clock_the_others_are_asked_again() {
        let mut clock = clock(2, SECOND, &[0, 0]);
        clock.observe(SECOND + MS, EPOCH - HOUR);
        assert_eq!(clock.time(SECOND + MS, EPOCH - HOUR), None);
    }

    #[test]
    fn a_pause_that_the_monotonic_clock_slept_through_is_noticed() {
        let mut clock = clock(2, SECOND, &[0, 0]);
        clock.observe(SECOND + MS, EPOCH + SECOND + 60 * SECOND);
        assert_eq!(clock.time(SECOND + MS, EPOCH + 61 * SECOND), None);
    }

    #[test]
    fn a_slow_answer_is_worth_less_than_a_quick_one() {
        let mut clock = clock(2, SECOND, &[0]);
        let quick = clock.samples[1].unwrap().interval;
        clock.learn(voter(1), SECOND, 2 * SECOND, EPOCH + 2 * SECOND);
        assert_eq!(clock.samples[1].unwrap().interval, quick);
        let later = 2 * SECOND + SAMPLE_AGE_MAX;
        clock.learn(voter(1), later - SECOND, later, EPOCH + later);
        assert_ne!(clock.samples[1].unwrap().interval, quick);
    }

    #[test]
    fn answers_that_make_no_sense_are_not_used() {
        let mut clock = Clock::new(2);
        clock.learn(voter(1), 2 * SECOND, SECOND, EPOCH);
        clock.learn(voter(2), 0, SECOND, u64::MAX);
        clock.learn(voter(2), 0, ROUND_TRIP_MAX + 1, EPOCH + ROUND_TRIP_MAX);
        assert_eq!(clock.time(SECOND, EPOCH + SECOND), None);
    }

    /// Five clocks of which three are right: what is agreed on contains the true time.
    #[test]
    fn the_overlap_contains_the_true_time() {
        fn contains(right: (i32, i32, i32), wrong: (i64, i64), delays: [u8; 4]) -> TestResult {
            let tolerance = signed(TOLERANCE);
            let within = |skew: i32| i64::from(skew) * 1000 % tolerance;
            // One may be wrong by anything; both do not agree on another time that is far away.
            let far = |skew: i64| skew.rem_euclid(signed(12 * SECOND));
            let others = [
                within(right.1),
                within(right.2),
                far(wrong.0),
                -far(wrong.1),
            ];
            let own = within(right.0);
            let now = 10 * SECOND;
            let realtime = (EPOCH + now).checked_add_signed(own).unwrap();
            let mut clock = Clock::new(3);
            clock.observe(now, realtime);
            for ((replica, skew), delay) in (1..).zip(others).zip(delays) {
                let (asked, delay) = (now - SECOND, u64::from(delay) * 3 * MS);
                let answered = (EPOCH + asked + delay).checked_add_signed(skew).unwrap();
                clock.learn(voter(replica), asked, now, answered);
            }
            let agreed = clock.agreed(now, offset(now, realtime));
            TestResult::from_bool(agreed.is_some_and(|agreed| agreed.contains(offset(0, EPOCH))))
        }
        quickcheck(contains as fn((i32, i32, i32), (i64, i64), [u8; 4]) -> TestResult);
    }
}
