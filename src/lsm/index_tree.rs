//! A tree from keys to the positions of the records that have them.
//!
//! * Entries gather in a table. At a bar it becomes a run of tier 0, still in memory; from tier 1 on,
//!   runs are on disk, see [`tiers`](super::tiers).
//! * Positions only grow, so every entry of an older run is before every one of a newer run that has
//!   the same key: who walks a key visits runs one after the other and merges nothing.
//! * What is on disk depends on the entries, bars and beats alone.

use super::cursor::{Cursor, Part};
use super::entry::{Entry, FAN, FIELD_MAX, IndexEntry, index_rank, lower_bound};
use super::index_table::IndexTable;
use super::layout::{Layout, TreeOptions, page_of};
use super::run::{Run, RunState};
use super::tiers::{Extent, Memory, Tiers, TreeState};
use crate::grid::store::{BlockStore, Pages};
use crate::stdx::to_u64;
use std::collections::VecDeque;
use std::ops::RangeInclusive;
use std::sync::Arc;

/// Pages of a key that are asked for at once, after the first.
const PRIME_PAGES: usize = 4;

/// Bars that the trees have to begin at, one after the other: as many as are left when a merge of runs in
/// memory takes half of the time, and ends an op after its last share began.
const BEGINS: usize = FAN / 2 - 1;

/// Runs in memory that may wait to be sorted, or be at it: there is memory for their unsorted entries.
const UNSORTED_MAX: usize = 2;
/// Pieces of memory that are kept: for the next table, and for sorting.
const SPARES_MAX: usize = 2;

/// See the module.
#[derive(Debug)]
pub struct IndexTree {
    /// Entries since the last bar.
    open: IndexTable,
    /// Tier 0, the oldest first; the first eight may be merging.
    frozen: VecDeque<IndexTable>,
    tiers: Tiers<IndexEntry>,
    /// Memory to be used again.
    spares: Vec<Vec<u64>>,
    /// Entries of a bar at most.
    bar_entries: usize,
}

impl IndexTree {
    /// A tree without entries.
    #[must_use]
    pub fn new(number: u8, options: TreeOptions) -> Self {
        Self::of(Tiers::new(number, options), options)
    }

    fn of(tiers: Tiers<IndexEntry>, options: TreeOptions) -> Self {
        let bar_entries = options.bar_entries;
        Self {
            open: IndexTable::with(Vec::with_capacity(bar_entries)),
            frozen: VecDeque::new(),
            tiers,
            spares: Vec::new(),
            bar_entries,
        }
    }

    /// Memory for a bar.
    fn spare(&mut self) -> Vec<u64> {
        let mut spare = self.spares.pop().unwrap_or_default();
        spare.reserve_exact(self.bar_entries);
        spare
    }

    /// Adds an entry; positions never go back, and begin anew above those before a bar.
    #[inline]
    pub fn push(&mut self, key: u64, position: u64) {
        assert!(key <= FIELD_MAX);
        assert!(position <= FIELD_MAX);
        self.open.push(IndexEntry { key, position });
    }

    /// Ends a bar: what was added since the last one becomes a run.
    pub async fn bar(&mut self) {
        let unsorted = |table: &IndexTable| !table.is_settled();
        if self.frozen.iter().filter(|table| unsorted(table)).count() == UNSORTED_MAX
            && let Some(oldest) = self.frozen.iter().position(unsorted)
        {
            self.sort_first(oldest + 1).await;
        }
        let next = IndexTable::with(self.spare());
        let table = std::mem::replace(&mut self.open, next);
        self.frozen.push_back(table);
        // One more than there ever are: a binary before this one began its merges later.
        assert!(self.frozen.len() <= 2 * FAN, "a merge is done in time");
        self.begin_if_due();
    }

    /// A bar ended: begins the merges on disk whose turn it is.
    pub fn begin_merges(&mut self, store: &mut impl BlockStore) {
        self.tiers.begin_if_due(self.frozen.len(), store);
    }

    /// Runs in memory begin to merge when there are eight, or some more: not those of all trees at the same time.
    fn begin_if_due(&mut self) {
        let begin = FAN + self.tiers.turn() % BEGINS;
        if self.frozen.len() >= begin && !self.tiers.memory_merging() {
            self.memory_begin();
        }
    }

    fn memory_begin(&mut self) {
        let total = self.frozen.iter().take(FAN).map(|table| table.entries);
        self.tiers.memory_begin(total.sum());
    }

