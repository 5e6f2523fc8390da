//! A run on disk: sorted entries in blocks, and what is kept of it in memory.

use super::entry::Entry;
use super::fuse::Filter;
use super::layout::Layout;
use crate::grid::store::BlockStore;
use crate::stdx::{to_u64, to_usize};
use std::ops::RangeInclusive;
use storage_format::{BlockHeader, BlockReference, SECTOR_SIZE};
use zerocopy::FromBytes;

/// A block of a run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BlockEntry {
    /// The block.
    pub reference: BlockReference,
    /// The rank of its first entry.
    pub first: u128,
}

/// A run, as a manifest has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct RunState {
    /// Its blocks, in the order of ranks.
    pub blocks: Vec<BlockEntry>,
    /// Entries in all of them.
    pub entries: u64,
    /// The rank of the last entry; 0 if there is none.
    pub last: u128,
    /// The lowest position in a run of an index tree that is not empty; otherwise 0.
    pub position_low: u64,
    /// The highest position likewise.
    pub position_high: u64,
}

/// See the module.
#[derive(Debug)]
pub struct Run {
    pub(super) state: RunState,
    /// By block; empty for runs without filters.
    pub(super) filters: Vec<Option<Filter>>,
    /// Bytes on the heap.
    pub(super) memory: u64,
}

/// Blocks that are asked for before the one whose filter is taken.
const AHEAD: usize = 8;

impl Run {
    /// A run whose blocks are written, with their filters.
    pub(super) fn new(state: RunState, filters: Vec<Option<Filter>>) -> Self {
        let fences = to_u64(state.blocks.capacity() * size_of::<BlockEntry>());
        let inline = to_u64(size_of_val(&filters[..]));
        let filters_memory: u64 = filters.iter().flatten().map(Filter::memory).sum();
        Self {
            memory: fences + inline + filters_memory,
            state,
            filters,
        }
    }

    /// A run of a manifest: reads the filters, if its blocks have them.
    pub(super) async fn restore<E: Entry>(
        state: RunState,
        layout: &Layout,
        store: &mut impl BlockStore,
    ) -> Self {
        assert_eq!(state.blocks.len(), layout.blocks(state.entries));
        let filters = filters::<E>(&state.blocks, state.entries, layout, store).await;
        Self::new(state, filters)
    }

    /// The last block that begins at or below a rank, looked for from a block on that does.
    #[inline]
    pub(super) fn block_of(&self, rank: u128, from: usize) -> usize {
        let blocks = &self.state.blocks[from..];
        let mut end = 1;
        while end < blocks.len() && blocks[end].first <= rank {
            end *= 2;
        }
        let begin = end / 2;
        let within = &blocks[begin..end.min(blocks.len())];
        let below = within.partition_point(|block| block.first <= rank);
        from + (begin + below).saturating_sub(1)
    }

    /// Whether an entry may have a rank within these bounds.
    #[inline]
    pub(super) fn overlaps(&self, low: u128, high: u128) -> bool {
        let first = self.state.blocks.first();
        first.is_some_and(|block| block.first <= high) && low <= self.state.last
    }

    /// Whether a run of an index tree, which is not empty, may have positions within these bounds.
    pub(super) fn has_positions(&self, bounds: &RangeInclusive<u64>) -> bool {
        self.state.position_low <= *bounds.end() && *bounds.start() <= self.state.position_high
    }
}

/// The filters of some blocks, the first of a run that has so many entries in them.
pub(super) async fn filters<E: Entry>(
    blocks: &[BlockEntry],
    entries: u64,
    layout: &Layout,
    store: &mut impl BlockStore,
) -> Vec<Option<Filter>> {
    let mut filters = Vec::new();
    if !E::FILTERED {
        return filters;
    }
    for block in blocks.iter().take(AHEAD) {
        store.read_ahead(&block.reference);
    }
    for (index, block) in blocks.iter().enumerate() {
        if let Some(ahead) = blocks.get(index + AHEAD) {
            store.read_ahead(&ahead.reference);
        }
        let bytes = store.read(&block.reference).await;
        filters.push(filter::<E>(
            &bytes,
            layout.entries_of(entries, index),
            layout,
        ));
    }
    filters
}

/// The filter in a block of so many entries: there is one if data goes on where it would be.
fn filter<E: Entry>(block: &[u8], entries: usize, layout: &Layout) -> Option<Filter> {
    let (header, _) = BlockHeader::ref_from_prefix(block).expect("a block has a header page");
    let at = layout.filter::<E>(entries)?;
    let filtered = to_usize(header.size.get()) > at;
    filtered.then(|| Filter::load(&block[SECTOR_SIZE + at..], entries))
}
