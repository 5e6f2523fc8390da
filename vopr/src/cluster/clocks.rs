//! The clocks of replicas: their times of day differ, step, and are wrong; monotonic clocks stand still
//! while their replica does.
//!
//! The true time is that of the simulator. As many clocks as a replication quorum and one more can do
//! without may be wrong by any amount, each by another; the others stay within the tolerance.

use super::network::Place;
use super::phases::Phase;
use super::quorum;
use super::world::{Action, World, kind};
use crate::random::Random;
use crate::seed::injection::Family;
use crate::sim::draws::Draws;
use crate::sim::options::MS;
use crate::sim::world::now;
use daftari::vsr::clock::{ROUND_TRIP_MAX, TOLERANCE};

/// The true time of day when the simulation begins.
const EPOCH: u64 = 1_790_000_000_000 * MS;

/// What the clocks of a seed are like.
#[derive(Clone, Debug)]
pub struct ClockOptions {
    /// Nanoseconds by which a clock that is right may be ahead of the true time; at most the tolerance.
    skew_max: u64,
    /// Of each replica, whether its clock is wrong.
    wrong: Vec<bool>,
    /// Nanoseconds from one step of any clock to the next, on average; 0 for none at all.
    step_distance: u64,
    /// Of 1000 pauses, those through which the monotonic clock stands still.
    freezes: u64,
}

impl ClockOptions {
    /// The choices of a seed.
    pub fn new(random: &mut Random, replicas: u8) -> Self {
        let mut wrong = vec![false; usize::from(replicas)];
        if replicas >= 3 && random.chance(400) {
            for _ in 1..quorum::replication(replicas) {
                let replica = random.index(wrong.len());
                wrong[replica] = true;
            }
        }
        let step_distance = random.between(1, 20) * 1000 * MS;
        Self {
            skew_max: random.pick(&[0, 1, 10, 100, 5_000]) * MS,
            wrong,
            step_distance: if random.chance(400) { step_distance } else { 0 },
            freezes: random.pick(&[0, 300]),
        }
    }

    /// All clocks are right, and stay so.
    #[must_use]
    pub fn right(replicas: u8) -> Self {
        Self {
            skew_max: 0,
            wrong: vec![false; usize::from(replicas)],
            step_distance: 0,
            freezes: 0,
        }
    }

    /// One more clock.
    pub fn add(&mut self, wrong: bool) {
        self.wrong.push(wrong);
    }

    /// Nanoseconds by which a replica's clock is ahead of the true time.
    fn skew(&self, random: &mut Random, replica: u8) -> i64 {
        let signed = |time: u64| i64::try_from(time).expect("some years");
        if !self.wrong[usize::from(replica)] {
            return signed(random.below(self.skew_max + 1));
        }
        // Each is wrong by another amount, since two that agree could not be told from a quorum.
        let minute = 60_000 * MS;
        let size = random.pick(&[minute, 60 * minute, 365 * 24 * 60 * minute]);
        let far = signed(size + (1 + u64::from(replica)) * 10 * minute);
        if random.chance(500) { far } else { -far }
    }
}

/// The clocks of one replica.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clocks {
    /// Nanoseconds by which the time of day is ahead of the true one.
    skew: i64,
    /// Nanoseconds for which the monotonic clock stood still.
    lost: u64,
    /// Since when it stands still.
    frozen: Option<u64>,
}

impl Clocks {
    /// Those of a replica at first.
    pub fn new(options: &ClockOptions, random: &mut Random, replica: u8) -> Self {
        Self {
            skew: options.skew(random, replica),
            lost: 0,
            frozen: None,
        }
    }

    /// The time of day steps by so many milliseconds.
    pub fn step(&mut self, milliseconds: i64) {
        self.skew += milliseconds * i64::try_from(MS).expect("a million");
    }

    /// The monotonic clock.
    #[must_use]
    pub fn monotonic(&self) -> u64 {
        self.frozen.unwrap_or_else(now) - self.lost
    }

    /// The time of day.
    #[must_use]
    pub fn realtime(&self) -> u64 {
        let time = true_time().checked_add_signed(self.skew);
        time.expect("the skew is some years at most")
    }
}

/// The true time of day.
#[must_use]
pub fn true_time() -> u64 {
    EPOCH + now()
}

/// Whether a primary of several replicas may have given out a timestamp by now: it is near to the clock of
/// one of any quorum (I24).
#[must_use]
pub fn is_near(timestamp: u64) -> bool {
    true_time().abs_diff(timestamp) <= 2 * TOLERANCE + ROUND_TRIP_MAX
}

/// Clocks are ahead or behind from the beginning, unless that is vetoed.
pub fn differ(world: &mut World) {
    for replica in world.replicas() {
        let skew = world.clocks(replica).skew;
        let what = || format!("the clock of {replica} is ahead by {skew} ns");
        let place = Some(Place::Replica(replica));
        if skew != 0 && !world.stage.inject(Family::Clock, place, what) {
            world.processes[usize::from(replica)].clocks.skew = 0;
        }
    }
}

/// When the first clock steps.
pub fn begin(world: &mut World) {
    let distance = world.options.clocks.step_distance;
    if distance > 0 {
        let at = now() + world.random.clock.exponential(distance);
        world.at(at, Action::StepClock);
    }
}

/// The clock of a replica is set.
pub fn step(world: &mut World) {
    if world.phases.phase != Phase::Faults {
        return;
    }
    let random = &mut world.random.clock;
    let replica = u8::try_from(random.below(u64::from(world.options.members()))).expect("a few");
    let skew = world.options.clocks.skew(random, replica);
    let what = || format!("the clock of {replica} is set to be ahead by {skew} ns");
    let place = Some(Place::Replica(replica));
    if world.stage.inject(Family::Clock, place, what) {
        world.processes[usize::from(replica)].clocks.skew = skew;
        world.checker.counts.clock_steps += 1;
        world.note(kind::WEATHER, replica, b"clock");
    }
    begin(world);
}

/// Whether the monotonic clock of a replica stands still with it in a pause.
pub fn draw_freeze(world: &mut World) -> bool {
    world.random.clock.chance(world.options.clocks.freezes)
}

/// The monotonic clock of a replica that stands still does so, too.
pub fn freeze(world: &mut World, replica: u8) {
    let what = || format!("the monotonic clock of {replica} stands still");
    let place = Some(Place::Replica(replica));
    if world.stage.inject(Family::Freeze, place, what) {
        world.processes[usize::from(replica)].clocks.frozen = Some(now());
    }
}

/// A replica goes on, or starts anew.
pub fn on_resume(world: &mut World, replica: u8) {
    let clocks = &mut world.processes[usize::from(replica)].clocks;
    if let Some(since) = clocks.frozen.take() {
        clocks.lost += now() - since;
    }
}