    /// Begins to sort the oldest run in memory that is not sorted yet, here or on another core; false if all are, or
    /// one is at it. Nobody has to call it: it takes work from the op that would need the order.
    pub fn sort_begin(&mut self, store: &mut impl BlockStore) -> bool {
        if self.frozen.iter().any(IndexTable::is_sorting) {
            return false;
        }
        let Some(oldest) = self.frozen.iter().position(|table| !table.is_settled()) else {
            return false;
        };
        let spare = self.spare();
        self.frozen[oldest].sort_begin(spare, |job| store.spawn(job));
        true
    }

    /// Waits for the run that is being sorted, if there is one: it cannot be looked at before.
    pub async fn sort_end(&mut self) {
        for table in &mut self.frozen {
            keep(&mut self.spares, table.sort_end().await);
        }
    }

    /// Has so many runs in memory sorted.
    async fn sort_first(&mut self, runs: usize) {
        for run in 0..runs.min(self.frozen.len()) {
            let table = &self.frozen[run];
            if !table.is_settled() && !table.is_sorting() {
                let spare = self.spare();
                self.frozen[run].sort_begin(spare, |job| job());
            }
            keep(&mut self.spares, self.frozen[run].sort_end().await);
        }
    }

    /// Begins a beat of so many units: what it is for the merges may be done on another core.
    pub async fn beat_begin(&mut self, units: u64, store: &mut impl BlockStore) {
        if self.tiers.memory_merging() {
            self.sort_first(FAN).await;
        }
        let memory = memory(&self.frozen, self.tiers.memory_merging());
        self.tiers.beat_begin(units, memory, store).await;
    }

    /// Ends a beat, if one was begun.
    pub async fn beat_end(&mut self, store: &mut impl BlockStore) {
        let positions = positions(&self.frozen);
        if self.tiers.beat_end(store, positions).await {
            let _ = self.frozen.drain(..FAN);
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
        TreeState {
            memory_runs: to_u64(self.frozen.len()),
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
        Self::of(Tiers::restore(number, options, state, store).await, options)
    }

    /// Goes on where the tree of the manifest was, when all is pushed again that was in memory.
    pub async fn resume(&mut self, store: &mut impl BlockStore) {
        if self.tiers.resumes() && !self.tiers.memory_merging() {
            // A binary before this one began its merges at eight.
            self.memory_begin();
        }
        let memory = memory(&self.frozen, self.tiers.memory_merging());
        self.tiers.resume(memory, store).await;
    }

    /// Entries of a key within bounds, at most: exact in memory, a guess by whole blocks on disk.
    #[must_use]
    pub fn count_max(&self, key: u64, positions: &RangeInclusive<u64>) -> u64 {
        let low = index_rank(key, *positions.start());
        let high = index_rank(key, (*positions.end()).min(FIELD_MAX));
        if positions.is_empty() || low > high {
            return 0;
        }
        let between = |entries: &[u8]| {
            let end = lower_bound::<IndexEntry>(entries, high + 1);
            to_u64(end - lower_bound::<IndexEntry>(entries, low))
        };
        let frozen: u64 = self
            .frozen
            .iter()
            .map(|table| between(table.sorted()))
            .sum();
        let open = match self.open.of_key(key) {
            Some(entries) => between(&entries),
            None => between(self.open.sorted()),
        };
        let layout = self.tiers.layout;
        let runs = self
            .tiers
            .runs()
            .filter(|run| run.overlaps(low, high) && run.has_positions(positions));
        let on_disk = runs.map(|run| {
            let blocks = run.block_of(low, 0)..=run.block_of(high, 0);
            let entries = |block| layout.entries_of(run.state.entries, block);
            to_u64(blocks.map(entries).sum())
        });
        open + frozen + on_disk.sum::<u64>()
    }

    /// Walks the positions of a key within bounds, upwards or downwards.
    #[must_use]
    pub fn cursor<'a>(
        &'a self,
        key: u64,
        positions: &RangeInclusive<u64>,
        reversed: bool,
    ) -> Cursor<'a> {
        assert!(key <= FIELD_MAX);
        let bounds = *positions.start()..=(*positions.end()).min(FIELD_MAX);
        let within = |low: u64, high: u64| low <= *bounds.end() && *bounds.start() <= high;
        let runs = self.tiers.runs().filter(|run| {
            let RunState {
                entries,
                position_low,
                position_high,
                ..
            } = run.state;
            entries > 0 && within(position_low, position_high)
        });
        let has = |table: &IndexTable| {
            table.entries > 0 && within(table.position_low, table.position_high)
        };
        let frozen = self.frozen.iter().filter(|table| has(table));
        let open = has(&self.open).then(|| match self.open.of_key(key) {
            Some(entries) => Part::Listed(entries),
            None => Part::Memory(&self.open),
        });
        let parts = runs.map(Part::Disk).chain(frozen.map(Part::Memory));
        let mut parts: Vec<Part<'a>> = parts.chain(open).collect();
        if !reversed {
            // The next part is taken from the end.
            parts.reverse();
        }
        Cursor::new(self.tiers.layout, key, bounds, reversed, parts)
    }

