//! Draws that the simulator needs beside those of [`Random`].

use crate::random::Random;

/// See the module.
pub trait Draws {
    /// True in `per_mille` of 1000 cases.
    fn chance(&mut self, per_mille: u64) -> bool;
    /// About an exponential distribution with that mean, in integers: a geometric number of halvings
    /// and a uniform rest.
    fn exponential(&mut self, mean: u64) -> u64;
    /// 128 random bits, neither 0 nor the maximum.
    fn id(&mut self) -> u128;
}

impl Draws for Random {
    fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    fn exponential(&mut self, mean: u64) -> u64 {
        let halvings = u64::from(self.any().leading_zeros().min(12));
        let rest = self.below(1000);
        mean * (halvings * 1000 + rest) / 1500
    }

    fn id(&mut self) -> u128 {
        (u128::from(self.any()) << 64 | u128::from(self.any())).clamp(1, u128::MAX - 1)
    }
}
