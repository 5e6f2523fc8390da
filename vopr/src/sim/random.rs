//! Random numbers of the simulator: one stream for each subsystem, all from the seed, so that a draw
//! more in one of them does not shift the others.

use daftari::stdx::{to_u64, u64_to_usize};

/// A xoshiro256++ generator.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

impl Random {
    /// The stream of that number under `seed`.
    #[must_use]
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut mixer = seed ^ stream.wrapping_mul(0xd1b5_4a32_d192_ed03);
        let mut next = || {
            mixer = mixer.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = mixer;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            mixed ^ (mixed >> 31)
        };
        Self { state: [next(), next(), next(), next()] }
    }

    /// 64 random bits.
    pub fn bits(&mut self) -> u64 {
        let state = &mut self.state;
        let result = state[0].wrapping_add(state[3]).rotate_left(23).wrapping_add(state[0]);
        let shifted = state[1] << 17;
        state[2] ^= state[0];
        state[3] ^= state[1];
        state[1] ^= state[2];
        state[0] ^= state[3];
        state[2] ^= shifted;
        state[3] = state[3].rotate_left(45);
        result
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        assert!(limit > 0);
        self.bits() % limit
    }

    /// A number from `low` to `high`, both included.
    pub fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// An index below `count`.
    pub fn index(&mut self, count: usize) -> usize {
        u64_to_usize(self.below(to_u64(count)))
    }

    /// True in `per_mille` of 1000 cases.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        self.below(1000) < per_mille
    }

    /// About an exponential distribution with that mean, in integers: a geometric number of halvings
    /// and a uniform rest.
    pub fn exponential(&mut self, mean: u64) -> u64 {
        let halvings = u64::from(self.bits().leading_zeros().min(12));
        let rest = self.below(1000);
        mean * (halvings * 1000 + rest) / 1500
    }

    /// 128 random bits, neither 0 nor the maximum.
    pub fn id(&mut self) -> u128 {
        (u128::from(self.bits()) << 64 | u128::from(self.bits())).clamp(1, u128::MAX - 1)
    }
}
