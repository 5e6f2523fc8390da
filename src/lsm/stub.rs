//! Stand-ins.
use crate::grid::Pages;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

#[derive(Debug, Default)]
pub struct IndexTree {
    set: BTreeSet<(u64, u64)>,
}
pub enum Seek {
    Found(u64),
    End,
    Missing,
}
pub struct Cursor<'t> {
    tree: &'t IndexTree,
    key: u64,
    bounds: RangeInclusive<u64>,
    reversed: bool,
}
impl IndexTree {
    pub fn new(_number: u8) -> Self {
        Self::default()
    }
    pub fn push(&mut self, key: u64, position: u64) {
        let _ = self.set.insert((key, position));
    }
    pub fn count_max(&self, key: u64, bounds: &RangeInclusive<u64>) -> u64 {
        self.set
            .range((key, *bounds.start())..=(key, *bounds.end()))
            .count() as u64
    }
    pub fn cursor(&self, key: u64, bounds: &RangeInclusive<u64>, reversed: bool) -> Cursor<'_> {
        Cursor {
            tree: self,
            key,
            bounds: bounds.clone(),
            reversed,
        }
    }
    pub fn prime(
        &self,
        _pages: &impl Pages,
        _key: u64,
        _bounds: &RangeInclusive<u64>,
        _reversed: bool,
    ) {
    }
    pub fn memory(&self) -> u64 {
        0
    }
    pub fn block_count(&self) -> u64 {
        0
    }
}
impl Cursor<'_> {
    pub fn seek(&mut self, _pages: &impl Pages, from: u64) -> Seek {
        let found = if self.reversed {
            self.tree
                .set
                .range((self.key, *self.bounds.start())..=(self.key, from))
                .next_back()
        } else {
            self.tree
                .set
                .range((self.key, from)..=(self.key, *self.bounds.end()))
                .next()
        };
        found.map_or(Seek::End, |(_, at)| Seek::Found(*at))
    }
}
pub enum Lookup {
    Absent,
    Found(u64),
    Missing,
}
#[derive(Debug, Default)]
pub struct IdTree {
    map: BTreeMap<u128, u64>,
}
impl IdTree {
    pub fn new(_number: u8) -> Self {
        Self::default()
    }
    pub fn push(&mut self, id: u128, value: u64) {
        assert!(self.map.insert(id, value).is_none());
    }
    pub fn pop(&mut self, id: u128) {
        assert!(self.map.remove(&id).is_some());
    }
    pub fn find(&self, id: u128) -> Option<u64> {
        self.map.get(&id).copied()
    }
    pub fn touch(&self, _id: u128) {}
    pub fn has_runs(&self) -> bool {
        false
    }
    pub fn lookup_many(
        &self,
        _pages: &impl Pages,
        _ids: &[u128],
        _found: impl FnMut(usize, Lookup),
    ) {
    }
    pub fn memory(&self) -> u64 {
        0
    }
    pub fn block_count(&self) -> u64 {
        0
    }
}
