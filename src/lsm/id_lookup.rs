//! Ids in runs on disk: one, or all of a batch.
//!
//! Of a batch, ids are taken in order, run by run: what the runs have in memory is then read in
//! order too, and the loads of several ids' filters are under way at once. Only ids that pass are looked
//! for in pages, of several at once again.

use super::entry::{Entry, IdEntry};
use super::fuse;
use super::layout::{Layout, page_entries, page_of};
use super::run::Run;
use super::sort;
use crate::grid::store::Pages;
use crate::stdx::to_usize;
use storage_format::BlockReference;

/// Ids that are searched for together: as many as the processor can have loads under way for.
const TOGETHER: usize = 16;

/// Steps of a search in a full page.
const STEPS: u32 = (IdEntry::PER_PAGE - 1).ilog2() + 1;

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
        Some(_) | None => {
            let target = Target::new(run, block, layout, pages, id);
            let search = target.and_then(|target| target.search(pages));
            search.map_or(Lookup::Missing, Search::end)
        }
    }
}

/// An id that a block may hold, and the page of it that would.
struct Target<'r> {
    id: u128,
    block: &'r BlockReference,
    page: usize,
    /// Entries of the block.
    entries: usize,
}

impl<'r> Target<'r> {
    /// `None` if the header page of the block is missing.
    fn new(
        run: &'r Run,
        block: usize,
        layout: &Layout,
        pages: &impl Pages,
        id: u128,
    ) -> Option<Self> {
        let reference = &run.state.blocks[block].reference;
        let header = pages.page(reference, 0)?;
        let entries = layout.entries_of(run.state.entries, block);
        Some(Self {
            id,
            block: reference,
            page: page_of(header, entries.div_ceil(IdEntry::PER_PAGE), id),
            entries,
        })
    }

    /// `None` if its page is missing.
    fn search<'p>(&self, pages: &'p impl Pages) -> Option<Search<'p>> {
        let bytes = pages.page(self.block, self.page + 1)?;
        let entries = page_entries::<IdEntry>(bytes, self.page, self.entries);
        Some(Search {
            id: self.id,
            entries,
            base: 0,
            left: entries.len() / IdEntry::SIZE,
        })
    }
}

/// A search for an id in a page that is under way.
struct Search<'p> {
    id: u128,
    entries: &'p [u8],
    /// If the id is here, it is in one of the `left` entries from this one on.
    base: usize,
    left: usize,
}

impl Search<'_> {
    /// Halves what is left.
    #[inline]
    fn step(&mut self) {
        let half = self.left / 2;
        if half > 0 {
            let middle = IdEntry::load(self.entries, (self.base + half) * IdEntry::SIZE);
            // Computed: which way a search goes cannot be predicted.
            self.base += half * usize::from(middle.id <= self.id);
            self.left -= half;
        }
    }

    fn end(mut self) -> Lookup {
        while self.left > 1 {
            self.step();
        }
        if self.left == 0 {
            return Lookup::Absent;
        }
        let entry = IdEntry::load(self.entries, self.base * IdEntry::SIZE);
        if entry.id == self.id {
            Lookup::Found(entry.value)
        } else {
            Lookup::Absent
        }
    }
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
        for passed in scratch.passed.chunks(TOGETHER) {
            let probes = passed.iter().map(|(at, block)| {
                let probe = &scratch.ids[to_usize(*at)];
                (to_usize(probe.number), probe.id, to_usize(*block))
            });
            lookup_together(run, layout, pages, probes, out);
        }
    }
}

/// Looks for a few ids, each in a block of a run: pages first, then all searches step by step, so that loads of all
/// are under way together. What was found in another run stays.
fn lookup_together(
    run: &Run,
    layout: &Layout,
    pages: &impl Pages,
    probes: impl Iterator<Item = (usize, u128, usize)>,
    out: &mut [Lookup],
) {
    let mut targets = [const { None }; TOGETHER];
    let mut searches = [const { None }; TOGETHER];
    for (target, (number, id, block)) in targets.iter_mut().zip(probes) {
        if let Lookup::Found(_) = out[number] {
            continue;
        }
        match Target::new(run, block, layout, pages, id) {
            Some(new) => *target = Some((number, new)),
            None => out[number] = Lookup::Missing,
        }
    }
    for (search, (number, target)) in searches.iter_mut().zip(targets.iter().flatten()) {
        match target.search(pages) {
            Some(new) => *search = Some((*number, new)),
            None => out[*number] = Lookup::Missing,
        }
    }
    for _ in 0..STEPS {
        for (_, search) in searches.iter_mut().flatten() {
            search.step();
        }
    }
    for (number, search) in searches.into_iter().flatten() {
        match search.end() {
            Lookup::Absent => {}
            here @ (Lookup::Found(_) | Lookup::Missing) => out[number] = here,
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
