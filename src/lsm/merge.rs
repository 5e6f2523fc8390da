//! Eight runs on their way to be one, a share at a time.
//!
//! What was merged depends on the entries and on how many were asked for in all, never on how they
//! were asked for: a block is written when it is full, and when the merge is complete.

use super::entry::{Entry, FAN, Head};
use super::fuse::Builder;
use super::layout::{Layout, page_entries};
use super::output::{Origin, Output};
use super::run::{BlockEntry, Run, RunState};
use super::tiers::Memory;
use crate::grid::store::BlockStore;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::planted::{Bug, planted};
use crate::stdx::{SectorBuf, to_u64, u64_to_usize};
use std::collections::VecDeque;
use std::marker::PhantomData;
use std::ops::Range;
use storage_format::SECTOR_SIZE;

/// A merge, as a manifest has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct MergeState {
    /// Entries taken of each input when the last block of output was complete.
    pub taken: [u64; FAN],
    /// Entries merged in all.
    pub done: u64,
    /// Blocks of output.
    pub blocks: Vec<BlockEntry>,
}

/// What is merged, the oldest first.
#[derive(Clone, Debug)]
pub(super) enum Source {
    /// Sorted entries, without pages.
    Memory(Memory),
    /// Entries of each run on disk.
    Disk([u64; FAN]),
}

impl Source {
    /// The first eight of these runs.
    pub(super) fn disk(runs: &[Run]) -> Self {
        Self::Disk(std::array::from_fn(|input| runs[input].state.entries))
    }

    fn entries<E: Entry>(&self, input: usize) -> u64 {
        match self {
            Self::Memory(inputs) => to_u64(inputs[input].len() / E::SIZE),
            Self::Disk(entries) => entries[input],
        }
    }
}

/// Blocks of an input that are there at the same time.
const LOADED_MAX: usize = 2;

/// The same with what is read ahead. A share is less than a block of entries, but of ids it is nearly one.
pub(super) const fn held_max<E: Entry>() -> usize {
    if E::FILTERED {
        LOADED_MAX + 1
    } else {
        LOADED_MAX
    }
}

/// A block of an input.
#[derive(Debug)]
struct Loaded {
    block: usize,
    bytes: SectorBuf,
}

/// What is taken of the inputs, and what is read of them.
#[derive(Debug)]
struct Inputs<E> {
    layout: Layout,
    /// Entries taken of each.
    taken: [u64; FAN],
    /// Of each that is on disk, the blocks that come next, as far as they are read.
    loaded: [VecDeque<Loaded>; FAN],
    entry: PhantomData<E>,
}

impl<E: Entry> Inputs<E> {
    /// The block and the entry within it that comes next of an input on disk.
    fn next(&self, input: usize) -> (usize, usize) {
        let taken = u64_to_usize(self.taken[input]);
        (taken / self.layout.per_block, taken % self.layout.per_block)
    }

    /// The blocks of an input that hold the next so many of its entries, as far as there is room for them.
    fn wanted(&self, run: &Run, input: usize, entries: u64) -> Range<usize> {
        let (block, _) = self.next(input);
        let end = (self.taken[input] + entries).min(run.state.entries);
        let end = self.layout.blocks(end).min(block + LOADED_MAX);
        block..end.max(block)
    }

    /// Reads what comes next of each input, of which so many entries are going to be merged.
    async fn load(&mut self, runs: &[Run], entries: u64, store: &mut impl BlockStore) {
        for (input, run) in runs[..FAN].iter().enumerate() {
            let (block, _) = self.next(input);
            // Old ones go before new ones come.
            self.loaded[input].retain(|loaded| loaded.block >= block);
            for wanted in self
                .wanted(run, input, entries)
                .skip(self.loaded[input].len())
            {
                store.read_ahead(&run.state.blocks[wanted].reference);
            }
        }
        for (input, run) in runs[..FAN].iter().enumerate() {
            let blocks = &run.state.blocks;
            for block in self
                .wanted(run, input, entries)
                .skip(self.loaded[input].len())
            {
                let bytes = store.read(&blocks[block].reference).await;
                self.loaded[input].push_back(Loaded { block, bytes });
            }
            if self.loaded[input].len() < held_max::<E>()
                && let Some(last) = self.loaded[input].back()
                && let Some(next) = blocks.get(last.block + 1)
            {
                store.read_ahead(&next.reference);
            }
        }
    }

    /// The entries of an input that come next, as far as they are adjacent; `None` if they are to be
    /// read first.
    fn rest<'a>(&'a self, source: &'a Source, input: usize) -> Option<&'a [u8]> {
        let entries = source.entries::<E>(input);
        if self.taken[input] == entries {
            return Some(&[]);
        }
        if let Source::Memory(inputs) = source {
            return Some(&inputs[input][u64_to_usize(self.taken[input]) * E::SIZE..]);
        }
        let (block, entry) = self.next(input);
        let mut loaded = self.loaded[input].iter();
        let loaded = loaded.find(|loaded| loaded.block == block)?;
        let (page, slot) = (entry / E::PER_PAGE, entry % E::PER_PAGE);
        let here = self.layout.entries_of(entries, block);
        let bytes = &loaded.bytes[SECTOR_SIZE * (1 + page)..];
        Some(&page_entries::<E>(bytes, page, here)[slot * E::SIZE..])
    }
}

