//! A table of fixed-size records in the order in which they were added.
//!
//! Invariants:
//! * Every chunk but the last is full, and no chunk is larger than the data of a block.
//! * A chunk that differs from what was last marked clean is dirty.

use super::chunk::{Chunk, Record};
use crate::constants::BLOCK_DATA_SIZE;
use crate::stdx::slab::SLAB_SIZE;
use crate::stdx::to_u64;
use zerocopy::{FromBytes, IntoBytes};

/// What a checkpoint needs of a table.
pub trait Table {
    /// Number of the table in the data file.
    fn id(&self) -> u8;
    /// Bytes of a record.
    fn record_size(&self) -> usize;
    /// Whether records never change once they are there; the last ones may be taken back.
    fn append_only(&self) -> bool;
    /// Chunks that there are.
    fn chunk_count(&self) -> usize;
    /// The records of a chunk.
    fn chunk_bytes(&self, chunk: usize) -> &[u8];
    /// Whether no record fits the chunk any more.
    fn chunk_is_full(&self, chunk: usize) -> bool;
    /// Whether the chunk was changed since it was marked clean.
    fn chunk_dirty(&self, chunk: usize) -> bool;
    /// The chunk is in the data file as it is now.
    fn mark_clean(&mut self, chunk: usize);
    /// Appends a chunk that was read from the data file.
    ///
    /// # Errors
    /// When it does not follow the chunks before it.
    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), LoadError>;
}

/// Why a chunk cannot be loaded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// The bytes are no whole number of records, none, or too many.
    #[error("a chunk of table {table} has {size} bytes")]
    Size {
        /// The table.
        table: u8,
        /// Bytes.
        size: usize,
    },
    /// The chunk before was not full.
    #[error("table {table} goes on after a chunk that is not full")]
    AfterPartial {
        /// The table.
        table: u8,
    },
}

/// Records of type `T`; a position counts from 0.
#[derive(Debug)]
pub struct RecordTable<T> {
    id: u8,
    append_only: bool,
    chunks: Vec<Chunk<T>>,
    dirty: Vec<bool>,
}

impl<T: Record> RecordTable<T> {
    const PER_CHUNK: usize = BLOCK_DATA_SIZE / size_of::<T>();
    /// With what leads to it.
    const CHUNK_SIZE: usize = SLAB_SIZE + 64;

    /// An empty table.
    #[must_use]
    pub fn new(id: u8, append_only: bool) -> Self {
        Self {
            id,
            append_only,
            chunks: Vec::new(),
            dirty: Vec::new(),
        }
    }

    /// Records that there are.
    #[must_use]
    pub fn len(&self) -> usize {
        match self.chunks.last() {
            Some(last) => (self.chunks.len() - 1) * Self::PER_CHUNK + last.len(),
            None => 0,
        }
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Appends a record; gives its position.
    ///
    /// # Panics
    /// When there are 2^32 records already: memory ends long before.
    pub fn push(&mut self, record: T) -> u32 {
        let position = u32::try_from(self.len()).expect("memory ends before 2^32 records");
        if self
            .chunks
            .last()
            .is_none_or(|last| last.len() == Self::PER_CHUNK)
        {
            self.chunks.push(Chunk::new());
            self.dirty.push(true);
        }
        let last = self.chunks.len() - 1;
        self.chunks[last].push(&record);
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
    pub fn get(&self, position: u32) -> &T {
        let position = position as usize;
        self.chunks[position / Self::PER_CHUNK].get(position % Self::PER_CHUNK)
    }

    /// The record at a position, to be changed.
    #[inline]
    pub fn get_mut(&mut self, position: u32) -> &mut T {
        let position = position as usize;
        self.dirty[position / Self::PER_CHUNK] = true;
        self.chunks[position / Self::PER_CHUNK].get_mut(position % Self::PER_CHUNK)
    }

    /// The last record.
    #[must_use]
    pub fn last(&self) -> Option<&T> {
        self.chunks.last().and_then(|chunk| chunk.as_slice().last())
    }

    /// All records in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.chunks.iter().flat_map(|chunk| chunk.as_slice())
    }

    /// The number of records before the first for which `after` holds; `after` must not hold again
    /// for any record before one for which it does.
    #[must_use]
    pub fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> u32 {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let position = u32::try_from(middle).expect("positions have 32 bits");
            if before(self.get(position)) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        u32::try_from(low).expect("positions have 32 bits")
    }

    /// Bytes of memory that the table takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        to_u64(self.chunks.len() * Self::CHUNK_SIZE)
    }

