//! A tree from ids, unique over the whole of it, to values.
//!
//! What is in memory is found with [`IdTree::find`], at once and without pages; what is on disk with
//! [`IdTree::lookup`] and [`IdTree::lookup_many`]. An id is in one of both, never in both.

use super::entry::{FAN, FIELD_MAX, IdEntry};
use super::id_group::IdGroup;
use super::id_lookup::{self, Lookup, Scratch};
use super::layout::{Layout, TreeOptions};
use super::tiers::{Extent, Memory, Tiers, TreeState};
use crate::constants::BATCH_EVENTS_MAX;
use crate::grid::store::{BlockStore, Pages};
use crate::stdx::{to_u64, u64_to_usize};
use std::cell::RefCell;

/// Groups in memory: one may be merging while the other one fills.
const GROUPS: usize = 2;

/// See the module.
#[derive(Debug)]
pub struct IdTree {
    /// The oldest first; the last one fills.
    groups: Vec<IdGroup>,
    /// Emptied groups.
    spare: Vec<IdGroup>,
    tiers: Tiers<IdEntry>,
    scratch: RefCell<Scratch>,
}

/// Ids that a group has at most: a bar ends with the op that completes it.
fn group_ids(options: TreeOptions) -> u64 {
    to_u64(FAN) * (options.bar + u64::from(BATCH_EVENTS_MAX))
}

impl IdTree {
    /// A tree without entries.
    #[must_use]
    pub fn new(number: u8, options: TreeOptions) -> Self {
        Self::of(Tiers::new(number, options), options)
    }

    fn of(tiers: Tiers<IdEntry>, options: TreeOptions) -> Self {
        let group = || IdGroup::new(u64_to_usize(group_ids(options)));
        Self {
            groups: vec![group()],
            spare: std::iter::repeat_with(group).take(GROUPS - 1).collect(),
            tiers,
            scratch: RefCell::default(),
        }
    }

    fn open(&mut self) -> &mut IdGroup {
        self.groups.last_mut().expect("a group fills")
    }

    /// Adds an entry, whose id must be nowhere in the tree.
    #[inline]
    pub fn push(&mut self, id: u128, value: u64) {
        assert!(id < u128::MAX);
        assert!(value <= FIELD_MAX);
        self.open().push(IdEntry { id, value });
    }

    /// Takes back the entry that was pushed last, within this bar.
    pub fn pop(&mut self) -> Option<IdEntry> {
        self.open().pop()
    }

    /// The value of an id in memory.
    #[inline]
    #[must_use]
    pub fn find(&self, id: u128) -> Option<u64> {
        self.groups.iter().rev().find_map(|group| group.find(id))
    }

    /// Looks for an id on disk.
    #[must_use]
    pub fn lookup(&self, pages: &impl Pages, id: u128) -> Lookup {
        let mut found = Lookup::Absent;
        for run in self.tiers.runs().rev() {
            match id_lookup::lookup(run, &self.tiers.layout, pages, id) {
                Lookup::Absent => {}
                Lookup::Found(value) => return Lookup::Found(value),
                // Another run may have it; if not, all that is missing is noted at once.
                Lookup::Missing => found = Lookup::Missing,
            }
        }
        found
    }

    /// Looks for many ids on disk, in any order: `out` has what is known of each.
    pub fn lookup_many(&self, pages: &impl Pages, ids: &[u128], out: &mut Vec<Lookup>) {
        let scratch = &mut *self.scratch.borrow_mut();
        let runs = self.tiers.runs().rev();
        let layout = &self.tiers.layout;
        id_lookup::lookup_many(runs, layout, pages, ids, (scratch, out));
    }

    /// Ends a bar: what was added since the last one becomes a run.
    pub fn bar(&mut self) {
        self.open().bar();
        if self.open().is_full() {
            let next = self.spare.pop().expect("a merge is done in time");
            self.groups.push(next);
        }
        self.begin_if_due();
    }

    /// A bar ended: begins the merges on disk whose turn it is.
    pub fn begin_merges(&mut self, store: &mut impl BlockStore) {
        let bars = self.groups.iter().map(IdGroup::bars).sum();
        self.tiers.begin_if_due(bars, store);
    }

