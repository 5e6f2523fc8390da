//! Ids in memory: those of the eight bars that will merge together.
//!
//! They are found by a hash table over them in the order of arrival; neighbours share cache lines,
//! see [`hash`](super::hash). Each bar is sorted once, for the merge; when the group is on disk it
//! is emptied as a whole.

use super::entry::{self, Entry, FAN, IdEntry};
use super::hash::{Hash, spread};
use super::sort;
use crate::stdx::{Job, Task, to_u64, to_usize};
use hashbrown::HashTable;
use std::sync::Arc;

/// An entry as it is kept: without the gap that alignment would leave.
#[derive(Clone, Copy, Debug)]
struct Kept {
    id: [u64; 2],
    value: u64,
}

impl Kept {
    #[inline]
    fn id(&self) -> u128 {
        u128::from(self.id[1]) << 64 | u128::from(self.id[0])
    }
}

#[inline]
fn hash_of(id: u128) -> u64 {
    spread(Hash::of(id).slot)
}

#[derive(Debug)]
pub(super) struct IdGroup {
    arrived: Vec<Kept>,
    /// Where they are among those that arrived.
    table: HashTable<u32>,
    /// All ids lie between, these included: ids that grow with time are known to be new at once.
    lowest: u128,
    highest: u128,
    /// Of each bar that ended, where it ended.
    ends: Vec<usize>,
    /// The first of these bars, sorted.
    sorted: Vec<Arc<[u8]>>,
    /// The next of them.
    sorting: Option<Task<Arc<[u8]>>>,
}

/// Entries in the order of the ids.
fn sorted(arrived: &[Kept]) -> Arc<[u8]> {
    let order = sort::ids_in_order(arrived.len(), |at| arrived[at].id());
    entry::encoded(order.into_iter().map(|number| {
        let kept = &arrived[to_usize(number)];
        IdEntry {
            id: kept.id(),
            value: kept.value,
        }
    }))
}

impl IdGroup {
    /// An empty group that has room for so many ids.
    pub(super) fn new(ids: usize) -> Self {
        Self {
            arrived: Vec::with_capacity(ids),
            table: HashTable::with_capacity(ids),
            lowest: u128::MAX,
            highest: 0,
            ends: Vec::with_capacity(FAN),
            sorted: Vec::with_capacity(FAN),
            sorting: None,
        }
    }

    /// Gives up all entries, and keeps their memory.
    pub(super) fn clear(&mut self) {
        self.arrived.clear();
        self.table.clear();
        (self.lowest, self.highest) = (u128::MAX, 0);
        self.ends.clear();
        assert!(
            self.sorting.is_none(),
            "all bars of a group that merged are sorted"
        );
        self.sorted.clear();
    }

    #[inline]
    pub(super) fn push(&mut self, entry: IdEntry) {
        let number = u32::try_from(self.arrived.len()).expect("a group has few ids");
        self.lowest = self.lowest.min(entry.id);
        self.highest = self.highest.max(entry.id);
        let id = entry.id.to_le_bytes();
        let (low, high) = id.split_at(8);
        let word = |half: &[u8]| u64::from_le_bytes(*half.first_chunk().expect("half of an id"));
        let kept = Kept {
            id: [word(low), word(high)],
            value: entry.value,
        };
        self.arrived.push(kept);
        let arrived = &self.arrived;
        let rehash = |number: &u32| hash_of(arrived[to_usize(*number)].id());
        let _ = self.table.insert_unique(hash_of(entry.id), number, rehash);
    }

    /// Takes back what was pushed last since the last bar, if there is anything.
    pub(super) fn pop(&mut self) -> Option<IdEntry> {
        if self.arrived.len() == self.bar_start() {
            return None;
        }
        let kept = self.arrived.pop()?;
        let number = self.arrived.len();
        let there = self
            .table
            .find_entry(hash_of(kept.id()), |at| to_usize(*at) == number);
        let _ = there.expect("what was pushed is there").remove();
        Some(IdEntry {
            id: kept.id(),
            value: kept.value,
        })
    }

    fn bar_start(&self) -> usize {
        self.ends.last().copied().unwrap_or(0)
    }

    #[inline]
    pub(super) fn find(&self, id: u128) -> Option<u64> {
        if id < self.lowest || id > self.highest {
            return None;
        }
        let arrived = |number: &u32| &self.arrived[to_usize(*number)];
        let found = self
            .table
            .find(hash_of(id), |number| arrived(number).id() == id);
        found.map(|number| arrived(number).value)
    }

    pub(super) fn bar(&mut self) {
        assert!(self.ends.len() < FAN);
        self.ends.push(self.arrived.len());
    }

    /// Bars that ended.
    pub(super) fn bars(&self) -> usize {
        self.ends.len()
    }

    /// Whether all bars are there that will merge.
    pub(super) fn is_full(&self) -> bool {
        self.ends.len() == FAN
    }

    /// Entries of the bars that ended.
    pub(super) fn entries(&self) -> u64 {
        to_u64(self.bar_start())
    }

    /// Begins to sort a copy of a bar that ended; false if all are sorted, or one is at it.
    pub(super) fn sort_begin(&mut self, spawn: impl FnOnce(Job)) -> bool {
        let bar = self.sorted.len();
        let end = self.ends.get(bar).copied();
        let Some(end) = end.filter(|_| self.sorting.is_none()) else {
            return false;
        };
        let start = bar.checked_sub(1).map_or(0, |before| self.ends[before]);
        let arrived = self.arrived[start..end].to_vec();
        self.sorting = Some(Task::new(spawn, move || sorted(&arrived)));
        true
    }

    /// Waits for the bar that is being sorted, if there is one.
    pub(super) async fn sort_end(&mut self) {
        if let Some(sorting) = self.sorting.take() {
            self.sorted.push(sorting.join().await);
        }
    }

    /// The sorted bars of a full group, all of which are sorted.
    pub(super) fn sorted(&self) -> [Arc<[u8]>; FAN] {
        assert_eq!(self.sorted.len(), FAN, "all bars are sorted");
        std::array::from_fn(|bar| Arc::clone(&self.sorted[bar]))
    }

    /// Bytes on the heap.
    pub(super) fn memory(&self) -> u64 {
        let sorted: usize = self.sorted.iter().map(|bytes| bytes.len()).sum();
        let arrived = self.arrived.capacity() * size_of::<Kept>();
        to_u64(arrived + self.table.allocation_size() + sorted)
    }

    /// Bytes on the heap of a full group that was made for so many ids.
    pub(super) fn memory_max(ids: u64) -> u64 {
        let buckets = (ids * 8 / 7 + 1).next_power_of_two().max(16);
        let table = buckets * (to_u64(size_of::<u32>()) + 1) + 64;
        // A bar, of which there are eight, is copied to be sorted.
        let copy = ids * to_u64(size_of::<Kept>()) / to_u64(FAN);
        ids * to_u64(size_of::<Kept>() + IdEntry::SIZE) + copy + table
    }
}
