//! The blocks that a merge writes.
//!
//! A block that becomes full is closed, filter and checksums included, by whoever merges; who owns the blocks
//! writes it when the share of the merge is done, so that what a checkpoint finds unwritten never fills one.

use super::entry::{Entry, FAN};
use super::fuse::{Builder, Filter};
use super::layout::Layout;
use super::run::{self, BlockEntry};
use crate::grid::store::{BlockStore, NewBlock};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64};
use std::collections::VecDeque;
use std::marker::PhantomData;
use storage_format::block::{BlockKind, DataSums, PAGE_INDEX_OFFSET};
use storage_format::{BlockReference, SECTOR_SIZE};

/// Whose blocks they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Number of the tree.
    pub(super) tree: u8,
    /// Tier of the run that is made.
    pub(super) tier: u8,
}

impl Origin {
    /// The position that a block says it has: unique among those that one op writes.
    fn position(self, index: usize) -> u64 {
        u64::from(self.tier) << 56 | to_u64(index)
    }
}

/// Blocks that the merge of a tier fills before they are written, at most: runs in memory merge faster. In the
/// simulator a share needs more now and then.
pub(super) const fn buffers_max(tier: usize) -> usize {
    match tier {
        _ if cfg!(madsim) => 1,
        0 => 3,
        _ => 2,
    }
}

/// A block that is full, or the last one.
#[derive(Debug)]
struct Full {
    buffer: SectorBuf,
    /// Bytes of its data, the filter included.
    size: usize,
    sums: DataSums,
    filter: Option<Filter>,
    /// The ranks of its first and its last entry.
    first: u128,
    last: u128,
    /// Entries taken of each input when it was full.
    taken: [u64; FAN],
}

#[derive(Debug)]
pub(super) struct Output<E> {
    origin: Origin,
    layout: Layout,
    /// Blocks that are written.
    pub(super) blocks: Vec<BlockEntry>,
    /// Their filters.
    pub(super) filters: Vec<Option<Filter>>,
    /// Blocks that are to be written.
    full: Vec<Full>,
    /// The block that fills, and behind it those that will.
    buffers: VecDeque<SectorBuf>,
    /// Entries in the block that fills.
    filled: usize,
    /// Rank of the last entry of the last written block.
    pub(super) last: u128,
    entry: PhantomData<E>,
}

impl<E: Entry> Output<E> {
    pub(super) fn new(origin: Origin, layout: Layout) -> Self {
        Self {
            origin,
            layout,
            blocks: Vec::new(),
            filters: Vec::new(),
            full: Vec::new(),
            buffers: VecDeque::new(),
            filled: 0,
            last: 0,
            entry: PhantomData,
        }
    }

    /// Goes on after blocks that are written already.
    pub(super) async fn restore(&mut self, blocks: Vec<BlockEntry>, store: &mut impl BlockStore) {
        let entries = to_u64(blocks.len() * self.layout.per_block);
        self.filters = run::filters::<E>(&blocks, entries, &self.layout, store).await;
        self.blocks = blocks;
    }

    /// Blocks that so many more entries fill, the last one maybe in part.
    pub(super) fn blocks_of(&self, entries: u64) -> usize {
        self.layout
            .blocks(to_u64(self.filled).saturating_add(entries))
    }

    /// Has buffers for the next so many entries, as far as there may be.
    pub(super) async fn prepare(&mut self, entries: u64, store: &mut impl BlockStore) {
        let tier = usize::from(self.origin.tier) - 1;
        let buffers = self.blocks_of(entries).min(buffers_max(tier));
        while self.buffers.len() < buffers {
            self.buffers.push_back(store.buffer().await);
        }
    }

    /// Whether there is a block to fill.
    pub(super) fn has_room(&self) -> bool {
        !self.buffers.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.layout.per_block
    }

    fn buffer(&mut self) -> &mut SectorBuf {
        self.buffers.front_mut().expect("a buffer was prepared")
    }

    /// Room for at most so many entries in the page that fills.
    pub(super) fn room(&mut self, entries: usize) -> &mut [u8] {
        let (page, slot) = (self.filled / E::PER_PAGE, self.filled % E::PER_PAGE);
        let room = (E::PER_PAGE - slot).min(self.layout.per_block - self.filled);
        let at = SECTOR_SIZE * (1 + page) + slot * E::SIZE;
        &mut self.buffer()[at..at + room.min(entries) * E::SIZE]
    }

