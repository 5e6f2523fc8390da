//! Entries of an index tree in memory: those of one bar.

use super::entry::{self, Entry, IndexEntry};
use super::sort::{self, LOW_BITS};
use crate::stdx::{Job, Task, to_u64};
use std::cell::OnceCell;
use std::sync::Arc;

/// Positions of a bar, from the first to the last, at most.
pub(super) const POSITIONS_MAX: u64 = 1 << LOW_BITS;

/// Entries as they arrived, and in order as soon as anybody needs that.
#[derive(Debug, Default)]
pub(super) struct IndexTable {
    /// As they arrived: the key, and how far the position is from the first one. Given away when the
    /// table is sorted for good.
    arrived: Vec<u64>,
    sorting: Option<Task<Sorted>>,
    sorted: OnceCell<Arc<[u8]>>,
    pub(super) entries: u64,
    /// Of the first entry, if there is one.
    pub(super) position_low: u64,
    /// Of the last entry, if there is one.
    pub(super) position_high: u64,
}

/// What the sorting of a table gives, and the memory that it took.
type Sorted = (Arc<[u8]>, [Vec<u64>; 2]);

/// The entries of words whose positions begin there.
fn entries(words: &[u64], position_low: u64) -> impl ExactSizeIterator<Item = IndexEntry> {
    words.iter().map(move |word| IndexEntry {
        key: word >> LOW_BITS,
        position: position_low + word % POSITIONS_MAX,
    })
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

    /// All entries in order; the table is not being sorted.
    pub(super) fn sorted(&self) -> &Arc<[u8]> {
        assert!(!self.is_sorting(), "whoever looks waits before");
        self.sorted.get_or_init(|| {
            let mut words = self.arrived.clone();
            sort::words(&mut words, &mut Vec::new());
            entry::encoded(entries(&words, self.position_low))
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
        let mut bytes = vec![0; found.len() * IndexEntry::SIZE];
        entry::store_all(&mut bytes, entries(&found, self.position_low));
        Some(bytes)
    }

    /// Whether the table is sorted for good.
    pub(super) fn is_settled(&self) -> bool {
        self.entries == 0 || (self.arrived.is_empty() && !self.is_sorting())
    }

    /// Whether it is being sorted.
    pub(super) fn is_sorting(&self) -> bool {
        self.sorting.is_some()
    }

    /// Begins to sort a table that gets no more entries; it works in `spare`.
    pub(super) fn sort_begin(&mut self, mut spare: Vec<u64>, spawn: impl FnOnce(Job)) {
        assert!(!self.is_settled() && !self.is_sorting());
        let mut words = std::mem::take(&mut self.arrived);
        let (sorted, position_low) = (self.sorted.take(), self.position_low);
        let sort = move || {
            let sorted = sorted.unwrap_or_else(|| {
                sort::words(&mut words, &mut spare);
                entry::encoded(entries(&words, position_low))
            });
            words.clear();
            spare.clear();
            (sorted, [words, spare])
        };
        self.sorting = Some(Task::new(spawn, sort));
    }

    /// Waits until the table is sorted, if it is being sorted. Gives memory to be used again.
    pub(super) async fn sort_end(&mut self) -> Option<[Vec<u64>; 2]> {
        let (sorted, memory) = self.sorting.take()?.join().await;
        self.sorted = OnceCell::from(sorted);
        Some(memory)
    }

    /// Bytes on the heap, without what sorting takes.
    pub(super) fn memory(&self) -> u64 {
        let sorted = self.sorted.get().map_or(0, |sorted| sorted.len());
        to_u64(self.arrived.capacity() * size_of::<u64>() + sorted)
    }
}