    /// Asks for the pages that a walk of a key would read first in each run, so that those which are
    /// missing are noted all at once. When header pages were missing, it takes a second time.
    pub fn prime(
        &self,
        pages: &impl Pages,
        key: u64,
        positions: &RangeInclusive<u64>,
        reversed: bool,
    ) {
        let low = index_rank(key, *positions.start());
        let high = index_rank(key, (*positions.end()).min(FIELD_MAX));
        if positions.is_empty() {
            return;
        }
        for run in self.tiers.runs() {
            if run.overlaps(low, high) && run.has_positions(positions) {
                prime(run, &self.tiers.layout, pages, low..=high, reversed);
            }
        }
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let tables = self.frozen.iter().chain(std::iter::once(&self.open));
        let spares = self.spares.iter().map(Vec::capacity).sum::<usize>();
        let spares = to_u64(spares * size_of::<u64>());
        tables.map(IndexTable::memory).sum::<u64>() + spares + self.tiers.memory()
    }

    /// Bytes on the heap at most: everything that is on disk may be merging, so that its blocks are
    /// known twice.
    #[must_use]
    pub fn memory_max(extent: &Extent, options: TreeOptions) -> u64 {
        let bar_entries = to_u64(options.bar_entries);
        let layout = Layout::new::<IndexEntry>(options.pages);
        super::tiers::memory_max::<IndexEntry>(extent, &layout, options)
            + 2 * to_u64(FAN) * bar_entries * to_u64(IndexEntry::SIZE)
            // Also the table that fills, and the memory that is to be used again.
            + to_u64(UNSORTED_MAX + SPARES_MAX + 1) * bar_entries * to_u64(size_of::<u64>())
    }

    #[cfg(test)]
    pub(super) fn filters(&self) -> Vec<Option<super::fuse::Filter>> {
        self.tiers.filters()
    }

    /// Bytes on the heap for what is on disk: fences. The buffers of merges are a matter of
    /// [`Self::memory_max`].
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

    /// Tiers that there are, that in memory included.
    #[must_use]
    pub fn tiers(&self) -> usize {
        self.tiers.len()
    }
}

/// Keeps memory to be used again.
fn keep(spares: &mut Vec<Vec<u64>>, memory: Option<[Vec<u64>; 2]>) {
    spares.extend(memory.into_iter().flatten());
    spares.truncate(SPARES_MAX);
}

/// The first eight of some tables, if they are merging.
fn memory(frozen: &VecDeque<IndexTable>, merging: bool) -> Option<Memory> {
    merging.then(|| std::array::from_fn(|input| Arc::clone(frozen[input].sorted())))
}

/// The lowest and the highest position in the first eight of some tables; 0 if there is none.
fn positions(frozen: &VecDeque<IndexTable>) -> (u64, u64) {
    let filled = || frozen.iter().take(FAN).filter(|table| table.entries > 0);
    let low = filled().next().map_or(0, |table| table.position_low);
    let high = filled().last().map_or(0, |table| table.position_high);
    (low, high)
}

/// Asks for the pages of a run that hold the first ranks within bounds.
fn prime(
    run: &Run,
    layout: &Layout,
    pages: &impl Pages,
    bounds: RangeInclusive<u128>,
    reversed: bool,
) {
    let start = if reversed {
        *bounds.end()
    } else {
        *bounds.start()
    };
    let block = run.block_of(start, 0);
    let reference = &run.state.blocks[block].reference;
    let Some(header) = pages.page(reference, 0) else {
        return;
    };
    let count = layout
        .entries_of(run.state.entries, block)
        .div_ceil(IndexEntry::PER_PAGE);
    let page = page_of(header, count, start);
    let last = page_of(header, count, *bounds.end());
    let first = page_of(header, count, *bounds.start());
    let wanted = if reversed {
        page.saturating_sub(PRIME_PAGES).max(first)..=page
    } else {
        page..=(page + PRIME_PAGES).min(last)
    };
    for page in wanted {
        // What matters is that it is asked for: what is missing is noted.
        let _page = pages.page(reference, page + 1);
    }
}
