//! An index from a hashed key to the position of its record.
//!
//! * An entry is 8 bytes: 32 bits of the hash, and the position. The key itself is read from the
//!   record, which the caller does in `matches`.
//! * There are 256 shards of different weight, so that they reach the point of growth one after
//!   the other: growing moves the entries of one shard, never of all.
//! * Entries are never iterated: their order means nothing.

use super::hash::{CELLS, Hash, spread};
use crate::stdx::to_u64;
use hashbrown::HashTable;

const SHARDS: usize = 256;
/// Cells of the lightest shard; the heaviest has nearly twice as many.
const WEIGHT_MIN: usize = 43;

#[derive(Clone, Copy, Debug)]
struct Entry {
    slot: u32,
    position: u32,
}

/// Keys to positions.
#[derive(Debug)]
pub struct IdIndex {
    shards: Vec<HashTable<Entry>>,
    /// The shard of each cell.
    cells: Vec<u8>,
    /// Bytes of the shards.
    memory: u64,
}

impl Default for IdIndex {
    fn default() -> Self {
        Self::new()
    }
}

impl IdIndex {
    /// An index without entries.
    #[must_use]
    pub fn new() -> Self {
        let mut cells = Vec::with_capacity(CELLS);
        for shard in 0..SHARDS {
            // Weights rise linearly: growth comes at evenly spread sizes.
            let weight = WEIGHT_MIN + shard * (CELLS - SHARDS * WEIGHT_MIN) * 2 / (SHARDS * SHARDS);
            let code = u8::try_from(shard).expect("there are 256 shards");
            cells.extend(std::iter::repeat_n(code, weight));
        }
        assert!(cells.len() <= CELLS);
        cells.resize(CELLS, u8::MAX);
        Self {
            shards: std::iter::repeat_with(HashTable::new)
                .take(SHARDS)
                .collect(),
            cells,
            memory: 0,
        }
    }

    #[inline]
    fn shard(&self, hash: Hash) -> usize {
        usize::from(self.cells[usize::from(hash.cell)])
    }

    /// The position with this hash whose record `matches`.
    #[inline]
    #[must_use]
    pub fn find(&self, hash: Hash, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        self.shards[self.shard(hash)]
            .find(spread(hash.slot), |entry| {
                entry.slot == hash.slot && matches(entry.position)
            })
            .map(|entry| entry.position)
    }

    /// A position with this hash, whatever its record is: nearly always what [`Self::find`] gives.
    #[inline]
    #[must_use]
    pub fn candidate(&self, hash: Hash) -> Option<u32> {
        self.shards[self.shard(hash)]
            .find(spread(hash.slot), |entry| entry.slot == hash.slot)
            .map(|entry| entry.position)
    }

    /// Adds a position, which must not be there.
    #[inline]
    pub fn insert(&mut self, hash: Hash, position: u32) {
        let shard = self.shard(hash);
        let table = &mut self.shards[shard];
        if table.len() == table.capacity() {
            let before = table.allocation_size();
            table.reserve(1, |entry| spread(entry.slot));
            self.memory = self.memory - to_u64(before) + to_u64(table.allocation_size());
        }
        table.insert_unique(
            spread(hash.slot),
            Entry {
                slot: hash.slot,
                position,
            },
            |entry| spread(entry.slot),
        );
    }

    /// Removes a position, which must be there.
    pub fn remove(&mut self, hash: Hash, position: u32) {
        let shard = self.shard(hash);
        let entry = self.shards[shard]
            .find_entry(spread(hash.slot), |entry| entry.position == position)
            .expect("only what was inserted is removed");
        entry.remove();
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.memory + to_u64(SHARDS * size_of::<HashTable<Entry>>() + CELLS)
    }
}

#[cfg(test)]
mod tests {
    use super::IdIndex;
    use crate::lsm::Hash;

    #[test]
    fn entries_are_found_and_removed() {
        let mut index = IdIndex::new();
        let keys: Vec<u128> = (0..50_000).map(|i| (i * 7 + i % 3) << 70).collect();
        for (position, key) in (0_u32..).zip(&keys) {
            let found = index.find(Hash::of(*key), |at| keys[at as usize] == *key);
            assert_eq!(found, None);
            index.insert(Hash::of(*key), position);
        }
        for (position, key) in (0_u32..).zip(&keys) {
            let found = index.find(Hash::of(*key), |at| keys[at as usize] == *key);
            assert_eq!(found, Some(position));
        }
        for (position, key) in (0_u32..).zip(&keys).step_by(2) {
            index.remove(Hash::of(*key), position);
        }
        for (position, key) in (0_u32..).zip(&keys) {
            let found = index.find(Hash::of(*key), |at| keys[at as usize] == *key);
            assert_eq!(found, (position % 2 == 1).then_some(position));
        }
    }

    #[test]
    fn shards_grow_one_after_the_other() {
        let mut index = IdIndex::new();
        let mut most = 0;
        for key in 0..2_000_000_u32 {
            let before = index.memory();
            index.insert(Hash::of(u128::from(key)), key);
            if key > 500_000 {
                most = most.max(index.memory() - before);
            }
        }
        assert!(most <= 16_384 * 9 + 4096, "{most} bytes at once");
        assert!(index.memory() < 2_000_000 * 21, "{}", index.memory());
    }
}
