//! Entries of trees: fixed-size, ordered by a rank of 128 bits.
//!
//! Entries lie in pages of 4096 bytes and never straddle two of them; what is left of a page is zero.
//! Runs in memory have the same encoding, without pages.

use crate::stdx::{to_u64, u64_to_usize};
use std::sync::Arc;
use storage_format::SECTOR_SIZE;

/// Runs that merge into one.
pub const FAN: usize = 8;
/// Bits of a key, a position and a value.
pub const BITS: u32 = 48;
/// The greatest key, position and value.
pub const FIELD_MAX: u64 = (1 << BITS) - 1;

/// What trees hold.
pub trait Entry: Copy + std::fmt::Debug + Send + 'static {
    /// Bytes of an entry.
    const SIZE: usize;
    /// Entries of a page.
    const PER_PAGE: usize = SECTOR_SIZE / Self::SIZE;
    /// Whether blocks have filters.
    const FILTERED: bool;
    /// What a merge compares.
    type Head: Head;

    /// Reads the entry that begins at a byte.
    fn load(bytes: &[u8], at: usize) -> Self;
    /// Writes the entry to where it begins.
    fn store(&self, bytes: &mut [u8]);
    /// Its order: unique in an id tree; in an index tree equal only for equal entries.
    fn rank(&self) -> u128;
    /// What a merge compares of the entry that begins at a byte.
    fn head(bytes: &[u8], at: usize, input: usize) -> Self::Head;
}

/// Entries one after the other, as runs in memory have them.
pub(super) fn encoded<E: Entry>(entries: impl ExactSizeIterator<Item = E>) -> Arc<[u8]> {
    let mut bytes: Arc<[u8]> = std::iter::repeat_n(0, entries.len() * E::SIZE).collect();
    let room = Arc::get_mut(&mut bytes).expect("nobody else has it");
    store_all(room, entries);
    bytes
}

/// Writes entries to where the first begins.
pub(super) fn store_all<E: Entry>(room: &mut [u8], entries: impl Iterator<Item = E>) {
    for (room, entry) in room.chunks_exact_mut(E::SIZE).zip(entries) {
        entry.store(room);
    }
}

/// The next entry of an input of a merge, as far as its order goes.
pub trait Head: Copy {
    /// Behind every entry.
    const END: Self;
    /// The input.
    fn input(self) -> usize;
    /// Whether it comes before another one.
    fn is_before(self, other: Self) -> bool;
    /// The one that comes before the other one, and that; found without a branch, which could not be
    /// predicted.
    fn ordered(self, other: Self) -> (Self, Self);
}

/// A key and the position of a record that has it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IndexEntry {
    /// At most [`FIELD_MAX`].
    pub key: u64,
    /// At most [`FIELD_MAX`].
    pub position: u64,
}

/// An id and what it stands for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct IdEntry {
    /// Unique in its tree, and not the greatest that there is.
    pub id: u128,
    /// At most [`FIELD_MAX`].
    pub value: u64,
}

/// The rank of an index entry.
#[must_use]
#[inline]
pub const fn index_rank(key: u64, position: u64) -> u128 {
    (key as u128) << BITS | position as u128
}

/// The position in the rank of an index entry.
#[must_use]
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "the low bits are meant")]
pub const fn rank_position(rank: u128) -> u64 {
    rank as u64 & FIELD_MAX
}

#[inline]
fn word(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(*bytes.first_chunk().expect("eight bytes were sliced"))
}

impl Entry for IndexEntry {
    const SIZE: usize = 12;
    const FILTERED: bool = false;
    type Head = IndexHead;

    #[inline]
    fn load(bytes: &[u8], at: usize) -> Self {
        let bytes = &bytes[at..at + Self::SIZE];
        let low = word(&bytes[..8]);
        Self {
            key: low & FIELD_MAX,
            position: word(&bytes[4..]) >> 16,
        }
    }

    #[inline]
    fn store(&self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..Self::SIZE];
        bytes[4..].copy_from_slice(&(self.position << 16).to_le_bytes());
        let low = self.key | self.position << BITS;
        bytes[..8].copy_from_slice(&low.to_le_bytes());
    }

    #[inline]
    fn rank(&self) -> u128 {
        index_rank(self.key, self.position)
    }

    #[inline]
    fn head(bytes: &[u8], at: usize, input: usize) -> IndexHead {
        IndexHead((word(&bytes[at..at + 8]) & FIELD_MAX) << 3 | to_u64(input))
    }
}

/// A key, then the input: positions of older inputs are lower.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IndexHead(u64);

impl Head for IndexHead {
    const END: Self = Self(u64::MAX);