    fn begin_if_due(&mut self) {
        if self.groups[0].is_full() && !self.tiers.memory_merging() {
            self.tiers.memory_begin(self.groups[0].entries());
        }
    }

    /// Begins to sort the oldest run of a group in memory that is not sorted yet, here or on another core; false if all
    /// are, or one of each group is at it. Nobody has to call it: it takes work from the op that would need the order.
    pub fn sort_begin(&mut self, store: &mut impl BlockStore) -> bool {
        let mut groups = self.groups.iter_mut();
        groups.any(|group| group.sort_begin(|job| store.spawn(job)))
    }

    /// Waits for the run that is being sorted, if there is one.
    pub async fn sort_end(&mut self) {
        for group in &mut self.groups {
            group.sort_end().await;
        }
    }

    /// Begins a beat of so many units: what it is for the merges may be done on another core.
    pub async fn beat_begin(&mut self, units: u64, store: &mut impl BlockStore) {
        let memory = memory(&mut self.groups, self.tiers.memory_merging()).await;
        self.tiers.beat_begin(units, memory, store).await;
    }

    /// Ends a beat, if one was begun.
    pub async fn beat_end(&mut self, store: &mut impl BlockStore) {
        if self.tiers.beat_end(store, (0, 0)).await {
            let mut group = self.groups.remove(0);
            group.clear();
            self.spare.push(group);
            self.begin_if_due();
        }
    }

    /// A beat from its beginning to its end.
    pub async fn beat(&mut self, store: &mut impl BlockStore, units: u64) {
        self.beat_begin(units, store).await;
        self.beat_end(store).await;
    }

    /// What a manifest needs.
    #[must_use]
    pub fn state(&self) -> TreeState {
        let bars: usize = self.groups.iter().map(IdGroup::bars).sum();
        TreeState {
            memory_runs: to_u64(bars),
            ..self.tiers.state()
        }
    }

    /// The tree of a manifest, without what was in memory: that is to be pushed again, with as many
    /// bars as the state says, and then [`Self::resume`] is to be called.
    pub async fn restore(
        number: u8,
        options: TreeOptions,
        state: TreeState,
        store: &mut impl BlockStore,
    ) -> Self {
        let tiers = Tiers::restore(number, options, state, store).await;
        Self::of(tiers, options)
    }

    /// Goes on where the tree of the manifest was, when all is pushed again that was in memory.
    pub async fn resume(&mut self, store: &mut impl BlockStore) {
        let memory = memory(&mut self.groups, self.tiers.memory_merging()).await;
        self.tiers.resume(memory, store).await;
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let groups = self.groups.iter().chain(&self.spare);
        groups.map(IdGroup::memory).sum::<u64>() + self.tiers.memory()
    }

    /// Bytes on the heap at most: everything that is on disk may be merging, so that its filters are
    /// there twice. A bar has no more entries than units.
    #[must_use]
    pub fn memory_max(extent: &Extent, options: TreeOptions) -> u64 {
        let layout = Layout::new::<IdEntry>(options.pages);
        super::tiers::memory_max::<IdEntry>(extent, &layout, options)
            + to_u64(GROUPS) * IdGroup::memory_max(group_ids(options))
    }

    /// Bytes on the heap for what is on disk: fences and filters. The buffers of merges are a matter
    /// of [`Self::memory_max`].
    #[must_use]
    pub fn disk_memory(&self) -> u64 {
        self.tiers.run_memory()
    }

    /// Its number.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.tiers.number
    }

    /// Blocks on disk.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.tiers.block_count()
    }

    #[cfg(test)]
    pub(super) fn filters(&self) -> Vec<Option<super::fuse::Filter>> {
        self.tiers.filters()
    }

    /// Tiers that there are, that in memory included.
    #[must_use]
    pub fn tiers(&self) -> usize {
        self.tiers.len()
    }
}

/// The bars of the first group, sorted, if they are merging.
async fn memory(groups: &mut [IdGroup], merging: bool) -> Option<Memory> {
    if !merging {
        return None;
    }
    groups[0].sort_end().await;
    while groups[0].sort_begin(|job| job()) {
        groups[0].sort_end().await;
    }
    Some(groups[0].sorted())
}
