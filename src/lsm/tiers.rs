//! The runs of a tree on disk, by tier, and the merges between them.
//!
//! Tier 0 is in memory: whoever owns it says what is there. A merge of a tier begins as soon as it has
//! eight runs and none is merging; at a beat merges advance so that they take half of the time until
//! the next eight runs are there.

use super::entry::{Entry, FAN};
use super::layout::{Layout, TreeOptions};
use super::merge::{Merge, MergeState, Source, Work};
use super::output::Origin;
use super::run::{Run, RunState};
use crate::grid::store::BlockStore;
use crate::stdx::marks::{Mark, mark};
use crate::stdx::to_u64;

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
}

impl<E> Default for Tier<E> {
    fn default() -> Self {
        Self {
            runs: Vec::new(),
            merge: None,
        }
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

/// The runs of tier 0 that are merging.
#[derive(Clone, Copy)]
pub(super) struct Memory<'a> {
    /// Sorted entries.
    pub(super) inputs: [&'a [u8]; FAN],
    /// The lowest position in them.
    pub(super) position_low: u64,
    /// The highest position.
    pub(super) position_high: u64,
}

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
                tiers.begin_if_due(index, &mut restored);
                assert_eq!(restored.merge.is_some(), tier.merge.is_some());
                if let (Some(merge), Some(state)) = (&mut restored.merge, tier.merge) {
                    mark(Mark::MergeRestored);
                    let source = Source::Disk(&restored.runs);
                    merge.restore(state, source, store).await;
                }
            }
            tiers.tiers.push(restored);
        }
        tiers
    }

    /// Goes on with the merge of tier 0 that there was, if there was one.
    pub(super) async fn resume(&mut self, memory: Option<Memory<'_>>, store: &mut impl BlockStore) {
        let state = self.resume.take();
        let merge = self.tiers[0].merge.as_mut();
        assert_eq!(state.is_some(), merge.is_some(), "what was pushed again");
        if let (Some(state), Some(merge), Some(memory)) = (state, merge, memory) {
            mark(Mark::MergeOfMemoryRestored);
            let source = Source::Memory(memory.inputs);
            merge.restore(state, source, store).await;
        }
    }

    /// Whether runs of tier 0 are merging.
    pub(super) fn memory_merging(&self) -> bool {
        self.tiers[0].merge.is_some()
    }

    /// Begins to merge eight runs of tier 0 that have so many entries.
    pub(super) fn memory_begin(&mut self, total: u64) {
        assert!(!self.memory_merging());
        self.tiers[0].merge = Some(Merge::new(self.origin(0), self.layout, total));
    }

    /// What a beat of so many units is for the merges. [`Self::complete`] has to follow when it is
    /// done.
    pub(super) fn work<'t>(
        &'t mut self,
        units: u64,
        memory: Option<Memory<'t>>,
    ) -> Vec<Work<'t, E>> {
        assert!(self.resume.is_none(), "a tree resumes before it goes on");
        assert_eq!(self.memory_merging(), memory.is_some());
        let periods: Vec<u64> = (0..self.tiers.len())
            .map(|tier| self.period(tier))
            .collect();
        let tiers = self.tiers.iter_mut().zip(periods).enumerate();
        let work = tiers.filter_map(|(index, (tier, period))| {
            let merge = tier.merge.as_mut()?;
            let source = match memory {
                Some(memory) if index == 0 => Source::Memory(memory.inputs),
                Some(_) | None => Source::Disk(&tier.runs[..FAN]),
            };
            let share = merge.share(units, period);
            Some(Work::new(merge, source, share))
        });
        work.collect()
    }

    /// Makes runs of the merges that are complete. Whether that of tier 0 was: its inputs, which had
    /// these positions, are no longer needed then.
    pub(super) fn complete(&mut self, store: &mut impl BlockStore, positions: (u64, u64)) -> bool {
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
        let mut tier = std::mem::take(&mut self.tiers[index]);
        self.begin_if_due(index, &mut tier);
        self.tiers[index] = tier;
        self.push(index + 1, merge.finish(low, high));
    }

    /// Units in which eight runs of a tier are made.
    fn period(&self, index: usize) -> u64 {
        let exponent = u32::try_from(index + 1).expect("there are few tiers");
        to_u64(FAN)
            .saturating_pow(exponent)
            .saturating_mul(self.options.bar)
    }

    fn push(&mut self, index: usize, run: Run) {
        if index == self.tiers.len() {
            self.tiers.push(Tier::default());
        }
        let mut tier = std::mem::take(&mut self.tiers[index]);
        tier.runs.push(run);
        assert!(tier.runs.len() < 2 * FAN, "a merge is done in time");
        self.begin_if_due(index, &mut tier);
        self.tiers[index] = tier;
    }

    /// Whose blocks a merge of a tier writes.
    fn origin(&self, index: usize) -> Origin {
        Origin {
            tree: self.number,
            tier: u8::try_from(index + 1).expect("there are few tiers"),
        }
    }

    fn begin_if_due(&self, index: usize, tier: &mut Tier<E>) {
        if tier.merge.is_none() && tier.runs.len() >= FAN {
            let total = tier.runs[..FAN].iter().map(|run| run.state.entries).sum();
            tier.merge = Some(Merge::new(self.origin(index), self.layout, total));
        }
    }

    /// Runs on disk, the oldest first.
    pub(super) fn runs(&self) -> impl DoubleEndedIterator<Item = &Run> {
        self.tiers.iter().rev().flat_map(|tier| &tier.runs)
    }

    fn merges(&self) -> impl Iterator<Item = &Merge<E>> {
        self.tiers.iter().filter_map(|tier| tier.merge.as_ref())
    }

    /// Bytes on the heap for fences and filters, of what merges write, too.
    pub(super) fn run_memory(&self) -> u64 {
        let runs: u64 = self.runs().map(|run| run.memory).sum();
        runs + self.merges().map(Merge::run_memory).sum::<u64>()
    }

    /// Bytes on the heap, the buffers of merges included.
    pub(super) fn memory(&self) -> u64 {
        let runs: u64 = self.runs().map(|run| run.memory).sum();
        runs + self.merges().map(Merge::memory).sum::<u64>()
    }

    /// Blocks of all runs and merges.
    pub(super) fn block_count(&self) -> u64 {
        let merged: usize = self.merges().map(Merge::block_count).sum();
        let runs: usize = self.runs().map(|run| run.state.blocks.len()).sum();
        to_u64(merged + runs)
    }

    #[cfg(test)]
    pub(super) fn filters(&self) -> Vec<Option<super::fuse::Filter>> {
        let runs = self.runs().flat_map(|run| &run.filters);
        runs.chain(self.merges().flat_map(Merge::filters))
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
    /// Entries in a bar.
    pub bar_entries: u64,
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
    blocks * block + tiers * (to_u64(FAN) + 1) * block_size
}
