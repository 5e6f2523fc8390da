//! A vector that grows without moving: a slab for each segment.

use super::chunk::{Chunk, Record};
use crate::stdx::slab::SLAB_SIZE;
use crate::stdx::{to_u64, to_usize};

/// Values by position.
#[derive(Debug)]
pub struct Segments<T> {
    segments: Vec<Chunk<T>>,
    len: u32,
}

impl<T: Record> Default for Segments<T> {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            len: 0,
        }
    }
}

impl<T: Record> Segments<T> {
    /// Values of a segment.
    pub const SEGMENT_LEN: usize = {
        assert!(SLAB_SIZE.is_multiple_of(size_of::<T>()));
        Chunk::<T>::CAPACITY
    };

    /// Values.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a value at the end, and says where it is.
    pub fn push(&mut self, value: T) -> u32 {
        let position = self.len;
        let segment = to_usize(position) / Self::SEGMENT_LEN;
        if segment == self.segments.len() {
            self.segments.push(Chunk::new());
        }
        self.segments[segment].push(&value);
        self.len = position.checked_add(1).expect("positions are u32");
        position
    }

    /// The value at a position.
    #[inline]
    #[must_use]
    pub fn at(&self, position: u32) -> &T {
        let position = to_usize(position);
        self.segments[position / Self::SEGMENT_LEN].get(position % Self::SEGMENT_LEN)
    }

    /// Bytes that so many more values take at most.
    #[must_use]
    pub fn growth(&self, values: u64) -> u64 {
        let capacity = to_u64(self.segments.len() * Self::SEGMENT_LEN);
        let beyond = (u64::from(self.len) + values).saturating_sub(capacity);
        let segments = beyond.div_ceil(to_u64(Self::SEGMENT_LEN));
        let pointers = 2 * (segments + to_u64(self.segments.capacity()));
        segments * to_u64(SLAB_SIZE) + pointers * to_u64(size_of::<Chunk<T>>())
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> u64 {
        to_u64(self.segments.len() * SLAB_SIZE + self.segments.capacity() * size_of::<Chunk<T>>())
    }
}

#[cfg(test)]
mod tests {
    use super::Segments;

    #[test]
    fn values_stay_where_they_are() {
        let mut segments = Segments::default();
        for value in 0..40_000_u64 {
            assert_eq!(u64::from(segments.push(value)), value);
        }
        assert!((0..40_000).all(|at| *segments.at(at) == u64::from(at)));
        assert_eq!(segments.len(), 40_000);
        assert!(segments.memory() >= 320_000);
    }
}
