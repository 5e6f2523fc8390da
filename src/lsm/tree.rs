//! A sorted index over an append-only table: which positions hold a key.
//!
//! * An entry is a key of 32 bits and a position. Keys of more bits are hashed: what is found may
//!   hold the key, and who asks looks at the record.
//! * Entries gather in a table in memory. A full one is sorted and becomes a run; eight runs of a
//!   tier merge into one of the next. A merge is spread over the tables that fill meanwhile, so that
//!   no entry pays for a whole merge.
//! * Positions only grow, so every entry of an older run is before every one of a newer run that has
//!   the same key: a walk visits runs one after the other and merges nothing.
//! * All runs are whole slabs. What a merge leaves goes back to the pool.

use super::chunk::Chunk;
use crate::stdx::slab::SLAB_SIZE;
use crate::stdx::to_u64;
use std::ops::RangeInclusive;

/// Runs of a tier that make one of the next.
const FAN: usize = 8;
/// Entries that a merge advances by when a table is full; it needs one table's worth for each to be
/// done in time.
const SHARE: usize = 2 * Chunk::<u64>::CAPACITY;

type Run = Vec<Chunk<u64>>;

/// Eight runs on their way to be one.
#[derive(Debug)]
struct Merge {
    /// Entries taken from each.
    taken: [usize; FAN],
    output: Run,
}

#[derive(Debug, Default)]
struct Tier {
    /// The oldest first; the first eight may be merging.
    runs: Vec<Run>,
    merge: Option<Merge>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tree {
    /// Entries in the order of their arrival.
    table: Chunk<u64>,
    tiers: Vec<Tier>,
    len: u64,
}

const fn entry(key: u32, position: u32) -> u64 {
    (key as u64) << 32 | position as u64
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is meant")]
const fn position(entry: u64) -> u32 {
    entry as u32
}

fn run_len(run: &Run) -> usize {
    run.len() * Chunk::<u64>::CAPACITY
}

fn run_at(run: &Run, index: usize) -> u64 {
    *run[index / Chunk::<u64>::CAPACITY].get(index % Chunk::<u64>::CAPACITY)
}

/// Entries of a run below `bound`.
fn rank(run: &Run, bound: u64) -> usize {
    // Chunks are full: the first of each tells where to look.
    let chunk = run.partition_point(|chunk| *chunk.get(0) < bound);
    match chunk.checked_sub(1) {
        None => 0,
        Some(before) => {
            let within = run[before].as_slice().partition_point(|at| *at < bound);
            before * Chunk::<u64>::CAPACITY + within
        }
    }
}

impl Tree {
    /// Adds an entry; positions never go back.
    #[inline]
    pub fn push(&mut self, key: u32, position: u32) {
        self.table.push(&entry(key, position));
        self.len += 1;
        if self.table.len() == Chunk::<u64>::CAPACITY {
            self.table_full();
        }
    }

    fn table_full(&mut self) {
        let mut table = std::mem::take(&mut self.table);
        table.as_mut_slice().sort_unstable();
        for index in (0..self.tiers.len()).rev() {
            if let Some(run) = self.tiers[index].advance() {
                self.run_push(index + 1, run);
            }
        }
        self.run_push(0, vec![table]);
    }

    fn run_push(&mut self, tier: usize, run: Run) {
        if tier == self.tiers.len() {
            self.tiers.push(Tier::default());
        }
        let tier = &mut self.tiers[tier];
        tier.runs.push(run);
        tier.merge_if_due();
        assert!(tier.runs.len() < 2 * FAN, "a merge is done in time");
    }

    /// All runs, the oldest first.
    fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.tiers.iter().rev().flat_map(|tier| &tier.runs)
    }

    /// Entries with that key and a position within bounds.
    #[must_use]
    pub fn count(&self, key: u32, bounds: &RangeInclusive<u32>) -> usize {
        let (low, high) = (entry(key, *bounds.start()), entry(key, *bounds.end()));
        let sorted: usize = self
            .runs()
            .map(|run| rank(run, high.saturating_add(1)) - rank(run, low))
            .sum();
        let table = self.table.as_slice().iter();
        sorted + table.filter(|at| (low..=high).contains(*at)).count()
    }

    /// Visits the positions of a key within bounds, upwards or downwards, until `visit` returns
    /// false.
    pub fn walk(
        &self,
        key: u32,
        bounds: &RangeInclusive<u32>,
        reversed: bool,
        mut visit: impl FnMut(u32) -> bool,
    ) {
        let (low, high) = (entry(key, *bounds.start()), entry(key, *bounds.end()));
        let table = self.table.as_slice().iter().copied();
        let mut table = table.filter(|at| (low..=high).contains(at)).map(position);
        let found = |run: &Run| rank(run, low)..rank(run, high.saturating_add(1));
        if reversed {
            let table: Vec<u32> = table.collect();
            let _ = table.into_iter().rev().all(&mut visit)
                && self.runs().rev().all(|run| {
                    let mut found = found(run).rev();
                    found.all(|at| visit(position(run_at(run, at))))
                });
        } else {
            let _ = self.runs().all(|run| {
                let mut found = found(run);
                found.all(|at| visit(position(run_at(run, at))))
            }) && table.all(visit);
        }
    }

    /// Entries.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory that the tree takes.
    #[must_use]
    pub fn memory(&self) -> u64 {
        let merging = self.tiers.iter().filter_map(|tier| tier.merge.as_ref());
        let outputs: usize = merging.map(|merge| merge.output.len()).sum();
        let runs: usize = self.runs().map(Vec::len).sum();
        to_u64((runs + outputs + 1) * SLAB_SIZE)
    }

    /// Bytes that so many more entries may take at most: all may be merging, and are there twice.
    #[must_use]
    pub fn growth(&self, entries: u64) -> u64 {
        let slabs = (self.len + entries).div_ceil(to_u64(Chunk::<u64>::CAPACITY)) + 1;
        (2 * slabs * to_u64(SLAB_SIZE)).saturating_sub(self.memory())
    }
}

impl Tier {
    /// Advances the merge by a share; gives the new run when it is complete.
    fn advance(&mut self) -> Option<Run> {
        let merge = self.merge.as_mut()?;
        let total: usize = self.runs[..FAN].iter().map(run_len).sum();
        let done: usize = merge.taken.iter().sum();
        let share = SHARE.min(total - done);
        merge.advance(&self.runs[..FAN], share);
        if done + share < total {
            return None;
        }
        let merge = self.merge.take()?;
        let _ = self.runs.drain(..FAN);
        self.merge_if_due();
        Some(merge.output)
    }

