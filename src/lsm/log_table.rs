//! An append-only table of fixed-size records, in the order of their timestamps, on disk.
//!
//! Invariants:
//! * Every block but the last is full. Full blocks are written once and never again; what does not
//!   fill a block is in memory, and a checkpoint writes a copy of it.
//! * What an op appended can be taken back until [`LogTable::write_full`], which ends the op.
//! * A block that became full is written at the end of the next op, or before a checkpoint: until then its
//!   checksums may be computed on another core.

use super::chunk::{Chunk, Record};
use super::layout::page_first;
use super::run::BlockEntry;
use crate::grid::{BlockStore, NewBlock, Pages};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::slab::SLAB_COST;
use crate::stdx::{Task, to_u64, u64_to_usize};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use storage_format::block::{DataSums, PAGE_INDEX_OFFSET};
use storage_format::{BlockReference, SECTOR_SIZE};

/// What a table is searched by.
pub trait Ranked {
    /// Never lower than that of the record before.
    fn rank(&self) -> u64;
}

/// See the module.
#[derive(Debug)]
pub struct LogTable<T> {
    number: u8,
    /// Whether new blocks are going to be asked for, and stay in the cache.
    cached: bool,
    /// On disk, all full.
    blocks: Vec<BlockEntry>,
    /// Full, and going to be written.
    full: VecDeque<Full<T>>,
    /// In memory; all but the last are full.
    chunks: VecDeque<Chunk<T>>,
    /// The partial chunk as the last checkpoint wrote it.
    tail: Option<BlockReference>,
}

/// A chunk that became full.
#[derive(Debug)]
struct Full<T> {
    chunk: Arc<Chunk<T>>,
    sums: Task<DataSums>,
}

/// What a checkpoint keeps of a table beside its full blocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tail {
    /// The block that holds the records behind the full blocks, if there are any.
    pub block: Option<BlockReference>,
    /// Records in it.
    pub len: usize,
}

impl<T: Record + Ranked> LogTable<T> {
    const PER_PAGE: usize = Chunk::<T>::PER_PAGE;
    /// Records of a block.
    pub const PER_BLOCK: usize = Chunk::<T>::CAPACITY;

    /// An empty table.
    #[must_use]
    pub fn new(number: u8, cached: bool) -> Self {
        Self {
            number,
            cached,
            blocks: Vec::new(),
            full: VecDeque::new(),
            chunks: VecDeque::new(),
            tail: None,
        }
    }