    /// So many entries are in the room now.
    pub(super) fn wrote(&mut self, entries: usize) {
        let (page, slot) = (self.filled / E::PER_PAGE, self.filled % E::PER_PAGE);
        assert!(entries > 0 && slot + entries <= E::PER_PAGE);
        if slot == 0 {
            let buffer = self.buffer();
            let rank = E::load(buffer, SECTOR_SIZE * (1 + page)).rank();
            let at = PAGE_INDEX_OFFSET + 16 * page;
            buffer[at..at + 16].copy_from_slice(&rank.to_le_bytes());
        }
        self.filled += entries;
    }

    /// The block that fills gets no more entries: so many were taken of each input.
    pub(super) fn close(&mut self, taken: [u64; FAN], builder: &mut Builder) {
        let mut buffer = self.buffers.pop_front().expect("there are entries in it");
        let filled = std::mem::take(&mut self.filled);
        assert!(filled > 0);
        let data = &mut buffer[SECTOR_SIZE..];
        let used = self.layout.used::<E>(filled);
        for page in data[..used].chunks_exact_mut(SECTOR_SIZE) {
            page[E::PER_PAGE * E::SIZE..].fill(0);
        }
        let last = filled - 1;
        let last = last / E::PER_PAGE * SECTOR_SIZE + last % E::PER_PAGE * E::SIZE;
        if planted(Bug::MergeLosesEntry) && filled == self.layout.per_block {
            data.copy_within(0..E::SIZE, last);
        }
        let (first, last) = (E::load(data, 0).rank(), E::load(data, last).rank());
        let mut size = used;
        let mut filter = None;
        if E::FILTERED {
            // A filter of ids that leave no gaps would say nothing.
            let dense = last - first < 2 * u128::from(to_u64(filled));
            let at = self.layout.filter::<E>(filled).filter(|_| !dense);
            let known = ranks::<E>(data, filled).map(|rank| {
                if planted(Bug::FilterWithoutLastId) && rank == last {
                    !rank
                } else {
                    rank
                }
            });
            filter = at.and_then(|_| Filter::new(known, filled, builder));
            if let (Some(at), Some(filter)) = (at, &filter) {
                size = at + Filter::size(filled);
                data[used..at].fill(0);
                filter.store(&mut data[at..size]);
            }
        }
        data[size..size.next_multiple_of(SECTOR_SIZE)].fill(0);
        let sums = DataSums::of(data, size);
        self.full.push(Full {
            buffer,
            size,
            sums,
            filter,
            first,
            last,
            taken,
        });
    }

    /// Writes what is full. Gives how many entries were taken of each input for it, if there was any.
    pub(super) fn write(&mut self, store: &mut impl BlockStore) -> Option<[u64; FAN]> {
        let mut taken = None;
        for full in self.full.drain(..) {
            if E::FILTERED {
                self.filters.push(full.filter);
            }
            let reference = store.write(NewBlock {
                kind: BlockKind::Run,
                table: self.origin.tree,
                record_size: u32::try_from(E::SIZE).expect("entries are small"),
                position: self.origin.position(self.blocks.len()),
                size: full.size,
                next: BlockReference::default(),
                buffer: full.buffer,
                sums: Some(full.sums),
            });
            self.blocks.push(BlockEntry {
                reference,
                first: full.first,
            });
            self.last = full.last;
            taken = Some(full.taken);
        }
        taken
    }

    /// Bytes on the heap for fences and filters, at most: each filter counts as that of a full block.
    pub(super) fn run_memory(&self) -> u64 {
        let fences = self.blocks.capacity() * size_of::<BlockEntry>();
        let filter = size_of::<Option<Filter>>() + Filter::size(self.layout.per_block);
        to_u64(fences + self.filters.len() * filter)
    }

    /// The same with the buffer.
    pub(super) fn memory(&self) -> u64 {
        let full = self.full.iter().map(|full| &full.buffer);
        let buffers = self.buffers.iter().chain(full);
        buffers.map(|buffer| to_u64(buffer.len())).sum::<u64>() + self.run_memory()
    }
}

/// The ranks of so many entries.
fn ranks<E: Entry>(data: &[u8], entries: usize) -> impl Iterator<Item = u128> + Clone {
    (0..entries.div_ceil(E::PER_PAGE)).flat_map(move |page| {
        let slots = (entries - page * E::PER_PAGE).min(E::PER_PAGE);
        (0..slots).map(move |slot| E::load(data, page * SECTOR_SIZE + slot * E::SIZE).rank())
    })
}
