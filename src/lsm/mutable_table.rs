//! A table of fixed-size records that change, in memory, written by a checkpoint.
//!
//! Invariants:
//! * Every chunk but the last is full; a chunk is the data of one block.
//! * A chunk that differs from its block is dirty. A checkpoint writes dirty chunks to new blocks.

use super::chunk::{Chunk, Record};
use crate::grid::BlockStore;
use crate::stdx::slab::SLAB_COST;
use crate::stdx::{to_u64, u64_to_usize};
use storage_format::BlockReference;

/// Records of type `T`; a position counts from 0.
#[derive(Debug)]
pub struct MutableTable<T> {
    number: u8,
    chunks: Vec<Chunk<T>>,
    dirty: Vec<bool>,
    /// By chunk, its block in the last checkpoint.
    blocks: Vec<Option<BlockReference>>,
}

impl<T: Record> MutableTable<T> {
    const PER_CHUNK: usize = Chunk::<T>::CAPACITY;
    /// With what leads to it.
    const CHUNK_SIZE: usize = SLAB_COST + 96;

    /// An empty table.
    #[must_use]
    pub fn new(number: u8) -> Self {
        Self {
            number,
            chunks: Vec::new(),
            dirty: Vec::new(),
            blocks: Vec::new(),
        }
    }

    /// Records that there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self.chunks.last() {
            Some(last) => to_u64((self.chunks.len() - 1) * Self::PER_CHUNK + last.len()),
            None => 0,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends a record; gives its position.
    pub fn push(&mut self, record: &T) -> u64 {
        let position = self.len();
        if self.chunks.last().is_none_or(Chunk::is_full) {
            self.chunks.push(Chunk::new());
            self.dirty.push(true);
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(record);
        self.dirty[last] = true;
        position
    }

    /// Takes the last record back.
    ///
    /// # Panics
    /// When there is none.
    pub fn pop(&mut self) -> T {
        let last = self.chunks.len() - 1;
        let record = self.chunks[last].pop().expect("no chunk is empty");
        self.dirty[last] = true;
        if self.chunks[last].is_empty() {
            drop(self.chunks.pop());
            let _: Option<bool> = self.dirty.pop();
        }
        record
    }

    /// The record at a position.
    #[must_use]
    #[inline]
    pub fn get(&self, position: u64) -> &T {
        let position = u64_to_usize(position);
        self.chunks[position / Self::PER_CHUNK].get(position % Self::PER_CHUNK)
    }

    /// The record at a position, to be changed.
    #[inline]
    pub fn get_mut(&mut self, position: u64) -> &mut T {
        let position = u64_to_usize(position);
        self.dirty[position / Self::PER_CHUNK] = true;
        self.chunks[position / Self::PER_CHUNK].get_mut(position % Self::PER_CHUNK)
    }

    /// Writes what differs from the last checkpoint, and releases what that had. Gives all blocks.
    pub async fn checkpoint(&mut self, store: &mut impl BlockStore) -> Vec<(BlockReference, u64)> {
        // A chunk that was taken back whole leaves a block behind.
        for gone in self
            .blocks
            .drain(self.blocks.len().min(self.chunks.len())..)
        {
            gone.iter().for_each(|block| store.release(block));
        }
        self.blocks.resize(self.chunks.len(), None);
        for (index, chunk) in self.chunks.iter().enumerate() {
            if !std::mem::take(&mut self.dirty[index]) {
                continue;
            }
            let block = chunk.block(self.number, to_u64(index), store).await;
            let block = store.write(block);
            if let Some(old) = self.blocks[index].replace(block) {
                store.release(&old);
            }
        }
        let blocks = self.blocks.iter().zip(&self.chunks);
        let blocks = blocks.map(|(block, chunk)| {
            let block = block.expect("every chunk was written");
            (block, to_u64(chunk.len()))
        });
        blocks.collect()
    }

    /// Appends the block that comes next in a checkpoint, with its number of records.
    ///
    /// # Errors
    /// When it cannot follow what is there.
    pub async fn restore(
        &mut self,
        block: BlockReference,
        count: u64,
        store: &mut impl BlockStore,
    ) -> Result<(), &'static str> {
        let count = u64_to_usize(count);
        if !(1..=Self::PER_CHUNK).contains(&count) {
            return Err("a block of a table has an impossible number of records");
        }
        if self.chunks.last().is_some_and(|last| !last.is_full()) {
            return Err("a table goes on after a block that is not full");
        }
        let buffer = store.read(&block).await;
        let mut chunk = Chunk::new();
        for at in 0..count {
            chunk.push(Chunk::record(&buffer, at));
        }
        self.chunks.push(chunk);
        self.dirty.push(false);
        self.blocks.push(Some(block));
        Ok(())
    }

    /// Bytes of memory that the table takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        to_u64(self.chunks.len() * Self::CHUNK_SIZE)
    }

    /// Blocks that a checkpoint writes at most.
    #[must_use]
    pub fn chunk_count(&self) -> u64 {
        to_u64(self.chunks.len())
    }
}
