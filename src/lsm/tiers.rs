//! The runs of a tree on disk, by tier, and the merges between them.
//!
//! Tier 0 is in memory: whoever owns it says what is there. A merge of another tier begins at a bar that
//! is its turn, when it has eight runs and none is merging; at a beat merges advance by a share, so that they are
//! done well before the next eight runs are there. A share is done while the state goes on, and ends at the end of
//! the next op. Turns are one bar of eight, and not the same for all trees
//! and tiers, which would read and write at the same time.

use super::entry::{Entry, FAN};
use super::layout::{Layout, TreeOptions};
use super::merge::{Merge, MergeState, Source, Work, held_max};
use super::output::{Origin, buffers_max};
use super::run::{Run, RunState};
use crate::grid::store::BlockStore;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::{Task, to_u64};
use std::sync::Arc;

/// A tree, as a manifest has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TreeState {
    /// Runs of tier 0, which are in memory: to be pushed again, with a bar after each.
    pub memory_runs: u64,
    /// By tier, beginning with 0.
    pub tiers: Vec<TierState>,
}

/// A tier, as a manifest has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TierState {
    /// The oldest first; none for tier 0.
    pub runs: Vec<RunState>,
    /// The merge of the first eight, if it is under way.
    pub merge: Option<MergeState>,
}

#[derive(Debug)]
struct Tier<E> {
    /// The oldest first; empty for tier 0.
    runs: Vec<Run>,
    merge: Option<Merge<E>>,
    /// The same while a share of it is done.
    away: Option<Away<E>>,
}

/// A merge whose share may be done on another core.
#[derive(Debug)]
struct Away<E> {
    work: Task<Work<E>>,
    /// As of the merge when it went, with the blocks that are going to be written.
    size: Size,
}

/// What a merge takes.
#[derive(Clone, Copy, Debug)]
struct Size {
    blocks: usize,
    run_memory: u64,
    memory: u64,
}

impl Size {
    fn of<E: Entry>(merge: &Merge<E>) -> Self {
        Self {
            blocks: merge.block_count(),
            run_memory: merge.run_memory(),
            memory: merge.memory(),
        }
    }
}

impl<E> Default for Tier<E> {
    fn default() -> Self {
        Self {
            runs: Vec::new(),
            merge: None,
            away: None,
        }
    }
}

impl<E> Tier<E> {
    fn merging(&self) -> bool {
        self.merge.is_some() || self.away.is_some()
    }
}

#[derive(Debug)]
pub(super) struct Tiers<E> {
    pub(super) number: u8,
    options: TreeOptions,
    pub(super) layout: Layout,
    tiers: Vec<Tier<E>>,
    /// What the merge of tier 0 goes on from as soon as its inputs are there.
    resume: Option<MergeState>,
}

/// The runs of tier 0 that are merging: sorted entries.
pub(super) type Memory = [Arc<[u8]>; FAN];

impl<E: Entry> Tiers<E> {
    pub(super) fn new(number: u8, options: TreeOptions) -> Self {
        Self {
            number,
            options,
            layout: Layout::new::<E>(options.pages),
            tiers: vec![Tier::default()],
            resume: None,
        }
    }

    /// What a manifest needs; the number of runs in memory is to be added.
    pub(super) fn state(&self) -> TreeState {
        assert!(
            self.tiers.iter().all(|tier| tier.away.is_none()),
            "no beat is under way"
        );
        let tiers = self.tiers.iter().map(|tier| TierState {
            runs: tier.runs.iter().map(|run| run.state.clone()).collect(),
            merge: tier.merge.as_ref().map(Merge::state),
        });
        TreeState {
            memory_runs: 0,
            tiers: tiers.collect(),
        }
    }

    pub(super) async fn restore(
        number: u8,
        options: TreeOptions,
        state: TreeState,
        store: &mut impl BlockStore,
    ) -> Self {
        let mut tiers = Self::new(number, options);
        tiers.tiers.clear();
        for (index, tier) in state.tiers.into_iter().enumerate() {
            let mut restored = Tier::default();
            for run in tier.runs {
                let run = Run::restore::<E>(run, &tiers.layout, store).await;
                restored.runs.push(run);
            }
            if index == 0 {
                assert!(restored.runs.is_empty(), "tier 0 is in memory");
                tiers.resume = tier.merge;
            } else {
                if let Some(state) = tier.merge {
                    mark(Mark::MergeRestored);
                    let merge = tiers.merge_of(index, &restored.runs);
                    let source = (Source::disk(&restored.runs), &restored.runs[..]);
                    restored.merge = Some(merge.restore(state, source, store).await);
                }
            }
            tiers.tiers.push(restored);
        }
        tiers
    }

    /// Whether a merge of tier 0 is to go on.
    pub(super) fn resumes(&self) -> bool {
        self.resume.is_some()
    }

