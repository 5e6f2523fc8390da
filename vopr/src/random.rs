//! A small seeded generator of random numbers: xoshiro256++, seeded by splitmix64.

/// Gives the same numbers for the same seed, on every machine.
#[derive(Clone, Debug)]
pub struct Random {
    state: [u64; 4],
}

/// Mixes all bits of a number: one step of splitmix64. It is a permutation.
#[must_use]
pub fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut at = seed;
        let state = [(); 4].map(|()| {
            let word = mix(at);
            at = at.wrapping_add(0x9E37_79B9_7F4A_7C15);
            word
        });
        Self { state }
    }

    /// A stream of its own for a part, so that a draw more in one part shifts no other.
    #[must_use]
    pub fn stream(seed: u64, part: u64) -> Self {
        Self::new(mix(seed) ^ mix(part.wrapping_add(1)))
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        let s = &mut self.state;
        let result = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let shifted = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= shifted;
        s[3] = s[3].rotate_left(45);
        result
    }

    /// Any number of 128 bits.
    pub fn any_128(&mut self) -> u128 {
        u128::from(self.any()) << 64 | u128::from(self.any())
    }

    /// A number below `bound`, which is not 0.
    ///
    /// # Panics
    /// When `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0);
        let product = u128::from(self.any()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the high half")
    }

    /// An index below `bound`, which is not 0.
    pub fn index(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).expect("64 bits");
        usize::try_from(self.below(bound)).expect("64 bits")
    }

    /// A number from `low` up to and with `high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    /// A small number from `low` up to and with `high`.
    pub fn between_32(&mut self, low: u32, high: u32) -> u32 {
        u32::try_from(self.between(u64::from(low), u64::from(high))).expect("in between")
    }

    /// Whether something happens that does so in so many of a hundred cases.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.index(from.len())]
    }

    /// The index of a weight, in proportion to it.
    ///
    /// # Panics
    /// When all weights are 0.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut left = self.below(weights.iter().sum());
        for (index, &weight) in weights.iter().enumerate() {
            if left < weight {
                return index;
            }
            left -= weight;
        }
        unreachable!("below the sum")
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn a_seed_gives_the_same_numbers_again() {
        let numbers = |seed| {
            let mut random = Random::new(seed);
            [
                random.any(),
                random.below(10),
                random.between(5, 6),
                random.any(),
            ]
        };
        assert_eq!(numbers(7), numbers(7));
        assert_ne!(numbers(7), numbers(8));
    }

    #[test]
    fn weights_are_kept() {
        let mut random = Random::new(1);
        let mut hits = [0_u32; 3];
        for _ in 0..1000 {
            hits[random.weighted(&[1, 0, 3])] += 1;
        }
        assert_eq!(hits[1], 0);
        assert!((150..350).contains(&hits[0]), "{hits:?}");
    }
}
