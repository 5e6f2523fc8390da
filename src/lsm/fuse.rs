//! A filter of ids: a binary fuse filter with fingerprints of 16 bits.
//!
//! * It says for certain that an id is not there, or that it may be: one of 65,536 absent ids passes.
//! * The same ids in the same order make the same bytes everywhere: seeds are fixed, sizes are made of
//!   integers.
//! * Ids are chosen by clients, and the seeds are known: whoever wants it finds ids whose hashes
//!   collide. Then there is no filter, after a fixed number of attempts; nothing overflows.

use super::hash::{KEY_HIGH, KEY_LOW, fold, high, low, low16, low32};
use crate::stdx::{to_u64, to_usize};

/// Attempts, each with a seed of its own; nearly always the first succeeds.
const ATTEMPTS: u64 = 4;
/// Ids of a filter at most: counts of 14 bits do not overflow.
pub const FILTER_IDS_MAX: usize = 16_000;
/// Bytes of the number of the attempt, before the fingerprints.
const HEADER_SIZE: usize = 8;

/// How the fingerprints of so many ids are laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Shape {
    /// Slots of a segment, a power of two.
    segment: u32,
    /// First slots that there are.
    starts: u32,
}

/// For so many ids and more: slots of a segment, and slots for a hundred ids.
const SHAPES: [(usize, u32, usize); 8] = [
    (3361, 512, 130),
    (1009, 256, 138),
    (303, 128, 148),
    (91, 64, 164),
    (28, 32, 192),
    (9, 16, 250),
    (3, 8, 400),
    (0, 4, 800),
];

impl Shape {
    fn new(ids: usize) -> Self {
        let shape = SHAPES.iter().find(|shape| ids >= shape.0);
        let &(_, segment, percent) = shape.expect("the last is for any number");
        let slots = u32::try_from(ids * percent).expect("a block has few ids") / 100;
        let segments = slots.div_ceil(segment).max(3);
        Self {
            segment,
            starts: (segments - 2) * segment,
        }
    }

    fn slots(self) -> usize {
        to_usize(self.starts + 2 * self.segment)
    }

    /// The three slots of a hash.
    #[inline]
    fn slots_of(self, hash: u64) -> [usize; 3] {
        let mask = self.segment - 1;
        let first = low32(high(u128::from(hash) * u128::from(self.starts)));
        let second = (first + self.segment) ^ (low32(hash >> 18) & mask);
        let third = (first + 2 * self.segment) ^ (low32(hash) & mask);
        [to_usize(first), to_usize(second), to_usize(third)]
    }
}

/// The hash of an id in an attempt.
#[must_use]
#[inline]
pub const fn hash(id: u128, attempt: u64) -> u64 {
    let seeded = fold(low(id) ^ KEY_LOW, KEY_HIGH) ^ high(id) ^ attempt.wrapping_mul(KEY_HIGH);
    fold(seeded ^ KEY_HIGH, KEY_LOW)
}

#[inline]
const fn fingerprint(hash: u64) -> u16 {
    low16(hash ^ hash >> 32)
}

/// See the module.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Filter {
    attempt: u64,
    shape: Shape,
    fingerprints: Box<[u16]>,
}

/// What the making of a filter works in, to be used again.
#[derive(Debug, Default)]
pub struct Builder {
    /// By slot: four times the hashes that it is of, and the xor of which of their slots it is.
    counts: Vec<u16>,
    /// By slot, the xor of the hashes that it is of.
    hashes: Vec<u64>,
    /// Slots of one hash only.
    alone: Vec<usize>,
    /// Hashes in the order in which they were taken away, each with the slot that it alone had.
    order: Vec<(u64, u8)>,
}

impl Filter {
    /// Bytes that the filter of so many ids takes in a block.
    #[must_use]
    pub fn size(ids: usize) -> usize {
        HEADER_SIZE + 2 * Shape::new(ids).slots()
    }

    /// Makes the filter of some ids; there may be none.
    #[must_use]
    pub fn new(
        ids: impl Iterator<Item = u128> + Clone,
        count: usize,
        builder: &mut Builder,
    ) -> Option<Self> {
        if count > FILTER_IDS_MAX {
            return None;
        }
        let shape = Shape::new(count);
        let attempt = (0..ATTEMPTS).find(|attempt| {
            let hashes = ids.clone().map(|id| hash(id, *attempt));
            builder.peel(shape, hashes) == count
        })?;
        Some(Self {
            attempt,
            shape,
            fingerprints: builder.assign(shape),
        })
    }

    /// Whether an id may be there. `first` is its hash in the first attempt.
    #[must_use]
    #[inline]
    pub fn may_contain(&self, id: u128, first: u64) -> bool {
        let hash = if self.attempt == 0 {
            first
        } else {
            hash(id, self.attempt)
        };
        let [a, b, c] = self.shape.slots_of(hash);
        let found = self.fingerprints[a] ^ self.fingerprints[b] ^ self.fingerprints[c];
        found == fingerprint(hash)
    }

    /// Writes the filter to the first [`Self::size`] bytes.
    pub fn store(&self, bytes: &mut [u8]) {
        let size = HEADER_SIZE + 2 * self.fingerprints.len();
        let (head, rest) = bytes[..size].split_at_mut(HEADER_SIZE);
        head.copy_from_slice(&self.attempt.to_le_bytes());
        for (bytes, fingerprint) in rest.chunks_exact_mut(2).zip(&self.fingerprints) {
            bytes.copy_from_slice(&fingerprint.to_le_bytes());
        }
    }

