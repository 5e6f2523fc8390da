//! Ids in runs on disk: one, or all of a batch.
//!
//! Of a batch, ids are taken in order, run by run: what the runs have in memory is then read in
//! order too, and the loads of several ids' filters are under way at once. Only ids that pass are looked
//! for in pages.

use super::entry::{Entry, IdEntry, lower_bound};
use super::fuse;
use super::layout::{Layout, page_entries, page_of};
use super::run::Run;
use super::sort;
use crate::grid::store::Pages;
use crate::stdx::to_usize;

/// What is known of an id.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lookup {
    /// It is in no run.
    Absent,
    /// Its value.
    Found(u64),
    /// A page is missing, and noted as such: to be asked again when it is there.
    Missing,
}

/// What a batch works in, to be used again.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// The ids in order.
    ids: Vec<Probe>,
    /// Those that passed a filter: where among the ids, and the block.
    passed: Vec<(u32, u32)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Probe {
    id: u128,
    hash: u64,
    /// Where it is in the batch.
    number: u32,
}

/// Looks for an id in one run.
pub(super) fn lookup(run: &Run, layout: &Layout, pages: &impl Pages, id: u128) -> Lookup {
    if !run.overlaps(id, id) {
        return Lookup::Absent;
    }
    let block = run.block_of(id, 0);
    match &run.filters[block] {
        Some(filter) if !filter.may_contain(id, fuse::hash(id, 0)) => Lookup::Absent,
        Some(_) | None => in_block(run, block, layout, pages, id),
    }
}

fn in_block(run: &Run, block: usize, layout: &Layout, pages: &impl Pages, id: u128) -> Lookup {
    let reference = &run.state.blocks[block].reference;
    let Some(header) = pages.page(reference, 0) else {
        return Lookup::Missing;
    };
    let here = layout.entries_of(run.state.entries, block);
    let page = page_of(header, here.div_ceil(IdEntry::PER_PAGE), id);
    let Some(bytes) = pages.page(reference, page + 1) else {
        return Lookup::Missing;
    };
    let entries = page_entries::<IdEntry>(bytes, page, here);
    let at = lower_bound::<IdEntry>(entries, id) * IdEntry::SIZE;
    if at < entries.len() {
        let entry = IdEntry::load(entries, at);
        if entry.id == id {
            return Lookup::Found(entry.value);
        }
    }
    Lookup::Absent
}

/// Looks for all ids of a batch in all runs.
pub(super) fn lookup_many<'a>(
    runs: impl Iterator<Item = &'a Run>,
    layout: &Layout,
    pages: &impl Pages,
    ids: &[u128],
    (scratch, out): (&mut Scratch, &mut Vec<Lookup>),
) {
    out.clear();
    out.resize(ids.len(), Lookup::Absent);
    let (Some(least), Some(greatest)) = (ids.iter().min(), ids.iter().max()) else {
        return;
    };
    let mut runs = runs
        .filter(|run| run.overlaps(*least, *greatest))
        .peekable();
    if runs.peek().is_none() {
        return;
    }
    scratch.take(ids);
    for run in runs {
        scratch.filter(run);
        for (at, block) in &scratch.passed {
            let Probe { id, number, .. } = scratch.ids[to_usize(*at)];
            let out = &mut out[to_usize(number)];
            if let Lookup::Found(_) = out {
                continue;
            }
            match in_block(run, to_usize(*block), layout, pages, id) {
                Lookup::Absent => {}
                here @ (Lookup::Found(_) | Lookup::Missing) => *out = here,
            }
        }
    }
}

impl Scratch {
    /// Takes a batch, in order.
    fn take(&mut self, ids: &[u128]) {
        let order = sort::ids_in_order(ids.len(), |at| ids[at]);
        let probe = |number: u32| {
            let id = ids[to_usize(number)];
            Probe {
                id,
                hash: fuse::hash(id, 0),
                number,
            }
        };
        self.ids.clear();
        self.ids.extend(order.into_iter().map(probe));
    }

    /// Finds the ids that may be in a run.
    fn filter(&mut self, run: &Run) {
        self.passed.clear();
        let blocks = &run.state.blocks;
        let Some(first) = blocks.first() else {
            return;
        };
        let start = self.ids.partition_point(|probe| probe.id < first.first);
        let end = self.ids.partition_point(|probe| probe.id <= run.state.last);
        let (mut at, mut block) = (start, 0);
        while at < end {
            block = run.block_of(self.ids[at].id, block);
            // All ids up to the next block are asked of one filter.
            let until = blocks
                .get(block + 1)
                .map_or(end, |next| self.upper(at, end, next.first));
            self.probe(run, block, at..until);
            at = until;
        }
    }

    /// The first from `at` on whose id is not below the next block.
    fn upper(&self, at: usize, end: usize, next: u128) -> usize {
        let mut until = at + 1;
        while until < end && self.ids[until].id < next {
            until += 1;
        }
        until
    }

    /// Asks the filter of a block for adjacent ids. Nothing branches on an answer, so that the loads
    /// for all of them overlap.
    fn probe(&mut self, run: &Run, block: usize, within: std::ops::Range<usize>) {
        let number = |at: usize| u32::try_from(at).expect("batches and runs are small");
        let Some(filter) = &run.filters[block] else {
            let block = number(block);
            self.passed.extend(within.map(|at| (number(at), block)));
            return;
        };
        let begin = self.passed.len();
        let mut count = begin;
        self.passed.resize(begin + within.len(), (0, 0));
        for at in within {
            let probe = &self.ids[at];
            self.passed[count] = (number(at), number(block));
            count += usize::from(filter.may_contain(probe.id, probe.hash));
        }
        self.passed.truncate(count);
    }
}