    /// Goes on with the merge of tier 0 that there was, if there was one.
    pub(super) async fn resume(&mut self, memory: Option<Memory>, store: &mut impl BlockStore) {
        let state = self.resume.take();
        let Some(state) = state else {
            // A binary before this one may have begun its merges later: there is one that is new.
            return;
        };
        mark(Mark::MergeOfMemoryRestored);
        let merge = self.tiers[0].merge.take().expect("what was pushed again");
        let memory = memory.expect("it is merging");
        let source = (Source::Memory(memory), &[][..]);
        self.tiers[0].merge = Some(merge.restore(state, source, store).await);
    }

    /// Whether runs of tier 0 are merging.
    pub(super) fn memory_merging(&self) -> bool {
        self.tiers[0].merging()
    }

    /// Begins to merge eight runs of tier 0 that have so many entries.
    pub(super) fn memory_begin(&mut self, total: u64) {
        assert!(!self.memory_merging());
        self.tiers[0].merge = Some(Merge::new(self.origin(0), self.layout, total));
    }

    /// Begins a beat of so many units: what it is for the merges may be done on another core.
    /// [`Self::beat_end`] has to follow.
    pub(super) async fn beat_begin(
        &mut self,
        units: u64,
        memory: Option<Memory>,
        store: &mut impl BlockStore,
    ) {
        assert!(self.resume.is_none(), "a tree resumes before it goes on");
        assert_eq!(self.memory_merging(), memory.is_some());
        let mut memory = memory.map(Source::Memory);
        for index in 0..self.tiers.len() {
            let time = self.time(index);
            let tier = &mut self.tiers[index];
            assert!(
                tier.away.is_none(),
                "a beat ends before the next one begins"
            );
            let Some(merge) = tier.merge.take() else {
                continue;
            };
            let share = merge.share(units, time);
            let source = match memory.take() {
                Some(memory) if index == 0 => memory,
                Some(_) | None => Source::disk(&tier.runs),
            };
            let blocks = merge.blocks_of(share);
            let mut work = Work::new(merge, source, share);
            work.prepare(&tier.runs, store).await;
            let mut size = Size::of(&work.merge);
            size.blocks += blocks;
            let compute = move || {
                work.step();
                work
            };
            let work = Task::new(|job| store.spawn(job), compute);
            tier.away = Some(Away { work, size });
        }
    }

    /// Ends a beat: waits for what it is for the merges, and makes runs of those that are complete. Whether that of
    /// tier 0 was: its inputs, which had these positions, are no longer needed then.
    pub(super) async fn beat_end(
        &mut self,
        store: &mut impl BlockStore,
        positions: (u64, u64),
    ) -> bool {
        for tier in &mut self.tiers {
            if let Some(away) = tier.away.take() {
                let mut work = away.work.join().await;
                work.write(store);
                if !work.is_done() {
                    mark(Mark::ShareInSteps);
                    work.run(&tier.runs, store).await;
                }
                tier.merge = Some(work.merge);
            }
        }
        self.complete(store, positions)
    }

    /// Makes runs of the merges that are complete. Whether that of tier 0 was.
    fn complete(&mut self, store: &mut impl BlockStore, positions: (u64, u64)) -> bool {
        // From the top: a run is not merged further in the beat in which it is made.
        for index in (1..self.tiers.len()).rev() {
            self.tier_complete(index, store);
        }
        match self.tiers[0].merge.take_if(|merge| merge.is_complete()) {
            Some(merge) => {
                self.push(1, merge.finish(positions.0, positions.1));
                true
            }
            None => false,
        }
    }

    fn tier_complete(&mut self, index: usize, store: &mut impl BlockStore) {
        let tier = &mut self.tiers[index];
        let Some(merge) = tier.merge.take_if(|merge| merge.is_complete()) else {
            return;
        };
        let inputs: Vec<Run> = tier.runs.drain(..FAN).collect();
        let filled = || inputs.iter().filter(|run| run.state.entries > 0);
        let low = filled().next().map_or(0, |run| run.state.position_low);
        let high = filled()
            .next_back()
            .map_or(0, |run| run.state.position_high);
        for block in inputs.iter().flat_map(|run| &run.state.blocks) {
            store.release(&block.reference);
        }
        self.push(index + 1, merge.finish(low, high));
    }

    /// Units that a merge of a tier takes. Its next eight runs are made in a period: of that, runs on disk wait
    /// up to an eighth for their turn, and then take most of it, so that the load is even. Runs in
    /// memory, of which there is room for few more than eight, wait longer and take half.
    fn time(&self, index: usize) -> u64 {
        let exponent = u32::try_from(index + 1).expect("there are few tiers");
        let period = to_u64(FAN)
            .saturating_pow(exponent)
            .saturating_mul(self.options.bar);
        match index {
            0 => period / 2,
            _ => period / 4 * 3,
        }
    }