    /// Begins a merge if there are runs for it, and none is under way.
    fn merge_if_due(&mut self) {
        if self.merge.is_none() && self.runs.len() >= FAN {
            self.merge = Some(Merge {
                taken: [0; FAN],
                output: Run::new(),
            });
        }
    }
}

impl Merge {
    /// Takes so many of the smallest entries.
    fn advance(&mut self, runs: &[Run], share: usize) {
        // No entry is as large: no key and position are both the greatest.
        let head = |run: usize, taken: usize| {
            let inside = taken < run_len(&runs[run]);
            if inside {
                run_at(&runs[run], taken)
            } else {
                u64::MAX
            }
        };
        let mut heads = [0; FAN];
        for (run, first) in heads.iter_mut().enumerate() {
            *first = head(run, self.taken[run]);
        }
        for _ in 0..share {
            let least = least(&heads);
            if self
                .output
                .last()
                .is_none_or(|last| last.len() == Chunk::<u64>::CAPACITY)
            {
                self.output.push(Chunk::new());
            }
            let last = self.output.len() - 1;
            self.output[last].push(&heads[least]);
            self.taken[least] += 1;
            heads[least] = head(least, self.taken[least]);
        }
    }
}

/// The index of the smallest, without a branch that could be mispredicted.
#[inline]
fn least(heads: &[u64; FAN]) -> usize {
    let pick = |a: usize, b: usize| if heads[b] < heads[a] { b } else { a };
    let (low, high) = (pick(pick(0, 1), pick(2, 3)), pick(pick(4, 5), pick(6, 7)));
    pick(low, high)
}

#[cfg(test)]
mod tests {
    use super::{Chunk, FAN, Tree};
    use crate::stdx::slab::SLAB_SIZE;

    fn walked(tree: &Tree, key: u32, low: u32, high: u32, reversed: bool) -> Vec<u32> {
        let mut found = Vec::new();
        tree.walk(key, &(low..=high), reversed, |position| {
            found.push(position);
            true
        });
        found
    }

    const KEYS: u32 = 1000;

    fn key_of(position: u32) -> u32 {
        position.wrapping_mul(2_654_435_761) % KEYS
    }

    /// Enough for a merge of the second tier.
    fn filled() -> (Tree, u32) {
        let mut tree = Tree::default();
        let count = u32::try_from(Chunk::<u64>::CAPACITY * FAN * (FAN + 6) + 77).unwrap();
        for position in 0..count {
            let bound = tree.memory() + tree.growth(1);
            tree.push(key_of(position), position);
            assert!(tree.memory() <= bound);
        }
        (tree, count)
    }

    #[test]
    fn walks_find_what_was_pushed_in_order() {
        let (tree, count) = filled();
        assert!(tree.tiers.len() >= 3, "{} tiers", tree.tiers.len());
        assert_eq!(tree.len(), u64::from(count));
        for key in (0..KEYS).step_by(97) {
            for (low, high) in [
                (0, u32::MAX),
                (5000, count - 40),
                (count - 30, count),
                (7, 7),
            ] {
                let expected: Vec<u32> = (low..=high.min(count - 1))
                    .filter(|position| key_of(*position) == key)
                    .collect();
                assert_eq!(tree.count(key, &(low..=high)), expected.len());
                assert_eq!(walked(&tree, key, low, high, false), expected);
                let expected: Vec<u32> = expected.into_iter().rev().collect();
                assert_eq!(walked(&tree, key, low, high, true), expected);
            }
        }
        assert_eq!(walked(&tree, KEYS, 0, u32::MAX, false), [0_u32; 0]);
    }

    #[test]
    fn a_walk_stops_when_told() {
        let (tree, _) = filled();
        for reversed in [false, true] {
            let mut left = 50;
            tree.walk(3, &(0..=u32::MAX), reversed, |_| {
                left -= 1;
                left > 0
            });
            assert_eq!(left, 0);
        }
    }

    #[test]
    fn the_greatest_key_is_like_any_other() {
        let mut tree = Tree::default();
        for position in 0..u32::try_from(2 * Chunk::<u64>::CAPACITY).unwrap() {
            tree.push(u32::MAX, position);
        }
        assert_eq!(
            tree.count(u32::MAX, &(5..=u32::MAX)),
            2 * Chunk::<u64>::CAPACITY - 5
        );
        assert_eq!(walked(&tree, u32::MAX, 3, 4, true), [4, 3]);
    }

    #[test]
    fn memory_is_the_slabs_held() {
        let (tree, count) = filled();
        let needed = u64::from(count) * 8;
        assert!(tree.memory() >= needed && tree.memory() < 2 * needed);
        assert_eq!(tree.memory() % u64::try_from(SLAB_SIZE).unwrap(), 0);
    }
}
