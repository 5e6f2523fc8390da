//! Index trees and id trees against simple models, and against themselves after a restart.

use super::entry::FIELD_MAX;
use super::fuse::Filter;
use super::mock::{Mock, Random};
use super::{
    Extent, IdTree, IndexTree, Lookup, MergeState, Seek, TierState, TreeOptions, TreeState,
};
use crate::stdx::run_to_end;
use std::collections::BTreeMap;

const BAR: u64 = 8;
/// An id that no script has.
const ABSENT: u128 = 1 << 127 | 7;

fn options(pages: usize) -> TreeOptions {
    let pages = pages.min(TreeOptions::default().pages);
    TreeOptions {
        bar: BAR,
        pages,
        bar_entries: 2 * usize::try_from(BAR + 4).unwrap(),
    }
}

/// What is done to a tree.
#[derive(Clone, Copy, Debug)]
enum Event {
    Push(u128, u64),
    Undone(u128),
    Beat(u64),
    Bar,
    Checkpoint,
}

/// What both trees have.
trait Tree: Sized {
    fn new(pages: usize) -> Self;
    fn push(&mut self, key: u128, value: u64);
    fn undone(&mut self, key: u128);
    fn bar(&mut self);
    fn begin_merges(&mut self, store: &mut Mock);
    fn beat(&mut self, store: &mut Mock, units: u64);
    fn state(&self) -> TreeState;
    fn restore(pages: usize, state: TreeState, store: &mut Mock) -> Self;
    fn resume(&mut self, store: &mut Mock);
    fn sort(&mut self, store: &mut Mock);
    fn filters(&self) -> Vec<Option<Filter>>;

    fn apply(&mut self, event: Event, store: &mut Mock) {
        match event {
            Event::Push(key, value) => self.push(key, value),
            Event::Undone(key) => self.undone(key),
            Event::Beat(units) => self.beat(store, units),
            Event::Bar => {
                self.bar();
                self.begin_merges(store);
            }
            Event::Checkpoint => store.checkpoint(),
        }
    }
}

impl Tree for IndexTree {
    fn new(pages: usize) -> Self {
        Self::new(7, options(pages))
    }
    fn push(&mut self, key: u128, value: u64) {
        Self::push(self, u64::try_from(key).unwrap(), value);
    }
    fn undone(&mut self, _: u128) {}
    fn bar(&mut self) {
        run_to_end(Self::bar(self));
    }
    fn begin_merges(&mut self, store: &mut Mock) {
        Self::begin_merges(self, store);
    }
    fn beat(&mut self, store: &mut Mock, units: u64) {
        run_to_end(Self::beat(self, store, units));
    }
    fn state(&self) -> TreeState {
        Self::state(self)
    }
    fn restore(pages: usize, state: TreeState, store: &mut Mock) -> Self {
        run_to_end(Self::restore(7, options(pages), state, store))
    }
    fn resume(&mut self, store: &mut Mock) {
        run_to_end(Self::resume(self, store));
    }
    fn sort(&mut self, store: &mut Mock) {
        let _ = self.sort_begin(store);
        run_to_end(self.sort_end());
    }
    fn filters(&self) -> Vec<Option<Filter>> {
        Self::filters(self)
    }
}

impl Tree for IdTree {
    fn new(pages: usize) -> Self {
        Self::new(8, options(pages))
    }
    fn push(&mut self, key: u128, value: u64) {
        assert_eq!(self.find(key), None);
        Self::push(self, key, value);
    }
    fn undone(&mut self, key: u128) {
        Self::push(self, key, 1);
        assert_eq!(self.find(key), Some(1));
        assert_eq!(self.pop().map(|entry| entry.id), Some(key));
        assert_eq!(self.find(key), None);
    }
    fn bar(&mut self) {
        Self::bar(self);
        assert_eq!(self.pop(), None);
    }
    fn begin_merges(&mut self, store: &mut Mock) {
        Self::begin_merges(self, store);
    }
    fn beat(&mut self, store: &mut Mock, units: u64) {
        run_to_end(Self::beat(self, store, units));
    }
    fn state(&self) -> TreeState {
        Self::state(self)
    }
    fn restore(pages: usize, state: TreeState, store: &mut Mock) -> Self {
        run_to_end(Self::restore(8, options(pages), state, store))
    }
    fn resume(&mut self, store: &mut Mock) {
        run_to_end(Self::resume(self, store));
    }
    fn sort(&mut self, store: &mut Mock) {
        let _ = self.sort_begin(store);
        run_to_end(self.sort_end());
    }
    fn filters(&self) -> Vec<Option<Filter>> {
        Self::filters(self)
    }
}

