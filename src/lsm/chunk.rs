//! Records in a slab: a vector of fixed capacity.

use crate::stdx::Slab;
use crate::stdx::slab::SLAB_SIZE;
use std::marker::PhantomData;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What can be kept in a slab.
pub trait Record: FromBytes + IntoBytes + Immutable + KnownLayout + Copy {}

impl<T: FromBytes + IntoBytes + Immutable + KnownLayout + Copy> Record for T {}

/// Records of type `T`.
#[derive(Debug)]
pub struct Chunk<T> {
    slab: Slab,
    len: usize,
    record: PhantomData<T>,
}

impl<T: Record> Chunk<T> {
    /// Records that fit.
    pub const CAPACITY: usize = SLAB_SIZE / size_of::<T>();

    /// A chunk without records.
    #[must_use]
    pub fn new() -> Self {
        Self {
            slab: Slab::take(),
            len: 0,
            record: PhantomData,
        }
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

    /// Adds a record; there must be room.
    #[inline]
    pub fn push(&mut self, record: &T) {
        let at = self.len * size_of::<T>();
        self.slab[at..at + size_of::<T>()].copy_from_slice(record.as_bytes());
        self.len += 1;
    }

    /// Adds records; there must be room.
    pub fn extend(&mut self, records: &[T]) {
        let at = self.len * size_of::<T>();
        self.slab[at..at + size_of_val(records)].copy_from_slice(records.as_bytes());
        self.len += records.len();
    }

    /// Takes the last record back.
    pub fn pop(&mut self) -> Option<T> {
        let last = self.as_slice().last().copied()?;
        self.len -= 1;
        Some(last)
    }

    /// The record at a position, which must be there.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> &T {
        assert!(index < self.len, "no record is there");
        let at = index * size_of::<T>();
        T::ref_from_bytes(&self.slab[at..at + size_of::<T>()]).expect("size and alignment fit")
    }

    /// The record at a position, which must be there.
    #[inline]
    pub fn get_mut(&mut self, index: usize) -> &mut T {
        assert!(index < self.len, "no record is there");
        let at = index * size_of::<T>();
        T::mut_from_bytes(&mut self.slab[at..at + size_of::<T>()]).expect("size and alignment fit")
    }

    /// All records, to be changed.
    pub fn as_mut_slice(&mut self) -> &mut [T] {
        let bytes = &mut self.slab[..self.len * size_of::<T>()];
        <[T]>::mut_from_bytes(bytes).expect("size and alignment fit")
    }

    /// All records.
    #[must_use]
    pub fn as_slice(&self) -> &[T] {
        let bytes = &self.slab[..self.len * size_of::<T>()];
        <[T]>::ref_from_bytes(bytes).expect("size and alignment fit")
    }
}

impl<T: Record> Default for Chunk<T> {
    fn default() -> Self {
        Self::new()
    }
}