    /// Bytes that so many more records take at most.
    #[must_use]
    pub fn growth(&self, records: u64) -> u64 {
        let left = self
            .chunks
            .last()
            .map_or(0, |last| Self::PER_CHUNK - last.len());
        let beyond = records.saturating_sub(to_u64(left));
        beyond.div_ceil(to_u64(Self::PER_CHUNK)) * to_u64(Self::CHUNK_SIZE)
    }
}

impl<T: Record> Table for RecordTable<T> {
    fn id(&self) -> u8 {
        self.id
    }

    fn record_size(&self) -> usize {
        size_of::<T>()
    }

    fn append_only(&self) -> bool {
        self.append_only
    }

    fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    fn chunk_bytes(&self, chunk: usize) -> &[u8] {
        self.chunks[chunk].as_slice().as_bytes()
    }

    fn chunk_is_full(&self, chunk: usize) -> bool {
        self.chunks[chunk].len() == Self::PER_CHUNK
    }

    fn chunk_dirty(&self, chunk: usize) -> bool {
        self.dirty[chunk]
    }

    fn mark_clean(&mut self, chunk: usize) {
        self.dirty[chunk] = false;
    }

    fn load_chunk(&mut self, bytes: &[u8]) -> Result<(), LoadError> {
        let records = <[T]>::ref_from_bytes(bytes).ok();
        let records = records.filter(|records| (1..=Self::PER_CHUNK).contains(&records.len()));
        let Some(records) = records else {
            return Err(LoadError::Size {
                table: self.id,
                size: bytes.len(),
            });
        };
        if self
            .chunks
            .last()
            .is_some_and(|last| last.len() < Self::PER_CHUNK)
        {
            return Err(LoadError::AfterPartial { table: self.id });
        }
        let mut chunk = Chunk::new();
        chunk.extend(records);
        self.chunks.push(chunk);
        self.dirty.push(false);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{LoadError, RecordTable, Table};
    use zerocopy::little_endian::U64;

    fn filled(count: u64) -> RecordTable<U64> {
        let mut table = RecordTable::new(7, true);
        for value in 0..count {
            assert_eq!(u64::from(table.push(value.into())), value);
        }
        table
    }

    #[test]
    fn records_come_back_across_chunks() {
        let per_chunk = u64::try_from(RecordTable::<U64>::PER_CHUNK).unwrap();
        let mut table = filled(2 * per_chunk + 1);
        assert_eq!(table.chunk_count(), 3);
        for value in [0, per_chunk - 1, per_chunk, 2 * per_chunk] {
            assert_eq!(table.get(u32::try_from(value).unwrap()).get(), value);
        }
        assert_eq!(
            table.partition_point(|record| record.get() < per_chunk + 3),
            32_259
        );
        assert_eq!(table.pop().get(), 2 * per_chunk);
        assert_eq!((table.chunk_count(), table.len()), (2, 64_512));
    }

    #[test]
    fn a_changed_chunk_is_dirty_and_others_are_not() {
        let mut table = filled(40_000);
        table.mark_clean(0);
        table.mark_clean(1);
        *table.get_mut(39_999) = 5.into();
        assert_eq!((table.chunk_dirty(0), table.chunk_dirty(1)), (false, true));
    }

    #[test]
    fn chunks_load_in_order_and_a_wrong_one_is_refused() {
        let source = filled(40_000);
        let mut table = RecordTable::<U64>::new(7, true);
        assert_eq!(
            table.load_chunk(&[0; 7]),
            Err(LoadError::Size { table: 7, size: 7 })
        );
        assert_eq!(
            table.load_chunk(&[]),
            Err(LoadError::Size { table: 7, size: 0 })
        );
        table.load_chunk(source.chunk_bytes(0)).unwrap();
        table.load_chunk(source.chunk_bytes(1)).unwrap();
        assert_eq!(table.len(), 40_000);
        assert!(!table.chunk_dirty(1));
        let more = table.load_chunk(source.chunk_bytes(0));
        assert_eq!(more, Err(LoadError::AfterPartial { table: 7 }));
    }
}
