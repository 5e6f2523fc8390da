//! A hash over every event of a run: equal seeds have to give equal hashes.

use storage_format::checksum;

/// Events after which a prefix of the hash is kept, so that a difference can be bisected.
const PREFIX_EVENTS: u64 = 1024;

/// The hash so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EventHash {
    state: u128,
    events: u64,
    prefixes: Vec<u128>,
}

impl EventHash {
    /// Adds an event.
    pub fn add(&mut self, time: u64, kind: u8, bytes: &[u8]) {
        let digest = u128::from_le_bytes(checksum(bytes).0);
        let mixed = self.state ^ digest ^ (u128::from(time) << 8 | u128::from(kind));
        let mixed = (mixed ^ (mixed >> 67)).wrapping_mul(0xda94_2042_e4dd_58b5_9e37_79b9_7f4a_7c15);
        self.state = (mixed ^ (mixed >> 61)).wrapping_add(1);
        self.events += 1;
        if self.events.is_multiple_of(PREFIX_EVENTS) {
            self.prefixes.push(self.state);
        }
    }

    /// The hash of all events.
    #[must_use]
    pub fn value(&self) -> u128 {
        self.state
    }

    /// How many there were.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }

    /// The first event that may differ between two runs: a multiple of the prefix length.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> u64 {
        let pairs = self.prefixes.iter().zip(&other.prefixes);
        let same = pairs.take_while(|(a, b)| a == b).count();
        daftari::stdx::to_u64(same) * PREFIX_EVENTS
    }
}
