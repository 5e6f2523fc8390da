//! The hash of 128-bit keys: the same in every process, so that replicas do the same work.
//!
//! Eight adjacent keys share a shard and adjacent buckets: sequential ids then touch one cache line
//! where scattered ones touch eight.

/// Cells that shards are made of.
pub const CELLS: usize = 1 << 14;

pub(super) const KEY_LOW: u64 = 0x9E37_79B9_7F4A_7C15;
pub(super) const KEY_HIGH: u64 = 0xD1B5_4A32_D192_ED03;

/// Where a key belongs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Hash {
    /// Below [`CELLS`].
    pub cell: u16,
    /// Within the shard.
    pub slot: u32,
}

impl Hash {
    /// The hash of a key.
    #[must_use]
    pub const fn of(key: u128) -> Self {
        let group = key >> 3;
        let mixed = fold(fold(low(group) ^ KEY_LOW, KEY_HIGH) ^ high(group), KEY_LOW);
        let within = low32(low(key)) & 7;
        Self {
            cell: low16(mixed >> 50),
            // The low bits choose the bucket, the high bits are the tag that tells neighbours apart.
            slot: (low32(mixed) & !7 | within) ^ within << 29,
        }
    }
}

/// Bits of a slot, spread as a hash table wants them: it takes buckets from the low end and tags
/// from the high end of 64 bits.
#[must_use]
pub const fn spread(slot: u32) -> u64 {
    (slot as u64) << 32 | slot as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub(super) const fn low(value: u128) -> u64 {
    value as u64
}

pub(super) const fn high(value: u128) -> u64 {
    low(value >> 64)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
pub(super) const fn low32(value: u64) -> u32 {
    value as u32
}

#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub(super) const fn low16(value: u64) -> u16 {
    value as u16
}

/// 64 bits of a key, each of which depends on all of it.
#[must_use]
pub const fn mix(key: u128) -> u64 {
    fold(fold(low(key) ^ KEY_LOW, KEY_HIGH) ^ high(key), KEY_LOW)
}

/// The two halves of the product, folded into one.
pub(super) const fn fold(a: u64, b: u64) -> u64 {
    let product = a as u128 * b as u128;
    low(product) ^ high(product)
}

/// Ids that are different, and have the same hash: for tests. The high half takes out again what the
/// low one brings in; for one low half in eight it has few enough bits.
#[must_use]
pub const fn colliding(number: u64) -> u128 {
    const HIGH_BITS: u32 = u64::BITS - 3;
    let mut low_half = (number << 20) + 1;
    loop {
        let high_half = fold(low_half ^ KEY_LOW, KEY_HIGH);
        if high_half >> HIGH_BITS == 0 {
            return ((high_half as u128) << 64 | low_half as u128) << 3;
        }
        low_half += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::{CELLS, Hash, colliding};

    #[test]
    fn ids_collide_on_purpose() {
        let ids: std::collections::BTreeSet<u128> = (0..1000).map(colliding).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| Hash::of(*id) == Hash::of(colliding(0))));
    }

    #[test]
    fn neighbours_share_a_cell_and_differ_in_slot() {
        let first = Hash::of(800);
        for key in 801..808 {
            let other = Hash::of(key);
            assert_eq!(other.cell, first.cell);
            assert_ne!(other.slot, first.slot);
            assert_ne!(other.slot >> 25, first.slot >> 25, "tags differ");
        }
    }

    #[test]
    fn cells_fill_evenly() {
        let mut counts = vec![0_u32; CELLS];
        for key in 0..1_600_000_u128 {
            counts[usize::from(Hash::of(key << 40).cell)] += 1;
        }
        let most = counts.iter().max().copied().unwrap_or(0);
        let least = counts.iter().min().copied().unwrap_or(0);
        assert!(least > 40 && most < 170, "{least} to {most}");
    }
}