/// A share of a merge, in steps: prepared and written by who owns the blocks, computed by anybody.
#[derive(Debug)]
pub(super) struct Work<E> {
    pub(super) merge: Merge<E>,
    source: Source,
    /// Entries that are to be done in all.
    until: u64,
}

impl<E: Entry> Work<E> {
    /// So many more entries of a merge, or as many as are left.
    pub(super) fn new(merge: Merge<E>, source: Source, entries: u64) -> Self {
        let until = merge.done.saturating_add(entries).min(merge.total);
        Self {
            merge,
            source,
            until,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.merge.done == self.until
    }

    /// Has what the next step needs; a merge on disk reads these runs.
    pub(super) async fn prepare(&mut self, runs: &[Run], store: &mut impl BlockStore) {
        let entries = self.until - self.merge.done;
        self.merge.output.prepare(entries, store).await;
        if let Source::Disk(_) = self.source {
            self.merge.inputs.load(runs, entries, store).await;
        }
    }

    /// Merges until the share is done, a block of an input is to be read, or no buffer is left.
    pub(super) fn step(&mut self) {
        self.merge.step(&self.source, self.until);
    }

    /// Writes the blocks that are full, or the last one.
    pub(super) fn write(&mut self, store: &mut impl BlockStore) {
        if let Some(taken) = self.merge.output.write(store) {
            self.merge.taken_written = taken;
        }
    }

    /// Goes on until the share is done.
    pub(super) async fn run(&mut self, runs: &[Run], store: &mut impl BlockStore) {
        while !self.is_done() {
            self.prepare(runs, store).await;
            self.step();
            self.write(store);
        }
    }
}

#[derive(Debug)]
pub(super) struct Merge<E> {
    inputs: Inputs<E>,
    total: u64,
    done: u64,
    /// Entries taken of each input when the last block was written.
    taken_written: [u64; FAN],
    output: Output<E>,
    builder: Builder,
}

impl<E: Entry> Merge<E> {
    /// Begins to merge runs that have so many entries together.
    pub(super) fn new(origin: Origin, layout: Layout, total: u64) -> Self {
        Self {
            inputs: Inputs {
                layout,
                taken: [0; FAN],
                loaded: Default::default(),
                entry: PhantomData,
            },
            total,
            done: 0,
            taken_written: [0; FAN],
            output: Output::new(origin, layout),
            builder: Builder::default(),
        }
    }

    pub(super) fn state(&self) -> MergeState {
        MergeState {
            taken: self.taken_written,
            done: self.done,
            blocks: self.output.blocks.clone(),
        }
    }

    /// Goes on where a merge of the same runs was, which has not advanced here yet.
    pub(super) async fn restore(
        mut self,
        state: MergeState,
        (source, runs): (Source, &[Run]),
        store: &mut impl BlockStore,
    ) -> Self {
        assert_eq!(self.done, 0);
        self.done = state.taken.iter().sum();
        let written = to_u64(state.blocks.len() * self.inputs.layout.per_block);
        assert_eq!(self.done, written, "blocks of output are full");
        self.inputs.taken = state.taken;
        self.taken_written = state.taken;
        self.output.restore(state.blocks, store).await;
        assert!(state.done < self.total.max(1));
        if planted(Bug::MergeForgetsProgress) {
            return self;
        }
        if state.done > self.done {
            mark(Mark::MergedAgain);
        }
        let entries = state.done - self.done;
        let mut work = Work::new(self, source, entries);
        work.run(runs, store).await;
        assert_eq!(work.merge.done, state.done);
        work.merge
    }

    /// Entries to merge in a beat of so many units, so that the merge takes `time` units.
    pub(super) fn share(&self, units: u64, time: u64) -> u64 {
        let share = u128::from(self.total) * u128::from(units);
        let share = share.div_ceil(u128::from(time));
        u64::try_from(share).unwrap_or(u64::MAX)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.done == self.total
    }

    /// Merges until so many entries are done, a block of an input is to be read, or no buffer is left.
    fn step(&mut self, source: &Source, until: u64) {
        while self.done < until && self.output.has_room() {
            let mut inputs: [&[u8]; FAN] = [&[]; FAN];
            for (input, bytes) in inputs.iter_mut().enumerate() {
                let Some(rest) = self.inputs.rest(source, input) else {
                    return;
                };
                *bytes = rest;
            }
            let out = self.output.room(u64_to_usize(until - self.done));
            let taken = merge::<E>(&inputs, out);
            for (all, taken) in self.inputs.taken.iter_mut().zip(taken) {
                *all += to_u64(taken);
            }
            let wrote = taken.iter().sum();
            self.output.wrote(wrote);
            self.done += to_u64(wrote);
            if self.output.is_full() || self.is_complete() {
                self.output.close(self.inputs.taken, &mut self.builder);
            }
        }
    }

