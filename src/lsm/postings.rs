//! Which records have a value: for each value, the positions of its records in order.
//!
//! Adding and taking back the last position cost O(1); a list is sorted, since positions grow.

use super::FixedState;
use crate::stdx::{to_u64, to_usize};
use hashbrown::HashMap;
use std::hash::Hash;

/// Lists of positions by value.
#[derive(Debug)]
pub struct Postings<V> {
    lists: HashMap<V, u32, FixedState>,
    positions: Vec<Vec<u32>>,
    /// The list used last: values often repeat.
    recent: Option<(V, u32)>,
    entries_capacity: usize,
}

impl<V: Copy + Eq + Hash> Default for Postings<V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<V: Copy + Eq + Hash> Postings<V> {
    /// No lists.
    #[must_use]
    pub fn new() -> Self {
        Self {
            lists: HashMap::with_hasher(FixedState),
            positions: Vec::new(),
            recent: None,
            entries_capacity: 0,
        }
    }

    /// Appends a position to the list of a value.
    #[inline]
    pub fn push(&mut self, value: V, position: u32) {
        let list = match self.recent {
            Some((recent, list)) if recent == value => list,
            Some(_) | None => self.list_of(value),
        };
        let positions = &mut self.positions[to_usize(list)];
        let capacity = positions.capacity();
        positions.push(position);
        self.entries_capacity += positions.capacity() - capacity;
    }

    fn list_of(&mut self, value: V) -> u32 {
        let next = u32::try_from(self.positions.len()).expect("memory ends before 2^32 lists");
        let list = *self.lists.entry(value).or_insert(next);
        if list == next {
            self.positions.push(Vec::new());
        }
        self.recent = Some((value, list));
        list
    }

    /// Takes back the last position of a value.
    ///
    /// # Panics
    /// When it is not `position`.
    pub fn pop(&mut self, value: V, position: u32) {
        let list = self.lists.get(&value).expect("the value was added");
        let popped = self.positions[to_usize(*list)].pop();
        assert_eq!(
            popped,
            Some(position),
            "positions are taken back in reverse order"
        );
    }

    /// The positions of a value.
    #[must_use]
    pub fn find(&self, value: V) -> &[u32] {
        match self.lists.get(&value) {
            Some(list) => &self.positions[to_usize(*list)],
            None => &[],
        }
    }

    /// Bytes of memory that the lists take.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let lists = self.positions.capacity() * 24 + self.lists.allocation_size();
        to_u64(lists + self.entries_capacity * 4 + self.positions.len() * 16)
    }
}

#[cfg(test)]
mod tests {
    use super::Postings;

    #[test]
    fn lists_are_kept_apart() {
        let mut postings = Postings::new();
        for position in 0..100_u32 {
            postings.push(u64::from(position % 3), position);
        }
        assert_eq!(postings.find(1)[..3], [1, 4, 7]);
        assert_eq!(postings.find(5), [0_u32; 0]);
        postings.pop(0, 99);
        assert_eq!(postings.find(0).last(), Some(&96));
        assert!(postings.memory() >= 400);
    }
}
