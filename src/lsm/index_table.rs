//! Entries of an index tree in memory: those of one bar.

use super::entry::{Entry, IndexEntry};
use super::sort::{self, LOW_BITS};
use crate::stdx::to_u64;
use std::cell::OnceCell;

/// Positions of a bar, from the first to the last, at most.
pub(super) const POSITIONS_MAX: u64 = 1 << LOW_BITS;

/// Entries as they arrived, and in order as soon as anybody needs that.
#[derive(Debug, Default)]
pub(super) struct IndexTable {
    /// As they arrived: the key, and how far the position is from the first one. Given away when the
    /// table is settled.
    arrived: Vec<u64>,
    sorted: OnceCell<Box<[u8]>>,
    pub(super) entries: u64,
    /// Of the first entry, if there is one.
    pub(super) position_low: u64,
    /// Of the last entry, if there is one.
    pub(super) position_high: u64,
}

impl IndexTable {
    /// A table that uses the memory of another one again.
    pub(super) fn with(arrived: Vec<u64>) -> Self {
        assert!(arrived.is_empty());
        Self {
            arrived,
            ..Self::default()
        }
    }

    #[inline]
    pub(super) fn push(&mut self, entry: IndexEntry) {
        if self.entries == 0 {
            self.position_low = entry.position;
        }
        assert!(self.position_high <= entry.position, "positions only grow");
        self.position_high = entry.position;
        self.entries += 1;
        let distance = entry.position - self.position_low;
        assert!(distance < POSITIONS_MAX, "a bar has few positions");
        self.arrived.push(entry.key << LOW_BITS | distance);
        if self.sorted.get().is_some() {
            self.sorted = OnceCell::new();
        }
    }

    #[inline]
    fn entry(&self, word: u64) -> IndexEntry {
        IndexEntry {
            key: word >> LOW_BITS,
            position: self.position_low + word % POSITIONS_MAX,
        }
    }

    /// Entries as trees have them.
    fn encoded(&self, words: impl ExactSizeIterator<Item = u64>) -> Box<[u8]> {
        let mut bytes = vec![0; words.len() * IndexEntry::SIZE].into_boxed_slice();
        for (room, word) in bytes.chunks_exact_mut(IndexEntry::SIZE).zip(words) {
            self.entry(word).store(room);
        }
        bytes
    }

    /// All entries in order.
    pub(super) fn sorted(&self) -> &[u8] {
        self.sorted.get_or_init(|| {
            let mut words = self.arrived.clone();
            sort::words(&mut words, &mut Vec::new());
            self.encoded(words.into_iter())
        })
    }

    /// The entries of a key in order, if looking at all is cheaper than sorting: the table is not
    /// sorted, and is going to change.
    pub(super) fn of_key(&self, key: u64) -> Option<Vec<u8>> {
        if self.sorted.get().is_some() {
            return None;
        }
        let words = self.arrived.iter().copied();
        let found: Vec<u64> = words.filter(|word| word >> LOW_BITS == key).collect();
        Some(self.encoded(found.into_iter()).into_vec())
    }

    /// Whether the table is sorted for good.
    pub(super) fn is_settled(&self) -> bool {
        self.entries == 0 || self.arrived.is_empty()
    }

    /// Sorts a table that gets no more entries; leaves memory to be used again in `spare`.
    pub(super) fn settle(&mut self, spare: &mut Vec<u64>) {
        let mut words = std::mem::take(&mut self.arrived);
        if self.sorted.get().is_none() {
            sort::words(&mut words, spare);
            self.sorted = OnceCell::from(self.encoded(words.iter().copied()));
        }
        if spare.capacity() < words.capacity() {
            *spare = words;
        }
        spare.clear();
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> u64 {
        let sorted = self.sorted.get().map_or(0, |sorted| sorted.len());
        to_u64(self.arrived.capacity() * size_of::<u64>() + sorted)
    }
}