    /// The run that was made of these, which are complete.
    pub(super) fn finish(self, position_low: u64, position_high: u64) -> Run {
        assert!(self.is_complete());
        assert_eq!(
            self.output.blocks.len(),
            self.inputs.layout.blocks(self.total)
        );
        let state = RunState {
            entries: self.total,
            last: self.output.last,
            position_low,
            position_high,
            blocks: self.output.blocks,
        };
        Run::new(state, self.output.filters)
    }

    /// Blocks that so many more entries fill, the last one maybe in part.
    pub(super) fn blocks_of(&self, entries: u64) -> usize {
        self.output.blocks_of(entries)
    }

    /// Blocks written so far.
    pub(super) fn block_count(&self) -> usize {
        self.output.blocks.len()
    }

    #[cfg(test)]
    pub(super) fn filters(&self) -> &[Option<super::fuse::Filter>] {
        &self.output.filters
    }

    /// Bytes on the heap for what the run is going to have: its fences and filters.
    pub(super) fn run_memory(&self) -> u64 {
        self.output.run_memory()
    }

    /// Bytes on the heap, buffers included.
    pub(super) fn memory(&self) -> u64 {
        let loaded = self.inputs.loaded.iter().flatten();
        let loaded: u64 = loaded.map(|loaded| to_u64(loaded.bytes.len())).sum();
        loaded + self.output.memory()
    }
}

/// An input of a merge, with what it compares by after its next entry.
#[derive(Clone, Copy)]
struct Way<'a, H> {
    bytes: &'a [u8],
    at: usize,
    /// Known ahead of time, so that no comparison waits for it.
    ahead: H,
}

/// The better and the worse of each two heads, up to one that is better than all others.
struct Tournament<H> {
    /// The worse of each pair of inputs.
    pairs: [H; 4],
    /// The worse of the winners of two pairs.
    halves: [H; 2],
    /// The worse of the winners of both halves.
    last: H,
    winner: H,
}

impl<H: Head> Tournament<H> {
    fn new(heads: [H; FAN]) -> Self {
        let pairs: [(H, H); 4] = std::array::from_fn(|pair| {
            let (one, other) = (heads[2 * pair], heads[2 * pair + 1]);
            one.ordered(other)
        });
        let halves = [
            pairs[0].0.ordered(pairs[1].0),
            pairs[2].0.ordered(pairs[3].0),
        ];
        let (winner, last) = halves[0].0.ordered(halves[1].0);
        Self {
            pairs: pairs.map(|pair| pair.1),
            halves: halves.map(|half| half.1),
            last,
            winner,
        }
    }

    /// The best but the winner.
    fn second(&self) -> H {
        let input = self.winner.input();
        let (second, _) = self.pairs[input / 2].ordered(self.halves[input / 4]);
        second.ordered(self.last).0
    }

    /// What follows the winner takes its place.
    #[inline]
    fn replace(&mut self, input: usize, head: H) {
        let (head, worse) = head.ordered(self.pairs[input / 2]);
        self.pairs[input / 2] = worse;
        let (head, worse) = head.ordered(self.halves[input / 4]);
        self.halves[input / 4] = worse;
        (self.winner, self.last) = head.ordered(self.last);
    }
}

/// Merges entries until one of the inputs is at its end, or the output is full. Gives how many were
/// taken of each input; one that is empty at first has ended before.
fn merge<E: Entry>(inputs: &[&[u8]; FAN], out: &mut [u8]) -> [usize; FAN] {
    let head = |input: usize, at: usize| {
        let bytes = inputs[input];
        if at < bytes.len() {
            E::head(bytes, at, input)
        } else {
            E::Head::END
        }
    };
    let mut tournament = Tournament::new(std::array::from_fn(|input| head(input, 0)));
    let first = tournament.winner.input();
    let size = inputs[first].len().min(out.len());
    assert!(size > 0, "there is an entry, and room for it");
    if head(first, size - E::SIZE).is_before(tournament.second()) {
        // Sequential ids, and keys that nearly all have: one input is before all others.
        mark(Mark::MergedWhole);
        out[..size].copy_from_slice(&inputs[first][..size]);
        let mut taken = [0; FAN];
        taken[first] = size / E::SIZE;
        return taken;
    }
    let mut ways: [Way<'_, E::Head>; FAN] = std::array::from_fn(|input| Way {
        bytes: inputs[input],
        at: 0,
        ahead: head(input, E::SIZE),
    });
    for out in out.chunks_exact_mut(E::SIZE) {
        let input = tournament.winner.input();
        let way = &mut ways[input];
        let next = way.at + E::SIZE;
        out.copy_from_slice(&way.bytes[way.at..next]);
        way.at = next;
        if next >= way.bytes.len() {
            break;
        }
        tournament.replace(input, way.ahead);
        // What there is after the last entry is never asked for.
        let after = (next + E::SIZE).min(way.bytes.len() - E::SIZE);
        way.ahead = E::head(way.bytes, after, input);
    }
    ways.map(|way| way.at / E::SIZE)
}