    /// Reads the filter of so many ids.
    #[must_use]
    pub fn load(bytes: &[u8], ids: usize) -> Self {
        let (head, rest) = bytes[..Self::size(ids)].split_at(HEADER_SIZE);
        let head = head.first_chunk().expect("its size was taken");
        let pairs = rest.chunks_exact(2);
        Self {
            attempt: u64::from_le_bytes(*head),
            shape: Shape::new(ids),
            fingerprints: pairs
                .map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
                .collect(),
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> u64 {
        to_u64(2 * self.fingerprints.len())
    }
}

impl Builder {
    /// Takes away hashes that alone have a slot, one after the other; gives how many that were.
    fn peel(&mut self, shape: Shape, hashes: impl Iterator<Item = u64>) -> usize {
        self.counts.clear();
        self.counts.resize(shape.slots(), 0);
        self.hashes.clear();
        self.hashes.resize(shape.slots(), 0);
        self.order.clear();
        for hash in hashes {
            for (which, slot) in (0..).zip(shape.slots_of(hash)) {
                self.counts[slot] = (self.counts[slot] + 4) ^ which;
                self.hashes[slot] ^= hash;
            }
        }
        // Each slot comes to be of one hash only once at most. Whether it does cannot be predicted, so
        // there is no branch on it.
        self.alone.clear();
        self.alone.resize(shape.slots() + 1, 0);
        let mut alone = 0;
        for (slot, count) in self.counts.iter().enumerate() {
            self.alone[alone] = slot;
            alone += usize::from(*count >> 2 == 1);
        }
        while alone > 0 {
            alone -= 1;
            let slot = self.alone[alone];
            if self.counts[slot] >> 2 != 1 {
                continue;
            }
            let hash = self.hashes[slot];
            let found = self.counts[slot] & 3;
            self.order.push((hash, low8(found)));
            for (which, slot) in (0..).zip(shape.slots_of(hash)) {
                let count = (self.counts[slot] - 4) ^ which;
                self.counts[slot] = count;
                self.hashes[slot] ^= hash;
                self.alone[alone] = slot;
                alone += usize::from(count >> 2 == 1);
            }
        }
        self.order.len()
    }

    /// Fingerprints such that those of the slots of each hash come to its own.
    fn assign(&self, shape: Shape) -> Box<[u16]> {
        let mut fingerprints = vec![0; shape.slots()].into_boxed_slice();
        for &(hash, found) in self.order.iter().rev() {
            let slots = shape.slots_of(hash);
            let own = slots[usize::from(found)];
            // The own slot is still zero.
            let others = slots.iter().fold(0, |all, slot| all ^ fingerprints[*slot]);
            fingerprints[own] = fingerprint(hash) ^ others;
        }
        fingerprints
    }
}

/// Ids that are different, and have the same hash in every attempt: for tests. The high half takes out
/// again what the low one brings in.
#[must_use]
pub const fn colliding(number: u64) -> u128 {
    let low_half = number + 1;
    (fold(low_half ^ KEY_LOW, KEY_HIGH) as u128) << 64 | low_half as u128
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
const fn low8(value: u16) -> u8 {
    value as u8
}

#[cfg(test)]
mod tests {
    use super::{Builder, Filter, Shape, colliding, hash};

    fn ids(count: u64, salt: u64) -> Vec<u128> {
        let id = |value: u64| u128::from(hash(u128::from(value), salt)) << 64 | u128::from(value);
        (0..count).map(id).collect()
    }

    fn built(ids: &[u128]) -> Option<Filter> {
        Filter::new(ids.iter().copied(), ids.len(), &mut Builder::default())
    }

    #[test]
    fn filters_of_any_size_contain_their_ids_and_few_others() {
        let mut passed = 0;
        for count in (0..200).chain([303, 304, 1008, 1009, 3360, 3361, 8000, 10_416, 16_000]) {
            let here = ids(count, 7);
            let filter = built(&here).expect("a filter of distinct ids");
            assert!(here.iter().all(|id| filter.may_contain(*id, hash(*id, 0))));
            let absent = ids(2000, 8);
            passed += absent
                .iter()
                .filter(|id| filter.may_contain(**id, hash(**id, 0)))
                .count();
            let mut bytes = vec![0; Filter::size(here.len())];
            filter.store(&mut bytes);
            assert_eq!(Filter::load(&bytes, here.len()), filter);
        }
        assert!(passed < 30, "{passed} of 418,000 passed");
    }

    #[test]
    fn sequential_ids_are_like_any_other() {
        for step in [1, 3, 1 << 20, 1 << 64, 1 << 100] {
            let here: Vec<u128> = (0..10_000).map(|i| i * step).collect();
            let filter = built(&here).expect("a filter of distinct ids");
            assert!(here.iter().all(|id| filter.may_contain(*id, hash(*id, 0))));
        }
    }

    #[test]
    fn colliding_hashes_make_no_filter() {
        assert_eq!(built(&[5; 100]), None);
        assert_eq!(built(&[0; 16_000]), None);
        assert_eq!(built(&[5, 5, 6]), None);
        assert_eq!(built(&[colliding(1), colliding(2)]), None);
        assert!(built(&[colliding(1)]).is_some());
        // Distinct ids of one first slot: nothing overflows.
        let shape = Shape::new(1000);
        let crowd: Vec<u128> = (0..3_000_000)
            .filter(|id| shape.slots_of(hash(*id, 0))[0] < 2)
            .take(1000)
            .collect();
        assert_eq!(crowd.len(), 1000);
        let filter = built(&crowd).expect("another seed helps");
        assert!(crowd.iter().all(|id| filter.may_contain(*id, hash(*id, 0))));
    }
}
