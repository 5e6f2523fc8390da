//! Entries of an index tree in memory: those of one bar.

use super::entry::{Entry, IndexEntry};
use super::sort;
use crate::stdx::to_u64;
use std::cell::OnceCell;

/// Entries as they arrived, and in order as soon as anybody needs that.
#[derive(Debug, Default)]
pub(super) struct IndexTable {
    /// As they arrived; given away when the table is settled.
    arrived: Vec<IndexEntry>,
    sorted: OnceCell<Box<[u8]>>,
    pub(super) entries: u64,
    /// Of the first entry, if there is one.
    pub(super) position_low: u64,
    /// Of the last entry, if there is one.
    pub(super) position_high: u64,
}

impl IndexTable {
    /// A table that uses the memory of another one again.
    pub(super) fn with(arrived: Vec<IndexEntry>) -> Self {
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
        self.arrived.push(entry);
        if self.sorted.get().is_some() {
            self.sorted = OnceCell::new();
        }
    }

    /// All entries in order.
    pub(super) fn sorted(&self) -> &[u8] {
        self.sorted.get_or_init(|| {
            let mut bytes = vec![0; self.arrived.len() * IndexEntry::SIZE].into_boxed_slice();
            let mut room = bytes.chunks_exact_mut(IndexEntry::SIZE);
            let key = |at: usize| self.arrived[at].key;
            sort::in_order(self.arrived.len(), key, |at| {
                let room = room.next().expect("there is room for each");
                self.arrived[at].store(room);
            });
            bytes
        })
    }

    /// The entries of a key in order, if looking at all is cheaper than sorting: the table is not
    /// sorted, and is going to change.
    pub(super) fn of_key(&self, key: u64) -> Option<Vec<u8>> {
        if self.sorted.get().is_some() {
            return None;
        }
        let mut found = Vec::new();
        for entry in self.arrived.iter().filter(|entry| entry.key == key) {
            let at = found.len();
            found.resize(at + IndexEntry::SIZE, 0);
            entry.store(&mut found[at..]);
        }
        Some(found)
    }

    /// Whether the table is sorted for good.
    pub(super) fn is_settled(&self) -> bool {
        self.entries == 0 || self.arrived.is_empty()
    }

    /// Sorts a table that gets no more entries; gives the memory that it needs no longer.
    pub(super) fn settle(&mut self) -> Vec<IndexEntry> {
        let _ = self.sorted();
        let mut arrived = std::mem::take(&mut self.arrived);
        arrived.clear();
        arrived
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> u64 {
        let sorted = self.sorted.get().map_or(0, |sorted| sorted.len());
        to_u64(self.arrived.capacity() * size_of::<IndexEntry>() + sorted)
    }
}
