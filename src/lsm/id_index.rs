//! From 128-bit ids to positions.
//!
//! A hash table in shards, each of which grows on its own, so that growing never stalls for long.
//! Entries hold the hash and the position; the id itself is in the table that the position leads to.

use crate::stdx::to_u64;
use hashbrown::HashTable;
use std::hash::{BuildHasher, Hasher};

const SHARDS: usize = 256;

/// Mixes an id to 64 bits; a fixed function, since nothing depends on the order of the table.
#[inline]
fn hash_of(id: u128) -> u64 {
    const A: u64 = 0x9E37_79B9_7F4A_7C15;
    const B: u64 = 0xD6E8_FEB8_6659_FD93;
    let [low, high]: [u64; 2] = zerocopy::transmute!(id);
    fold(fold(low ^ A, B) ^ high, A)
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product: [u64; 2] = zerocopy::transmute!(u128::from(a) * u128::from(b));
    product[0] ^ product[1]
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    hash: u64,
    position: u32,
}

/// Positions by id.
#[derive(Debug)]
pub struct IdIndex {
    shards: Vec<HashTable<Entry>>,
    count: usize,
}

/// An id whose hash is known.
#[derive(Clone, Copy, Debug)]
pub struct Hashed {
    hash: u64,
}

impl Default for IdIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl IdIndex {
    /// An empty index.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| HashTable::new()).collect(),
            count: 0,
        }
    }

    /// Ids that there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Hashes an id, for `find_hashed` and `insert`.
    #[must_use]
    #[inline]
    pub fn hash(id: u128) -> Hashed {
        Hashed { hash: hash_of(id) }
    }

    /// The position of an id; `is` tells whether the record at a position has it.
    #[must_use]
    #[inline]
    pub fn find(&self, hashed: Hashed, mut is: impl FnMut(u32) -> bool) -> Option<u32> {
        let hash = hashed.hash;
        let shard = &self.shards[shard_of(hash)];
        shard
            .find(hash, |entry| entry.hash == hash && is(entry.position))
            .map(|e| e.position)
    }

    /// Adds an id that is not there.
    #[inline]
    pub fn insert(&mut self, hashed: Hashed, position: u32) {
        let shard = &mut self.shards[shard_of(hashed.hash)];
        let entry = Entry {
            hash: hashed.hash,
            position,
        };
        let _ = shard.insert_unique(hashed.hash, entry, |entry| entry.hash);
        self.count += 1;
    }

    /// Removes an id that is there.
    ///
    /// # Panics
    /// When it is not.
    pub fn remove(&mut self, hashed: Hashed, position: u32) {
        let shard = &mut self.shards[shard_of(hashed.hash)];
        let entry = shard.find_entry(hashed.hash, |entry| entry.position == position);
        let _ = entry.expect("the caller added it").remove();
        self.count -= 1;
    }

    /// Bytes of memory that the index takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.shards
            .iter()
            .map(|shard| to_u64(shard.allocation_size()))
            .sum()
    }
}

/// The low bits choose the shard, the high ones the place in it.
#[inline]
fn shard_of(hash: u64) -> usize {
    usize::from(hash.to_le_bytes()[2])
}

/// The same mixing for `hashbrown::HashMap`s with small integer keys.
#[derive(Clone, Copy, Debug, Default)]
pub struct FixedState;

impl BuildHasher for FixedState {
    type Hasher = FixedHasher;
    fn build_hasher(&self) -> FixedHasher {
        FixedHasher(0)
    }
}

/// See [`FixedState`].
#[derive(Clone, Copy, Debug)]
pub struct FixedHasher(u64);

impl Hasher for FixedHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = hash_of(u128::from(self.0 ^ u64::from(*byte)));
        }
    }

    fn write_u32(&mut self, value: u32) {
        self.0 = hash_of(u128::from(self.0) << 64 | u128::from(value));
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = hash_of(u128::from(self.0) << 64 | u128::from(value));
    }

    fn write_u128(&mut self, value: u128) {
        self.0 ^= hash_of(value);
    }
}

#[cfg(test)]
mod tests {
    use super::IdIndex;

    #[test]
    fn ids_are_found_and_removed() {
        let mut index = IdIndex::new();
        let ids: Vec<u128> = (0..50_000).map(|n: u128| n * n << 40 | n).collect();
        for (position, id) in ids.iter().enumerate() {
            let position = u32::try_from(position).unwrap();
            let hashed = IdIndex::hash(*id);
            assert_eq!(index.find(hashed, |p| ids[p as usize] == *id), None);
            index.insert(hashed, position);
        }
        assert_eq!(index.len(), 50_000);
        for (position, id) in ids.iter().enumerate() {
            let found = index.find(IdIndex::hash(*id), |p| ids[p as usize] == *id);
            assert_eq!(found, Some(u32::try_from(position).unwrap()));
        }
        index.remove(IdIndex::hash(ids[7]), 7);
        assert_eq!(
            index.find(IdIndex::hash(ids[7]), |p| ids[p as usize] == ids[7]),
            None
        );
        assert!(index.memory() > 50_000 * 16);
    }
}