    #[inline]
    fn input(self) -> usize {
        u64_to_usize(self.0 & 7)
    }

    #[inline]
    fn is_before(self, other: Self) -> bool {
        self.0 < other.0
    }

    #[inline]
    fn ordered(self, other: Self) -> (Self, Self) {
        (Self(self.0.min(other.0)), Self(self.0.max(other.0)))
    }
}

impl Entry for IdEntry {
    const SIZE: usize = 22;
    const FILTERED: bool = true;
    type Head = IdHead;

    #[inline]
    fn load(bytes: &[u8], at: usize) -> Self {
        let bytes = &bytes[at..at + Self::SIZE];
        Self {
            id: u128::from_le_bytes(*bytes.first_chunk().expect("an entry has 22 bytes")),
            value: word(&bytes[14..]) >> 16,
        }
    }

    #[inline]
    fn store(&self, bytes: &mut [u8]) {
        let bytes = &mut bytes[..Self::SIZE];
        bytes[14..].copy_from_slice(&(self.value << 16).to_le_bytes());
        bytes[..16].copy_from_slice(&self.id.to_le_bytes());
    }

    #[inline]
    fn rank(&self) -> u128 {
        self.id
    }

    #[inline]
    fn head(bytes: &[u8], at: usize, input: usize) -> IdHead {
        IdHead {
            id: u128::from_le_bytes(*bytes[at..at + 16].first_chunk().expect("just sliced")),
            input,
        }
    }
}

/// An id, and the input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IdHead {
    id: u128,
    input: usize,
}

impl Head for IdHead {
    const END: Self = Self {
        id: u128::MAX,
        input: 0,
    };

    #[inline]
    fn input(self) -> usize {
        self.input & 7
    }

    #[inline]
    fn is_before(self, other: Self) -> bool {
        self.id < other.id
    }

    #[inline]
    fn ordered(self, other: Self) -> (Self, Self) {
        let before = self.id < other.id;
        (pick(before, self, other), pick(before, other, self))
    }
}

#[inline]
fn pick(one: bool, a: IdHead, b: IdHead) -> IdHead {
    IdHead {
        id: std::hint::select_unpredictable(one, a.id, b.id),
        input: std::hint::select_unpredictable(one, a.input, b.input),
    }
}

/// How many of the entries in `bytes` are below a rank.
#[must_use]
#[inline]
pub fn lower_bound<E: Entry>(bytes: &[u8], rank: u128) -> usize {
    let (mut base, mut left) = (0, bytes.len() / E::SIZE);
    while left > 0 {
        let half = left / 2;
        let below = E::load(bytes, (base + half) * E::SIZE).rank() < rank;
        // Compiles to moves: which way a search goes cannot be predicted.
        base = if below { base + half + 1 } else { base };
        left = if below { left - half - 1 } else { half };
    }
    base
}

#[cfg(test)]
mod tests {
    use super::{Entry, FIELD_MAX, IdEntry, IndexEntry, lower_bound};

    #[test]
    fn entries_read_as_they_were_written() {
        let mut bytes = [0xEE; 64];
        for (key, position) in [
            (0, 0),
            (FIELD_MAX, 1),
            (2, FIELD_MAX),
            (0x1234_5678_9ABC, 99),
        ] {
            let entry = IndexEntry { key, position };
            entry.store(&mut bytes[3..]);
            assert_eq!(IndexEntry::load(&bytes, 3), entry);
            assert_eq!(IndexEntry::head(&bytes, 3, 5).0, key << 3 | 5);
            let id = u128::MAX - u128::from(position);
            let entry = IdEntry { id, value: key };
            entry.store(&mut bytes[20..]);
            assert_eq!(IdEntry::load(&bytes, 20), entry);
            assert_eq!((bytes[2], bytes[15], bytes[42]), (0xEE, 0xEE, 0xEE));
        }
    }

    #[test]
    fn lower_bound_counts_what_is_below() {
        let mut bytes = vec![0; 50 * IndexEntry::SIZE];
        for (slot, bytes) in (0..).zip(bytes.chunks_exact_mut(IndexEntry::SIZE)) {
            let entry = IndexEntry {
                key: slot / 10,
                position: slot,
            };
            entry.store(bytes);
        }
        for slot in 0..50 {
            let rank = super::index_rank(slot / 10, slot);
            let expected = usize::try_from(slot).unwrap();
            assert_eq!(lower_bound::<IndexEntry>(&bytes, rank), expected);
            assert_eq!(lower_bound::<IndexEntry>(&bytes, rank + 1), expected + 1);
        }
    }
}
