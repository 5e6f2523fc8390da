//! The standbys of a seed: members that follow the replicas and have no say.
//!
//! Nobody may need one, so its disk is damaged and lost as it comes, whatever becomes of the replicas.

use super::options::Options;
use crate::random::Random;
use crate::sim::draws::Draws;
use crate::sim::options::DiskSpeed;

/// Weights of none, one and two.
const COUNT_WEIGHTS: [u64; 3] = [1, 1, 1];

/// What a seed has of them.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandbyOptions {
    /// How many.
    pub count: u8,
    /// Journal slots and blocks that rot at a crash, and at rest, of 1000.
    pub rot: u64,
    /// Of 1000 crashes, those that take the disk with them.
    pub loss: u64,
}

impl Options {
    /// Replicas and standbys.
    #[must_use]
    pub fn members(&self) -> u8 {
        self.replicas + self.standbys.count
    }

    /// Whether a member is a standby.
    #[must_use]
    pub fn is_standby(&self, member: u8) -> bool {
        member >= self.replicas
    }

    /// Adds those of a seed; a stream of its own, so that seeds without any stay what they are.
    pub(super) fn draw_standbys(&mut self, seed: u64) {
        let random = &mut Random::stream(seed, 214);
        let count = u8::try_from(random.weighted(&COUNT_WEIGHTS)).expect("at most 2");
        self.standbys = StandbyOptions {
            count,
            rot: random.pick(&[0, 0, 20, 100]),
            loss: random.pick(&[0, 200]),
        };
        for _ in 0..count {
            let stalls = random.pick(&[0, 2]);
            self.speeds.push(DiskSpeed::new(random, stalls, false));
            self.uncertain.push(true);
            self.clocks.add(random.chance(200));
        }
    }

    /// Adds so many that are as calm as the replicas.
    pub fn add_standbys(&mut self, count: u8) {
        self.standbys.count = count;
        for _ in 0..count {
            self.speeds.push(self.speeds[0]);
            self.uncertain.push(false);
            self.clocks.add(false);
        }
    }
}