    fn push(&mut self, index: usize, run: Run) {
        if index == self.tiers.len() {
            self.tiers.push(Tier::default());
        }
        let runs = &mut self.tiers[index].runs;
        runs.push(run);
        assert!(runs.len() < 2 * FAN, "a merge is done in time");
    }

    /// A bar ended, and there are so many runs of tier 0: begins the merges whose turn it is. What comes first
    /// of each of their runs is read until the next beat.
    pub(super) fn begin_if_due(&mut self, memory_runs: usize, store: &mut impl BlockStore) {
        for index in 1..self.tiers.len() {
            let turn = (memory_runs + index) % FAN == self.turn();
            let tier = &self.tiers[index];
            if !turn || tier.merging() || tier.runs.len() < FAN {
                continue;
            }
            self.tiers[index].merge = Some(self.merge_of(index, &tier.runs));
            for run in &self.tiers[index].runs[..FAN] {
                if let Some(first) = run.state.blocks.first() {
                    store.read_ahead(&first.reference);
                }
            }
        }
    }

    /// Whose blocks a merge of a tier writes.
    fn origin(&self, index: usize) -> Origin {
        Origin {
            tree: self.number,
            tier: u8::try_from(index + 1).expect("there are few tiers"),
        }
    }

    /// At which one of eight bars it is the turn of the tree: another one for each of those whose numbers follow
    /// each other, which have as many entries.
    pub(super) fn turn(&self) -> usize {
        let number = usize::from(self.number);
        (number + number / FAN) % FAN
    }

    /// The merge of the first eight of these runs.
    fn merge_of(&self, index: usize, runs: &[Run]) -> Merge<E> {
        let total = runs[..FAN].iter().map(|run| run.state.entries).sum();
        Merge::new(self.origin(index), self.layout, total)
    }

    /// Runs on disk, the oldest first.
    pub(super) fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.tiers.iter().rev().flat_map(|tier| &tier.runs)
    }

    /// What the merges take.
    fn merges(&self) -> impl Iterator<Item = Size> {
        self.tiers.iter().filter_map(|tier| match &tier.merge {
            Some(merge) => Some(Size::of(merge)),
            None => tier.away.as_ref().map(|away| away.size),
        })
    }

    /// Bytes on the heap for fences and filters, of what merges write, too.
    pub(super) fn run_memory(&self) -> u64 {
        let runs: u64 = self.runs().map(|run| run.memory).sum();
        runs + self.merges().map(|merge| merge.run_memory).sum::<u64>()
    }

    /// Bytes on the heap, the buffers of merges included.
    pub(super) fn memory(&self) -> u64 {
        let runs: u64 = self.runs().map(|run| run.memory).sum();
        runs + self.merges().map(|merge| merge.memory).sum::<u64>()
    }

    /// Blocks of all runs and merges.
    pub(super) fn block_count(&self) -> u64 {
        let merged: usize = self.merges().map(|merge| merge.blocks).sum();
        let runs: usize = self.runs().map(|run| run.state.blocks.len()).sum();
        to_u64(merged + runs)
    }

    #[cfg(test)]
    pub(super) fn filters(&self) -> Vec<Option<super::fuse::Filter>> {
        let runs = self.runs().flat_map(|run| &run.filters);
        let merges = self.tiers.iter().filter_map(|tier| tier.merge.as_ref());
        runs.chain(merges.flat_map(Merge::filters))
            .cloned()
            .collect()
    }

    /// Tiers that there are.
    pub(super) fn len(&self) -> usize {
        self.tiers.len()
    }
}

/// How large a tree may become.
#[derive(Clone, Copy, Debug)]
pub struct Extent {
    /// Entries.
    pub entries: u64,
    /// Units of the whole forest: they make the tiers.
    pub units: u64,
}

/// Bytes that the runs on disk and the merges of a tree take on the heap at most.
pub(super) fn memory_max<E: Entry>(extent: &Extent, layout: &Layout, options: TreeOptions) -> u64 {
    let block_size = to_u64(crate::constants::BLOCK_SIZE);
    let mut tiers = 2;
    let mut reach = to_u64(FAN) * options.bar;
    while reach < extent.units {
        reach = reach.saturating_mul(to_u64(FAN));
        tiers += 1;
    }
    let partial = tiers * 4 * to_u64(FAN);
    let blocks = extent.entries.div_ceil(to_u64(layout.per_block)) + partial;
    let filter = if E::FILTERED {
        super::fuse::Filter::size(layout.per_block) + size_of::<Option<super::fuse::Filter>>()
    } else {
        0
    };
    // Vectors grow by doubling; while a merge is under way, its output is there beside the inputs.
    let block = 4 * to_u64(size_of::<super::run::BlockEntry>()) + 2 * to_u64(filter);
    // One block of an input counts as read ahead, which is not the tree's.
    let inputs = FAN * (held_max::<E>() - 1);
    let on_disk = (tiers - 1) * to_u64(inputs + buffers_max(1));
    blocks * block + (on_disk + to_u64(buffers_max(0))) * block_size
}
