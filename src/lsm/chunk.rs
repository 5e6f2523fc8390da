//! Records in a slab, laid out as in a block: a vector of fixed capacity. The page before the first
//! record is the header page of the block that the chunk may become.
//!
//! No record straddles a page. What a page has left behind its last record is zero, so that equal
//! records make equal blocks.

use crate::constants::BLOCK_DATA_SIZE;
use crate::grid::{BlockStore, NewBlock};
use crate::stdx::{SectorBuf, Slab};
use std::marker::PhantomData;
use storage_format::block::DataSums;
use storage_format::{BlockKind, BlockReference, SECTOR_SIZE};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What can be kept in a slab.
pub trait Record:
    FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + Sync + 'static
{
}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy + Send + Sync + 'static> Record
    for T
{
}

/// Records of type `T`.
#[derive(Debug)]
pub struct Chunk<T> {
    slab: Slab,
    len: usize,
    record: PhantomData<T>,
}

impl<T: Record> Chunk<T> {
    /// Records of a page.
    pub const PER_PAGE: usize = SECTOR_SIZE / size_of::<T>();
    /// Records that fit.
    pub const CAPACITY: usize = BLOCK_DATA_SIZE / SECTOR_SIZE * Self::PER_PAGE;
    /// Bytes of a page behind its last record.
    const REST: usize = SECTOR_SIZE - Self::PER_PAGE * size_of::<T>();

    /// A chunk without records.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slab: Slab::take(),
            len: 0,
            record: PhantomData,
        }
    }

    /// Where the record at a position begins.
    #[inline]
    const fn offset(index: usize) -> usize {
        (1 + index / Self::PER_PAGE) * SECTOR_SIZE + index % Self::PER_PAGE * size_of::<T>()
    }

    /// Records that there are.
    #[must_use]
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether no record fits any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.len == Self::CAPACITY
    }

    /// Adds a record; there must be room.
    #[inline]
    pub fn push(&mut self, record: &T) {
        assert!(self.len < Self::CAPACITY, "a chunk has room");
        let at = Self::offset(self.len);
        if Self::REST > 0 && self.len.is_multiple_of(Self::PER_PAGE) {
            self.slab[at + SECTOR_SIZE - Self::REST..at + SECTOR_SIZE].fill(0);
        }
        self.slab[at..at + size_of::<T>()].copy_from_slice(record.as_bytes());
        self.len += 1;
    }

    /// Takes the last record back.
    pub fn pop(&mut self) -> Option<T> {
        let index = self.len.checked_sub(1)?;
        let last = *self.get(index);
        self.len = index;
        Some(last)
    }

    /// The record at a position, which must be there.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> &T {
        assert!(index < self.len, "no record is there");
        let at = Self::offset(index);
        T::ref_from_bytes(&self.slab[at..at + size_of::<T>()]).expect("size and alignment fit")
    }

    /// The record at a position, which must be there.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> &mut T {
        assert!(index < self.len, "no record is there");
        let at = Self::offset(index);
        T::mut_from_bytes(&mut self.slab[at..at + size_of::<T>()]).expect("size and alignment fit")
    }

    /// A record in a block that a chunk became, or was copied to.
    #[must_use]
    pub fn record(block: &[u8], index: usize) -> &T {
        let at = Self::offset(index);
        T::ref_from_bytes(&block[at..at + size_of::<T>()]).expect("size and alignment fit")
    }

    /// A block with a copy of these records, at a position of a table.
    pub async fn block(&self, table: u8, position: u64, store: &mut impl BlockStore) -> NewBlock {
        let mut buffer = store.buffer().await;
        let bytes = self.bytes();
        buffer[SECTOR_SIZE..SECTOR_SIZE + bytes.len()].copy_from_slice(bytes);
        Self::new_block(table, position, bytes.len(), buffer)
    }

    /// The block that the chunk becomes, at a position of a table.
    pub fn into_block(mut self, table: u8, position: u64) -> NewBlock {
        self.slab[..SECTOR_SIZE].fill(0);
        let size = self.bytes().len();
        Self::new_block(table, position, size, self.slab.into())
    }

    /// The checksums of the block that it becomes when it is full.
    pub(super) fn sums(&self) -> DataSums {
        assert!(
            self.is_full(),
            "what follows the last record of a page is zero"
        );
        DataSums::of(&self.slab[SECTOR_SIZE..], self.bytes().len())
    }

    fn new_block(table: u8, position: u64, size: usize, buffer: SectorBuf) -> NewBlock {
        NewBlock {
            kind: BlockKind::Records,
            table,
            record_size: u32::try_from(size_of::<T>()).expect("a record fits a page"),
            position,
            size,
            next: BlockReference::default(),
            buffer,
            sums: None,
        }
    }

    /// The data of a block with these records: up to the end of the last record.
    pub(crate) fn bytes(&self) -> &[u8] {
        match self.len.checked_sub(1) {
            None => &[],
            Some(last) => &self.slab[SECTOR_SIZE..Self::offset(last) + size_of::<T>()],
        }
    }
}

impl<T: Record> Default for Chunk<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::Chunk;
    use storage_format::SECTOR_SIZE;

    #[test]
    fn no_record_straddles_a_page_and_rests_are_zero() {
        let mut chunk = Chunk::<[u8; 90]>::new();
        for value in 0..=255_u8 {
            chunk.push(&[value; 90]);
        }
        assert_eq!(Chunk::<[u8; 90]>::PER_PAGE, 45);
        assert!((0..=255_u8).all(|value| *chunk.get(value.into()) == [value; 90]));
        let bytes = chunk.bytes();
        assert_eq!(bytes.len(), 5 * SECTOR_SIZE + 31 * 90);
        assert_eq!(bytes[45 * 90..SECTOR_SIZE], [0; SECTOR_SIZE - 45 * 90]);
        assert_eq!(bytes[SECTOR_SIZE..SECTOR_SIZE + 90], [45; 90]);
        assert_eq!(chunk.pop(), Some([255; 90]));
        assert_eq!(chunk.len(), 255);
    }
}