/// Events of so many units, each of which adds entries or none.
fn script(
    seed: u64,
    units: u64,
    mut entry: impl FnMut(&mut Random, u64) -> Vec<u128>,
) -> Vec<Event> {
    let mut random = Random(seed);
    let mut events = Vec::new();
    let (mut bar, mut beat, mut position) = (0, 0, 0);
    while position < units {
        let added = random.below(5);
        for _ in 0..added {
            position += 1;
            for key in entry(&mut random, position) {
                if random.below(9) == 0 {
                    events.push(Event::Undone(!key & (u128::MAX >> 1)));
                }
                events.push(Event::Push(key, position));
            }
        }
        bar += added;
        beat += added;
        if beat >= 3 {
            events.push(Event::Beat(beat));
            beat = 0;
        }
        if bar >= BAR {
            events.push(Event::Bar);
            bar = 0;
        }
        if random.below(20) == 0 {
            events.push(Event::Checkpoint);
        }
    }
    events
}

/// A name, and the keys of a position.
type Keys = (&'static str, fn(&mut Random, u64) -> Vec<u128>);

const KEYS: [Keys; 5] = [
    ("some keys", |random, _| vec![random.below(20).into()]),
    ("keys all over", |random, _| {
        vec![u128::from(random.below(FIELD_MAX + 1))]
    }),
    ("sequential keys", |_, position| vec![position.into()]),
    ("one key, the greatest", |_, _| vec![FIELD_MAX.into()]),
    ("two keys or none, some often", |random, _| {
        let count = random.below(3);
        let key = |_| {
            let bound = 1 << random.below(12);
            random.below(bound).into()
        };
        (0..count).map(key).collect()
    }),
];

const IDS: [Keys; 4] = [
    ("ids all over", |random, _| {
        vec![u128::from(random.next()) << 64 >> 1 | u128::from(random.next())]
    }),
    ("sequential ids", |_, position| vec![position.into()]),
    ("falling ids", |_, position| {
        vec![u128::from(1_000_000 - position) << 70]
    }),
    ("rare ids", |random, position| {
        let id = u128::from(random.next() & 0xFFFF) << 90 | u128::from(position);
        if position % 50 == 0 { vec![id] } else { vec![] }
    }),
];

/// Walks a key as its model says, with steps of any width, and pages that have to be loaded.
fn walk(tree: &IndexTree, store: &Mock, random: &mut Random, key: u64, positions: &[u64]) {
    let top = positions.last().copied().unwrap_or(0) + 20;
    let (a, b) = (random.below(top), random.below(top));
    let bounds = match random.below(4) {
        0 => 0..=u64::MAX,
        1 => a..=a,
        _ => a.min(b)..=a.max(b),
    };
    let here = positions.iter().copied().filter(|at| bounds.contains(at));
    let here: Vec<u64> = here.collect();
    assert!(tree.count_max(key, &bounds) >= here.len() as u64);
    let reversed = random.below(2) == 0;
    if random.below(2) == 0 {
        store.forget_pages();
    }
    for _ in 0..2 {
        tree.prime(store, key, &bounds, reversed);
        let _ = store.load_missing();
    }
    let mut cursor = tree.cursor(key, &bounds, reversed);
    let mut from = if reversed {
        *bounds.end()
    } else {
        *bounds.start()
    };
    let mut first = true;
    loop {
        let expected = if reversed {
            here.iter().rev().find(|at| **at <= from)
        } else {
            here.iter().find(|at| **at >= from)
        };
        let found = cursor.seek(store, from);
        match found {
            Seek::Missing => {
                assert!(!first, "the first step was primed");
                assert!(store.load_missing() > 0);
                if random.below(2) == 0 {
                    cursor = tree.cursor(key, &bounds, reversed);
                }
                continue;
            }
            Seek::End => assert_eq!(expected, None),
            Seek::Found(at) => assert_eq!(expected, Some(&at), "from {from} in {bounds:?}"),
        }
        first = false;
        let Some(at) = expected else {
            return;
        };
        let width = random.below(8);
        let width = if width == 0 {
            random.below(200)
        } else {
            width / 6 + 1
        };
        if reversed && *at < width {
            return;
        }
        from = if reversed { *at - width } else { *at + width };
    }
}

fn extent(entries: u64) -> Extent {
    Extent {
        entries,
        units: 9004,
    }
}

#[test]
fn index_trees_find_what_was_pushed() {
    for (seed, (name, keys)) in (0..).zip(KEYS) {
        for pages in [1, 3] {
            let mut random = Random(seed + 1000);
            let (mut tree, mut store) = (<IndexTree as Tree>::new(pages), Mock::default());
            let mut model = BTreeMap::<u64, Vec<u64>>::new();
            let mut entries = 0;
            for event in script(seed, 9000, keys) {
                tree.apply(event, &mut store);
                if let Event::Push(key, position) = event {
                    let key = u64::try_from(key).unwrap();
                    model.entry(key).or_default().push(position);
                    entries += 1;
                }
                let most = IndexTree::memory_max(&extent(entries), options(pages));
                assert!(tree.memory() <= most, "{name}");
                if random.below(60) == 0 {
                    let key = model
                        .keys()
                        .copied()
                        .nth(usize::from(random.below(20) == 0));
                    let key = key.unwrap_or(5);
                    let none = Vec::new();
                    let positions = model.get(&key).unwrap_or(&none);
                    walk(&tree, &store, &mut random, key, positions);
                    let absent = random.below(FIELD_MAX);
                    let positions = model.get(&absent).unwrap_or(&none);
                    walk(&tree, &store, &mut random, absent, positions);
                }
            }
            assert!(tree.tiers() >= 4, "{name}: {} tiers", tree.tiers());
            nothing_leaks(&tree.state(), &store);
            for (key, positions) in model.iter().step_by(model.len().div_ceil(40)) {
                walk(&tree, &store, &mut random, *key, positions);
            }
        }
    }
}

#[test]
fn id_trees_find_what_was_pushed() {
    for (seed, (name, ids)) in (0..).zip(IDS) {
        for pages in [1, 3] {
            let mut random = Random(seed + 2000);
            let (mut tree, mut store) = (<IdTree as Tree>::new(pages), Mock::default());
            let mut model = Vec::<(u128, u64)>::new();
            for event in script(seed, 9000, ids) {
                tree.apply(event, &mut store);
                if let Event::Push(id, value) = event {
                    model.push((id, value));
                }
                let most = IdTree::memory_max(&extent(model.len() as u64), options(pages));
                assert!(tree.memory() <= most, "{name}");
                if random.below(100) == 0 {
                    lookups(&tree, &store, &mut random, &model);
                }
            }
            assert!(tree.tiers() >= 4, "{name}: {} tiers", tree.tiers());
            nothing_leaks(&tree.state(), &store);
            lookups(&tree, &store, &mut random, &model);
            // A block of one id has no filter either.
            if name != "rare ids" {
                let dense = name == "sequential ids";
                let mut filters = tree.filters().into_iter();
                assert!(filters.all(|filter| filter.is_some() != dense), "{name}");
            }
        }
    }
}

/// Some ids that are there and some that are not, one by one and all at once.
fn lookups(tree: &IdTree, store: &Mock, random: &mut Random, model: &[(u128, u64)]) {
    let (mut ids, mut expected) = (Vec::new(), Vec::new());
    for _ in 0..random.below(60) {
        let at = usize::try_from(random.below(model.len() as u64 + 1)).unwrap();
        let there = model.get(at).copied();
        let absent = there.map_or(ABSENT, |(id, _)| id ^ 1 << 126);
        for id in [there.map_or(ABSENT, |(id, _)| id), absent] {
            let value = there.filter(|there| there.0 == id).map(|there| there.1);
            let in_memory = tree.find(id);
            if in_memory.is_some() {
                assert_eq!(in_memory, value);
            }
            ids.push(id);
            let on_disk = value.filter(|_| in_memory.is_none());
            expected.push(on_disk.map_or(Lookup::Absent, Lookup::Found));
        }
    }
    store.forget_pages();
    let mut out = Vec::new();
    for round in 0.. {
        tree.lookup_many(store, &ids, &mut out);
        if store.load_missing() == 0 {
            break;
        }
        assert!(round < 2, "header pages, then data pages");
        for (found, expected) in out.iter().zip(&expected) {
            assert!(found == expected || *found == Lookup::Missing);
        }
    }
    assert_eq!(out, expected);
    for (id, expected) in ids.iter().zip(&expected) {
        assert_eq!(tree.lookup(store, *id), *expected);
    }
}

/// The tree that a restart makes of a state after some events.
fn restored<T: Tree>(pages: usize, state: TreeState, past: &[Event], store: &mut Mock) -> T {
    let bars = past.iter().enumerate();
    let bars = bars.filter(|(_, event)| matches!(event, Event::Bar));
    let bars: Vec<usize> = bars.map(|(at, _)| at).collect();
    let on_disk = bars.len() - usize::try_from(state.memory_runs).unwrap();
    let start = on_disk.checked_sub(1).map_or(0, |bar| bars[bar] + 1);
    let mut tree = T::restore(pages, state, store);
    for event in &past[start..] {
        match event {
            Event::Push(..) => tree.apply(*event, store),
            Event::Bar => tree.bar(),
            Event::Undone(_) | Event::Beat(_) | Event::Checkpoint => {}
        }
    }
    tree.resume(store);
    tree
}

/// Restarts after each beat, and goes on for a while: nothing differs.
fn restarts<T: Tree>(pages: usize, events: &[Event]) {
    const ON: usize = 40;
    let (mut tree, mut store) = (T::new(pages), Mock::default());
    // Trees that were restored, with where they are compared.
    let mut others: Vec<(usize, T, Mock)> = Vec::new();
    for (at, event) in events.iter().enumerate() {
        tree.apply(*event, &mut store);
        for (_, other, store) in &mut others {
            other.apply(*event, store);
            if at % 3 == 0 {
                other.sort(store);
            }
        }
        others.retain(|(until, other, blocks)| {
            if *until == at {
                assert_eq!(other.state(), tree.state());
                assert_eq!(blocks.blocks, store.blocks, "after event {at}");
            }
            *until > at
        });
        if let Event::Beat(_) = event {
            let mut blocks = store.clone();
            let other = restored::<T>(pages, tree.state(), &events[..=at], &mut blocks);
            assert_eq!(other.state(), tree.state());
            assert_eq!(other.filters(), tree.filters());
            assert_eq!(blocks.blocks, store.blocks);
            // Some go on to the end.
            let until = if at % 977 == 0 { events.len() } else { at + ON };
            let until = until.min(events.len() - 1);
            if at < until {
                others.push((until, other, blocks));
            }
        }
    }
    assert!(others.is_empty());
    assert!(tree.state().tiers.len() >= 4);
    nothing_leaks(&tree.state(), &store);
}

/// Blocks that are not released are those that a manifest names.
fn nothing_leaks(state: &TreeState, store: &Mock) {
    let tiers = state.tiers.iter();
    let named = tiers.flat_map(|tier| {
        let runs = tier.runs.iter().flat_map(|run| &run.blocks);
        runs.chain(tier.merge.iter().flat_map(|merge| &merge.blocks))
    });
    let mut named: Vec<u64> = named.map(|block| block.reference.address.get()).collect();
    named.sort_unstable();
    assert_eq!(named, store.held());
}

#[test]
fn index_trees_go_on_after_a_restart() {
    for (seed, (_, keys)) in (10..).zip(KEYS) {
        restarts::<IndexTree>(1, &script(seed, 9000, keys));
    }
    restarts::<IndexTree>(2, &script(9, 9000, KEYS[1].1));
}

/// Merges of runs in memory once began at eight for every tree.
#[test]
fn a_merge_that_would_begin_later_by_now_goes_on() {
    let merging = TierState {
        runs: Vec::new(),
        merge: Some(MergeState::default()),
    };
    let state = TreeState {
        memory_runs: 8,
        tiers: vec![merging],
    };
    let mut store = Mock::default();
    let mut tree = <IndexTree as Tree>::restore(1, state.clone(), &mut store);
    for position in 0..8 * BAR {
        tree.push(5, position);
        if position % BAR == BAR - 1 {
            run_to_end(tree.bar());
        }
    }
    assert!(tree.state() != state, "it does not begin by itself");
    Tree::resume(&mut tree, &mut store);
    assert_eq!(tree.state(), state);
    <IndexTree as Tree>::beat(&mut tree, &mut store, 8 * BAR);
    assert_eq!(tree.state().tiers[1].runs.len(), 1);
    let positions: Vec<u64> = (0..8 * BAR).collect();
    walk(&tree, &store, &mut Random(1), 5, &positions);
}

/// The last of them once began at eleven.
#[test]
fn a_merge_that_would_begin_earlier_by_now_begins() {
    let state = TreeState {
        memory_runs: 10,
        tiers: vec![TierState::default()],
    };
    let mut store = Mock::default();
    let mut tree = run_to_end(IndexTree::restore(3, options(1), state, &mut store));
    for position in 0..10 * BAR {
        tree.push(5, position);
        if position % BAR == BAR - 1 {
            run_to_end(tree.bar());
        }
    }
    Tree::resume(&mut tree, &mut store);
    assert_eq!(tree.state().tiers[0].merge, Some(MergeState::default()));
    <IndexTree as Tree>::beat(&mut tree, &mut store, 8 * BAR);
    assert_eq!(
        (tree.state().memory_runs, tree.state().tiers[1].runs.len()),
        (2, 1)
    );
    let positions: Vec<u64> = (0..10 * BAR).collect();
    store.forget_pages();
    walk(&tree, &store, &mut Random(1), 5, &positions);
}

#[test]
fn id_trees_go_on_after_a_restart() {
    for (seed, (_, ids)) in (20..).zip(IDS) {
        restarts::<IdTree>(1, &script(seed, 9000, ids));
    }
    restarts::<IdTree>(3, &script(9, 9000, IDS[0].1));
}