    /// Records.
    #[must_use]
    #[inline]
    pub fn len(&self) -> u64 {
        let full = self.blocks.len() + self.full.len() + self.chunks.len().saturating_sub(1);
        let last = self.chunks.back().map_or(0, Chunk::len);
        to_u64(full * Self::PER_BLOCK + last)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Records in full blocks on disk; those behind are in memory.
    #[must_use]
    #[inline]
    pub fn written(&self) -> u64 {
        to_u64(self.blocks.len() * Self::PER_BLOCK)
    }

    /// Full blocks on disk.
    #[must_use]
    pub fn blocks(&self) -> &[BlockEntry] {
        &self.blocks
    }

    /// Appends a record; gives its position.
    #[inline]
    pub fn push(&mut self, record: &T) -> u64 {
        let position = self.len();
        let full = |chunk: &Chunk<T>| chunk.len() == Self::PER_BLOCK;
        if self.chunks.back().is_none_or(full) {
            self.chunks.push_back(Chunk::new());
        }
        let last = self.chunks.back_mut().expect("there is one now");
        last.push(record);
        position
    }

    /// Takes the last record back.
    ///
    /// # Panics
    /// When it is on disk already.
    pub fn pop(&mut self) -> T {
        let last = self.chunks.back_mut();
        let record = last.and_then(Chunk::pop);
        let record = record.expect("what is taken back was appended in this op");
        if self.chunks.back().is_some_and(Chunk::is_empty) {
            drop(self.chunks.pop_back());
        }
        record
    }

    /// Where a position is: its block, and its place within.
    #[inline]
    fn place(position: u64) -> (usize, usize) {
        let position = u64_to_usize(position);
        (position / Self::PER_BLOCK, position % Self::PER_BLOCK)
    }

    /// The record at a position, which must be there; `None` if its page is not in memory.
    #[inline]
    #[must_use]
    pub fn get<'a>(&'a self, pages: &'a impl Pages, position: u64) -> Option<&'a T> {
        let (block, within) = Self::place(position);
        match self.blocks.get(block) {
            None => Some(self.recent(block - self.blocks.len()).get(within)),
            Some(entry) => {
                let page = pages.page(&entry.reference, 1 + within / Self::PER_PAGE)?;
                Some(Self::record(page, within % Self::PER_PAGE))
            }
        }
    }

    /// The record at a position that is in memory.
    #[must_use]
    pub fn get_recent(&self, position: u64) -> &T {
        let (block, within) = Self::place(position);
        self.recent(block - self.blocks.len()).get(within)
    }

    /// One of the chunks in memory, the oldest first.
    #[inline]
    fn recent(&self, index: usize) -> &Chunk<T> {
        match self.full.get(index) {
            Some(full) => &full.chunk,
            None => &self.chunks[index - self.full.len()],
        }
    }

    #[inline]
    fn record(page: &[u8], slot: usize) -> &T {
        let at = slot * size_of::<T>();
        T::ref_from_bytes(&page[at..at + size_of::<T>()]).expect("size and alignment fit")
    }

    /// The number of records of a rank below `rank`; `None` if a page is not in memory.
    #[must_use]
    pub fn lower_bound(&self, pages: &impl Pages, rank: u64) -> Option<u64> {
        let begun = self
            .blocks
            .partition_point(|block| block.first < u128::from(rank));
        let Some(block) = begun.checked_sub(1) else {
            return Some(if self.blocks.is_empty() {
                self.lower_bound_recent(rank)
            } else {
                0
            });
        };
        if begun == self.blocks.len() {
            let recent = to_u64(self.blocks.len() * Self::PER_BLOCK);
            if recent < self.len() && self.get_recent(recent).rank() < rank {
                return Some(self.lower_bound_recent(rank));
            }
        }
        let reference = &self.blocks[block].reference;
        let header = pages.page(reference, 0)?;
        let pages_count = Self::PER_BLOCK.div_ceil(Self::PER_PAGE);
        let starts_before = |page: usize| page_first(header, page) < u128::from(rank);
        let page = partition(0..pages_count, starts_before) - 1;
        let bytes = pages.page(reference, 1 + page)?;
        let records = Self::PER_PAGE.min(Self::PER_BLOCK - page * Self::PER_PAGE);
        let within = partition(0..records, |slot| Self::record(bytes, slot).rank() < rank);
        Some(to_u64(
            block * Self::PER_BLOCK + page * Self::PER_PAGE + within,
        ))
    }

    fn lower_bound_recent(&self, rank: u64) -> u64 {
        let full = self.blocks.len() * Self::PER_BLOCK;
        let recent = u64_to_usize(self.len()) - full;
        let get = |at: usize| self.recent(at / Self::PER_BLOCK).get(at % Self::PER_BLOCK);
        to_u64(full + partition(0..recent, |at| get(at).rank() < rank))
    }

    /// Ends an op: what it filled is going to be written, and what the last one filled is.
    pub async fn write_full(&mut self, store: &mut impl BlockStore) {
        self.write_waiting(store).await;
        let full = |chunk: &mut Chunk<T>| chunk.len() == Self::PER_BLOCK;
        while let Some(chunk) = self.chunks.pop_front_if(full) {
            let chunk = Arc::new(chunk);
            let shared = Arc::clone(&chunk);
            let sums = Task::new(|job| store.spawn(job), move || shared.sums());
            self.full.push_back(Full { chunk, sums });
        }
    }

    /// Begins to write what is full.
    async fn write_waiting(&mut self, store: &mut impl BlockStore) {
        while let Some(Full { chunk, sums }) = self.full.pop_front() {
            store.room().await;
            let sums = sums.join().await;
            let chunk = Arc::into_inner(chunk).expect("the task gave it back");
            let first = chunk.get(0).rank().into();
            let mut block = chunk.into_block(self.number, to_u64(self.blocks.len()));
            block.sums = Some(sums);
            Self::index_pages(&mut block, Self::PER_BLOCK);
            if planted(Bug::LoseLastRecord) {
                let end = SECTOR_SIZE + block.size;
                block.buffer[end - size_of::<T>()..end].fill(0);
                block.sums = None;
            }
            let reference = if self.cached {
                store.write_through(block)
            } else {
                store.write(block)
            };
            self.blocks.push(BlockEntry { reference, first });
        }
    }

    /// Writes what is in memory for a checkpoint; releases what the last checkpoint wrote of it.
    pub async fn write_tail(&mut self, store: &mut impl BlockStore) -> Tail {
        self.write_full(store).await;
        self.write_waiting(store).await;
        let stale = planted(Bug::StaleTail) && self.tail.is_some();
        if !stale
            && let Some(old) = self.tail.take()
            && !planted(Bug::KeepOldTails)
        {
            store.release(&old);
        }
        if !stale && let Some(chunk) = self.chunks.front() {
            let position = to_u64(self.blocks.len());
            let mut block = chunk.block(self.number, position, store).await;
            Self::index_pages(&mut block, chunk.len());
            self.tail = Some(store.write(block));
        }
        Tail {
            block: self.tail,
            len: self.chunks.front().map_or(0, Chunk::len),
        }
    }

    /// Notes in a block of so many records the ranks by which its pages are found.
    fn index_pages(block: &mut NewBlock, records: usize) {
        for page in 0..records.div_ceil(Self::PER_PAGE) {
            let first = Chunk::<T>::record(&block.buffer, page * Self::PER_PAGE);
            let rank = u128::from(first.rank());
            let at = PAGE_INDEX_OFFSET + 16 * page;
            block.buffer[at..at + 16].copy_from_slice(&rank.to_le_bytes());
        }
    }

    /// Puts back what a checkpoint holds. The table is empty.
    pub async fn restore(
        &mut self,
        blocks: Vec<BlockEntry>,
        tail: Tail,
        store: &mut impl BlockStore,
    ) {
        assert!(self.is_empty());
        self.blocks = blocks;
        self.tail = tail.block;
        if let Some(block) = tail.block {
            let buffer = store.read(&block).await;
            let mut chunk = Chunk::new();
            for at in 0..tail.len {
                chunk.push(Chunk::record(&buffer, at));
            }
            self.chunks.push_back(chunk);
        }
    }

    /// Visits records in order, wherever they are.
    pub async fn visit(
        &self,
        positions: Range<u64>,
        store: &mut impl BlockStore,
        mut visit: impl FnMut(u64, &T),
    ) {
        let mut position = positions.start;
        while position < positions.end {
            let (block, within) = Self::place(position);
            let Some(entry) = self.blocks.get(block) else {
                visit(position, self.get_recent(position));
                position += 1;
                continue;
            };
            let buffer = store.read(&entry.reference).await;
            let left = u64_to_usize(positions.end - position);
            let end = Self::PER_BLOCK.min(within + left);
            if let Some(next) = self.blocks.get(block + 1)
                && left > Self::PER_BLOCK
            {
                store.read_ahead(&next.reference);
            }
            for at in within..end {
                visit(position, Chunk::record(&buffer, at));
                position += 1;
            }
        }
    }

    /// Bytes of memory that the table takes, without what is about to be written.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let fences = self.blocks.capacity() * size_of::<BlockEntry>();
        to_u64(self.chunks.len() * SLAB_COST + fences)
    }
}

/// The first of a range for which `before` does not hold; it holds for none behind that.
fn partition(range: Range<usize>, before: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (range.start, range.end);
    while low < high {
        let middle = low + (high - low) / 2;
        if before(middle) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    low
}
