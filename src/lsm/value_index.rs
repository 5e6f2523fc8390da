//! Which records hold a value: a posting list per value other than zero.
//!
//! Positions leave in the reverse order of their arrival, and a value without positions leaves too.

use super::hash::Hash;
use super::id_index::IdIndex;
use super::postings::{List, Postings};
use super::segments::Segments;
use std::ops::RangeInclusive;

/// Values to positions.
#[derive(Debug, Default)]
pub struct ValueIndex {
    index: IdIndex,
    keys: Segments<u128>,
    lists: Segments<List>,
    postings: Postings,
    /// The value that came last, and its list: values repeat.
    last: Option<(u128, u32)>,
}

impl ValueIndex {
    #[inline]
    fn list(&self, key: u128) -> Option<u32> {
        if let Some((last, list)) = self.last
            && last == key
        {
            return Some(list);
        }
        self.index
            .find(Hash::of(key), |at| *self.keys.at(at) == key)
    }

    /// A record at `position` holds `key`; zero is not kept.
    #[inline]
    pub fn push(&mut self, key: u128, position: u32) {
        if key == 0 {
            return;
        }
        let list = self.list(key).unwrap_or_else(|| {
            let list = self.keys.push(key);
            self.lists.push(List::default());
            self.index.insert(Hash::of(key), list);
            list
        });
        self.last = Some((key, list));
        self.postings.push(self.lists.at_mut(list), position);
    }

    /// Takes the last push back.
    pub fn pop(&mut self, key: u128, position: u32) {
        if key == 0 {
            return;
        }
        let list = self.list(key).expect("what was pushed is popped");
        let popped = self.postings.pop(self.lists.at_mut(list));
        assert!(popped == position);
        if self.lists.at(list).is_empty() {
            assert!(
                list + 1 == self.lists.len(),
                "values leave in the reverse order"
            );
            self.index.remove(Hash::of(key), list);
            self.keys.pop();
            self.lists.pop();
            self.last = None;
        }
    }

    /// The list of a value; empty when no record holds it.
    #[must_use]
    pub fn positions(&self, key: u128) -> List {
        self.list(key)
            .map_or_else(List::default, |list| *self.lists.at(list))
    }

    /// Visits the positions of a list within bounds until `visit` returns false.
    pub fn walk(
        &self,
        list: &List,
        bounds: &RangeInclusive<u32>,
        reversed: bool,
        visit: impl FnMut(u32) -> bool,
    ) {
        self.postings.walk(list, bounds, reversed, visit);
    }

    /// Bytes on the heap.
    #[must_use]
    pub fn memory(&self) -> u64 {
        self.index.memory() + self.keys.memory() + self.lists.memory() + self.postings.memory()
    }

    /// Bytes that so many more positions take at most.
    #[must_use]
    pub fn growth(&self, positions: u64) -> u64 {
        self.index.growth(positions)
            + self.keys.growth(positions)
            + self.lists.growth(positions)
            + self.postings.growth(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::ValueIndex;

    fn positions(index: &ValueIndex, key: u128) -> Vec<u32> {
        let mut found = Vec::new();
        index.walk(&index.positions(key), &(0..=u32::MAX), false, |position| {
            found.push(position);
            true
        });
        found
    }

    #[test]
    fn values_come_and_go() {
        let mut index = ValueIndex::default();
        let keys = [5_u128, 0, 9, 5, 5, u128::MAX, 9];
        for (position, key) in (0..).zip(keys) {
            index.push(key, position);
        }
        assert_eq!(positions(&index, 5), [0, 3, 4]);
        assert_eq!(positions(&index, 9), [2, 6]);
        assert_eq!(positions(&index, u128::MAX), [5]);
        assert_eq!(positions(&index, 0), []);
        for (position, key) in (0_u32..7).zip(keys).rev() {
            index.pop(key, position);
        }
        assert_eq!(positions(&index, 5), []);
        assert!(index.keys.is_empty() && index.index.is_empty());
    }
}
